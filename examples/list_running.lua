-- Running sandboxes with their template, state and expiry, newest first.
local e2b = require("e2b")

local count = 0
for sandbox in e2b.Sandbox.list({ state = { "running" } }) do
  count = count + 1
  print(("%s  %s  %s  until %s"):format(sandbox.sandbox_id, sandbox.name or sandbox.template_id, sandbox.state,
    os.date("%Y-%m-%d %H:%M:%S", sandbox.end_at)))
end
print(("%d running"):format(count))
