-- Concurrency as a caller sees it, counted and timed on the server.
local failing = require("spec.support.failing")
local support = require("spec.support.support")
local e2b = require("e2b")
local core = require("e2b.core")

-- Answers every create after a while, with an id of its own; keeps count of how many are under way at once.
local SLOW = [[
  shared.active = (shared.active or 0) + 1
  shared.most = math.max(shared.most or 0, shared.active)
  conn:sleep(%s)
  shared.active = shared.active - 1
  conn:note({ what = "most", most = shared.most })
  conn:respond(201, (CREATED:gsub('"made"', '"made-' .. n .. '"')))
]]

local function most_of(server)
  local notes = server:events("most")
  return notes[#notes].most
end

describe("a hundred sandboxes", function()
  for name, create_all in pairs({
    ["by all"] = function(client)
      local functions = {}
      for i = 1, 100 do
        functions[i] = function() return client.Sandbox.create("base", { metadata = { i = tostring(i) } }) end
      end
      return e2b.all((table.unpack or unpack)(functions)) -- luacheck: ignore 113 143
    end,
    ["by map"] = function(client)
      local list = {}
      for i = 1, 100 do
        list[i] = tostring(i)
      end
      return e2b.map(list, function(i)
        return client.Sandbox.create("base", { metadata = { i = i } })
      end, { limit = 100 })
    end,
  }) do
    it("are created in about the time of the slowest call (" .. name .. ")", failing.test(function(t)
      -- 0.4 s each; the hundredth takes a second: one after the other that would be 41 s
      local server = t:peer(SLOW:format("n == 100 and 1 or 0.4"))
      local client = t:client(server)
      local results, failed = t:takes_between(1, 1.6, function() return create_all(client) end)
      assert.equal(0, failed)
      assert.equal(100, #results)
      local ids = {}
      for i, entry in ipairs(results) do
        assert.is_true(entry.ok)
        assert.equal(tostring(i), entry.value.metadata.i)
        ids[entry.value.sandbox_id] = true
      end
      local different = 0
      for _ in pairs(ids) do
        different = different + 1
      end
      assert.equal(100, different)
      assert.equal(100, t:count(server))
      assert.is_true(most_of(server) > 90, "only " .. most_of(server) .. " at once")
      assert.equal(0, core.stats().in_flight)
      t:works(client)
    end))
  end

  it("are no more at once than asked", failing.test(function(t)
    local server = t:peer(SLOW:format("0.05"))
    local client = t:client(server)
    local list = {}
    for i = 1, 20 do
      list[i] = i
    end
    local _, failed = t:takes_between(0.25, 0.6, function()
      return e2b.map(list, function() return client.Sandbox.create() end, { limit = 4 })
    end)
    assert.equal(0, failed)
    assert.equal(4, most_of(server))
  end))
end)

describe("a member that fails", function()
  it("doesn't lose the others' results", failing.test(function(t)
    local server = t:peer([[
      conn:sleep(0.1)
      if request.body:find('"503"', 1, true) then
        conn:respond(503, '{"code":503,"message":"busy"}')
      elseif request.body:find('"cut"', 1, true) then
        conn:reset()
      elseif request.body:find('"slow"', 1, true) then
        conn:wait_closed()
      else
        conn:respond(201, CREATED)
      end
    ]])
    local client = t:client(server)
    local list = { "fine", "503", "cut", "raise", "slow", "nothing", "fine" }
    local results, failed = t:takes(0.4, function()
      return e2b.map(list, function(what)
        if what == "raise" then
          e2b.sleep(0.05)
          error("on purpose")
        elseif what == "nothing" then
          return nil
        end
        return client.Sandbox.create("base", { metadata = { what = what }, request_timeout = 0.4 })
      end)
    end)
    assert.equal(4, failed)
    assert.equal("made", results[1].value.sandbox_id)
    assert.equal("made", results[7].value.sandbox_id)
    t:fails({ kind = "busy", retryable = true }, results[2].value, results[2].message, results[2].err)
    t:fails({ kind = "network", sent = "maybe", retryable = false }, nil, results[3].message, results[3].err)
    t:fails({ kind = "timeout", deadline = "request_timeout" }, nil, results[5].message, results[5].err)
    assert.is_false(results[4].ok)
    assert.truthy(results[4].message:find("concurrency_spec.lua:%d+: on purpose"), results[4].message)
    assert.is_nil(results[4].message:find("\n", 1, true), results[4].message)
    assert.truthy(results[4].err.traceback:find("traceback", 1, true))
    assert.is_true(results[6].ok)
    assert.equal(5, t:count(server))
    t:works(client)
  end))
end)

describe("a cancelled task", function()
  it("releases its transfer at once, and the server sees the connection go", failing.test(function(t)
    local server = t:peer("conn:wait_closed()")
    local client = t:client(server)
    local task = e2b.spawn(function() return client.Sandbox.create() end)
    e2b.sleep(0.2)
    assert.equal(1, core.stats().in_flight)
    assert.equal(1, t:count(server))
    assert.is_true(task:cancel())
    assert.equal(0, core.stats().in_flight)
    t:takes(0, function()
      t:fails({ kind = "cancelled", sent = "maybe", retryable = false }, task:wait())
    end)
    assert.equal("cancelled", task.state)
    server:wait_event("closed")
    assert.is_false(task:cancel())
    t:works(client)
  end))

  it("leaves the others alone", failing.test(function(t)
    local server = t:peer("conn:sleep(1) conn:respond(201, CREATED)")
    local client = t:client(server)
    local tasks = {}
    for i = 1, 10 do
      tasks[i] = e2b.spawn(function() return client.Sandbox.create() end)
    end
    e2b.sleep(0.1)
    for i = 1, 10, 2 do
      tasks[i]:cancel()
    end
    for i = 1, 10 do
      local sandbox, _, err = tasks[i]:wait()
      if i % 2 == 1 then
        assert.equal("cancelled", err.kind)
      else
        assert.equal("made", sandbox.sandbox_id)
      end
    end
    t:works(client)
  end))

  it("in a queue behind the connection cap never reaches the server", function()
    -- the cap is the engine's, which all clients of a process share: so in a process of its own
    local result = support.run([[
      local failing = require("spec.support.failing")
      local e2b = require("e2b")
      failing.test(function(t)
        e2b.close()
        local server = t:peer("conn:sleep(0.4) conn:respond(201, CREATED)")
        local client = t:client(server, { connections = 1 })
        local first = e2b.spawn(function() return client.Sandbox.create() end)
        e2b.sleep(0.1)
        local queued = e2b.spawn(function() return client.Sandbox.create() end)
        e2b.sleep(0.1)
        queued:cancel()
        t:takes(0, function() t:fails({ kind = "cancelled", sent = "no" }, queued:wait()) end)
        assert(first:wait())
        assert(t:count(server) == 1)
        t:works(client)
      end)()
    ]])
    assert.equal(0, result.code, result.err)
  end)
end)

describe("an open sandbox", function()
  local server

  local function left()
    local client = e2b.client({ api_url = server.url, api_key = server.api_key, getenv = function() end })
    local ids = {}
    for _, sandbox in ipairs(assert(client.Sandbox.list():all())) do
      ids[#ids + 1] = sandbox.sandbox_id
    end
    return ids
  end

  setup(function()
    server = require("e2b.server").start()
  end)
  teardown(function()
    server:stop()
  end)

  local function client_of()
    return e2b.client({ api_url = server.url, api_key = server.api_key, getenv = function() end })
  end

  it("of a task that raises is gone from the server", function()
    local client = client_of()
    local seen
    local results, failed = e2b.all(function()
      return client.Sandbox.with({ timeout = 300 }, function(sandbox)
        seen = left()
        assert(sandbox:get_info())
        error("on purpose")
      end)
    end)
    assert.equal(1, failed)
    assert.truthy(results[1].message:find("on purpose", 1, true), results[1].message)
    assert.equal(1, #seen)
    assert.same({}, left())
  end)

  it("of a task that is cancelled is gone from the server", function()
    local client = client_of()
    local here = false
    local task = e2b.spawn(function()
      return client.Sandbox.with({ timeout = 300 }, function(sandbox)
        here = true
        repeat
          local info, _, err = sandbox:get_info()
        until not info and err.kind == "cancelled"
        return nil, "cancelled"
      end)
    end)
    support.wait_for(function()
      e2b.sleep(0.01)
      return here
    end)
    assert.equal(1, #left())
    task:cancel()
    task:wait()
    assert.equal("cancelled", task.state)
    assert.same({}, left())
  end)

  it("whose create is under way when the task is cancelled is gone as well", function()
    local client = client_of()
    server:set({ latency = 0.3 })
    local task = e2b.spawn(function()
      return client.Sandbox.with({ timeout = 300 }, function() error("never comes here") end)
    end)
    e2b.sleep(0.15)
    task:cancel()
    local _, _, err = task:wait()
    server:set({ latency = 0 })
    assert.equal("cancelled", err.kind)
    assert.same({}, left())
  end)

  it("each of ten, of which three raise and three are cancelled, is gone", function()
    local client = client_of()
    local open, seen = 0, nil
    local list = {}
    for i = 1, 10 do
      list[i] = i
    end
    local results, failed = e2b.map(list, function(i)
      return client.Sandbox.with({ timeout = 300 }, function(sandbox)
        open = open + 1
        while open < 10 do
          e2b.sleep(0.01)
        end
        seen = seen or left()
        if i <= 3 then
          error("on purpose " .. i)
        elseif i <= 6 then
          require("e2b.tasks").current():cancel()
        end
        return e2b.sleep(0.1) and sandbox.sandbox_id
      end)
    end)
    assert.equal(10, #seen)
    assert.equal(6, failed)
    for i, entry in ipairs(results) do
      if i <= 3 then
        assert.truthy(entry.message:find("on purpose " .. i, 1, true), entry.message)
      elseif i <= 6 then
        assert.is_false(entry.ok)
      else
        assert.is_string(entry.value)
      end
    end
    assert.same({}, left())
  end)

  it("is gone at the end of its scope, where the Lua has such variables", function()
    local compile = loadstring or load -- luacheck: ignore 113
    local chunk = compile([[
      local client, fail = ...
      local sandbox <close> = assert(client.Sandbox.create())
      if fail then error("on purpose") end
      return sandbox.sandbox_id
    ]])
    if _VERSION < "Lua 5.4" then
      assert.is_nil(chunk)
      return
    end
    local client = client_of()
    assert.is_string(chunk(client))
    local results = e2b.all(function() return chunk(client, true) end)
    assert.is_false(results[1].ok)
    local task = e2b.spawn(function()
      return chunk(setmetatable({}, { __index = client }), true)
    end)
    task:wait()
    assert.same({}, left())
  end)
end)

describe("a coroutine that isn't ours", function()
  it("is never yielded from", failing.test(function(t)
    local server = t:peer("conn:sleep(0.05) conn:respond(201, CREATED)")
    local client = t:client(server)
    local co = coroutine.create(function()
      local sandbox = assert(client.Sandbox.create())
      coroutine.yield("between")
      assert(e2b.sleep(0.01))
      local results = e2b.all(function() return client.Sandbox.create() end, function() return e2b.sleep(0.01) end)
      return sandbox.sandbox_id, #results
    end)
    assert.same({ true, "between" }, { coroutine.resume(co) })
    assert.same({ true, "made", 2 }, { coroutine.resume(co) })
    assert.equal("dead", coroutine.status(co))
    assert.equal(2, t:count(server))
  end))

  it("as a generator inside a task isn't either, and the task goes on", failing.test(function(t)
    local server = t:peer("conn:sleep(0.05) conn:respond(201, CREATED)")
    local client = t:client(server)
    local results = e2b.all(function()
      local ids = {}
      local generator = coroutine.wrap(function()
        for _ = 1, 3 do
          coroutine.yield(assert(client.Sandbox.create()).sandbox_id)
        end
      end)
      for id in generator do
        ids[#ids + 1] = id
      end
      return #ids
    end, function()
      return assert(client.Sandbox.create()).sandbox_id
    end)
    assert.equal(3, results[1].value)
    assert.equal("made", results[2].value)
  end))
end)

-- Such a call holds up all tasks until it is over, and nothing longer than that.
describe("calls that can't be suspended in tasks", function()
  local ways = {
    ["in a generator"] = function(client)
      return coroutine.wrap(function() coroutine.yield(assert(client.Sandbox.get_info("x")).sandbox_id) end)()
    end,
    ["in a for-iterator"] = function(client)
      local id
      for sandbox in client.Sandbox.list() do
        id = sandbox.sandbox_id
      end
      return id
    end,
  }
  local ANSWER = [[conn:respond(200, request.path:find("/x", 1, true) and OK or "[" .. OK .. "]")]]

  local function numbers(n)
    local list = {}
    for i = 1, n do
      list[i] = i
    end
    return list
  end

  for name, call in pairs(ways) do
    it("all succeed, however many they are (" .. name .. ")", failing.test(function(t)
      local server = t:peer("conn:sleep(0.005) " .. ANSWER)
      local client = t:client(server)
      local results, failed = e2b.map(numbers(120), function() return call(client) end)
      assert.equal(0, failed, results[1].message)
      for i = 1, 120 do
        assert.equal("ok", results[i].value)
      end
      assert.equal(120, t:count(server))
    end))

    it("do so after answers 502 and 429 as well (" .. name .. ")", failing.test(function(t)
      local server = t:peer([[
        if n <= 2 then
          conn:respond(429, "{}", { ["Retry-After"] = "1" })
        elseif n == 4 then
          conn:respond(502, "{}")
        else
          ]] .. ANSWER .. [[
        end
      ]])
      local client = t:client(server)
      local results, failed = e2b.map(numbers(120), function(i)
        if i % 2 == 1 then return client.Sandbox.list():next_items()[1].sandbox_id end
        return call(client)
      end)
      for i = 1, 120 do
        assert.equal("ok", results[i].value, results[i].message)
      end
      assert.equal(0, failed)
    end))
  end

  -- What is promised: a call returns when its own time is over or, when a call that can't be suspended is under way
  -- then, with the end of that one; never after a second such call.
  it("make the deadline of another call late by one of them at the most", failing.test(function(t)
    local server = t:peer([[
      if request.path:find("/x", 1, true) then
        conn:sleep(tonumber(request.path:match("/x(%d)")) / 2)
        conn:respond(200, OK)
      else
        conn:wait_closed()
      end
    ]])
    local client = t:client(server)
    local function late()
      local begin = core.now()
      local _, _, err = client.Sandbox.create("base", { request_timeout = 0.3 })
      assert.equal("timeout", err.kind)
      return core.now() - begin
    end
    local function block(halves)
      return e2b.spawn(function()
        local generator = coroutine.wrap(function()
          coroutine.yield(assert(client.Sandbox.get_info("x" .. halves)).sandbox_id)
        end)
        return generator()
      end)
    end
    -- in the main program
    local one, two = block(1), block(3)
    t:takes_between(0.45, 0.8, late)
    assert.equal("ok", one:wait())
    assert.equal("ok", two:wait())
    -- in a task, before them
    local first = e2b.spawn(late)
    e2b.sleep(0.05)
    one, two = block(1), block(3)
    local took = first:wait()
    assert.is_true(took >= 0.45 and took < 0.85, took)
    assert.equal("ok", one:wait())
    assert.equal("ok", two:wait())
  end))
end)

describe("one client in many tasks", function()
  it("asks its key function once", failing.test(function(t)
    local server = t:peer("conn:respond(201, CREATED)")
    local asked = 0
    local client = t:client(server, { api_key = function()
      asked = asked + 1
      e2b.sleep(0.05)
      return failing.KEY
    end })
    local _, failed = e2b.map({ 1, 2, 3, 4, 5 }, function() return client.Sandbox.create() end)
    assert.equal(0, failed)
    assert.equal(1, asked)
  end))

  it("pages through lists side by side", failing.test(function(t)
    local server = t:peer([[
      local page = tonumber(request.path:match("nextToken=(%d)") or "0")
      conn:sleep(0.02)
      conn:respond(200, "[" .. OK .. "," .. OK .. "]", { ["X-Next-Token"] = page < 4 and tostring(page + 1) or nil })
    ]])
    local client = t:client(server)
    local results = e2b.map({ 1, 2, 3 }, function()
      local count = 0
      for _ in client.Sandbox.list() do
        count = count + 1
      end
      return count
    end)
    for i = 1, 3 do
      assert.equal(10, results[i].value)
    end
    assert.equal(15, t:count(server))
  end))

  it("goes on when the engine goes over to socket mode, with two calls in flight", function()
    local result = support.run([[
      local failing = require("spec.support.failing")
      local e2b = require("e2b")
      failing.test(function(t)
        local server = t:peer("conn:sleep(0.3) conn:respond(201, CREATED)")
        local client = t:client(server)
        local one = e2b.spawn(function() return client.Sandbox.create() end)
        local two = e2b.spawn(function() return client.Sandbox.create() end)
        e2b.sleep(0.1)
        assert(require("e2b.core").engine():pollfd() >= 0)
        t.engine_fds = 2
        t:takes_between(0.1, 0.3, function() e2b.run() end)
        assert(one:wait().sandbox_id == "made" and two:wait().sandbox_id == "made")
        assert(t:count(server) == 2)
        t:works(client)
        t:takes(0.2, function()
          t:fails({ kind = "timeout" }, client.Sandbox.create({ request_timeout = 0.2 }))
        end)
      end)()
    ]])
    assert.equal(0, result.code, result.err)
  end)
end)

describe("Ctrl-C", function()
  for name, source in pairs({
    ["a call"] = "client.Sandbox.create()",
    ["a sleep"] = "e2b.sleep(30)",
    ["tasks"] = "e2b.all(function() return client.Sandbox.create() end, function() return e2b.sleep(30) end)",
  }) do
    it("ends " .. name .. " within about a second", failing.test(function(t)
      local server = t:peer("conn:wait_closed()")
      local result = support.run(string.format([[
        local e2b = require("e2b")
        local client = e2b.client({ api_key = "k", api_url = %q, getenv = function() end })
        os.execute("(sleep 0.3; kill -INT " .. require("e2b.core").getpid() .. ") &")
        %s
        print("went on")
      ]], server.url, source), { timeout = 10 })
      assert.equal("", result.out)
      assert.truthy(result.err:find("interrupted", 1, true), result.err)
      assert.is_true(result.seconds < 0.3 + 1.5 * support.slack, result.seconds)
    end))
  end
end)

describe("a process that ends with calls in flight", function()
  for name, source in pairs({
    ["at the end of its script"] = "",
    ["by os.exit"] = "os.exit(0)",
    ["by os.exit that closes the state"] = "os.exit(0, true)",
    ["by an error"] = "error('on purpose')",
    ["inside of a task"] = "e2b.spawn(function() os.exit(0) end) e2b.sleep(1)",
    ["inside of a task, closing the state"] = "e2b.spawn(function() os.exit(0, true) end) e2b.sleep(1)",
    ["inside of the logger"] = "exit = true e2b.all(function() return client.Sandbox.get_info('ok') end)",
  }) do
    it("ends at once (" .. name .. ")", failing.test(function(t)
      local server = t:peer("conn:wait_closed()")
      local result = support.run(string.format([[
        local e2b = require("e2b")
        local exit
        local client = e2b.client({ api_key = "k", api_url = %q, getenv = function() end,
          logger = function() if exit then os.exit(0) end end })
        for i = 1, 5 do
          e2b.spawn(function() return client.Sandbox.create() end)
        end
        e2b.sleep(0.1)
        %s
      ]], server.url, source), { timeout = 10 })
      assert.equal(name == "by an error" and 1 or 0, result.code, result.err)
      assert.is_true(result.seconds < 0.1 + 0.5 * support.slack, result.seconds)
      assert.equal("", result.out)
      assert.equal(5, t:count(server))
      server:wait_event("closed", 5)
    end))
  end
end)

describe("two clients on one server", function()
  it("never mix up their keys, also over the same connections", failing.test(function(t)
    local server = t:peer([[
      conn:sleep(0.01)
      conn:respond(201, (CREATED:gsub('"made"', '"' .. request.headers["x-api-key"]:gsub("%W", "") .. '"')))
    ]])
    local clients = {}
    for i = 1, 3 do
      clients[i] = t:client(server, { api_key = "key" .. i })
    end
    local list = {}
    for i = 1, 60 do
      list[i] = i
    end
    local results, failed = e2b.map(list, function(i) return clients[i % 3 + 1].Sandbox.create() end, { limit = 5 })
    assert.equal(0, failed)
    for i = 1, 60 do
      assert.equal("key" .. (i % 3 + 1), results[i].value.sandbox_id)
    end
    assert.is_true(server:count("connection") <= 6)
  end))
end)
