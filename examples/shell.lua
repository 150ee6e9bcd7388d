-- An interactive shell in a new sandbox, in this terminal. The sandbox ends with it.
local e2b = require("e2b")

local code, message = e2b.with({ template = "base", timeout = 3600 }, function(sandbox)
  print(sandbox, "exit or Ctrl-D ends it")
  return sandbox:shell()
end)
if not code then error(message, 0) end
print("exit code " .. code)
