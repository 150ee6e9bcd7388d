-- What an agent loop needs: the tools as data for the model, and one call for what the model answers.
local e2b = require("e2b")

for _, tool in ipairs(e2b.tools) do
  print(("%-20s %-5s %s"):format(tool.name, tool.access, tool.description))
end

-- What a model might ask for, in this order.
local made = assert(e2b.tools.call("create_sandbox", { template = "base", timeout = 60 }))
local asked = {
  { "get_sandbox", { sandbox_id = made.sandbox_id } },
  { "set_sandbox_timeout", { sandbox_id = made.sandbox_id, timeout = "soon" } },
  { "kill_sandbox", { sandbox_id = made.sandbox_id } },
}
for _, request in ipairs(asked) do
  local name, args = request[1], request[2]
  local result, message, err = e2b.tools.call(name, args)
  -- A refusal goes back to the model, which then knows better.
  print(name, result and "ok" or ("%s: %s"):format(err.kind, message))
end
