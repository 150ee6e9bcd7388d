-- What Sandbox.create puts on the wire, and what it refuses before anything is sent. The peer records real requests.
local support = require("spec.support.support")
local peer = require("spec.support.peer")
local core = require("e2b.core")
local e2b = require("e2b")

local KEY = "e2b_" .. ("0123456789"):rep(4)
local ID = "i0123456789abcdefghij"
local MADE = '{"sandboxID":"' .. ID .. '","templateID":"base-id","alias":"base","clientID":"c","envdVersion":"0.2.0"}'

describe("Sandbox.create", function()
  local server, client, Sandbox

  setup(function()
    server = peer.answers({ { status = 201, body = MADE, headers = { ["Content-Type"] = "application/json" } } })
    client = assert(e2b.client({ api_url = server.url, api_key = KEY, getenv = function() end }))
    Sandbox = client.Sandbox
  end)

  teardown(function()
    e2b.close()
    server:stop()
  end)

  before_each(function() server:forget() end)

  -- The request that a create with these options makes, its body decoded.
  local function sent(...)
    assert(Sandbox.create(...))
    local requests = server:requests()
    assert.equal(1, #requests)
    return assert(core.json_decode(requests[1].body)), requests[1]
  end

  local function refused(pattern, ...)
    local ok, message = pcall(Sandbox.create, ...)
    assert.is_false(ok, "nothing was raised")
    assert.matches(pattern, message, 1, true)
    assert.matches("sandbox_create_spec.lua:%d+: ", message)
    assert.equal(0, server:count())
  end

  describe("sends only what was given", function()
    it("a bare create", function()
      local body, request = sent()
      assert.same({ templateID = "base" }, body)
      assert.equal("POST", request.method)
      assert.equal("/v2/sandboxes", request.path)
      assert.equal('{"templateID":"base"}', request.body)
    end)

    it("the template as an argument, as an option, or neither", function()
      assert.same({ templateID = "ns/name:tag" }, sent("ns/name:tag"))
      server:forget()
      assert.same({ templateID = "mine", timeout = 60 }, sent({ template = "mine", timeout = 60 }))
      server:forget()
      assert.same({ templateID = "base", timeout = 60 }, sent(nil, { timeout = 60 }))
    end)

    it("the simple options", function()
      local body, request = sent("base", {
        timeout = 300, metadata = { job = "42", ["a b"] = "ü" }, envs = { PATH = "/bin" },
        allow_internet_access = false, secure = true,
      })
      assert.same({
        templateID = "base", timeout = 300, metadata = { job = "42", ["a b"] = "ü" }, envVars = { PATH = "/bin" },
        allow_internet_access = false,
      }, body)
      assert.matches('"timeout":300[,}]', request.body)
    end)

    it("seconds as whole ones, rounded up", function()
      local _, request = sent("base", { timeout = 0.001 })
      assert.matches('"timeout":1[,}]', request.body)
      server:forget()
      _, request = sent("base", { timeout = 59.5 })
      assert.matches('"timeout":60[,}]', request.body)
    end)

    it("empty maps as objects", function()
      local _, request = sent("base", { metadata = {}, envs = {} })
      assert.matches('"metadata":{}', request.body, 1, true)
      assert.matches('"envVars":{}', request.body, 1, true)
    end)

    it("never a call's own options", function()
      assert.same({ templateID = "base" }, sent("base", { request_timeout = 5, connect_timeout = 2, retries = 0 }))
    end)

    it("leaves the caller's tables alone", function()
      local opts = { metadata = { a = "b" }, network = { allow_out = { "1.1.1.1" } } }
      sent("base", opts)
      assert.same({ metadata = { a = "b" }, network = { allow_out = { "1.1.1.1" } } }, opts)
    end)
  end)

  describe("lifecycle", function()
    local function lifecycle(value)
      server:forget()
      local body = sent("base", { lifecycle = value })
      body.templateID = nil
      return body
    end

    it("follows the official table", function()
      assert.same({}, lifecycle(nil))
      assert.same({}, lifecycle({}))
      assert.same({ autoPause = false }, lifecycle({ on_timeout = "kill" }))
      assert.same({ autoPause = true }, lifecycle({ on_timeout = "pause" }))
      assert.same({ autoPause = true }, lifecycle({ on_timeout = { action = "pause" } }))
      assert.same({ autoPause = true, autoPauseMemory = false },
        lifecycle({ on_timeout = { action = "pause", keep_memory = false } }))
      assert.same({ autoPause = true, autoPauseMemory = true },
        lifecycle({ on_timeout = { action = "pause", keep_memory = true } }))
      assert.same({ autoPause = true, autoResume = { enabled = true } },
        lifecycle({ on_timeout = "pause", auto_resume = true }))
      assert.same({ autoPause = false, autoResume = { enabled = false } },
        lifecycle({ on_timeout = "kill", auto_resume = false }))
      assert.same({ autoResume = { enabled = false } }, lifecycle({ auto_resume = false }))
    end)

    it("refuses what can't be meant, before any request", function()
      refused("lifecycle.on_timeout.keep_memory", "base",
        { lifecycle = { on_timeout = { action = "kill", keep_memory = true } } })
      refused("lifecycle.auto_resume", "base", { lifecycle = { auto_resume = true } })
      refused("lifecycle.auto_resume", "base", { lifecycle = { on_timeout = "kill", auto_resume = true } })
      refused("lifecycle.auto_resume", "base",
        { lifecycle = { on_timeout = { action = "pause", keep_memory = false }, auto_resume = true } })
      refused("lifecycle.on_timeout must be \"pause\" or \"kill\", got \"stop\"", "base",
        { lifecycle = { on_timeout = "stop" } })
      refused("did you mean lifecycle = { on_timeout = \"pause\" }?", "base", { auto_pause = true })
      refused("lifecycle = { on_timeout = \"pause\", auto_resume = true }", "base", { autoResume = true })
      refused("lifecycle.on_timeout.action must be", "base", { lifecycle = { on_timeout = { action = "stop" } } })
      refused("lifecycle.on_timeout.action is missing", "base", { lifecycle = { on_timeout = {} } })
      refused("'ontimeout'", "base", { lifecycle = { ontimeout = "pause" } })
      refused("lifecycle.auto_resume must be a boolean", "base", { lifecycle = { auto_resume = "yes" } })
      refused("lifecycle must be a table", "base", { lifecycle = "pause" })
    end)
  end)

  describe("network", function()
    local function network(value, more)
      server:forget()
      local opts = more or {}
      opts.network = value
      return sent("base", opts).network
    end

    it("passes every field on under its wire name", function()
      assert.same({
        allowPublicTraffic = false, allowOut = { "1.1.1.1", "*.example.com" }, denyOut = { "0.0.0.0/0" },
        egressProxy = { address = "proxy.example.com:1080", username = "u", password = "p" },
        maskRequestHost = "localhost:${PORT}", httpsPorts = { 8443 },
        rules = { ["api.example.com"] = { { transform = { headers = { ["X-A"] = "1" } } } } },
      }, network({
        allow_public_traffic = false, allow_out = { "1.1.1.1", "*.example.com" }, deny_out = { "0.0.0.0/0" },
        egress_proxy = { address = "proxy.example.com:1080", username = "u", password = "p" },
        mask_request_host = "localhost:${PORT}", https_ports = { 8443 },
        rules = { ["api.example.com"] = { { transform = { headers = { ["X-A"] = "1" } } } } },
      }))
    end)

    it("keeps what is the user's as it is", function()
      assert.same({ rules = { allow_out = { { transform = { headers = { egress_proxy = "x" } } } } } },
        network({ rules = { allow_out = { { transform = { headers = { egress_proxy = "x" } } } } } }))
    end)

    it("calls functions for lists with all_traffic and the rules", function()
      local result = network({
        rules = { ["a.example.com"] = { {} }, ["b.example.com"] = { {} } },
        deny_out = function(context) return { context.all_traffic } end,
        allow_out = function(context)
          local domains = {}
          for domain in pairs(context.rules) do domains[#domains + 1] = domain end
          table.sort(domains)
          return domains
        end,
      })
      assert.same({ "0.0.0.0/0" }, result.denyOut)
      assert.same({ "a.example.com", "b.example.com" }, result.allowOut)
    end)

    it("calls transform functions once, with a placeholder for each token", function()
      local calls = 0
      local result = network({
        rules = { ["api.example.com"] = { { transform = function(context)
          calls = calls + 1
          return { headers = { Authorization = "Bearer " .. context.iam.tokens.aws } }
        end } } },
      }, { iam = { tokens = { aws = { audience = "sts", token_type = "JWT-SVID" } } } })
      assert.equal(1, calls)
      assert.equal("Bearer ${e2b.identity.tokens.aws}",
        result.rules["api.example.com"][1].transform.headers.Authorization)
    end)

    it("refuses what can't be meant", function()
      refused("iam.tokens.nope", "base", { network = { rules = { d = { { transform = function(context)
        return { headers = { a = context.iam.tokens.nope } }
      end } } } } })
      refused("must return a table", "base", { network = { rules = { d = { { transform = function() end } } } } })
      refused("must return a list", "base", { network = { allow_out = function() return "1.1.1.1" end } })
      refused("network.allow_out must be a table", "base", { network = { allow_out = "1.1.1.1" } })
      refused("network.allow_out[2] must be a string", "base", { network = { allow_out = { "1.1.1.1", 2 } } })
      refused("network.deny_out must be a list", "base", { network = { deny_out = { all = "0.0.0.0/0" } } })
      refused("network.egress_proxy.address must be a string", "base", { network = { egress_proxy = {} } })
      refused("network.rules.d must be a list of rules", "base", { network = { rules = { d = { transform = {} } } } })
      refused("'allow_outs'", "base", { network = { allow_outs = {} } })
      refused("network.https_ports[1] must be a number", "base", { network = { https_ports = { "443" } } })
    end)
  end)

  describe("iam and volumes", function()
    it("sends tokens under their names, and nothing for none", function()
      assert.same({ tokens = { ["my token"] = { audience = "a", tokenType = "JWT-SVID" } } },
        sent("base", { iam = { tokens = { ["my token"] = { audience = "a", token_type = "JWT-SVID" } } } }).iam)
      server:forget()
      assert.same({ templateID = "base" }, sent("base", { iam = { tokens = {} } }))
      server:forget()
      assert.same({ templateID = "base" }, sent("base", { iam = {} }))
    end)

    it("refuses broken tokens", function()
      refused("iam.tokens.a.audience must be a string", "base", { iam = { tokens = { a = { token_type = "x" } } } })
      refused("iam.tokens.a.token_type must be a string", "base", { iam = { tokens = { a = { audience = "x" } } } })
      for _, name in ipairs({ "", "a{", "a}", "a\n" }) do
        refused("without braces", "base", { iam = { tokens = { [name] = { audience = "x", token_type = "y" } } } })
      end
    end)

    it("sends mounts as a list, by volume or by name", function()
      local body = sent("base", { volume_mounts = { ["/b"] = { name = "beta" }, ["/a"] = "alpha" } })
      assert.same({ { name = "alpha", path = "/a" }, { name = "beta", path = "/b" } }, body.volumeMounts)
      server:forget()
      refused('volume_mounts["/a"] must be a volume or its name', "base", { volume_mounts = { ["/a"] = 1 } })
      refused("maps a path to a volume", "base", { volume_mounts = { "alpha" } })
    end)
  end)

  describe("raises a caller's mistake at the caller's line", function()
    it("with the form that works", function()
      refused('write metadata.job = "42"', "base", { metadata = { job = 42 } })
      refused('write envs["MY-VAR"] = "true"', "base", { envs = { ["MY-VAR"] = true } })
      refused("metadata has a key that is no string: 1", "base", { metadata = { "a" } })
      refused("metadata must be a table", "base", { metadata = "a=b" })
      refused("timeout must be a number of seconds, got string", "base", { timeout = "300" })
      refused("timeout must be between 0 and 2147483647", "base", { timeout = -1 })
      refused("timeout must be between 0 and 2147483647", "base", { timeout = 0 / 0 })
      refused("timeout must be between 0 and 2147483647", "base", { timeout = math.huge })
      refused("allow_internet_access must be a boolean", "base", { allow_internet_access = "no" })
      refused("secure = false is not possible", "base", { secure = false })
      refused("'timout'", "base", { timout = 60 })
      refused("did you mean 'timeout'", "base", { timout = 60 })
      refused("the template must be a string, got number", 42)
      refused("template must be a string, got number", { template = 42 })
      refused("the template is empty", "")
      refused("the template is given twice", "base", { template = "other" })
      refused("the first argument is a table already", { timeout = 60 }, { timeout = 60 })
    end)

    it("names the line of the call itself", function()
      local line
      local ok, message = pcall(function()
        line = debug.getinfo(1, "l").currentline + 1
        Sandbox.create("base", { metadata = { job = 42 } })
      end)
      assert.is_false(ok)
      assert.matches(":" .. line .. ": ", message, 1, true)
    end)

    it("when it is called like a method", function()
      refused("write Sandbox.create(template", Sandbox)
      local sandbox = assert(Sandbox.create())
      server:forget()
      refused("write Sandbox.create(template", sandbox)
    end)
  end)

  describe("on a service without the v2 route", function()
    local old, old_client

    setup(function()
      old = peer.start([[
        conn:serve(function(request)
          if request.path == "/sandboxes" then
            conn:answer({ status = 201, body = ']] .. MADE .. [[' })
          else
            conn:answer({ status = 404, body = '{"code":404,"message":"no such route"}' })
          end
        end)
      ]])
      old_client = assert(e2b.client({ api_url = old.url, api_key = KEY, getenv = function() end }))
    end)

    teardown(function() old:stop() end)

    it("asks for a secured sandbox of 300 seconds, and remembers", function()
      assert(old_client.Sandbox.create())
      assert(old_client.Sandbox.create("base", { timeout = 60, metadata = { a = "b" } }))
      local requests = old:requests()
      assert.equal(3, #requests)
      assert.equal("/v2/sandboxes", requests[1].path)
      assert.same({ templateID = "base", secure = true, timeout = 300 }, core.json_decode(requests[2].body))
      assert.equal("/sandboxes", requests[3].path)
      assert.same({ templateID = "base", secure = true, timeout = 60, metadata = { a = "b" } },
        core.json_decode(requests[3].body))
    end)
  end)

  describe("with an answer that can't be used", function()
    local function answering(envd)
      local handler = [[
        conn:serve(function(request)
          if request.method == "DELETE" then conn:answer({ status = 204 })
          else conn:answer({ status = 201, body = ']] .. MADE:gsub("0%.2%.0", envd) .. [[' }) end
        end)
      ]]
      return peer.start(handler)
    end

    it("kills a sandbox whose envd is older than 0.1.0, and says so", function()
      local ancient = answering("0.0.9")
      local made = assert(e2b.client({ api_url = ancient.url, api_key = KEY, getenv = function() end }))
      local sandbox, message, err = made.Sandbox.create("old")
      assert.is_nil(sandbox)
      assert.equal("unsupported", err.kind)
      assert.equal(ID, err.sandbox_id)
      assert.matches("envd 0.0.9", message, 1, true)
      assert.matches("killed", message, 1, true)
      local requests = ancient:requests()
      assert.equal(2, #requests)
      assert.equal("DELETE", requests[2].method)
      assert.equal("/sandboxes/" .. ID, requests[2].path)
      ancient:stop()
    end)

    it("compares versions as versions", function()
      local recent = answering("0.10.0")
      local made = assert(e2b.client({ api_url = recent.url, api_key = KEY, getenv = function() end }))
      assert(made.Sandbox.create("new"))
      assert.equal(1, recent:count())
      recent:stop()
    end)
  end)

  it("leaves nothing behind", function()
    assert(Sandbox.create())
    local before = support.snapshot()
    for _ = 1, 20 do assert(Sandbox.create("base", { metadata = { a = "b" } })) end
    support.assert_no_leak(before)
  end)
end)
