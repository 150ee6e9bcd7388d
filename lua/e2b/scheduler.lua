--- Runs tasks over whichever loop the caller has. A task that waits yields to here; when no task can go on, the
--- scheduler waits in the loop for all of them. What a task waits for is started when its yield has succeeded, and not
--- before: then nothing is sent that nobody waits for.
local core = require("e2b.core")
local compat = require("e2b.compat")
local background = require("e2b.background")
local loops = require("e2b.loop.init")
local timers = require("e2b.loop.timers")
local options = require("e2b.options")
local queue = require("e2b.queue")
local shields = require("e2b.shield")
local hook = require("e2b.wait")
local whose = require("e2b.whose")

local M = {}

local now, yieldable, unpack, MAIN = core.now, compat.yieldable, compat.unpack, compat.MAIN
local yield, resume, status = coroutine.yield, coroutine.resume, coroutine.status

-- First value of every yield of ours, so that somebody else's yield in a task is told from a wait.
local WAIT = {}
-- First value of a resume that is to raise.
local RAISE = {}

---@class e2b.Scheduler
---@field ready table waits that are over and tasks that begin, from first to last
---@field urgent table waits whose time is over; they go first when a task has held up the others
---@field live integer tasks that have not ended
---@field outside integer waits that something outside of the tasks will end
---@field depth integer waits that drive it, one inside the other
---@field blocked integer waits so far that held up all tasks
---@field endless integer waits without a deadline that somebody has to look after when nobody waits any more
---@field attend function? the host calls back by itself: nobody has to wait for tasks to run

local current, identity = whose.task, whose.identity
local schedulers = setmetatable({}, { __mode = "k" })
local tasks_alive = 0

M.identity, M.pcall = identity, whose.pcall
M.limit, M.shield = shields.limit, shields.run

M.current = current

-- Where tasks of this coroutine are kept. A host in which all coroutines wait together has one scheduler for all. That
-- a client has a loop of its own makes no difference: it waits in there, and the tasks go on meanwhile.
local function key_here()
  local host = loops.choose()
  if host.shared then return host end
  local id = identity()
  return id == MAIN and host or id
end

--- The scheduler for tasks spawned here and now.
---@return e2b.Scheduler
function M.here()
  local task = current()
  if task then return task.scheduler end
  local key = key_here()
  local s = schedulers[key]
  if not s then
    s = {
      ready = queue.new(), urgent = queue.new(), live = 0, outside = 0, depth = 0, blocked = 0, timers = timers.new(),
      idlers = {}, attend = background.of_host(), endless = 0,
    }
    schedulers[key] = s
  end
  return s
end

local function push(s, entry, urgent)
  queue.put(urgent and s.urgent or s.ready, entry)
  local wake = s.wake
  if wake then
    s.wake = nil
    wake()
  end
end

-- Calls end this much (seconds) before the deadline of their wait, when the core's own clocks have run out.
local EARLY = 0.1

-- Waits -------------------------------------------------------------------------------------------------------------

local function settle(wait, a, b, ...)
  if wait.settled then return end
  local s, task = wait.scheduler, wait.task
  wait.settled = true
  wait.cancel = nil -- the task that goes on may drop what it names, and expect it to be collected
  wait.a, wait.b = a, b
  if select("#", ...) > 0 then wait.more = compat.pack(...) end
  if wait.place then s.timers:remove(wait) end
  if wait.endless then s.endless = s.endless - 1 end
  if not wait.inside then s.outside = s.outside - 1 end
  if task and task.pending == wait then task.pending = nil end
  if wait.host then
    local wake = s.wake
    if wake then
      s.wake = nil
      wake()
    end
  else
    -- With a wake there, the scheduler waits in the loop, and everything gets its turn at once.
    local deadline = wait.deadline
    push(s, wait, deadline and (b == "deadline" or not s.wake and deadline - now() < EARLY))
  end
end

local function give_up(wait, why)
  if wait.settled then return end
  local cancel = wait.cancel
  if cancel then cancel() end
  settle(wait, nil, why)
end

local function begin(wait, start)
  wait.cancel, wait.orphan = start(function(...) return settle(wait, ...) end)
  if wait.orphan and not wait.deadline and not wait.settled then
    local s = wait.scheduler
    wait.endless, s.endless = true, s.endless + 1
  end
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

-- Tasks -------------------------------------------------------------------------------------------------------------

-- A yield of somebody else's: the values that it waits for will never come.
local FOREIGN = "coroutine.yield in a task of e2b: only the waits of e2b suspend a task "
  .. "(a generator or a scheduler of your own needs a coroutine of its own)"

--- Takes a task out: it has ended, or will never begin. After its finish(), which may add other tasks: who waits for
--- all of them waits for these as well.
---@param task table
local function drop(task)
  local s = task.scheduler
  task.book[task.co] = nil
  s.live = s.live - 1
  tasks_alive = tasks_alive - 1
  if s.live == 0 then
    local idlers = s.idlers
    s.idlers = {}
    for done in pairs(idlers) do done(true) end
  end
end
M.drop = drop

-- What a task did when it ran: it ended, it waits, or it yielded to nobody.
local function step(task, ok, tag, start, deadline, inside)
  local co = task.co
  if status(co) == "dead" then
    task:finish(ok, tag, not ok and debug.traceback(co) or nil)
    return drop(task)
  end
  if tag == WAIT then
    local wait = register(task.scheduler, task, deadline, inside)
    -- `start` is ours, but what it calls may raise (a transfer started twice): that belongs into the task.
    local started, raised = pcall(begin, wait, start)
    if not started then settle(wait, RAISE, raised) end
    return
  end
  local trace = debug.traceback(co)
  task.book[co] = nil
  local close = coroutine.close -- luacheck: ignore 143
  if close then pcall(close, co) end -- what the body holds open with <close> goes now
  task:finish(false, FOREIGN, trace)
  return drop(task)
end

local function run_entry(entry)
  if entry.dropped then return end
  if entry.co then return step(entry, resume(entry.co, entry)) end
  local task = entry.task
  entry.orphan = nil -- as cancel, see settle()
  return step(task, resume(task.co, values(entry)))
end

--- Lets a task begin when the scheduler next runs. What the scheduler needs of it: `co`, which is resumed with the
--- task, and finish(task, ok, raised, traceback). `dropped` keeps it from beginning.
---@param s e2b.Scheduler
---@param task table
function M.add(s, task)
  task.scheduler, task.book = s, whose.tasks()
  task.book[task.co] = task
  s.live = s.live + 1
  tasks_alive = tasks_alive + 1
  push(s, task)
  background.arm(s)
end

--- Ends the wait of a task, if it is in one that a cancel may end.
---@param task table
function M.interrupt(task)
  if task.pending and not shields.of(task) then give_up(task.pending, "cancelled") end
end

-- The scheduler at work ---------------------------------------------------------------------------------------------

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

-- Gives everything that is ready its turn. A task that held up the others may have made waits late: then those whose
-- time is over go before the next task, and when the caller's is among them, the rest has to wait for the next round.
local function round(s, wait)
  local ready, urgent = s.ready, s.urgent
  local last, blocked = ready.last, s.blocked
  repeat
    local last_urgent = urgent.last
    while urgent.first <= last_urgent do
      run_entry(queue.take(urgent))
    end
    if s.blocked ~= blocked and wait.settled or ready.first > last then return end
    run_entry(queue.take(ready))
    if s.blocked ~= blocked then expire(s) end
  until false
end

local DEADLOCK = "deadlock: the tasks that are left wait for one another, and for nothing else"

--- Its tasks can't go on any more.
function background.forget(s)
  tasks_alive = tasks_alive - s.live
  s.live = 0
end

local NOBODY = { settled = false }

-- A turn that nobody waits for.
function background.turn(s)
  expire(s)
  return round(s, NOBODY)
end

local function attaching(s, loop, wait, start)
  local function detach() s.wake = nil end
  local orphaned = background.burial(s, loop, wait)
  return function(wake)
    s.wake = wake
    if not wait.begun then
      wait.begun = true
      begin(wait, start)
    end
    return detach, orphaned
  end
end

local function drive(s, loop, wait, start)
  local attach = attaching(s, loop, wait, start)
  repeat
    local busy = s.ready.first <= s.ready.last or s.urgent.first <= s.urgent.last
    local due = s.timers:first()
    if not busy and not due and wait.begun and s.outside == 0 then error(DEADLOCK, 0) end
    local _, why = loop.await(attach, busy and 0 or due and due.deadline)
    s.wake = nil
    if why == "cancelled" then give_up(wait, why) end -- Ctrl-C, where that is not an error
    expire(s)
    round(s, wait) -- also when it is over for the caller: who waits often must not starve the tasks
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
  background.disarm(s)
  s.depth = s.depth + 1
  local ok, raised = protected(loop, drive, s, loop, wait, start)
  s.depth = s.depth - 1
  if task then task.pending = outer end
  background.arm(s)
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
  return tasks_alive == 0 and shields.on == 0
end

-- Waits that only tasks can end, where nothing can be suspended: each runs the tasks on the stack of the one before,
-- and Lua's C stack has about 200 levels, of which one takes half a dozen.
local DEEPEST = 10

local TOO_DEEP = "this wait for tasks is inside of " .. DEEPEST .. " others that can't be suspended (in coroutines of "
  .. "your own, or in callbacks of C): wait for tasks in the task itself"

--- Whether a wait of the caller's holds up the tasks: it can't be suspended, and is called by one of them.
---@return boolean
function M.holds_up()
  local task = current()
  if task and not task.blocking and yieldable() then return false end
  local s = task and task.scheduler or schedulers[key_here()]
  return s ~= nil and s.depth > 0
end

--- Suspends the caller, calls `start(done)`, and returns what `done` gets; nil, "deadline" or nil, "cancelled" when
--- that came first. In a task it yields to the scheduler; elsewhere it waits in the loop, and tasks go on meanwhile.
--- A task that can't be suspended holds up the others, unless it waits for one of them.
---@param start fun(done: fun(...)): fun() cancel
---@param deadline number? on the clock of core.now()
---@param loop table?
---@param inside boolean? only another task can end this wait
---@return any ...
function M.await(start, deadline, loop, inside)
  local task = current()
  if shields.on > 0 then
    local last = shields.limit()
    if last and not (deadline and deadline < last) then deadline = last end
  end
  if task then
    local cancelled = task.cancelled and not shields.of(task)
    if not task.blocking and yieldable() then
      if cancelled then start, deadline = told, nil end
      return resumed(yield(WAIT, start, deadline, inside))
    end
    if cancelled then return nil, "cancelled" end
  end
  loop = loop or loops.choose()
  local s = task and task.scheduler or schedulers[key_here()]
  if not s or s.live == 0 then return loop.await(start, deadline) end
  if s.depth > 0 then
    -- Running other tasks on top of this one would end it only after them, however long they take.
    if not inside then
      s.blocked = s.blocked + 1
      return loop.await(start, deadline)
    end
    if s.depth >= DEEPEST then options.raise(TOO_DEEP) end
  end
  return wait_here(s, loop, task, start, deadline, inside)
end

-- Cancels and blocks ------------------------------------------------------------------------------------------------

--- Whether a cancel was asked for and is to be obeyed here.
---@return boolean
function M.cancelled()
  local task = M.current()
  return task ~= nil and task.cancelled ~= nil and not shields.of(task)
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

hook.await, hook.limit, hook.alone, hook.block = M.await, M.limit, M.alone, M.block

return M
