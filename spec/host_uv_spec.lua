-- The loop of luv scripts. Debian has luv for every Lua there is a spec for.
local support = require("spec.support.support")
local cases = require("spec.support.uv_cases")
local peer = require("spec.support.peer")

describe("in a luv script", function()
  cases.define({ it = it, setup = setup, teardown = teardown }, function(source, options)
    return support.run(source, { env = options.env, timeout = options.timeout })
  end, "")
end)
