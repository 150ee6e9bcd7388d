-- The eight platform tools as an agent uses them.
local e2b = require("e2b")
local cjson = require("cjson")
local support = require("spec.support.support")
local local_server = require("e2b.server")
local platform = require("spec.support.platform")
local peer = require("spec.support.peer")

describe("tools", function()
  local server, client, tools

  setup(function()
    server = local_server.start()
    client = assert(e2b.client({ api_url = server.url, api_key = server.api_key, getenv = function() end }))
    tools = client.tools
  end)

  teardown(function()
    e2b.close()
    server:stop()
  end)

  before_each(function() server:clear() end)

  local function plain(value, path)
    path = path or "result"
    local kind = type(value)
    if kind == "table" then
      assert.is_nil(getmetatable(value), path .. " has a metatable")
      for key, item in pairs(value) do plain(item, path .. "." .. tostring(key)) end
    else
      assert.is_true(kind == "string" or kind == "number" or kind == "boolean", path .. " is a " .. kind)
    end
  end

  local function done(name, args)
    local result = assert(tools.call(name, args))
    plain(result)
    assert.is_string(cjson.encode(result))
    return result
  end

  local function refused(pattern, name, args)
    local result, message, err = tools.call(name, args)
    assert.is_nil(result)
    assert.equal("invalid_argument", err.kind)
    assert.equal("no", err.sent)
    assert.matches(pattern, message, 1, true)
    assert.equal(0, #server:requests())
  end

  it("are eight, named as E2B names them", function()
    local seen = {}
    for i, tool in ipairs(tools) do seen[i] = { tool.name, tool.title, tool.access } end
    assert.same({
      { "list_sandboxes", "List Sandboxes", "read" },
      { "create_sandbox", "Create Sandbox", "write" },
      { "get_sandbox", "Get Sandbox", "read" },
      { "kill_sandbox", "Kill Sandbox", "write" },
      { "list_templates", "List Templates", "read" },
      { "pause_sandbox", "Pause Sandbox", "write" },
      { "resume_sandbox", "Resume Sandbox", "write" },
      { "set_sandbox_timeout", "Set Sandbox Timeout", "write" },
    }, seen)
    assert.is_string(tostring(tools))
  end)

  it("can be handed to a model as JSON", function()
    local decoded = cjson.decode(cjson.encode(tools))
    assert.equal(8, #decoded)
    for _, tool in ipairs(decoded) do
      assert.is_true(#tool.description > 20)
      local schema = tool.input_schema
      assert.equal("object", schema.type)
      assert.is_false(schema.additionalProperties)
      for name, property in pairs(schema.properties) do
        assert.is_string(property.type, name)
        assert.is_true(property.description ~= nil or property.properties ~= nil, tool.name .. "." .. name)
      end
      for _, name in ipairs(schema.required or {}) do assert.is_table(schema.properties[name]) end
    end
  end)

  it("do what they say", function()
    local templates = done("list_templates")
    assert.is_true(templates.count > 1)
    assert.is_string(templates.templates[1].template_id)
    assert.matches("^%d+%-%d+%-%d+T", templates.templates[1].created_at)

    local made = done("create_sandbox", {
      template = "base", timeout = 120, metadata = { by = "agent" }, envs = { A = "b" },
      lifecycle = { on_timeout = "pause" }, network = { deny_out = { "0.0.0.0/0" } },
    })
    local id = made.sandbox_id
    assert.equal("running", made.state)
    assert.is_true(made.expires_in > 100)
    assert.matches("^%d+%-%d+%-%d+T%d+:%d+:%d+Z$", made.end_at)

    assert.equal("pause", done("get_sandbox", { sandbox_id = id }).lifecycle.on_timeout)
    local listed = done("list_sandboxes", { state = { "running" }, metadata = { by = "agent" }, limit = 5 })
    assert.equal(1, listed.count)
    assert.equal(id, listed.sandboxes[1].sandbox_id)
    assert.is_nil(listed.next_token)

    assert.same({ sandbox_id = id, timeout = 300 }, done("set_sandbox_timeout", { sandbox_id = id, timeout = 300 }))
    assert.same({ sandbox_id = id, state = "paused", paused_now = true }, done("pause_sandbox", { sandbox_id = id }))
    assert.is_false(done("pause_sandbox", { sandbox_id = id }).paused_now)
    assert.equal("running", done("resume_sandbox", { sandbox_id = id, timeout = 90 }).state)
    assert.same({ sandbox_id = id, killed = true }, done("kill_sandbox", { sandbox_id = id }))
    assert.same({ sandbox_id = id, killed = false }, done("kill_sandbox", { sandbox_id = id }))
  end)

  it("page", function()
    local one = done("list_templates", { limit = 1 })
    assert.equal(1, one.count)
    local two = done("list_templates", { limit = 1, next_token = one.next_token })
    assert.not_equal(one.templates[1].template_id, two.templates[1].template_id)
  end)

  it("show no token", function()
    local made = done("create_sandbox", { network = { allow_public_traffic = false } })
    local sandbox = assert(client.Sandbox.get_info(made.sandbox_id))
    local envd = require("e2b.sandbox_book").tokens(sandbox)
    assert.is_string(envd)
    support.assert_no_secret({ envd, server.api_key }, made, done("get_sandbox", { sandbox_id = made.sandbox_id }))
    done("kill_sandbox", { sandbox_id = made.sandbox_id })
  end)

  it("keep what the service knows of secrets: header values of rules, a proxy's password, unknown fields", function()
    local row = [[{"templateID":"t","sandboxID":"i1","clientID":"c","envdVersion":"0.2.0","state":"running",
      "startedAt":"2026-01-02T03:04:05Z","endAt":"2036-01-02T03:09:05Z","cpuCount":1,"memoryMB":1,"diskSizeMB":1,
      "metadata":{},"newToken":"hidden-1","network":{"denyOut":["0.0.0.0/0"],"allowPublicTraffic":false,
      "rules":{"api.example.com":[{"transform":{"headers":{"Authorization":"Bearer hidden-2","X-A":"hidden-3"}}}]},
      "egressProxy":{"address":"me:hidden-4@proxy.example:1080","username":"hidden-5","password":"hidden-6"}}}]]
    local leaky = peer.start("conn:serve(function(request) conn:respond(200, request.path:find('^/v2') and '[' .. "
      .. support.serialize(row) .. " .. ']' or " .. support.serialize(row) .. ") end)")
    local its = platform.client_of(leaky).tools
    local got, listed = assert(its.call("get_sandbox", { sandbox_id = "i1" })), assert(its.call("list_sandboxes"))
    leaky:stop()
    support.assert_no_secret({ "hidden" }, got, listed)
    assert.is_nil(cjson.encode({ got, listed }):find("hidden", 1, true))
    assert.same({
      allow_public_traffic = false, deny_out = { "0.0.0.0/0" },
      rules = { ["api.example.com"] = { { header_names = { "Authorization", "X-A" } } } },
      egress_proxy = { address = "proxy.example:1080" },
    }, got.network)
  end)

  it("answer one value when all is well, so that encode(tools.call(…)) is right", function()
    assert.equal(1, select("#", tools.call("list_templates")))
    assert.is_string(cjson.encode(tools.call("list_sandboxes")))
    assert.equal(3, select("#", tools.call("get_sandbox", {})))
  end)

  it("raise at the caller's line when called with a colon", function()
    platform.raises("write tools.call(name, args), with a dot", tools.call, tools, "list_sandboxes", {})
  end)

  it("leave to the caller what is nobody's argument: a signal, a raise of another's", function()
    local start = require("e2b.sandbox_start")
    local prepare, send = start.prepare, start.send
    local function with(name, fn)
      start[name] = fn
      local ok, raised = pcall(tools.call, "create_sandbox", {})
      start.prepare, start.send = prepare, send
      assert.is_false(ok)
      return raised
    end
    assert.equal("interrupted!", with("send", function() error("interrupted!", 0) end))
    assert.equal("x.lua:1: interrupted!", with("prepare", function() error("x.lua:1: interrupted!", 0) end))
    assert.matches("attempt to", with("prepare", function() local t = nil; return t.x end))
    local thrown = {}
    assert.equal(thrown, with("send", function() error(thrown) end))
    assert.equal(0, #server:requests())
  end)

  it("let Ctrl-C end the program", function()
    local silent = peer.start("conn:serve(function() end)")
    local result = support.run([[
      local client = require("e2b").client({ api_key = "k", api_url = arg[1], getenv = function() end })
      os.execute("(sleep 0.3; kill -INT " .. require("e2b.core").getpid() .. ") &")
      print("went on", client.tools.call("create_sandbox", {}))
    ]], { args = { silent.url }, timeout = 10 })
    silent:stop()
    assert.equal("", result.out)
    assert.matches("interrupted!", result.err, 1, true)
  end)

  it("take nothing that doesn't fit the schema", function()
    refused("there is no tool make_sandbox; there are: list_sandboxes", "make_sandbox", {})
    refused("there is no tool creat_sandbox (did you mean create_sandbox?); there are:", "creat_sandbox", {})
    refused("there is no tool setSandboxTimeout (did you mean set_sandbox_timeout?);", "setSandboxTimeout", {})
    refused("the name of a tool must be a string, got table; there are:", {}, {})
    refused("get_sandbox: sandbox_id is missing; id is unknown (did you mean sandbox_id?)", "get_sandbox", { id = "x" })
    refused("get_sandbox: sandbox_id is missing", "get_sandbox", {})
    refused("get_sandbox: sandbox_id is missing", "get_sandbox")
    refused("sandbox_id must not be empty", "kill_sandbox", { sandbox_id = "" })
    refused("timeout must be an integer, got string \"soon\"", "set_sandbox_timeout",
      { sandbox_id = "i1", timeout = "soon" })
    refused("timeout must be at least 1, got 0", "create_sandbox", { timeout = 0 })
    refused("metadata.job must be a string, got number 1", "create_sandbox", { metadata = { job = 1 } })
    refused("lifecycle.on_timeout must be one of", "create_sandbox", { lifecycle = { on_timeout = "stop" } })
    refused("request_timeout is unknown", "create_sandbox", { request_timeout = 1 })
    refused("limit must be at most 100, got 101", "list_sandboxes", { limit = 101 })
    refused("the input must be an object", "list_sandboxes", "all")
  end)

  it("answer what no schema can forbid, without raising", function()
    refused("lifecycle.auto_resume = true needs on_timeout", "create_sandbox", { lifecycle = { auto_resume = true } })
    refused("started_after is no RFC 3339 time", "list_sandboxes", { started_after = "yesterday" })
    local _, message = tools.call("list_sandboxes", { started_after = "yesterday" })
    assert.is_nil(message:find(".lua:", 1, true))
  end)

  it("answer failures of the service", function()
    local result, message, err = tools.call("get_sandbox", { sandbox_id = "i00000000000000000000" })
    assert.is_nil(result)
    assert.is_string(message)
    assert.equal("not_found", err.kind)
    for name, args in pairs({
      resume_sandbox = {}, pause_sandbox = {}, set_sandbox_timeout = { timeout = 5 },
    }) do
      args.sandbox_id = "i00000000000000000000"
      result, message, err = tools.call(name, args)
      assert.is_nil(result)
      assert.is_string(message)
      assert.equal("not_found", err.kind)
    end
    server:set({ fail_next = { status = 500, path = "/v2/templates" } })
    result, message, err = tools.call("list_templates")
    assert.is_nil(result)
    assert.is_string(message)
    assert.equal("server", err.kind)
  end)
end)
