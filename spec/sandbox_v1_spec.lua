-- Services without the v2 routes: v1 is tried once after a 404 or 405, and remembered only when it succeeded.
local core = require("e2b.core")
local platform = require("spec.support.platform")

local near, UNKNOWN = platform.near, platform.UNKNOWN
local here, server

setup(function()
  here = platform.start()
  server = here.server
end)

teardown(function() here:stop() end)
before_each(function() server:clear() end)

-- A client that has learnt nothing yet.
local function fresh() return platform.client_of(server).Sandbox end

describe("a v2 service", function()
  it("stays one after an unknown template", function()
    local Sandbox = fresh()
    local sandbox, message, err = Sandbox.create("no-such-template")
    assert.is_nil(sandbox)
    assert.equal("not_found", err.kind)
    assert.equal("template", err.resource)
    assert.matches("template", message, 1, true)
    assert.same({ "POST /v2/sandboxes", "POST /sandboxes" }, here:requests())
    local made = assert(Sandbox.create())
    assert.same({ "POST /v2/sandboxes" }, here:requests())
    assert(made:kill())
  end)

  it("stays one after connecting to an unknown sandbox", function()
    local Sandbox = fresh()
    local made = assert(Sandbox.create())
    server:clear()
    local sandbox, _, err = Sandbox.connect(UNKNOWN)
    assert.is_nil(sandbox)
    assert.equal("not_found", err.kind)
    assert.equal("sandbox", err.resource)
    assert.same({ "POST /v2/sandboxes/" .. UNKNOWN .. "/connect", "POST /sandboxes/" .. UNKNOWN .. "/connect" },
      here:requests())
    assert(made:connect())
    assert.same({ "POST /v2/sandboxes/" .. made.sandbox_id .. "/connect" }, here:requests())
    assert(made:kill())
  end)
end)

for _, status in ipairs({ 404, 405 }) do
  describe("a service that answers v2 with " .. status, function()
    setup(function() server:set({ no_v2 = status }) end)
    teardown(function() server:set({ no_v2 = false }) end)

    it("makes secured sandboxes of 300 seconds, and is remembered", function()
      local Sandbox = fresh()
      local sandbox = assert(Sandbox.create())
      assert.same({ "POST /v2/sandboxes", "POST /sandboxes" }, here:requests())
      assert.is_string((require("e2b.sandbox_book").tokens(sandbox)))
      near(300, sandbox:expires_in())
      near(300, here:facts(sandbox):expires_in())
      server:clear()
      local other = assert(Sandbox.create("base", { timeout = 100 }))
      assert.same({ "POST /sandboxes" }, here:requests())
      near(100, here:facts(other):expires_in())
      assert(sandbox:kill())
      assert(other:kill())
    end)

    it("connects with an explicit timeout, which never shortens", function()
      local Sandbox = fresh()
      local sandbox = assert(Sandbox.create("base", { timeout = 600 }))
      server:clear()
      assert(sandbox:connect())
      local seen = server:requests()
      assert.equal("/v2/sandboxes/" .. sandbox.sandbox_id .. "/connect", seen[1].path)
      assert.equal("/sandboxes/" .. sandbox.sandbox_id .. "/connect", seen[2].path)
      assert.same({ timeout = 300 }, core.json_decode(seen[2].body))
      near(600, sandbox:expires_in())
      near(600, here:facts(sandbox):expires_in())
      assert(sandbox:pause())
      server:clear()
      assert(sandbox:connect({ timeout = 50, on_resume = "reboot" }))
      seen = server:requests()
      assert.equal(1, #seen)
      assert.same({ timeout = 50, memory = false }, core.json_decode(seen[1].body))
      near(50, here:facts(sandbox):expires_in())
      assert(sandbox:kill())
    end)

    it("is not taken for one because of an unknown sandbox", function()
      local Sandbox = fresh()
      for _ = 1, 2 do
        local sandbox, _, err = Sandbox.connect(UNKNOWN)
        assert.is_nil(sandbox)
        assert.equal("not_found", err.kind)
        assert.equal(2, #here:requests())
      end
    end)
  end)
end
