-- A cqueues controller as a host.
local hosts = require("spec.hosts.init")
local support = require("spec.support.support")

describe("a cqueues controller:", function()
  hosts.declare(function(env, wrap)
    local result = support.run(nil, { file = "spec/hosts/cqueues.lua", env = env, wrap = wrap })
    return result.out .. result.err
  end)
end)
