-- A plain script as a host, calls on the main coroutine and calls in a task.
local hosts = require("spec.hosts.init")
local support = require("spec.support.support")

for _, way in ipairs({ "blocking", "tasks" }) do
  describe("a plain script, " .. way .. ":", function()
    hosts.declare(function(env, wrap)
      local result = support.run(nil, { file = "spec/hosts/script.lua", args = { way }, env = env, wrap = wrap })
      return result.out .. result.err
    end)
  end)
end
