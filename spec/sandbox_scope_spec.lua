-- Leaving a scope kills the sandbox, whatever happened in it.
local support = require("spec.support.support")
local platform = require("spec.support.platform")
local peer = require("spec.support.peer")
local e2b = require("e2b")

local raises = platform.raises
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

describe("leaving a scope", function()
  local function alive(id) return here:alive(id) end

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

  it("with lets a coroutine of the caller's yield in its body", function()
    local id
    local step = coroutine.wrap(function()
      return Sandbox.with(nil, function(sandbox)
        id = sandbox.sandbox_id
        local got = coroutine.yield("out")
        return got
      end)
    end)
    assert.equal("out", step())
    assert.is_true(alive(id))
    assert.equal("in", step("in"))
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
    platform.wait_for(function() return id end, "the sandbox")
    task:cancel()
    task:wait(10)
    assert.equal("cancelled", task.state)
    assert.is_false(alive(id))
  end)

  it("kills when its task is cancelled while the sandbox is made", function()
    local slow = peer.start([[
      conn:serve(function(request)
        if request.method == "POST" then
          conn:wait_signal("go")
          conn:answer({ status = 201, body = '{"sandboxID":"i1","templateID":"t","envdVersion":"0.2.0"}' })
        else
          conn:answer({ status = 204 })
        end
      end)
    ]])
    local called = false
    local task = e2b.spawn(function()
      return client_of(slow).Sandbox.with(nil, function() called = true end)
    end)
    platform.wait_for(function() return slow:count() == 1 end, "the create")
    task:cancel()
    slow:signal("go")
    local value, _, err = task:wait(10)
    assert.is_nil(value)
    assert.equal("cancelled", err.kind)
    assert.equal("i1", err.sandbox_id)
    assert.is_false(called)
    local seen = slow:requests()
    assert.equal(2, #seen)
    assert.equal("DELETE", seen[2].method)
    assert.equal("/sandboxes/i1", seen[2].path)
    slow:stop()
  end)

  it("kills all when a member of map raises and one is cancelled", function()
    local results = e2b.map({ 1, 2, 3 }, function(n)
      return Sandbox.with({ metadata = { spec = "map" } }, function(sandbox)
        if n == 1 then error("one") end
        if n == 2 then return e2b.sleep(60) end
        return sandbox.sandbox_id
      end)
    end, { timeout = 1.5 * support.slack })
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

  it("tells the logger of that as of every request", function()
    local events = {}
    local stderr = io.stderr
    local refusing = peer.start([[
      conn:serve(function(request)
        if request.method == "POST" then
          conn:respond(201, '{"sandboxID":"i1","templateID":"t","envdVersion":"0.2.0"}')
        else
          conn:respond(403, '{"code":403,"message":"no"}', { ["X-E2B-Trace-ID"] = "t1" })
        end
      end)
    ]])
    local client = client_of(refusing, { logger = function(event) events[#events + 1] = event end })
    rawset(io, "stderr", { write = function() end })
    local ok, value = pcall(client.Sandbox.with, nil, function() return "value" end)
    rawset(io, "stderr", stderr)
    refusing:stop()
    assert.is_true(ok, value)
    assert.equal("value", value)
    local last, attempt = events[#events], events[#events - 1]
    assert.matches("could not be killed", last.message, 1, true)
    for name, field in pairs(attempt) do
      if name == "seconds" then
        assert.is_number(last.seconds)
      else
        assert.equal(field, last[name], name)
      end
    end
    assert.same({ "forbidden", 403, 1, "t1" }, { last.kind, last.status, last.attempt, last.request_id })
  end)

  it("tries the kill once more when a signal breaks it off, and lets the signal go on", function()
    local calls = require("e2b.sandbox_calls")
    local kill = calls.kill
    for _, broken in ipairs({ 1, 2 }) do
      local tried, id = 0, nil
      calls.kill = function(...)
        tried = tried + 1
        if tried <= broken then error("interrupted!", 0) end
        return kill(...)
      end
      local stderr, said = io.stderr, ""
      rawset(io, "stderr", { write = function(_, ...) said = said .. table.concat({ ... }) end })
      local ok, raised = pcall(Sandbox.with, nil, function(sandbox) id = sandbox.sandbox_id end)
      rawset(io, "stderr", stderr)
      calls.kill = kill
      assert.is_false(ok)
      assert.equal("interrupted!", raised)
      assert.equal(2, tried)
      assert.equal(broken == 2, alive(id))
      assert.equal(broken == 2, said:find("could not be killed", 1, true) ~= nil)
      if broken == 2 then assert(Sandbox.kill(id)) end
    end
  end)

  it("ends the program when Ctrl-C comes during the kill", function()
    local slow = peer.start([[
      conn:serve(function(request)
        if request.method == "POST" then
          conn:respond(201, '{"sandboxID":"i1","templateID":"t","envdVersion":"0.2.0"}')
        else
          shared.kills = (shared.kills or 0) + 1
          if shared.kills > 1 then conn:respond(204) end
        end
      end)
    ]])
    local result = support.run([[
      local client = require("e2b").client()
      client.Sandbox.with(nil, function()
        os.execute("(sleep 0.3; kill -INT " .. require("e2b.core").getpid() .. ") &")
      end)
      print("went on")
    ]], { env = { E2B_API_KEY = "key", E2B_API_URL = slow.url } })
    local count = 0
    for _, request in ipairs(slow:requests()) do
      if request.method == "DELETE" then count = count + 1 end
    end
    slow:stop()
    assert.equal("", result.out)
    assert.matches("interrupted!", result.err, 1, true)
    assert.is_nil(result.err:find("could not be killed", 1, true))
    assert.equal(2, count)
  end)

  -- Nothing of ours can be found any more when the scope is left.
  for name, lost in pairs({
    ["another package.path"] = { lose = "package.path, package.cpath = '', ''" },
    ["another directory, and a PWD that says nothing"] = {
      lose = "assert(require('lfs').chdir('/'))", env = { PWD = "/nowhere" },
    },
    ["no searchers at all"] = {
      lose = "for i = #searchers, 1, -1 do searchers[i] = nil end package.path = ''",
    },
  }) do
    it("kills, and answers failures, after " .. name, function()
      local env = lost.env or {}
      for variable, value in pairs(server.env) do env[variable] = value end
      local result = support.run([[
        local e2b, lfs = require("e2b"), require("lfs")
        local searchers = package.searchers or package.loaders
        local Sandbox = e2b.client({ retries = 0 }).Sandbox
        local id
        print(Sandbox.with(nil, function(sandbox)
          id = sandbox.sandbox_id
          ]] .. lost.lose .. [[

          local value, message, err = Sandbox.get_info("i00000000000000000000")
          print(value, type(message), err.kind)
        end))
        print(select(3, Sandbox.get_info(id)).kind)
      ]], { env = env })
      assert.equal("nil\tstring\tnot_found\n\nnot_found\n", result.out, result.err)
      assert.equal("", result.err)
    end)
  end

  it("gives the kill a time of its own", function()
    assert.equal(10, require("e2b.sandbox_scope").KILL_SECONDS)
    local silent = peer.start([[
      conn:serve(function(request)
        if request.method == "POST" then
          conn:answer({ status = 201, body = '{"sandboxID":"i1","templateID":"t","envdVersion":"0.2.0"}' })
        end
      end)
    ]])
    local result = support.run([[
      local core = require("e2b.core")
      require("e2b.sandbox_scope").KILL_SECONDS = 0.3
      local client = require("e2b").client()
      local began
      local value = client.Sandbox.with({ request_timeout = 30 }, function() began = core.now() return "value" end)
      print(value, core.now() - began)
    ]], { env = { E2B_API_KEY = "key", E2B_API_URL = silent.url } })
    silent:stop()
    assert.equal(0, result.code, result.err)
    local seconds = tonumber(result.out:match("^value\t([%d.]+)"))
    assert.is_true(seconds >= 0.3 and seconds < 0.3 + support.tolerance, result.out)
    assert.matches("sandbox i1 could not be killed", result.err, 1, true)
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

    it("by such a variable when nothing can be loaded any more", function()
      local result = support.run([[
        local Sandbox = require("e2b").Sandbox
        local id
        do
          local sandbox <close> = assert(Sandbox.create())
          id = sandbox.sandbox_id
          for i = #package.searchers, 1, -1 do package.searchers[i] = nil end
        end
        print(select(3, Sandbox.get_info(id)).kind)
      ]], { env = server.env })
      assert.equal("not_found\n", result.out, result.err)
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
      platform.wait_for(function() return id end, "the sandbox")
      task:cancel()
      task:wait(10)
      assert.is_false(alive(id))
    end)
  end

  it("is not what the garbage collector does", function()
    local id = create().sandbox_id
    support.collect()
    assert.is_true(alive(id))
    assert.is_true(Sandbox.kill(id))
  end)
end)
