-- The local server: create, get and kill, with the service's validation.
local local_server = require("e2b.server")
local http_client = require("spec.support.http_client")
local json = require("e2b.server.json")

describe("sandboxes of the local server", function()
  local server, client

  setup(function()
    server = local_server.start({ max_timeout = 7200 })
    client = http_client.new(server)
  end)

  teardown(function()
    server:stop()
  end)

  local function expect(answer, status, text)
    assert.equal(status, answer.status, answer.body)
    assert.equal(status, answer.json.code)
    if text then
      assert.matches(text, answer.json.message)
    end
    return answer.json
  end

  local function refused(fields, text)
    local body = { templateID = "base" }
    for name, value in pairs(fields) do
      body[name] = value
    end
    return expect(client:post("/v2/sandboxes", body), 400, text)
  end

  local function life(id)
    local clock = require("e2b.server.clock")
    local info = client:info(id)
    return (clock.parse(info.endAt) - clock.parse(info.startedAt)) / 1000000
  end

  it("are created by v2 with 300 seconds and always a token", function()
    local answer = client:post("/v2/sandboxes", { templateID = "base", secure = false })
    assert.equal(201, answer.status)
    local sandbox = answer.json
    assert.matches("^i[a-z0-9]+$", sandbox.sandboxID)
    assert.equal(21, #sandbox.sandboxID)
    assert.equal("base", sandbox.alias)
    assert.is_string(sandbox.clientID)
    assert.equal("0.6.4", sandbox.envdVersion)
    assert.matches("^%x+$", sandbox.envdAccessToken)
    assert.equal(json.null, answer.raw.domain)
    assert.equal(json.null, answer.raw.trafficAccessToken)
    assert.equal(300, life(sandbox.sandboxID))
  end)

  it("are created by v1 with 15 seconds and a token only when secured", function()
    local plain = client:post("/sandboxes", { templateID = "base" })
    assert.equal(201, plain.status)
    assert.is_nil(plain.json.envdAccessToken)
    assert.equal(15, life(plain.json.sandboxID))
    assert.is_string(client:post("/sandboxes", { templateID = "base", secure = true }).json.envdAccessToken)
  end)

  it("show everything they were made with", function()
    local metadata = { ["a b"] = "ü&=%+", emoji = "😀", empty = "", ["line\nbreak"] = "tab\t" }
    local id, answer = client:create({
      timeout = 60, metadata = metadata, envVars = { A = "1" }, autoPause = true, autoResume = { enabled = true },
      allow_internet_access = false, mcp = { anything = json.array({ 1.5 }) },
      network = {
        allowOut = json.array({ "10.0.0.0/8", "*.example.com" }), denyOut = json.array({ "0.0.0.0/0" }),
        allowPublicTraffic = false, httpsPorts = json.array({ 8443 }), maskRequestHost = "localhost:${PORT}",
        egressProxy = { address = "proxy.example.com:1080", username = "me", password = "hush" },
        rules = { ["API.example.com"] = json.array({ { transform = { headers = { ["X-A"] = "b" } } } }) },
      },
      iam = { tokens = { aws = { audience = "sts", tokenType = "JWT-SVID" } } },
    })
    assert.is_string(answer.json.trafficAccessToken)
    local shown = client:get("/sandboxes/" .. id)
    local info = shown.json
    assert.same(metadata, info.metadata)
    assert.equal(answer.json.templateID, info.templateID)
    assert.equal(answer.json.envdAccessToken, info.envdAccessToken)
    assert.same({ onTimeout = "pause", autoResume = true }, info.lifecycle)
    assert.is_false(info.allowInternetAccess)
    assert.equal("running", info.state)
    assert.same({ 2, 512, 5120 }, { info.cpuCount, info.memoryMB, info.diskSizeMB })
    assert.same({ "10.0.0.0/8", "*.example.com" }, info.network.allowOut)
    assert.same({ address = "proxy.example.com:1080", username = "me" }, info.network.egressProxy)
    assert.is_nil(shown.body:find("hush", 1, true))
    assert.is_table(info.network.rules["api.example.com"])
    assert.same({ 8443 }, info.network.httpsPorts)
    assert.matches('"cpuCount":2,', shown.body, 1, true)
    assert.matches("^%d+%-%d+%-%d+T%d+:%d+:%d+%.?%d*Z$", info.startedAt)
  end)

  it("leave out or null what was not given", function()
    local shown = client:get("/sandboxes/" .. client:create())
    for _, name in ipairs({ "metadata", "network", "volumeMounts" }) do
      assert.is_nil(shown.raw[name])
    end
    assert.equal(json.null, shown.raw.allowInternetAccess)
    assert.same({ onTimeout = "kill", autoResume = false }, shown.json.lifecycle)
    assert.matches('"metadata":{}', client:get("/sandboxes/" .. client:create({ metadata = {} })).body, 1, true)
  end)

  it("refuse bodies that do not fit the schema", function()
    refused({ timeout = "60" }, "^validation error: .*/timeout.*integer")
    refused({ timeout = -1 }, "at least 0")
    refused({ timeout = 2 ^ 31 }, "at most 2147483647")
    refused({ metadata = { a = 1 } }, "/metadata/a.*must be a string")
    refused({ metadata = json.array({}) }, "/metadata.*must be an object")
    refused({ metadata = json.null }, "not nullable")
    refused({ network = { allowOut = {} } }, "/network/allowOut.*must be an array")
    refused({ autoPause = "yes" }, "must be a boolean")
    refused({ autoResume = {} }, "enabled.*missing")
    refused({ volumeMounts = json.array({ { name = "x" } }) }, "/volumeMounts/0/path")
    refused({ templateID = 5 }, "/templateID.*string")
    expect(client:post("/v2/sandboxes", {}), 400, "templateID.*missing")
    expect(client:post("/v2/sandboxes", json.array({})), 400, "must be an object")
    -- Null is allowed where the schema says so.
    assert.equal(201, client:post("/v2/sandboxes", { templateID = "base", mcp = json.null }).status)
  end)

  it("tell 300.0 from 300, and refuse what is not JSON", function()
    local function send(body, kind)
      return client:request("POST", "/v2/sandboxes",
        { body = body, headers = { ["Content-Type"] = kind or "application/json; charset=utf-8" } })
    end
    assert.equal(201, send('{"templateID":"base","timeout":300}').status)
    expect(send('{"templateID":"base","timeout":300.0}'), 400, "integer")
    expect(send('{"templateID":"base"'), 400, "^validation error")
    expect(send('{"templateID":"base"} x'), 400, "^validation error")
    expect(send(("["):rep(100000)), 400, "nested")
    expect(send(""), 400, "missing")
    expect(send('{"templateID":"base"}', "text/plain"), 400, "Content%-Type")
  end)

  it("refuse lives out of bounds", function()
    refused({ timeout = 0 }, "greater than 0")
    refused({ timeout = 7201 }, "cannot be greater than 2 hours")
    assert.equal(7200, life((client:create({ timeout = 7200 }))))
  end)

  it("refuse combinations the service refuses", function()
    refused({ autoPauseMemory = false }, "autoPause")
    refused({ autoPause = true, autoPauseMemory = false, autoResume = { enabled = true } }, "autoResume")
    expect(client:post("/sandboxes", { templateID = "base", network = { allowPublicTraffic = false } }), 400, "secure")
    refused({ iam = { tokens = { a = { audience = "x", tokenType = "JWT" } } } }, "JWT%-SVID")
    refused({ iam = { tokens = { a = { audience = "", tokenType = "JWT-SVID" } } } }, "audience")
    refused({ templateID = "legacy-python" }, "secured access")
    refused({ templateID = "no template!" }, "Invalid template reference")
    refused({ templateID = "" }, "Invalid template reference")
    -- The old template is fine for a sandbox that is not secured.
    assert.equal(201, client:post("/sandboxes", { templateID = "legacy-python" }).status)
  end)

  it("check network settings", function()
    local function network(settings, text)
      for name, value in pairs(settings) do
        if value[1] then
          settings[name] = json.array(value)
        end
      end
      return refused({ network = settings }, text)
    end
    network({ denyOut = { "example.com" } }, "example.com")
    network({ denyOut = { "1.2.3.256" } }, "1.2.3.256")
    network({ denyOut = { "1.2.3.0/33" } }, "1.2.3.0/33")
    network({ denyOut = { "fe80:::1" } }, "fe80")
    network({ allowOut = { "example.com" } }, "ALL_TRAFFIC")
    network({ allowOut = { "-bad-.com" }, denyOut = { "0.0.0.0/0" } }, "bad")
    network({ httpsPorts = { 49983 } }, "49983")
    network({ httpsPorts = { 70000 } }, "at most 65535")
    network({ egressProxy = { address = "nowhere" } }, "host:port")
    network({ egressProxy = { address = "127.0.0.1:80" } }, "public")
    network({ egressProxy = { address = "p.example:80", password = "x" } }, "username")
    network({ egressProxy = { address = "p.example:80", username = ("x"):rep(256) } }, "255")
    network({ rules = { ["*"] = json.array({}) } }, "Invalid domain")
    network({ rules = { ["a.b"] = json.array({ {}, {} }) } }, "Only one rule")
    local many = {}
    for i = 1, 11 do
      many["h" .. i .. ".example"] = json.array({})
    end
    network({ rules = many }, "at most 10")
    assert.is_string((client:create({ network = {
      denyOut = json.array({ "1.2.3.4", "2001:db8::/32", "::1", "0.0.0.0/0" }),
      allowOut = json.array({ "a.example", "*.b.example", "10.1.2.3" }),
      rules = { ["*.example.com"] = json.array({}) },
    } })))
  end)

  it("come from templates by id, name, namespace and tag", function()
    local function template(reference)
      return client:post("/v2/sandboxes", { templateID = reference })
    end
    local base = template("base").json.templateID
    for _, reference in ipairs({ base, "BASE", " base ", "base:default", base .. ":default" }) do
      assert.equal(base, template(reference).json.templateID, reference)
    end
    assert.equal(201, template("data-worker").status)
    assert.equal(201, template("local/data-worker:v2").status)
    expect(template("no-such-template"), 404, "template 'no%-such%-template' not found")
    expect(template("data-worker:v9"), 404, "tag 'v9'")
    -- Another team's template is as good as none.
    expect(template("other-team-secret"), 404, "not found")
    expect(template("another/other-team-secret"), 404, "not found")
  end)

  it("are killed once", function()
    local id = client:create()
    assert.equal(204, client:delete("/sandboxes/" .. id).status)
    expect(client:delete("/sandboxes/" .. id), 404, id)
    expect(client:get("/sandboxes/" .. id), 404, "doesn't exist or you don't have access")
  end)

  it("are found by `id-clientID` too; other ids are malformed or unknown", function()
    local id = client:create()
    assert.equal(id, client:info(id .. "-6532622b").sandboxID)
    for _, wrong in ipairs({
      "UPPER", "i_1", "a-b-c", "..", ".", "%2e%2e", "i%0d%0a", "%00", "%F0%9F%98%80", "a%2Fb",
    }) do
      expect(client:get("/sandboxes/" .. wrong), 400, "Invalid sandbox ID")
    end
    expect(client:get("/sandboxes/i00000000000000000000"), 404)
    assert.equal(404, client:get("/sandboxes/%zz").status)
  end)

  it("repeat the answer of an idempotency key", function()
    local function create(body, key)
      return client:post("/v2/sandboxes", body, { ["Idempotency-Key"] = key })
    end
    local first = create({ templateID = "base" }, "key-1")
    local again = create({ templateID = "base" }, "key-1")
    assert.equal(201, again.status)
    assert.equal(first.body, again.body)
    assert.not_equal(first.json.sandboxID, create({ templateID = "base" }, "key-2").json.sandboxID)
    assert.equal("idempotency_request_mismatch", create({ templateID = "desktop" }, "key-1").json.error_code)
    expect(create({ templateID = "base" }, "Key!"), 400)
    -- A failure is not kept.
    expect(create({ templateID = "nope" }, "key-3"), 404)
    assert.equal(201, create({ templateID = "base" }, "key-3").status)
  end)
end)
