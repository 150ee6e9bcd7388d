-- The way into a sandbox: where calls go, with which token, as which user, and what an old daemon can't do.
local exchange = require("spec.support.exchange")
local envd_peer = require("spec.support.envd_peer")
local platform = require("spec.support.platform")
local support = require("spec.support.support")
local envd = require("e2b.envd")
local e2b = require("e2b")

local raises = platform.raises
local watched = exchange.watch()

local function serve(source, options)
  options = options or {}
  options.watched = watched
  return envd_peer.start(source or "", options)
end

local LIST = "on.List = function() answer(200) end on.files = function() conn:respond(200, 'x') end"

local function listed(server)
  local items = assert(server.client.Sandbox.list():next_items())
  server:forget()
  return items[1]
end

describe("the link of a sandbox", function()
  it("is one and the same while it is used", function()
    local server = serve()
    local sandbox = server.sandbox()
    local link = envd.link(sandbox)
    assert.are.equal(link, envd.link(sandbox))
    assert.are.equal("i1", link.sandbox_id)
    assert.are.equal(sandbox, link.sandbox)
    assert.are.equal(sandbox.commands, sandbox.commands)
  end)

  it("is no field, and keeps nobody alive", function()
    local server = serve(LIST)
    local seen = setmetatable({}, { __mode = "k" })
    local function use()
      local sandbox = server.sandbox()
      seen[sandbox] = true
      seen[sandbox.commands] = true
      assert(sandbox.commands:list())
      for name, value in pairs(sandbox) do
        assert.is_falsy(name == "commands" or name == "files" or name == "link")
        support.assert_no_secret({ "tok-1" }, tostring(value))
      end
      support.assert_no_secret({ "tok-1" }, tostring(sandbox), tostring(sandbox.commands))
    end
    use()
    support.collect()
    assert.is_nil((next(seen)))
  end)

  it("outlives the name of the sandbox", function()
    local server = serve(LIST)
    local commands = server.sandbox().commands
    support.collect()
    assert(commands:list())
  end)

  it("sends the sandbox's id, port and token, and never the key", function()
    local server = serve(LIST, { client = { headers = { ["X-Mine"] = "1" } } })
    assert(server.sandbox().commands:list())
    local headers = envd_peer.messages(server, "List")[1].headers
    assert.are.equal("i1 49983 tok-1", headers["e2b-sandbox-id"] .. " " .. headers["e2b-sandbox-port"] .. " "
      .. headers["x-access-token"])
    assert.are.equal("1", headers["connect-protocol-version"])
    assert.is_nil(headers["x-api-key"])
    assert.is_nil(headers["x-mine"])
    assert.is_truthy(headers["user-agent"]:find("^e2b%-lua%-sdk/"))
  end)

  it("fetches the token that an item of a list comes without, once", function()
    local server = serve(LIST)
    local sandbox = listed(server)
    local estimated, state = sandbox.estimated, sandbox.state
    assert(sandbox.commands:list())
    assert(sandbox.commands:list())
    local lines = {}
    for i, request in ipairs(server:requests()) do lines[i] = request.method .. " " .. request.path end
    assert.are.same({ "GET /sandboxes/i1", "POST /process.Process/List", "POST /process.Process/List" }, lines)
    assert.are.equal("tok-1", server:requests()[2].headers["x-access-token"])
    assert.are.equal(tostring(estimated) .. state, tostring(sandbox.estimated) .. sandbox.state)
    assert.are.equal("tok-1", envd.link(sandbox):token("spec"))
  end)

  it("says why the token could not be had", function()
    local server = serve(LIST .. [[
      local serve = conn.serve
      function conn:serve(fn)
        return serve(self, function(received)
          if received.path == "/sandboxes/i1" then return self:respond(404, '{"code":404,"message":"not found"}') end
          return fn(received)
        end)
      end
    ]])
    local rows, message, err = listed(server).commands:list()
    assert.is_nil(rows)
    assert.are.equal("not_found sandbox", err.kind .. " " .. err.resource)
    assert.is_truthy(message:find("^sandbox%.commands:list: there is no sandbox \"i1\""), message)
    local run, _, run_err = listed(server).commands:run("true")
    assert.is_nil(run)
    assert.are.equal("not_found", run_err.kind)
  end)

  it("has one clock for both requests", function()
    local server = serve("on.List = function() conn:sleep(0.3) answer(200) end")
    local sandbox = listed(server)
    local _, _, err = sandbox.commands:list({ request_timeout = 0.1 })
    assert.are.equal("timeout", err.kind)
  end)

  it("takes the token of a later answer", function()
    local server = serve(LIST)
    local sandbox = server.sandbox()
    assert(sandbox.commands:list())
    require("e2b.sandbox_book").keep_tokens(sandbox, { envd_access_token = "tok-2" })
    assert(sandbox.commands:list())
    assert.are.equal("tok-2", envd_peer.messages(server, "List")[2].headers["x-access-token"])
  end)

  it("names the user the way each call does", function()
    local server = serve(LIST)
    local link = envd.link(server.sandbox())
    assert(link:call("process_list", { body = {} }, { user = "root" }, { operation = "spec" }))
    local args = { query = { path = "/f" } }
    assert(link:call("files_read", args, { user = "root" }, { operation = "spec" }))
    assert.are.equal("Basic cm9vdDo=", envd_peer.messages(server, "List")[1].headers.authorization)
    local requests = server:requests()
    local read = requests[#requests]
    assert.is_truthy(read.path:find("username=root", 1, true), read.path)
    assert.is_nil(read.headers.authorization)
    assert.is_nil(args.query.username)
    for _, user in ipairs({ "", "a:b", "a\n", 5 }) do
      raises("bad option 'user' for spec", function()
        link:call("process_list", { body = {} }, { user = user }, { operation = "spec" })
      end)
    end
  end)

  it("names the user to a daemon that has none of its own", function()
    local server = serve(LIST, { version = "0.3.9" })
    local link = envd.link(server.sandbox())
    assert(link:call("process_list", { body = {} }))
    assert(link:call("files_read", { query = { path = "/f" } }))
    assert.are.equal("Basic dXNlcjo=", envd_peer.messages(server, "List")[1].headers.authorization)
    local requests = server:requests()
    assert.is_truthy(requests[#requests].path:find("username=user", 1, true))
  end)

  it("knows what the daemon can do", function()
    local server = serve("", { version = "0.5.10" })
    local link = envd.link(server.sandbox())
    assert.is_true(link:at_least(0, 5, 10))
    assert.is_true(link:at_least(0, 5, 9))
    assert.is_true(link:at_least(0, 4, 99))
    assert.is_false(link:at_least(0, 5, 11))
    assert.is_false(link:at_least(0, 6, 0))
    assert.is_false(link:at_least(1, 0, 0))
    assert.is_true(link:gate("spec", "this", 0, 5, 0))
    local ok, message, err = link:gate("spec", "this", 0, 6, 2)
    assert.is_nil(ok)
    assert.are.equal("unsupported", err.kind)
    assert.are.equal("spec: this needs envd 0.6.2, and the sandbox has 0.5.10: rebuild its template", message)
    link.sandbox.envd_version = "v1.2"
    assert.is_true(link:at_least(9, 9, 9))
    link.sandbox.envd_version = nil
    assert.is_true(link:at_least(9, 9, 9))
  end)

  it("has a base for URLs that others fetch", function()
    local function nothing() end
    local function base(options, domain)
      options.api_key, options.getenv, options.debug = "key", nothing, options.debug
      local client = e2b.client(options)
      return client:direct_url(domain, "i1")
    end
    assert.are.equal("https://49983-i1.e2b.app", base({}))
    assert.are.equal("https://49983-i1.example.com", base({}, "example.com"))
    assert.are.equal("http://localhost:49983", base({ debug = true }))
    assert.are.equal("http://127.0.0.1:1", base({ sandbox_url = "http://127.0.0.1:1/" }))
    local server = serve()
    assert.are.equal(server.url, envd.link(server.sandbox()):direct_url())
  end)
end)

describe("create with mcp", function()
  local original = package.loaded["e2b.mcp"]
  after_each(function() package.loaded["e2b.mcp"] = original end)

  local function paths(server)
    local lines = {}
    for i, request in ipairs(server:requests()) do lines[i] = request.method .. " " .. request.path end
    return table.concat(lines, ", ")
  end

  it("starts the gateway from its own template", function()
    local server = serve()
    local got
    package.loaded["e2b.mcp"] = { start = function(_, object, opts) got = { object, opts } return true end }
    local sandbox = assert(server.client.Sandbox.create({ mcp = { browserbase = { apiKey = "k" } } }))
    assert.are.equal(sandbox, got[1])
    assert.are.same({ browserbase = { apiKey = "k" } }, got[2].mcp)
    local core = require("e2b.core")
    assert.are.same({ templateID = "mcp-gateway", mcp = { browserbase = { apiKey = "k" } } },
      core.json_decode(server:requests()[1].body))
  end)

  it("kills the sandbox when that fails, or raises", function()
    local server = serve()
    package.loaded["e2b.mcp"] = { start = function() return nil, "no gateway", { kind = "exit" } end }
    local sandbox, message, err = server.client.Sandbox.create({ mcp = {} })
    assert.is_nil(sandbox)
    assert.are.equal("no gateway exit", message .. " " .. err.kind)
    assert.are.equal("POST /v2/sandboxes, DELETE /sandboxes/i1", paths(server))
    server:forget()
    package.loaded["e2b.mcp"] = { start = function() error("interrupted!", 0) end }
    local ok, raised = pcall(server.client.Sandbox.create, { mcp = {} })
    assert.is_false(ok)
    assert.are.equal("interrupted!", raised)
    assert.are.equal("POST /v2/sandboxes, DELETE /sandboxes/i1", paths(server))
  end)

  it("is the caller's mistake when it isn't a map", function()
    local server = serve()
    raises("mcp must be a table", function() server.client.Sandbox.create({ mcp = "x" }) end)
    raises("mcp maps the names of servers", function() server.client.Sandbox.create({ mcp = { "x" } }) end)
    assert.are.equal(0, server:count())
  end)
end)
