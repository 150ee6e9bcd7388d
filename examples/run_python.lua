-- Runs a Python snippet in a sandbox and prints its output as it comes.
local e2b = require("e2b")

local code = [[
import time
for i in range(1, 4):
    print("step", i, flush=True)
    time.sleep(0.3)
]]

local result, message = e2b.with({ template = "base", timeout = 120 }, function(sandbox)
  -- A list goes to the program as it is: no shell in between, nothing to quote.
  return sandbox.commands:run({ "python3", "-c", code }, {
    on_stdout = function(text) io.write(text) io.flush() end,
    on_stderr = function(text) io.stderr:write(text) end,
  })
end)
if not result then error(message, 0) end
print("exit code " .. result.exit_code)
