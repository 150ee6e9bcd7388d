--- How a call waits. While there are no tasks that is a matter of the loop alone; the scheduler of tasks takes these
--- functions over when it is loaded, which nothing does before a program makes a task.
local loops = require("e2b.loop.init")

local M = {}

--- Suspends the caller, calls `start(done)`, and returns what `done` gets; nil, "deadline" when that came first.
---@param start fun(done: fun(...)): fun() cancel
---@param deadline number? on the clock of core.now()
---@param loop table?
---@param inside boolean? only another task can end this wait
---@return any ...
function M.await(start, deadline, loop, inside) -- luacheck: ignore 212
  return (loop or loops.choose()).await(start, deadline)
end

--- When a shield around the caller ends, on the clock of core.now().
---@return number?
function M.limit()
  return nil
end

--- Runs fn with waits that block instead of yielding.
---@param fn function
---@param ... any its arguments
---@return any ... what fn returned
function M.block(fn, ...)
  return fn(...)
end

--- pcall through which waits can be suspended.
M.pcall = require("e2b.whose").pcall

--- Whether the loop may be waited in without looking for tasks.
---@return boolean
function M.alone()
  return true
end

return M
