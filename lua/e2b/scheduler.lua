--- Runs tasks over whichever loop the caller has. A task that waits yields to here; when no task can go on, the
--- scheduler waits in the loop for all of them. What a task waits for is started when its yield has succeeded, and not
--- before: then nothing is sent that nobody waits for.
local core = require("e2b.core")
local compat = require("e2b.compat")
local loops = require("e2b.loop.init")
local timers = require("e2b.timers")
local hook = require("e2b.wait")

local M = {}

local now, running, yieldable, unpack, MAIN = core.now, compat.running, compat.yieldable, compat.unpack, compat.MAIN
local yield, resume, status = coroutine.yield, coroutine.resume, coroutine.status

-- First value of every yield of ours, so that somebody else's yield in a task is told from a wait.
local WAIT = {}
-- First value of a resume that is to raise.
local RAISE = {}

---@class e2b.Scheduler
---@field ready table[] waits that are over and tasks that begin, from first to last
---@field live integer tasks that have not ended
---@field outside integer waits that something outside of the tasks will end

local task_of = {}                                 -- coroutine -> task
local root_of = setmetatable({}, { __mode = "k" }) -- coroutine of a pcall on 5.1 -> the coroutine it stands for
local schedulers = setmetatable({}, { __mode = "k" })
local shields = setmetatable({}, { __mode = "k" }) -- task or coroutine -> { deadline = s? }
local shielded = 0
local tasks_alive = 0

-- Whose waits these are: the task, else the coroutine.
local function identity()
  local co = running()
  while root_of[co] do co = root_of[co] end
  return task_of[co] or co
end
M.identity = identity

--- The task that runs, if any.
---@return e2b.Task?
function M.current()
  return task_of[running()]
end

-- Where tasks of this coroutine are kept. A loop in which all coroutines wait together has one scheduler for all.
local function key_of(loop)
  if loop.shared then return loop end
  local id = identity()
  return id == MAIN and loop or id
end

local function find(loop)
  return schedulers[key_of(loop)]
end

--- The scheduler for tasks spawned here and now.
---@param loop table
---@return e2b.Scheduler
function M.here(loop)
  local task = task_of[running()]
  if task then return task.scheduler end
  local key = key_of(loop)
  local s = schedulers[key]
  if not s then
    s = { ready = {}, first = 1, last = 0, live = 0, outside = 0, timers = timers.new(), idlers = {} }
    schedulers[key] = s
  end
  return s
end

local function push(s, entry)
  s.last = s.last + 1
  s.ready[s.last] = entry
  local wake = s.wake
  if wake then
    s.wake = nil
    wake()
  end
end

-- Waits --------------------------------------------------------------------------------------------------------------

local function settle(wait, a, b, ...)
  if wait.settled then return end
  local s, task = wait.scheduler, wait.task
  wait.settled = true
  wait.a, wait.b = a, b
  if select("#", ...) > 0 then wait.more = compat.pack(...) end
  if wait.place then s.timers:remove(wait) end
  if not wait.inside then s.outside = s.outside - 1 end
  if task and task.pending == wait then task.pending = nil end
  if wait.host then
    local wake = s.wake
    if wake then
      s.wake = nil
      wake()
    end
  else
    push(s, wait)
  end
end

local function give_up(wait, why)
  if wait.settled then return end
  local cancel = wait.cancel
  if cancel then cancel() end
  settle(wait, nil, why)
end

local function begin(wait, start)
  wait.cancel = start(function(...) return settle(wait, ...) end)
end

local function register(s, task, deadline, inside)
  local wait = { scheduler = s, task = task, deadline = deadline, inside = inside, settled = false }
  if deadline then s.timers:push(wait) end
  if not inside then s.outside = s.outside + 1 end
  if task then task.pending = wait end
  return wait
end

local function values(wait)
  if wait.more then return wait.a, wait.b, unpack(wait.more, 1, wait.more.n) end
  return wait.a, wait.b
end

-- Tasks --------------------------------------------------------------------------------------------------------------

-- A yield of somebody else's: the values that it waits for will never come.
local FOREIGN = "coroutine.yield in a task of e2b: only the waits of e2b suspend a task "
  .. "(a generator or a scheduler of your own needs a coroutine of its own)"

--- Takes a task out: it has ended, or will never begin.
---@param task table
local function drop(task)
  local s = task.scheduler
  task_of[task.co] = nil
  s.live = s.live - 1
  tasks_alive = tasks_alive - 1
  if s.live == 0 then
    local idlers = s.idlers
    s.idlers = {}
    for done in pairs(idlers) do done(true) end
  end
end
M.drop = drop

M.NO_TEXT = "error object without a text"

-- What a task did when it ran: it ended, it waits, or it yielded to nobody.
local function step(task, ok, tag, start, deadline, inside)
  local co = task.co
  if status(co) == "dead" then
    drop(task)
    if ok then return task:finish(true) end
    local shown, text = pcall(tostring, tag)
    return task:finish(false, tag, debug.traceback(co, shown and text or M.NO_TEXT))
  end
  if tag == WAIT then
    local wait = register(task.scheduler, task, deadline, inside)
    -- `start` is ours, but what it calls may raise (a transfer started twice): that belongs into the task.
    local started, raised = pcall(begin, wait, start)
    if not started then settle(wait, RAISE, raised) end
    return
  end
  local trace = debug.traceback(co, FOREIGN)
  drop(task)
  local close = coroutine.close -- luacheck: ignore 143
  if close then pcall(close, co) end -- what the body holds open with <close> goes now
  return task:finish(false, FOREIGN, trace)
end

local function run_entry(entry)
  if entry.co then return step(entry, resume(entry.co, entry)) end
  local task = entry.task
  return step(task, resume(task.co, values(entry)))
end

--- Lets a task begin when the scheduler next runs. What the scheduler needs of it: `co`, which is resumed with the
--- task, and finish(task, ok, raised, traceback). `dropped` keeps it from beginning.
---@param s e2b.Scheduler
---@param task table
function M.add(s, task)
  task.scheduler = s
  task_of[task.co] = task
  s.live = s.live + 1
  tasks_alive = tasks_alive + 1
  push(s, task)
end

--- Ends the wait of a task, if it is in one that a cancel may end.
---@param task table
function M.interrupt(task)
  if task.pending and not shields[task] then give_up(task.pending, "cancelled") end
end

-- The scheduler at work ----------------------------------------------------------------------------------------------

local function expire(s)
  local heap = s.timers
  local wait = heap:first()
  if not wait then return end
  local time = now()
  while wait and wait.deadline <= time do
    heap:remove(wait)
    give_up(wait, "deadline")
    wait = heap:first()
  end
end

local function round(s)
  local last = s.last
  while s.first <= last do
    local entry = s.ready[s.first]
    s.ready[s.first] = nil
    s.first = s.first + 1
    if not entry.dropped then run_entry(entry) end
  end
end

local DEADLOCK = "deadlock: the tasks that are left wait for one another, and for nothing else"

local function drive(s, loop, wait, start)
  local begun = false
  local function attach(wake)
    s.wake = wake
    if not begun then
      begun = true
      begin(wait, start)
    end
    return function() s.wake = nil end
  end
  repeat
    local busy = s.first <= s.last
    local due = s.timers:first()
    if not busy and not due and begun and s.outside == 0 then error(DEADLOCK, 0) end
    loop.await(attach, busy and 0 or due and due.deadline)
    s.wake = nil
    expire(s)
    round(s) -- also when it is over for the caller: who waits often must not starve the tasks
  until wait.settled
end

-- pcall where nothing yields through it, or where it doesn't mind.
local function protected(loop, fn, ...)
  if compat.puc51 and not loop.shared then return M.pcall(fn, ...) end
  return pcall(fn, ...)
end

local function wait_here(s, loop, task, start, deadline, inside)
  local wait = register(s, nil, deadline, inside)
  wait.host = true
  local outer = task and task.pending
  if task then wait.task, task.pending = task, wait end
  local ok, raised = protected(loop, drive, s, loop, wait, start)
  if task then task.pending = outer end
  if not ok then
    give_up(wait, "cancelled")
    error(raised, 0)
  end
  if wait.a == RAISE then error(wait.b, 0) end
  return values(wait)
end

local function resumed(first, ...)
  if first == RAISE then error((...), 0) end
  return first, ...
end

-- A cancelled task is told so at once, by way of the scheduler: one that doesn't listen must not stop the others.
local function told(done)
  done(nil, "cancelled")
  return function() end
end

--- Whether there is nothing here that a wait of the caller's has to take part in.
---@return boolean
function M.alone()
  return tasks_alive == 0 and shielded == 0
end

--- Suspends the caller, calls `start(done)`, and returns what `done` gets; nil, "deadline" or nil, "cancelled" when
--- that came first. In a task it yields to the scheduler; elsewhere it waits in the loop, and tasks go on meanwhile.
---@param start fun(done: fun(...)): fun() cancel
---@param deadline number? on the clock of core.now()
---@param loop table?
---@param inside boolean? only another task can end this wait
---@return any ...
function M.await(start, deadline, loop, inside)
  local task = task_of[running()]
  if shielded > 0 then
    local shield = shields[identity()]
    local last = shield and shield.deadline
    if last and not (deadline and deadline < last) then deadline = last end
  end
  if task then
    local cancelled = task.cancelled and not shields[task]
    if not task.blocking and yieldable() then
      if cancelled then start, deadline = told, nil end
      return resumed(yield(WAIT, start, deadline, inside))
    end
    if cancelled then return nil, "cancelled" end
  end
  loop = loop or loops.choose()
  local s = task and task.scheduler or find(loop)
  if not s or s.live == 0 then return loop.await(start, deadline) end
  return wait_here(s, loop, task, start, deadline, inside)
end

-- Shields, and pcall on 5.1 ------------------------------------------------------------------------------------------

--- Whether a cancel was asked for and is to be obeyed here.
---@return boolean
function M.cancelled()
  local task = M.current()
  return task ~= nil and task.cancelled ~= nil and not shields[task]
end

--- When the innermost shield ends, on the clock of core.now().
---@return number?
function M.limit()
  if shielded == 0 then return nil end
  local shield = shields[identity()]
  return shield and shield.deadline
end

local function unshield(id, outer, ok, ...)
  shields[id] = outer
  shielded = shielded - 1
  if not ok then error((...), 0) end
  return ...
end

--- Runs fn so that a cancel is not seen in it, with a deadline of its own.
function M.shield(fn, seconds, ...)
  local id = identity()
  local outer = shields[id]
  local deadline = seconds and now() + seconds
  -- An inner shield may last longer than an outer one: whoever cleans up gets the time it asks for.
  shields[id] = { deadline = deadline or outer and outer.deadline }
  shielded = shielded + 1
  return unshield(id, outer, M.pcall(fn, ...))
end

--- Runs fn with waits that block instead of yielding (inside a for-iterator of PUC 5.1 nothing can be suspended).
function M.block(fn, ...)
  local task = M.current()
  if not task or task.blocking then return fn(...) end
  task.blocking = true
  local function finish(ok, ...)
    task.blocking = nil
    if not ok then error((...), 0) end
    return ...
  end
  return finish(pcall(fn, ...))
end

if compat.puc51 then
  local function pass(co, ...)
    if status(co) == "suspended" then return pass(co, resume(co, yield(select(2, ...)))) end
    task_of[co], root_of[co] = nil, nil
    return ...
  end

  --- pcall through which a wait can be suspended.
  function M.pcall(fn, ...)
    local parent = running()
    if parent == MAIN then return pcall(fn, ...) end
    local co = coroutine.create(fn)
    root_of[co], task_of[co] = parent, task_of[parent]
    return pass(co, resume(co, ...))
  end
else
  M.pcall = pcall
end

hook.await, hook.limit, hook.alone = M.await, M.limit, M.alone

return M
