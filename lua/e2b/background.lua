--- Tasks that nobody waits for, where the host goes on by itself: it waits for them when somebody may have something to
--- do, and nothing of this remains when the last task has ended.
local core = require("e2b.core")
local loops = require("e2b.loop.init")
local queue = require("e2b.queue")
local whose = require("e2b.whose")

local M = {}

local now = core.now

--- Gives what is ready its turn; the scheduler's.
---@type fun(s: e2b.Scheduler)
M.turn = nil

--- Lets go of all that is kept of its tasks; the scheduler's.
---@type fun(s: e2b.Scheduler)
M.forget = nil

--- How the host here calls back when a wait is over, or nil where nothing goes on unless somebody waits.
---@return (fun(start: function, deadline: number?, done: fun()))? attend
function M.of_host()
  local loop = loops.choose()
  if loop.spawn then
    return function(start, deadline, done)
      loop.spawn(function()
        loop.await(start, deadline)
        return done()
      end)
    end
  end
  if not loop.call then return nil end
  return function(start, deadline, done)
    if not (loop.gone and loop.gone()) then loop.call(start, deadline, done) end
  end
end

local function pump(s)
  s.attended, s.wake = nil, nil
  s.depth = s.depth + 1
  local ok, raised = whose.pcall(M.turn, s)
  s.depth = s.depth - 1
  M.arm(s)
  if not ok then error(raised, 0) end
end

local function busy(s)
  return s.ready.first <= s.ready.last or s.urgent.first <= s.urgent.last
end

local function nothing() end

local function hand_over(wait)
  local orphan = wait.orphan
  if not orphan then return end
  wait.orphan = nil
  local ok, raised = pcall(orphan, wait.a, wait.b)
  if not ok then loops.report(tostring(raised)) end
end

-- Of a dead coroutine's tasks: what some of them were waiting for has to be looked after all the same.
local function bury(s)
  local queued = {}
  for _, list in ipairs({ s.urgent, s.ready }) do
    while list.first <= list.last do
      local wait = queue.take(list)
      if wait.orphan then queued[#queued + 1] = wait end
    end
  end
  for _, wait in ipairs(queued) do hand_over(wait) end
end

-- Nobody else looks at their clocks any more.
local function expire(s)
  local wait = s.timers:first()
  while wait and wait.deadline <= now() do
    s.timers:remove(wait)
    wait.settled, wait.a, wait.b = true, nil, "deadline"
    hand_over(wait)
    wait = s.timers:first()
  end
end

-- The tasks of a coroutine that its host has ended (nginx: of a request) can't be resumed any more. What they were
-- waiting for goes to whoever it is left to, and so does what the coroutine itself was waiting for (`own`).
function M.burial(s, loop, own)
  local function start(wake)
    s.wake = wake
    return nothing
  end
  return function()
    repeat
      while busy(s) do bury(s) end -- more may have come meanwhile
      if own and own.settled then hand_over(own) end
      expire(s)
      local left, due = s.endless > 0, s.timers:first()
      for i = 1, s.timers.n do left = left or s.timers[i].orphan ~= nil end
      if left and not busy(s) then loop.await(start, due and due.deadline) end
    until not left
    M.forget(s)
  end
end

--- Has the host call when the next task can go on. Somebody who waits runs them himself.
---@param s e2b.Scheduler
function M.arm(s)
  if not s.attend or s.attended or s.depth > 0 or s.live == 0 then return end
  local attended = {}
  s.attended = attended
  local due = s.timers:first()
  local deadline = due and due.deadline
  if busy(s) then deadline = now() end
  s.attend(function(report)
    attended.report = report
    -- It may have taken the host a while to get here.
    if s.attended == attended then s.wake = report end
    if s.attended ~= attended or busy(s) then report() end
    return nothing, M.burial(s, loops.choose())
  end, deadline, function()
    if s.attended == attended then return pump(s) end
  end)
end

--- Takes that back.
---@param s e2b.Scheduler
function M.disarm(s)
  local attended = s.attended
  s.attended, s.wake = nil, nil
  if attended and attended.report then attended.report() end
end

return M
