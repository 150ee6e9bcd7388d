--- How this host waits. Chosen for each call, never when a module is loaded: the same process may have several hosts.
local blocking = require("e2b.loop.blocking")

local M = {}

local named = { blocking = blocking }

--- The loop for a call made here and now.
---@param preference? string|table the client's option `loop`: a name, or a table { may_wait, await } of the same form
---@return table loop
function M.choose(preference)
  if type(preference) == "table" then return preference end
  return named[preference] or blocking
end

--- Whether there is a loop of that name.
---@param name string
---@return boolean
function M.known(name)
  return named[name] ~= nil
end

return M
