-- A cqueues controller as a host.
local e2b = require("e2b")
local hosts = require("spec.hosts.init")
local support = require("spec.support.support")

describe("a cqueues controller:", function()
  hosts.declare(function(env, wrap)
    local result = support.run(nil, { file = "spec/hosts/cqueues.lua", env = env, wrap = wrap })
    return result.out .. result.err
  end)
end)

describe("the loop of cqueues", function()
  local function run(source)
    return support.run([[
      local cqueues, core, loop = require("cqueues"), require("e2b.core"), require("e2b.loop.cqueues")
      local controller = cqueues.new()
      local function nothing() return function() end end
    ]] .. source)
  end

  it("tells everybody, also when somebody who is told raises", function()
    local result = run([[
      controller:wrap(function() print(loop.await(nothing, core.now() + 0.2)) end)
      controller:wrap(function()
        loop.call(nothing, core.now() + 0.05, function() error("mine", 0) end)
      end)
      assert(controller:loop())
      print(controller:count())
    ]])
    assert.equal("nil\tdeadline\n0\n", result.out)
    assert.equal("e2b: mine\n", result.err)
  end)

  it("hands Ctrl-C to whoever runs the controller, and goes on if that does", function()
    local result = run([[
      controller:wrap(function() print(loop.await(nothing, core.now() + 0.2)) end)
      controller:wrap(function()
        loop.call(nothing, core.now() + 0.05, function() error("interrupted!", 0) end)
      end)
      local ok, why = controller:loop()
      print(ok, why)
      assert(controller:loop())
    ]])
    assert.matches("^[^\n]*interrupted!\nnil\tdeadline\n$", result.out)
    assert.equal("", result.err)
  end)
end)

describe("the example of a lua-http server", function()
  local server, pipe, url

  setup(function()
    server = require("e2b.server").start()
    -- Debian has the pure Lua files of lua-http for some Luas only; they run on all.
    assert(require("e2b.server.requirements").load("http.server"))
    local env = {}
    for name, value in pairs(server.env) do env[name] = value end
    local folder = support.tmpdir()
    -- Its standard input is a pipe from here: it ends with this process, however that ends.
    pipe = assert(io.popen("{ " .. support.lua_command(env) .. " examples/http_server.lua 0 >" .. folder .. "/out 2>" ..
      folder .. "/err & cat >/dev/null; kill $!; wait; }", "w"))
    local limit = support.now() + 10 * support.slack
    repeat
      support.sleep(0.02)
      url = (support.read_file(folder .. "/out") or ""):match("http://[%d.:]+")
    until url or support.now() > limit
    assert(url, support.read_file(folder .. "/err"))
  end)
  teardown(function()
    pipe:close()
    server:stop()
    support.cleanup()
  end)

  it("answers with what a sandbox said, and leaves none", function()
    local output = support.shell("curl -sS " .. url .. "/")
    assert.truthy(output:find("Linux", 1, true), output)
    assert.equal("404", (support.shell("curl -sS -o /dev/null -w '%{http_code}' " .. url .. "/nothing")))
    local client = e2b.client({ getenv = function(name) return server.env[name] end })
    assert.equal(0, #assert(client.Sandbox.list():all()))
  end)

  it("answers five at once in about the time of one", function()
    local began = support.now()
    local output = support.shell("for i in 1 2 3 4 5; do curl -sS " .. url .. "/slow & done; wait")
    local seconds = support.now() - began
    assert.equal(("slept\n"):rep(5), output)
    -- lua-http's own pcall on Lua 5.1 is a coroutine that nothing can be suspended in.
    if _VERSION ~= "Lua 5.1" or rawget(_G, "jit") then
      assert.is_true(seconds < 1 + 1.5 * support.slack, "took " .. seconds .. " s")
    end
  end)

  it("says why when there is no sandbox to be had", function()
    server:set({ fail_next = { method = "POST", status = 400 } })
    local output = support.shell("curl -sS -w ' %{http_code}' " .. url .. "/")
    assert.truthy(output:find("502$"), output)
  end)
end)
