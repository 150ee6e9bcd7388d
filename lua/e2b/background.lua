--- Tasks that nobody waits for, where the host goes on by itself: it waits for them when somebody may have something to
--- do, and nothing of this remains when the last task has ended.
local core = require("e2b.core")
local loops = require("e2b.loop.init")
local whose = require("e2b.whose")

local M = {}

local now = core.now

--- Gives what is ready its turn; the scheduler's.
---@type fun(s: e2b.Scheduler)
M.turn = nil

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
  return loop.call
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
    return function() end
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
