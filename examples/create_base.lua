-- Makes a sandbox from the template "base" that ends in 5 minutes, and shows its id.
local e2b = require("e2b")

local sandbox, message = e2b.Sandbox.create("base", { timeout = 5 * 60 })
if not sandbox then
  io.stderr:write(message, "\n")
  os.exit(1)
end
print(sandbox.sandbox_id)
print("ends at " .. os.date("%Y-%m-%d %H:%M:%S", sandbox.end_at))
