--- Tasks: functions that run side by side, each written as if it blocked.
local background = require("e2b.background")
local core = require("e2b.core")
local compat = require("e2b.compat")
local errors = require("e2b.errors")
local group = require("e2b.group")
local loops = require("e2b.loop.init")
local options = require("e2b.options")
local scheduler = require("e2b.scheduler")

local M = {}

local now, unpack = core.now, compat.unpack
local raise, report = options.raise, loops.report

M.await = scheduler.await
M.current = scheduler.current
M.cancelled = scheduler.cancelled
M.limit = scheduler.limit
M.block = scheduler.block
M.holds_up = scheduler.holds_up

---@class e2b.Task
---@field state "running"|"done"|"failed"|"cancelled"
local methods = {}
local mt = { __name = "e2b.Task", __index = methods }

---@class e2b.MemberResult
---@field ok boolean
---@field value any what the function returned first
---@field message string? when the function raised: the first line of that, err.traceback has the rest
---@field err e2b.Error?

-- Tasks that have not ended, for the word at exit.
local left = {}
local sentinel
local count = 0

local forget = background.forget

-- They went with their request; nobody left them.
function background.forget(s)
  forget(s)
  for task in pairs(left) do
    if task.scheduler == s then left[task] = nil end
  end
end

local function name_of(task)
  local info = debug.getinfo(task.shown or task.fn, "S")
  return ("task %d (%s:%d)"):format(task.number, info.short_src, info.linedefined)
end

function mt:__tostring()
  return ("Task(%s, %s)"):format(name_of(self), self.state)
end

local function name_the_left()
  local pid, list = core.getpid(), {}
  for task in pairs(left) do
    if task.pid == pid then list[#list + 1] = task end -- those of a parent process are the parent's
  end
  table.sort(list, function(a, b) return a.number < b.number end)
  for _, task in ipairs(list) do
    report(name_of(task) .. " was left unfinished: call e2b.run() or task:wait() before the end")
  end
end

-- How a task ended ---------------------------------------------------------------------------------------------------

local NO_TEXT = "error object without a text"

local function text_of(value)
  local kind = type(value)
  if kind ~= "table" and kind ~= "userdata" then return tostring(value) end
  local ok, text = pcall(function()
    local meta = getmetatable(value)
    return meta and meta.__tostring and tostring(value) or ("(error object is a %s value)"):format(kind)
  end)
  return ok and type(text) == "string" and text or NO_TEXT
end

local function describe_raise(value)
  return { value = value, trace = debug.traceback(text_of(value), 2) }
end

local function raised_entry(task, value, trace)
  if errors.is(value) then return { ok = false, message = value.message, err = value } end
  local text = trace:match("[^\r\n]+") or NO_TEXT
  local _, message, err = errors.new(task.cancelled and "cancelled" or "raised", {
    message = text, traceback = trace, value = value, retryable = false,
  })
  return { ok = false, message = message, err = err }
end

local function cancelled_error(operation)
  return errors.new("cancelled", {
    message = (operation and operation .. ": " or "") .. "cancelled", operation = operation, retryable = false,
  })
end

local function entry_of(task, ok, value, trace)
  if not ok then return raised_entry(task, value, trace) end
  local results = task.results
  local first, second = results[1], results[2]
  if first == nil and second ~= nil then
    return { ok = false, message = second, err = results[3] }
  elseif first == nil and task.cancelled then
    -- It was told, and came back with nothing: not a success.
    local _, message, err = cancelled_error()
    return { ok = false, message = message, err = err }
  end
  return { ok = true, value = first }
end

local function outcome(task)
  local entry = task.entry
  if entry.ok then return unpack(task.results, 1, task.results.n) end
  return nil, entry.message, entry.err
end

local spawn

local function finish(task, ok, value, trace)
  local raised = task.raised
  if raised then
    ok, value, trace = false, raised.value, raised.trace
  elseif not ok then
    trace = text_of(value) .. "\n" .. trace
  end
  left[task] = nil
  local entry = entry_of(task, ok, value, trace)
  task.entry = entry
  task.raised_here = not ok
  task.state = entry.ok and "done" or task.cancelled and "cancelled" or "failed"
  local seen = false
  if task.on_end then
    seen = true
    task.on_end(task, entry)
  end
  local waiters = task.waiters
  if waiters then
    task.waiters = nil
    for done in pairs(waiters) do
      seen = true
      done(true)
    end
  end
  local on_done = task.on_done
  if on_done then
    -- A task of its own, so that it may wait.
    spawn(task.scheduler, function() return on_done(outcome(task)) end, nil, function(other, result)
      if other.raised_here then
        report("on_done of " .. name_of(task) .. " failed: " .. tostring(result.err.traceback or result.message))
      end
    end, on_done)
  elseif not seen and not ok and not task.cancelled then
    report(name_of(task) .. " failed: " .. tostring(trace or entry.message))
  end
end

local function record(task, ok, ...)
  if ok then
    task.results = compat.pack(...)
  else
    local raised = ...
    -- Out of memory never gets to the handler.
    if type(raised) ~= "table" or raised.trace == nil then raised = { value = raised, trace = tostring(raised) } end
    task.raised = raised
  end
end

local body
if compat.puc51 then
  -- Nothing yields through xpcall here; the scheduler sees the raise, with the traceback of the coroutine.
  function body(task)
    task.begun = true
    task.results = compat.pack(task.fn())
  end
else
  -- Under xpcall the variables that a raise leaves behind are closed while their __close may still wait.
  function body(task)
    task.begun = true
    record(task, xpcall(task.fn, describe_raise))
  end
end

function spawn(s, fn, on_done, on_end, shown)
  count = count + 1
  local task = setmetatable({
    state = "running", fn = fn, shown = shown, on_done = on_done, on_end = on_end, number = count, finish = finish,
    pid = core.getpid(), co = coroutine.create(body),
  }, mt)
  if not sentinel then sentinel = compat.at_close(name_the_left) end
  left[task] = true
  scheduler.add(s, task)
  return task
end

-- For users ----------------------------------------------------------------------------------------------------------

--- Starts a function beside the caller. It runs whenever anything waits: a call, e2b.sleep, e2b.run.
---@param fn fun(): ... what it returns is the task's result; nil, message is a failure, and so is a raise
---@param on_done? fun(...) called with the results, or nil, message, err; may wait itself
---@return e2b.Task task
function M.spawn(fn, on_done)
  if type(fn) ~= "function" then raise("bad argument #1 to e2b.spawn (a function expected, got " .. type(fn) .. ")") end
  if on_done ~= nil and type(on_done) ~= "function" then
    raise("bad argument #2 to e2b.spawn (a function expected, got " .. type(on_done) .. ")")
  end
  return spawn(scheduler.here(), fn, on_done)
end

local function check_seconds(seconds, what)
  local wrong = options.types.seconds(seconds)
  if wrong then raise(("bad argument to %s (%s)"):format(what, wrong)) end
end

local function timed_out(what, seconds)
  return errors.new("timeout", {
    message = ("%s: not over within %.4g s (timeout)"):format(what, seconds), operation = what, deadline = "timeout",
    retryable = true,
  })
end

local function check_self(self, name)
  if getmetatable(self) ~= mt then
    raise(("task.%s needs a task, got %s: write task:%s()"):format(name, type(self), name))
  end
end

--- Waits for the end of a task. The task goes on when the time is over first.
---@param timeout? number seconds
---@return any ... what the function returned; nil, message, err when it failed, raised, was cancelled, or went on
function methods:wait(timeout)
  check_self(self, "wait")
  if timeout ~= nil then check_seconds(timeout, "task:wait") end
  if not self.entry then
    local task = scheduler.current()
    if task == self then raise("task:wait() of the task that runs: it would wait for ever") end
    local function start(done)
      self.waiters = self.waiters or {}
      self.waiters[done] = true
      return function()
        if self.waiters then self.waiters[done] = nil end
      end
    end
    local loop = loops.choose()
    local _, why = scheduler.await(start, timeout and now() + timeout, loop, self.scheduler == scheduler.here())
    if why == "cancelled" then return cancelled_error("task:wait") end
    if not self.entry then return timed_out("task:wait", timeout or 0) end
  end
  return outcome(self)
end

--- Cancels a task: its pending wait returns nil, message, err (`cancelled`), and so do later ones, at once. What runs
--- under a shield is not disturbed. Its `state` is "running" until its function has returned.
---@return boolean cancelled false when the task had ended already
function methods:cancel()
  check_self(self, "cancel")
  if self.entry then return false end
  self.cancelled = true
  if self.begun then
    scheduler.interrupt(self)
  else
    self.dropped, self.results = true, { n = 0 }
    self:finish(true)
    scheduler.drop(self)
  end
  return true
end

local function cancel_all(s)
  local list = {}
  for task in pairs(left) do
    if task.scheduler == s then list[#list + 1] = task end
  end
  table.sort(list, function(a, b) return a.number < b.number end)
  for _, task in ipairs(list) do task:cancel() end
end

--- Waits until all tasks have ended. When an error comes first (Ctrl-C), cancels them and lets them clean up. Where
--- Ctrl-C is no error (Neovim) this answers `cancelled` then.
---@param timeout? number seconds
---@return true? ok
---@return string? message
---@return e2b.Error? err
function M.run(timeout)
  if timeout ~= nil then check_seconds(timeout, "e2b.run") end
  if scheduler.current() then
    raise("e2b.run() in a task: it would wait for itself; wait for other tasks with task:wait()")
  end
  local loop = loops.choose()
  local s = scheduler.here()
  local function join(deadline)
    if s.live == 0 then return true end
    return scheduler.await(function(done)
      s.idlers[done] = true
      return function() s.idlers[done] = nil end
    end, deadline, loop, true)
  end
  local ok, result, why = scheduler.pcall(join, timeout and now() + timeout)
  if not ok or why == "cancelled" then
    -- They must not be left behind with what they hold.
    scheduler.pcall(function()
      cancel_all(s)
      scheduler.shield(join, group.GRACE, now() + group.GRACE)
    end)
    if not ok then error(result, 0) end
    return cancelled_error("e2b.run")
  end
  if why == "deadline" then return timed_out("e2b.run", timeout) end
  return true
end

local function nothing() end
local function idle() return nothing end

--- Waits; tasks go on meanwhile.
---@param seconds number
---@return true? ok
---@return string? message
---@return e2b.Error? err `cancelled`, or `timeout` when the time of a shield was over first
function M.sleep(seconds)
  check_seconds(seconds, "e2b.sleep")
  local deadline = now() + seconds
  local _, why = scheduler.await(idle, deadline)
  if why == "cancelled" then return cancelled_error("e2b.sleep") end
  if now() < deadline then return timed_out("e2b.sleep", seconds) end
  return true
end

--- pcall through which waits can be suspended on every Lua. (On PUC 5.1 fn runs in a coroutine that passes its yields
--- outward; elsewhere this is pcall.)
---@param fn function
---@param ... any its arguments
---@return boolean ok
---@return any ...
function M.pcall(fn, ...)
  return scheduler.pcall(fn, ...)
end

--- Runs a function in which the cancelling of the task is not seen, with a deadline of its own: for cleaning up.
---@param fn function
---@param seconds? number every wait in it ends after this time
---@param ... any its arguments
---@return any ... what fn returned; what it raises is raised
function M.shield(fn, seconds, ...)
  return scheduler.shield(fn, seconds, ...)
end

local side_by_side = group.new(spawn)

--- Runs functions side by side and waits for all of them.
---@param ... fun(): any
---@return e2b.MemberResult[] results one for each function, in their order
---@return integer failed how many of them are not ok
function M.all(...)
  local list = compat.pack(...)
  for i = 1, list.n do
    if type(list[i]) ~= "function" then
      raise(("bad argument #%d to e2b.all (a function expected, got %s; for a list there is e2b.map)"):format(
        i, type(list[i])))
    end
  end
  return side_by_side(list.n, list, nil, nil, nil, "e2b.all")
end

local MAP = { limit = options.types.positive, timeout = options.types.seconds }
local LIMIT = 100

--- Calls fn(item, index) for each item of a list, several at a time, and waits for all of them.
---@param list any[]
---@param fn fun(item: any, index: integer): any
---@param opts? { limit?: integer, timeout?: number } limit: how many at a time (100); timeout: seconds after which
---  those that have not ended are cancelled, and those that have not begun never begin
---@return e2b.MemberResult[] results one for each item, in their order
---@return integer failed how many of them are not ok
function M.map(list, fn, opts)
  if type(list) ~= "table" then raise("bad argument #1 to e2b.map (a list expected, got " .. type(list) .. ")") end
  if type(fn) ~= "function" then raise("bad argument #2 to e2b.map (a function expected, got " .. type(fn) .. ")") end
  opts = options.read(opts, MAP, "e2b.map")
  return side_by_side(#list, list, fn, opts.limit or LIMIT, opts.timeout, "e2b.map")
end

return M
