--- Which task a coroutine belongs to, and the pcall that keeps it so on PUC 5.1.
local compat = require("e2b.compat")
local loops = require("e2b.loop.init")

local M = {}

local running, MAIN = compat.running, compat.MAIN
local yield, resume, status = coroutine.yield, coroutine.resume, coroutine.status

local task_of = {}                                 -- coroutine -> task
local root_of = setmetatable({}, { __mode = "k" }) -- coroutine of a pcall on 5.1 -> the coroutine it stands for

M.task_of = task_of

--- Whose waits these are: the task, else the coroutine.
---@return table|thread
function M.identity()
  local co = running()
  while root_of[co] do co = root_of[co] end
  return task_of[co] or co
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
    loops.hands_on(co)
    return pass(co, resume(co, ...))
  end
else
  M.pcall = pcall
end

return M
