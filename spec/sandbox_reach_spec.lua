-- Reaching a sandbox: is_running, get_host, get_metrics.
local platform = require("spec.support.platform")

local raises, UNKNOWN = platform.raises, platform.UNKNOWN
local client_of = platform.client_of
local here, server, Sandbox

setup(function()
  here = platform.start()
  server, Sandbox = here.server, here.Sandbox
end)

teardown(function() here:stop() end)
before_each(function() server:clear() end)
after_each(function() here:cleanup() end)

local function create(...) return here:create(...) end
local function requests() return here:requests() end

describe("is_running", function()
  it("asks the sandbox itself, without the key", function()
    local sandbox = create()
    assert.is_true(sandbox:is_running())
    assert.is_true(Sandbox.is_running(sandbox.sandbox_id))
    for _, request in ipairs(server:requests()) do
      assert.equal("/health", request.path)
      assert.is_nil(request.headers["x-api-key"])
      assert.equal(sandbox.sandbox_id, request.headers["e2b-sandbox-id"])
      assert.equal("49983", request.headers["e2b-sandbox-port"])
    end
    assert(sandbox:pause())
    assert.is_false(sandbox:is_running())
    assert(sandbox:kill())
    assert.is_false(sandbox:is_running())
    assert.is_false(Sandbox.is_running(UNKNOWN))
  end)

  it("tells other answers from a no", function()
    local sandbox = create()
    server:set({ fail_next = { status = 500, path = "/health" } })
    local running, message, err = sandbox:is_running()
    assert.is_nil(running)
    assert.is_string(message)
    assert.equal("server", err.kind)
  end)
end)

describe("get_host", function()
  it("is the port, the id and the domain", function()
    local sandbox = create()
    assert.equal(("3000-%s.e2b.app"):format(sandbox.sandbox_id), sandbox:get_host(3000))
    local other = client_of(server, { domain = "e2b.example.com" })
    assert.equal("80-i1.e2b.example.com", other.Sandbox.get_host("i1", 80))
    sandbox.sandbox_domain = "cluster.example.com"
    assert.equal(("80-%s.cluster.example.com"):format(sandbox.sandbox_id), sandbox:get_host(80))
    for _, port in ipairs({ 0, 65536, 1.5, "80" }) do raises("needs a port", sandbox.get_host, sandbox, port) end
    raises('got the string "3000"', sandbox.get_host, sandbox, "3000")
    raises("needs a port", sandbox.get_host, sandbox)
    for _, id in ipairs({ "i1/../x", "i1.evil.com", "i1\r\nX: y", "i 1" }) do
      raises("can't be part of a host name", Sandbox.get_host, id, 80)
    end
    assert.same({}, requests())
  end)
end)

describe("get_metrics", function()
  it("answers a list, in a span of time when asked", function()
    local sandbox = create()
    local metrics = assert(sandbox:get_metrics())
    assert.is_table(metrics)
    server:clear()
    assert(Sandbox.get_metrics(sandbox.sandbox_id, { from = 1767323045.9, to = "2026-01-02T04:04:05Z" }))
    local query = server:requests()[1].query
    assert.equal("1767323045", query.start or query:match("start=(%d+)"))
    assert.equal("1767326645", query["end"] or query:match("end=(%d+)"))
    raises("from must be seconds since the epoch", sandbox.get_metrics, sandbox, { from = {} })
    raises("to is no RFC 3339 time", sandbox.get_metrics, sandbox, { to = "tomorrow" })
  end)

  it("of an unknown one is not_found", function()
    local metrics, _, err = Sandbox.get_metrics(UNKNOWN)
    assert.is_nil(metrics)
    assert.equal("not_found", err.kind)
  end)

  it("are unsupported by an envd older than 0.1.5, compared as versions", function()
    local sandbox = create()
    sandbox.envd_version = "0.1.4"
    local metrics, message, err = sandbox:get_metrics()
    assert.is_nil(metrics)
    assert.equal("unsupported", err.kind)
    assert.matches("0.1.4", message, 1, true)
    assert.same({}, requests())
    for _, version in ipairs({ "0.1.5", "0.1.10", "1.0.0", "v0.2.1", "newest" }) do
      sandbox.envd_version = version
      assert(sandbox:get_metrics())
    end
  end)
end)
