-- The module itself: what requiring it does (nothing), the default client, check, and the REPL.
local support = require("spec.support.support")
local platform = require("spec.support.platform")
local peer = require("spec.support.peer")
local e2b = require("e2b")

local here, server

setup(function()
  here = platform.start()
  server = here.server
end)

teardown(function()
  here:stop()
  support.cleanup()
end)

before_each(function() server:clear() end)

-- A script on the same Lua; what it printed, line by line.
local function run(source, env, options)
  options = options or {}
  options.env = {
    E2B_API_KEY = false, E2B_API_URL = false, E2B_SANDBOX_URL = false, E2B_DEBUG = false, E2B_DOMAIN = false,
  }
  for name, value in pairs(env or {}) do options.env[name] = value end
  local result = support.run(source, options)
  assert.equal(0, result.code, result.err)
  return result.out, result.err
end

describe("require(\"e2b\")", function()
  it("reads no environment, opens nothing, makes no globals", function()
    local out = run([[
      local before = {}
      for name in pairs(_G) do before[name] = true end
      local asked = {}
      local getenv = os.getenv
      os.getenv = function(name) asked[#asked + 1] = name return getenv(name) end
      local e2b = require("e2b")
      local Sandbox, Template, tools = e2b.Sandbox, e2b.Template, e2b.tools
      local pages = Sandbox.list()
      print(#asked, tostring(pages) ~= nil)
      for name in pairs(_G) do if not before[name] then print("global " .. name) end end
      for _, name in ipairs({ "e2b.core", "cjson", "e2b.client" }) do
        if name == "e2b.client" and package.loaded[name] then print("loaded " .. name) end
      end
      local stats = require("e2b.core").stats()
      print(stats.engines, stats.sockets)
    ]])
    assert.equal("0\ttrue\n0\t0\n", out)
  end)

  it("loads little", function()
    local out = run([[
      require("e2b")
      local names = {}
      for name in pairs(package.loaded) do if name:find("^e2b") then names[#names + 1] = name end end
      table.sort(names)
      print(table.concat(names, " "))
    ]])
    assert.equal("e2b e2b.version\n", out)
  end)

  it("prints itself and its classes", function()
    assert.matches("^e2b %d+%.%d+%.%d+: e2b.help%(%)", tostring(e2b))
    assert.equal("e2b.Sandbox", tostring(e2b.Sandbox))
    assert.equal("e2b.Template", tostring(e2b.Template))
    assert.equal("client.Sandbox", tostring(here.client.Sandbox))
    assert.is_nil(e2b.nothing)
    assert.equal(e2b.Sandbox, e2b.Sandbox)
    assert.equal(e2b.client, e2b.E2B)
  end)
end)

describe("what is loaded late", function()
  for name, lose in pairs({
    ["package.path has changed"] = "package.path = ''",
    ["the directory has changed"] = "assert(require('lfs').chdir('/'))",
  }) do
    it("is found when " .. name, function()
      local out = run([[
        local e2b, lfs = require("e2b"), require("lfs")
        local client = e2b.client()
        assert(client.Sandbox.list({ limit = 1 }):next_items())
        ]] .. lose .. [[

        local value, message, err = client.Sandbox.get_info("i00000000000000000000")
        print(value, type(message), err.kind)
        print(client.Sandbox.with(nil, function(sandbox) return sandbox.state end))
        print(e2b.map({ 1 }, function(item) return item end)[1].value)
        print((select(2, pcall(client.Sandbox.create, { timout = 1 })):match("did you mean 'timeout'")))
        print((select(2, pcall(require, "e2b.nothing")):match("no file '[^\n]*e2b/nothing.lua'")) ~= nil)
      ]], server.env)
      assert.equal("nil\tstring\tnot_found\nrunning\n1\ndid you mean 'timeout'\ntrue\n", out)
    end)
  end
end)

describe("a colon in the place of a dot", function()
  it("is named, with the form that works, at the caller's line", function()
    local function fn() end
    for name, arguments in pairs({
      client = { {} }, E2B = { {} }, with = { {}, fn }, map = { { 1 }, fn }, all = { fn }, spawn = { fn }, run = {},
      sleep = { 0 }, pcall = { fn }, check = {},
    }) do
      local shown = name == "E2B" and "client" or name
      platform.raises("write e2b." .. shown .. "(", e2b[name], e2b, arguments[1], arguments[2])
    end
    local ok, message = pcall(function() return e2b:client({}) end)
    assert.is_false(ok)
    assert.matches("init_spec%.lua:%d+: .*write e2b%.client%({ … }%), with a dot$", message)
  end)
end)

describe("the default client", function()
  it("is configured by the environment at the first call", function()
    local out = run([[
      local e2b = require("e2b")
      local sandbox = assert(e2b.Sandbox.create())
      print(sandbox.state)
      print(e2b.with({ timeout = 60 }, function(s) return s.name end))
      assert(sandbox:kill())
      print(#assert(e2b.Template.list():all()) > 1)
      print(e2b.tools.call("list_sandboxes").count)
      print(e2b.check())
      e2b.close()
      print(e2b.check())
    ]], server.env)
    assert.equal("running\nbase\ntrue\n0\ntrue\ntrue\n", out)
  end)

  it("answers what is wrong with the environment, call by call", function()
    local out = run([[
      local e2b = require("e2b")
      local sandbox, message, err = e2b.Sandbox.create()
      print(sandbox, err.kind, message)
      print(select("#", e2b.check()))
    ]], { E2B_API_KEY = "key", E2B_API_URL = "not a url" })
    assert.matches("^nil\tinvalid_argument\t[^\n]*E2B_API_URL", out)
    assert.matches("\n3\n$", out)
  end)
end)

describe("check", function()
  local function checked(options, some)
    return e2b.check(platform.client_of(some or server, options))
  end

  it("is true when templates and sandboxes can be listed", function()
    assert.is_true(checked())
    assert.same({ "GET /v2/templates", "GET /v2/sandboxes" }, here:requests())
    for _, request in ipairs(server:requests()) do assert.matches("limit=1", request.query, 1, true) end
  end)

  it("says where to get a key and which variable to set", function()
    local ok, message, err = e2b.check(e2b.client({ api_url = server.url, getenv = function() end }))
    assert.is_nil(ok)
    assert.equal("authentication", err.kind)
    assert.matches("https://e2b.dev/dashboard?tab=keys", message, 1, true)
    assert.matches("E2B_API_KEY", message, 1, true)
    assert.equal(message, err.message)
    assert.same({}, here:requests())
  end)

  it("hints at the look of a key only when it was refused", function()
    local odd = "sk-" .. ("a"):rep(20)
    local ok, message, err = checked({ api_key = odd })
    assert.is_nil(ok)
    assert.equal("authentication", err.kind)
    assert.equal(401, err.status)
    assert.matches("doesn't look like E2B's", message, 1, true)
    assert.equal(message, tostring(err))
    assert.matches("https://e2b.dev/dashboard?tab=keys", message, 1, true)
    support.assert_no_secret(odd, message, err)

    local strange = peer.answers({ { status = 200, body = "[]" } })
    assert.is_true(checked({ api_key = odd }, strange))
    strange:stop()

    ok, message = checked({ api_key = "e2b_" .. ("0"):rep(40) })
    assert.is_nil(ok)
    assert.is_nil(message:find("look like", 1, true))
  end)

  it("names the service that can't be reached", function()
    local closed = peer.answers({ { status = 200 } })
    closed:stop()
    local ok, message, err = checked({ retries = 0 }, closed)
    assert.is_nil(ok)
    assert.equal("network", err.kind)
    assert.matches(closed.url, message, 1, true)
    assert.matches("E2B_API_URL", message, 1, true)
  end)

  it("passes on what the second list answers", function()
    server:set({ fail_next = { status = 403, path = "/v2/sandboxes" } })
    local ok, _, err = checked()
    assert.is_nil(ok)
    assert.equal("forbidden", err.kind)
  end)

  it("works with a service that has only the old lists", function()
    server:set({ no_v2 = true })
    local ok, message = checked()
    server:set({ no_v2 = false })
    assert.is_true(ok, message)
  end)

  it("takes a client and nothing else", function()
    platform.raises("e2b.check takes a client", e2b.check, {})
    platform.raises("e2b.check takes a client", e2b.check, "key")
  end)
end)

describe("an interactive session", function()
  -- What a person would see who types these lines; the prompts go away.
  local function session(lines, module)
    local command = "printf '%s\\n' " .. support.quote(lines) .. " | "
      .. support.lua_command({ E2B_API_KEY = server.api_key, E2B_API_URL = server.url })
      .. " -i -l " .. module .. " 2>&1"
    local output, code = support.shell("timeout 20 sh -c " .. support.quote(command))
    assert.equal(0, code, output)
    return (output:gsub("> ", ""))
  end

  it("has e2b, Sandbox and Template after make repl", function()
    local output = session(
      "=Sandbox.create()\n=Sandbox.list():all()\n=Template\nprint(Sandbox.list():all()[1]:kill())", "e2b.repl")
    assert.matches("e2b %d+%.%d+%.%d+ on Lua 5%.%d", output)
    assert.matches("e2b.help()", output, 1, true)
    assert.matches("Sandbox%(i%w+…, base, running, %d+m%d+s left%)", output)
    assert.matches("sandbox +template +state +started +expires in", output)
    assert.matches("e2b.Template", output, 1, true)
    assert.matches("true\ttrue", output, 1, true)
  end)

  it("shows plain lua -l e2b what there is", function()
    assert.matches("e2b %d+%.%d+%.%d+: e2b.help%(%) lists what there is", session('=require("e2b")', "e2b"))
    assert.matches("\n *e2b.check", session('require("e2b").help()', "e2b"))
  end)

  it("is not started by a program that requires e2b.repl", function()
    assert.equal("nil\n", (run('require("e2b.repl") print(rawget(_G, "Sandbox"))')))
    local out = run([[
      local to, lines = {}, {}
      require("e2b.repl").start(to, function(text) lines[#lines + 1] = text end)
      print(#lines, to.e2b == require("e2b"), to.Sandbox == to.e2b.Sandbox, rawget(_G, "e2b"))
      print(lines[2])
    ]])
    assert.matches("^2\ttrue\ttrue\tnil\nE2B_API_KEY is not set", out)
  end)
end)
