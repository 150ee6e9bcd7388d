-- Sandbox objects and statics against the local server, over real sockets.
local support = require("spec.support.support")
local core = require("e2b.core")
local e2b = require("e2b")
local local_server = require("e2b.server")

local UNKNOWN = "i00000000000000000000"

local server, client, Sandbox

local function client_of(some, more)
  local opts = { api_url = some.url, sandbox_url = some.url, api_key = some.api_key, getenv = function() end }
  for name, value in pairs(more or {}) do opts[name] = value end
  return assert(e2b.client(opts))
end

setup(function()
  server = local_server.start()
  client = client_of(server)
  Sandbox = client.Sandbox
end)

teardown(function()
  e2b.close()
  server:stop()
end)

-- Requests since the last call, as "METHOD path".
local function requests(some)
  local lines = {}
  for i, request in ipairs((some or server):requests()) do lines[i] = request.method .. " " .. request.path end
  (some or server):clear()
  return lines
end

local function near(expected, actual, tolerance)
  tolerance = (tolerance or 1) * support.slack
  assert.is_number(actual)
  assert.is_true(math.abs(expected - actual) <= tolerance, ("%s is not near %s"):format(actual, expected))
end

local function raises(pattern, fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok, "nothing was raised")
  assert.matches(pattern, message, 1, true)
  assert.matches("sandbox_spec.lua:%d+: ", message)
end

before_each(function() server:clear() end)


-- Made here, killed after the spec, whatever happened in it.
local made = {}
local function create(...)
  local sandbox = assert(Sandbox.create(...))
  made[#made + 1] = sandbox
  server:clear()
  return sandbox
end

after_each(function()
  for i = #made, 1, -1 do
    Sandbox.kill(made[i].sandbox_id)
    made[i] = nil
  end
end)

-- What the server itself says about a sandbox.
local function facts(sandbox)
  return assert(Sandbox.get_info(sandbox.sandbox_id))
end

describe("the object keeps its own book:", function()
  it("create", function()
    local sandbox = create("base", { timeout = 120, metadata = { job = "42" } })
    local info = facts(sandbox)
    assert.equal("running", sandbox.state)
    assert.is_true(sandbox.estimated)
    near(info.end_at, sandbox.end_at)
    near(info.started_at, sandbox.started_at)
    near(120, sandbox:expires_in())
    assert.equal("base", sandbox.name)
    assert.equal(info.template_id, sandbox.template_id)
    assert.same({ job = "42" }, sandbox.metadata)
    assert.is_nil(sandbox.cpu_count)
  end)

  it("create without a timeout lasts 300 seconds", function()
    local sandbox = create()
    near(300, sandbox:expires_in())
    near(facts(sandbox).end_at, sandbox.end_at)
  end)

  it("get_info refreshes this object; the static makes a new one", function()
    local sandbox = create()
    assert.equal(sandbox, sandbox:get_info())
    assert.is_false(sandbox.estimated)
    assert.equal(2, sandbox.cpu_count)
    assert.equal(512, sandbox.memory_mb)
    assert.is_number(sandbox.disk_size_mb)
    if math.type then assert.equal("integer", math.type(sandbox.end_at)) end -- luacheck: ignore 143
    assert.is_string(os.date("%c", sandbox.end_at))
    local other = assert(Sandbox.get_info(sandbox))
    assert.equal(sandbox, other) -- given the object, it is the method
    other = assert(Sandbox.get_info(sandbox.sandbox_id))
    assert.not_equal(sandbox, other)
    assert.is_false(other.estimated)
    assert.equal(sandbox.sandbox_id, other.sandbox_id)
    assert.same({}, other.metadata)
  end)

  it("set_timeout, later and sooner", function()
    local sandbox = create("base", { timeout = 100 })
    assert.is_true(sandbox:set_timeout(600))
    near(600, sandbox:expires_in())
    near(facts(sandbox).end_at, sandbox.end_at)
    assert.is_true(Sandbox.set_timeout(sandbox, 60))
    near(60, sandbox:expires_in())
    assert.is_true(Sandbox.set_timeout(sandbox.sandbox_id, 90))
    near(60, sandbox:expires_in()) -- an id tells no object
    near(90, facts(sandbox):expires_in())
  end)

  it("set_timeout(0) ends it", function()
    local sandbox = create("base")
    assert.is_true(sandbox:set_timeout(0))
    assert.is_true(sandbox:expires_in() <= 0)
    assert.matches("expired", tostring(sandbox), 1, true)
    support.wait_for(function() return not Sandbox.get_info(sandbox.sandbox_id) end, 5, "the end of the sandbox")
  end)

  it("pause and resume", function()
    local sandbox = create("base", { timeout = 100 })
    local ok, paused = sandbox:pause()
    assert.is_true(ok)
    assert.is_true(paused)
    assert.equal("paused", sandbox.state)
    assert.is_nil(sandbox:expires_in())
    near(os.time(), sandbox.end_at, 2)
    assert.equal("paused", facts(sandbox).state)

    assert.equal(sandbox, sandbox:resume({ timeout = 77 }))
    assert.equal("running", sandbox.state)
    near(77, sandbox:expires_in())
    near(facts(sandbox).end_at, sandbox.end_at)
    near(os.time(), sandbox.started_at, 2)
  end)

  it("connect extends and never lowers", function()
    local sandbox = create("base", { timeout = 200 })
    assert.equal(sandbox, sandbox:connect({ timeout = 50 }))
    near(200, sandbox:expires_in())
    near(facts(sandbox).end_at, sandbox.end_at)
    assert(sandbox:connect({ timeout = 900 }))
    near(900, sandbox:expires_in())
    near(facts(sandbox).end_at, sandbox.end_at)
  end)

  it("connect wakes a paused one", function()
    local sandbox = create("base", { timeout = 600 })
    assert(sandbox:pause())
    assert(sandbox:connect({ timeout = 50 }))
    assert.equal("running", sandbox.state)
    near(50, sandbox:expires_in())
    near(facts(sandbox).end_at, sandbox.end_at)
  end)

  it("kill", function()
    local sandbox = create()
    local ok, existed = sandbox:kill()
    assert.is_true(ok)
    assert.is_true(existed)
    assert.equal("killed", sandbox.state)
    assert.is_nil(sandbox:expires_in())
    ok, existed = sandbox:kill()
    assert.is_true(ok)
    assert.is_false(existed)
  end)

  it("by the server's clock, however wrong ours is", function()
    server:set({ clock_skew = 5000 })
    local other = client_of(server) -- a client learns the offset of its own service
    local sandbox = assert(other.Sandbox.create("base", { timeout = 100 }))
    near(os.time() + 5100, sandbox.end_at, 2)
    near(100, sandbox:expires_in(), 2)
    assert.matches("1m%d+s left", tostring(sandbox))
    assert(sandbox:kill())
    server:set({ clock_skew = false })
  end)
end)

describe("get_info", function()
  it("of an unknown sandbox is not_found", function()
    local sandbox, message, err = Sandbox.get_info(UNKNOWN)
    assert.is_nil(sandbox)
    assert.equal("not_found", err.kind)
    assert.equal("sandbox", err.resource)
    assert.equal(UNKNOWN, err.sandbox_id)
    assert.equal("Sandbox.get_info", err.operation)
    assert.equal(404, err.status)
    assert.matches(UNKNOWN, message, 1, true)
  end)

  it("has every field of a sandbox", function()
    local sandbox = create("base", {
      timeout = 100, metadata = { a = "b" }, allow_internet_access = false,
      lifecycle = { on_timeout = "pause", auto_resume = true },
      network = { allow_out = { "1.1.1.1" }, allow_public_traffic = false, mask_request_host = "host:${PORT}" },
    })
    assert(sandbox:get_info())
    assert.same({ a = "b" }, sandbox.metadata)
    assert.same({ on_timeout = "pause", auto_resume = true }, sandbox.lifecycle)
    assert.is_false(sandbox.allow_internet_access)
    assert.is_false(sandbox.network.allow_public_traffic)
    assert.equal("host:${PORT}", sandbox.network.mask_request_host)
    assert.equal("1.1.1.1", sandbox.network.allow_out[1])
    assert.is_string(sandbox.envd_version)
  end)
end)

describe("kill", function()
  it("of an unknown sandbox says that it was gone", function()
    local ok, existed = Sandbox.kill(UNKNOWN)
    assert.is_true(ok)
    assert.is_false(existed)
  end)

  it("by id", function()
    local sandbox = create()
    local ok, existed = Sandbox.kill(sandbox.sandbox_id)
    assert.is_true(ok)
    assert.is_true(existed)
    assert.equal("running", sandbox.state) -- the object was not told
    local _, _, err = sandbox:get_info()
    assert.equal("not_found", err.kind)
    assert.equal("killed", sandbox.state)
  end)

  it("that fails is a failure", function()
    local sandbox = create()
    server:set({ fail_next = { status = 500, method = "DELETE", path = "/sandboxes" } })
    local ok, message, err = sandbox:kill()
    assert.is_nil(ok)
    assert.is_string(message)
    assert.equal("server", err.kind)
    assert.equal("running", sandbox.state)
  end)
end)

describe("pause", function()
  it("of a paused one says so", function()
    local sandbox = create()
    assert(sandbox:pause())
    local ok, paused = sandbox:pause()
    assert.is_true(ok)
    assert.is_false(paused)
    ok, paused = Sandbox.pause(sandbox.sandbox_id)
    assert.is_true(ok)
    assert.is_false(paused)
  end)

  it("of an unknown one is not_found", function()
    local ok, _, err = Sandbox.pause(UNKNOWN)
    assert.is_nil(ok)
    assert.equal("not_found", err.kind)
  end)

  it("refused because the sandbox is changing is a conflict, not a success", function()
    local sandbox = create()
    server:set({ fail_next = { status = 409, method = "POST", path = "/sandboxes" } })
    local ok, message, err = sandbox:pause()
    assert.is_nil(ok)
    assert.is_string(message)
    assert.equal("conflict", err.kind)
    assert.equal("running", sandbox.state)
    assert.same({
      "POST /sandboxes/" .. sandbox.sandbox_id .. "/pause", "GET /sandboxes/" .. sandbox.sandbox_id,
    }, requests())
  end)

  it("sends memory only when asked to", function()
    local sandbox = create()
    server:clear()
    assert(sandbox:pause())
    assert(sandbox:resume())
    assert(sandbox:pause({ keep_memory = false }))
    local seen = server:requests()
    assert.equal("{}", seen[1].body)
    assert.same({ memory = false }, core.json_decode(seen[3].body))
    raises("keep_memory must be a boolean", sandbox.pause, sandbox, { keep_memory = 1 })
  end)
end)

describe("resume", function()
  it("always says how long: 300 seconds if nothing was given", function()
    local sandbox = create("base", { timeout = 30 })
    assert(sandbox:pause())
    assert(sandbox:resume())
    near(300, sandbox:expires_in())
    near(300, facts(sandbox):expires_in())
  end)

  it("counts the seconds that were given", function()
    local sandbox = create("base", { timeout = 30 })
    assert(sandbox:pause())
    server:clear()
    local other = assert(Sandbox.resume(sandbox.sandbox_id, { timeout = 45.5, on_resume = "reboot" }))
    assert.same({ timeout = 46, memory = false }, core.json_decode(server:requests()[1].body))
    near(46, other:expires_in())
    near(46, facts(other):expires_in())
    assert.equal("paused", sandbox.state)
    assert.equal(sandbox.sandbox_id, other.sandbox_id)
  end)

  it("of a running one is a conflict that names connect", function()
    local sandbox = create()
    local resumed, message, err = sandbox:resume()
    assert.is_nil(resumed)
    assert.equal("conflict", err.kind)
    assert.equal(409, err.status)
    assert.matches("connect", message, 1, true)
    assert.equal(message, tostring(err))
  end)

  it("of an unknown one is not_found", function()
    local resumed, _, err = Sandbox.resume(UNKNOWN)
    assert.is_nil(resumed)
    assert.equal("not_found", err.kind)
  end)

  it("refuses other words for on_resume", function()
    raises("on_resume must be \"restore\" or \"reboot\"", Sandbox.resume, UNKNOWN, { on_resume = "boot" })
    raises("on_resume must be", Sandbox.connect, UNKNOWN, { on_resume = true })
  end)

  for _, status in ipairs({ 405, 410 }) do
    it("where the route is gone (" .. status .. ") looks first, then connects", function()
      server:set({ no_resume = status })
      local sandbox = create("base", { timeout = 600 })
      assert(sandbox:pause())
      server:clear()
      assert.equal(sandbox, sandbox:resume({ timeout = 40 }))
      local id = sandbox.sandbox_id
      assert.same({ "POST /sandboxes/" .. id .. "/resume", "GET /sandboxes/" .. id, "POST /v2/sandboxes/" .. id .. "/connect" },
        requests())
      near(40, facts(sandbox):expires_in())
      near(40, sandbox:expires_in())
      server:clear()
      local resumed, message, err = sandbox:resume()
      assert.is_nil(resumed)
      assert.equal("conflict", err.kind)
      assert.matches("connect", message, 1, true)
      assert.same({ "POST /sandboxes/" .. id .. "/resume", "GET /sandboxes/" .. id }, requests())
      server:set({ no_resume = false })
    end)
  end

  it("is not sent twice when the connection is cut", function()
    local sandbox = create()
    assert(sandbox:pause())
    server:clear()
    server:set({ fail_next = { method = "POST", path = "/sandboxes/" .. sandbox.sandbox_id .. "/resume", drop = true } })
    local resumed, _, err = sandbox:resume()
    assert.is_nil(resumed)
    assert.equal("network", err.kind)
    assert.equal("maybe", err.sent)
    assert.equal(1, #requests())
  end)
end)

describe("connect", function()
  it("makes an object of an id", function()
    local sandbox = create("base", { timeout = 600, metadata = { a = "b" } })
    local other = assert(Sandbox.connect(sandbox.sandbox_id))
    assert.not_equal(sandbox, other)
    assert.equal(sandbox.sandbox_id, other.sandbox_id)
    assert.equal("running", other.state)
    assert.is_true(other.estimated)
    assert.same({}, core.json_decode(server:requests()[1].body))
    assert(other:kill())
  end)

  it("sends what was given", function()
    local sandbox = create()
    assert(sandbox:connect({ timeout = 60, on_resume = "reboot" }))
    assert.same({ timeout = 60, memory = false }, core.json_decode(server:requests()[1].body))
    server:clear()
    assert(sandbox:connect({ on_resume = "restore" }))
    assert.equal("{}", server:requests()[1].body)
  end)

  it("to an unknown one is not_found", function()
    local sandbox, _, err = Sandbox.connect(UNKNOWN)
    assert.is_nil(sandbox)
    assert.equal("not_found", err.kind)
  end)
end)

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
    raises("needs a port", sandbox.get_host, sandbox)
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
    query = type(query) == "table" and query or { start = query:match("start=(%d+)"), ["end"] = query:match("end=(%d+)") }
    assert.equal("1767323045", query.start)
    assert.equal("1767326645", query["end"])
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
    sandbox.envd_version = "0.1.10"
    assert(sandbox:get_metrics())
  end)
end)

describe("misuse raises with the right form:", function()
  it("a static called like a method and a method like a static", function()
    raises("write Sandbox.list({", function() Sandbox:list() end)
    local sandbox = create()
    raises("write Sandbox.list({", function() sandbox:list() end)
    raises("write sandbox:kill(…) or Sandbox.kill(sandbox_id, …)", function() sandbox.kill() end)
    raises("Sandbox:kill() names no sandbox", function() Sandbox:kill() end)
    raises("Sandbox.kill needs a sandbox or its id, got table", Sandbox.kill, { sandbox_id = "i1" })
    raises("the sandbox id is empty", Sandbox.kill, "")
    raises("write sandbox:set_timeout(600)", function() sandbox:set_timeout() end)
    raises("seconds must be between 0", sandbox.set_timeout, sandbox, -1)
    raises("expires_in is for an object", Sandbox.expires_in, "i1")
  end)

  it("a method that isn't there", function()
    local sandbox = create()
    assert.has_error(function() sandbox:pasue() end)
  end)

  it("an unknown option", function()
    local sandbox = create()
    raises("'timeot'", sandbox.resume, sandbox, { timeot = 1 })
    raises("'keepMemory'", sandbox.pause, sandbox, { keepMemory = false })
    raises("'timeout'", sandbox.kill, sandbox, { timeout = 1 })
    assert.same({}, requests())
  end)
end)

describe("clients", function()
  it("know nothing of each other, but an object is always asked through its own", function()
    local other_server = local_server.start()
    local other = client_of(other_server)
    local sandbox = create()
    assert.is_nil(other.Sandbox.get_info(sandbox.sandbox_id))
    assert.equal(sandbox, other.Sandbox.get_info(sandbox))
    local ok, existed = other.Sandbox.kill(sandbox)
    assert.is_true(ok)
    assert.is_true(existed)
    other_server:stop()
  end)

  it("without a key answer so before anything is sent", function()
    local keyless = assert(e2b.client({ api_url = server.url, getenv = function() end }))
    local sandbox, message, err = keyless.Sandbox.create()
    assert.is_nil(sandbox)
    assert.equal("authentication", err.kind)
    assert.matches("E2B_API_KEY", message, 1, true)
    assert.same({}, requests())
  end)

  it("pass a refused key on", function()
    local wrong = client_of(server, { api_key = "e2b_" .. ("f"):rep(40) })
    local sandbox, message, err = wrong.Sandbox.create()
    assert.is_nil(sandbox)
    assert.equal("authentication", err.kind)
    assert.equal(401, err.status)
    assert.is_nil(message:find("ffff", 1, true))
  end)

  it("bound a call by its request_timeout", function()
    server:set({ latency = 5 })
    local seconds, sandbox, _, err = support.timed(Sandbox.get_info, UNKNOWN, { request_timeout = 0.2 })
    server:set({ latency = false })
    assert.is_nil(sandbox)
    assert.equal("timeout", err.kind)
    assert.equal("request_timeout", err.deadline)
    assert.is_true(seconds < 0.2 + support.tolerance, "took " .. seconds)
  end)
end)

describe("debug mode", function()
  it("makes no request where the official SDKs make none", function()
    local debugging = client_of(server, { debug = true, api_key = false or nil })
    local sandbox = assert(debugging.Sandbox.create("base", { metadata = { a = "b" } }))
    assert.equal("debug_sandbox_id", sandbox.sandbox_id)
    assert.equal("99.99.99", sandbox.envd_version)
    assert.same({ true, true }, { sandbox:kill() })
    assert.same({ true, true }, { debugging.Sandbox.kill("i1") })
    sandbox = assert(debugging.Sandbox.connect("i1"))
    assert.equal("i1", sandbox.sandbox_id)
    assert.equal(sandbox, sandbox:connect())
    assert.is_true(sandbox:set_timeout(5))
    assert.same({}, sandbox:get_metrics())
    assert.equal("localhost:3000", sandbox:get_host(3000))
    assert.same({}, requests())
  end)
end)

describe("leaving a scope", function()
  local function alive(id)
    return Sandbox.get_info(id) ~= nil
  end

  it("with hands results through and kills", function()
    local id
    local a, b, c = Sandbox.with({ timeout = 60 }, function(sandbox)
      id = sandbox.sandbox_id
      assert.is_true(alive(id))
      return 1, nil, 3
    end)
    assert.same({ 1, nil, 3 }, { a, b, c })
    assert.is_false(alive(id))
  end)

  it("with takes a template's name", function()
    assert.equal("base", Sandbox.with("base", function(sandbox) return sandbox.name end))
  end)

  it("with kills when the body raises, and raises the same value", function()
    local id
    local thrown = {}
    local ok, value = pcall(Sandbox.with, nil, function(sandbox)
      id = sandbox.sandbox_id
      error(thrown)
    end)
    assert.is_false(ok)
    assert.equal(thrown, value)
    assert.is_false(alive(id))
  end)

  it("with answers a failed create as create does", function()
    local called = false
    local value, message, err = Sandbox.with({ template = "no-such-template" }, function() called = true end)
    assert.is_nil(value)
    assert.is_string(message)
    assert.equal("not_found", err.kind)
    assert.is_false(called)
    raises("with takes options and a function", Sandbox.with, function() end)
    raises("'timout'", Sandbox.with, { timout = 1 }, function() end)
  end)

  it("with asks no second time when the body has killed it", function()
    Sandbox.with(nil, function(sandbox)
      assert(sandbox:kill())
      server:clear()
    end)
    assert.same({}, requests())
  end)

  it("kills when its task is cancelled in the body", function()
    local id
    local task = e2b.spawn(function()
      return Sandbox.with(nil, function(sandbox)
        id = sandbox.sandbox_id
        return e2b.sleep(60)
      end)
    end)
    support.wait_for(function()
      e2b.sleep(0.01)
      return id
    end, 5, "the sandbox")
    task:cancel()
    task:wait(10)
    assert.equal("cancelled", task.state)
    assert.is_false(alive(id))
  end)

  it("kills when its task is cancelled while the sandbox is made", function()
    server:set({ latency = 0.2 })
    local called = false
    local task = e2b.spawn(function()
      return Sandbox.with({ metadata = { spec = "cancelled" } }, function() called = true end)
    end)
    support.wait_for(function()
      e2b.sleep(0.01)
      return #server:requests() > 0
    end, 5, "the create")
    task:cancel()
    local value, _, err = task:wait(10)
    server:set({ latency = false })
    assert.is_nil(value)
    assert.equal("cancelled", err.kind)
    assert.is_false(called)
    local seen = requests()
    assert.equal("POST /v2/sandboxes", seen[1])
    assert.matches("^DELETE /sandboxes/", seen[2])
    assert.same({}, assert(Sandbox.list({ metadata = { spec = "cancelled" } }):all()))
  end)

  it("kills all when a member of map raises and one is cancelled", function()
    local results = e2b.map({ 1, 2, 3 }, function(n)
      return Sandbox.with({ metadata = { spec = "map" } }, function(sandbox)
        if n == 1 then error("one") end
        if n == 2 then return e2b.sleep(60) end
        return sandbox.sandbox_id
      end)
    end, { timeout = 1.5 })
    assert.is_false(results[1].ok)
    assert.is_false(results[2].ok)
    assert.is_true(results[3].ok)
    assert.same({}, assert(Sandbox.list({ metadata = { spec = "map" } }):all()))
  end)

  it("names a sandbox that could not be killed, to the logger and on stderr, and doesn't raise", function()
    local result = support.run([[
      local e2b = require("e2b")
      local events = {}
      local client = assert(e2b.client({ retries = 0, logger = function(event) events[#events + 1] = event end }))
      local id
      local value = client.Sandbox.with(nil, function(sandbox)
        id = sandbox.sandbox_id
        sandbox.sandbox_id = "i00000000000000000000/.."
        return "value"
      end)
      assert(value == "value")
      local last = events[#events]
      print(last.message)
      client.Sandbox.kill(id)
    ]], { env = server.env })
    -- an id that can't be is answered 400
    assert.equal(0, result.code, result.err)
    assert.matches("i00000000000000000000/.. could not be killed", result.err, 1, true)
    assert.matches("i00000000000000000000/.. could not be killed", result.out, 1, true)
  end)

  if (loadstring or load)("local x <close> = nil") then -- luacheck: ignore 113
    it("by a variable that is to be closed", function()
      local chunk = assert(load([[
        local Sandbox, note = ...
        local sandbox <close> = assert(Sandbox.create())
        note(sandbox)
        error("the body raises")
      ]]))
      local id
      local ok, message = pcall(chunk, Sandbox, function(sandbox) id = sandbox.sandbox_id end)
      assert.is_false(ok)
      assert.matches("the body raises", message, 1, true)
      assert.is_false(alive(id))
    end)

    it("by such a variable in a task that is cancelled", function()
      local chunk = assert(load([[
        local e2b, Sandbox, note = ...
        local sandbox <close> = assert(Sandbox.create())
        note(sandbox)
        return e2b.sleep(60)
      ]]))
      local id
      local task = e2b.spawn(function() return chunk(e2b, Sandbox, function(s) id = s.sandbox_id end) end)
      support.wait_for(function()
        e2b.sleep(0.01)
        return id
      end, 5, "the sandbox")
      task:cancel()
      task:wait(10)
      assert.is_false(alive(id))
    end)
  end

  it("is not what the garbage collector does", function()
    local id = create().sandbox_id
    made[1] = nil
    support.collect()
    assert.is_true(alive(id))
    assert.is_true(Sandbox.kill(id))
  end)
end)

describe("secrets", function()
  it("are in no field and in no text", function()
    local sandbox = create("base", { network = { allow_public_traffic = false } })
    local traffic = sandbox:traffic_access_token()
    assert.is_string(traffic)
    local envd = require("e2b.sandbox_book").tokens(sandbox)
    assert.is_string(envd)
    assert(sandbox:get_info())
    assert.equal(envd, (require("e2b.sandbox_book").tokens(sandbox)))
    local listed = assert(Sandbox.list():all())
    support.assert_no_secret({ traffic, envd, server.api_key }, sandbox, listed, client, Sandbox, e2b)
    assert.is_nil(assert(Sandbox.get_info(sandbox.sandbox_id)).envd_access_token)
  end)
end)

describe("printing", function()
  it("shows the short id, the name, the state and what is left", function()
    local sandbox = create("base", { timeout = 300 })
    assert.matches("^Sandbox%(" .. sandbox.sandbox_id:sub(1, 6) .. "…, base, running, [45]m%d%ds left%)$", tostring(sandbox))
    assert(sandbox:pause())
    assert.matches("^Sandbox%(i%w+…, base, paused%)$", tostring(sandbox))
    assert(sandbox:kill())
    assert.matches("^Sandbox%(i%w+…, base, killed%)$", tostring(sandbox))
  end)

  it("survives what a server may send", function()
    local sandbox = create()
    sandbox.name, sandbox.state, sandbox.end_at = "a\27[31mb", "hibernating", nil
    assert.matches("a?[31mb, hibernating)", tostring(sandbox), 1, true)
    sandbox.template_id, sandbox.name, sandbox.state = nil, nil, nil
    assert.matches("^Sandbox%(i%w+…%)$", tostring(sandbox))
  end)
end)

it("nothing leaks", function()
  local function round()
    local sandbox = assert(Sandbox.create())
    sandbox:get_info()
    sandbox:pause()
    sandbox:resume()
    sandbox:is_running()
    sandbox:kill()
    sandbox:kill()
  end
  round()
  local before = support.snapshot()
  for _ = 1, 5 do round() end
  support.assert_no_leak(before)
end)
