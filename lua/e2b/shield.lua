--- What must not be disturbed: runs under a shield, in which no cancel is seen and a deadline of its own holds.
local core = require("e2b.core")
local whose = require("e2b.whose")

local M = {}

local now, identity = core.now, whose.identity

local shields = setmetatable({}, { __mode = "k" }) -- task or coroutine -> { deadline = s? }

--- How many there are: mostly none, and then nobody has to look.
M.on = 0

--- The innermost shield around a task or a coroutine.
---@param id table|thread
---@return { deadline: number? }?
function M.of(id)
  return shields[id]
end

--- When the innermost shield here ends, on the clock of core.now().
---@return number?
function M.limit()
  if M.on == 0 then return nil end
  local shield = shields[identity()]
  return shield and shield.deadline
end

local function unshield(id, outer, ok, ...)
  shields[id] = outer
  M.on = M.on - 1
  if not ok then error((...), 0) end
  return ...
end

--- Runs fn so that a cancel is not seen in it, with a deadline of its own.
---@param fn function
---@param seconds number?
---@param ... any its arguments
---@return any ... what fn returned
function M.run(fn, seconds, ...)
  local id = identity()
  local outer = shields[id]
  local deadline = seconds and now() + seconds
  -- An inner shield may last longer than an outer one: whoever cleans up gets the time it asks for.
  shields[id] = { deadline = deadline or outer and outer.deadline }
  M.on = M.on + 1
  return unshield(id, outer, whose.pcall(fn, ...))
end

return M
