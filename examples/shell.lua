-- An interactive shell in a new sandbox, in this terminal. The sandbox ends with it, also when it is left with ~.
local e2b = require("e2b")

local code, message = e2b.with({ template = "base", timeout = 3600 }, function(sandbox)
  print(sandbox, "exit or Ctrl-D ends it")
  local code, message, err = sandbox:shell()
  if code == nil then return nil, message, err end
  return code or "none: it was left, and the sandbox is killed now with all that ran in it"
end)
if not code then error(message, 0) end
print("exit code " .. code)
