--- Which task a coroutine belongs to, and the pcall that keeps it so on PUC 5.1.
local compat = require("e2b.compat")
local loops = require("e2b.loop.init")

local M = {}

local running, MAIN = compat.running, compat.MAIN
local yield, resume, status = coroutine.yield, coroutine.resume, coroutine.status

local task_of_all = {}                             -- coroutine -> task
local root_of = setmetatable({}, { __mode = "k" }) -- coroutine of a pcall on 5.1 -> the coroutine it stands for

--- The tasks by coroutine. nginx uses coroutines again, also those of requests that died in the middle of a wait: there
--- each request has a table of its own.
---@return table<thread|table, e2b.Task> task_of
function M.tasks()
  local book = loops.book and loops.book()
  return book and book.task_of or task_of_all
end

--- The task that runs, if any.
---@return e2b.Task?
function M.task()
  return M.tasks()[running()]
end

--- Whose waits these are: the task, else the coroutine, or what stands for it in its request.
---@return table|thread
function M.identity()
  local co = running()
  while root_of[co] do co = root_of[co] end
  local book = loops.book and loops.book()
  if not book then return task_of_all[co] or co end
  if book.task_of[co] then return book.task_of[co] end
  local id = book.ids[co]
  if not id then
    id = {}
    book.ids[co] = id
  end
  return id
end

if compat.puc51 then
  local function pass(co, ...)
    if status(co) == "suspended" then return pass(co, resume(co, yield(select(2, ...)))) end
    task_of_all[co], root_of[co] = nil, nil
    return ...
  end

  --- pcall through which a wait can be suspended.
  function M.pcall(fn, ...)
    local parent = running()
    if parent == MAIN then return pcall(fn, ...) end
    local co = coroutine.create(fn)
    root_of[co], task_of_all[co] = parent, task_of_all[parent]
    loops.hands_on(co)
    return pass(co, resume(co, ...))
  end
else
  M.pcall = pcall
end

return M
