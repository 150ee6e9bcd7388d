--- `e2b repl`: a Lua prompt with the library ready.
local M = {}

--- Runs the prompt until its input ends.
---@param args string[]
---@return integer status
function M.main(args)
  error("not here yet: " .. tostring(args[1]))
end

return M
