-- The engine: modes, waiting, clocks, the cap on connections, and its end.
local support = require("spec.support.support")
local exchange = require("spec.support.exchange")
local core = support.core()

local OK = [[conn:serve(function() conn:respond(200, "[1]") end)]]
-- /now answers at once; /slow after a signal; /never not at all
local MIXED = [[conn:serve(function(request)
  if request.path == "/never" then conn:wait_closed() return end
  if request.path == "/slow" then conn:sleep(0.3) end
  if request.path == "/large" then return conn:respond(200, ("x"):rep(20000)) end
  conn:respond(200, '["' .. request.path .. '"]')
end)]]

-- Everything a fresh Lua state must do by itself: the switch to socket mode can't be taken back.
local function child(source, options)
  local result = support.run([[
    local support = require("spec.support.support")
    local exchange = require("spec.support.exchange")
    local core = support.core()
    local engine = core.engine()
    local url = arg[1]
    local target = exchange.target(url)
  ]] .. source, options)
  assert.equal(0, result.code, result.out .. result.err)
  return result
end

describe("e2b.core", function()
  local watch = exchange.watch()

  it("tells its ABI, the clock, the process and the libcurl it runs on", function()
    assert.equal(3, core.ABI)
    local before = core.now()
    support.sleep(0.01)
    local passed = core.now() - before
    assert.is_true(passed >= 0.0095 and passed < 5, tostring(passed))
    assert.equal(support.shell("echo $PPID"):match("%d+"), tostring(core.getpid()))
    local libcurl = core.libcurl()
    assert.truthy(libcurl.version:match("^%d+%.%d+"))
    assert.is_true(libcurl.number >= 0x074200)
    for _, name in ipairs({ "prereq", "quick_exit", "http2", "async_dns" }) do
      assert.is_boolean(libcurl[name])
    end
  end)

  it("has one engine per Lua state, without a multi handle before the first start", function()
    assert.equal(core.engine(), core.engine())
    assert.equal(0, core.stats().engines)
    local server = watch.peer(OK)
    assert.is_true((exchange.get(exchange.target(server), "/")))
    assert.equal(1, core.stats().engines)
  end)

  it("raises in a finalizer that runs after the engine's, and the process ends well", function()
    local result = support.run([[
      local attempts = {}
      local function finalizer()
        for i, attempt in ipairs(attempts) do
          local ok, message = pcall(attempt)
          print(i, ok, message)
        end
      end
      -- older than the engine, so finalized after it
      if newproxy then
        KEPT = newproxy(true)
        getmetatable(KEPT).__gc = finalizer
      else
        KEPT = setmetatable({}, { __gc = finalizer })
      end
      local core = require("spec.support.support").core()
      local e2b = require("e2b")
      local options = { api_key = "e2b_" .. ("a"):rep(40), api_url = "http://127.0.0.1:1", proxy = false, retries = 0,
        sandbox_url = "http://127.0.0.1:1", getenv = function() end }
      local client = e2b.client(options)
      client.Sandbox.is_running("x") -- loads what a call needs
      local target = core.target({ url = "http://127.0.0.1:1" })
      local transfer = core.transfer(target, "raw", { method = "GET", path = "/" })
      attempts = {
        function() return core.target({ url = "http://127.0.0.1:1" }) end,
        function() return core.transfer(target, "raw", { method = "GET", path = "/" }) end,
        function() return core.engine():start(transfer) end,
        function() return e2b.client(options) end,
        function() return client.Sandbox.is_running("x") end,
        function() return core.stats().targets, tostring(target), tostring(transfer), tostring(core.engine()) end,
        function() return transfer:cancel(), transfer:progress() end,
      }
    ]])
    assert.equal(0, result.code, result.out .. result.err)
    for i = 1, 7 do
      assert.truthy(result.out:find("\n" .. i .. "\t", 1, true) or result.out:find("^" .. i .. "\t"), result.out)
    end
    for i = 1, 3 do -- the core's own
      assert.truthy(result.out:find(i .. "\tfalse\t[^\n]*attempt to use a closed %w+"), result.out)
    end
  end)

  it("exports one symbol", function()
    local file = assert(package.searchpath or function(name, path)
      for template in path:gmatch("[^;]+") do
        local candidate = template:gsub("%?", (name:gsub("%.", "/")))
        if support.read_file(candidate) then
          return candidate
        end
      end
    end)("e2b.core", package.cpath)
    local output = support.shell("nm -D --defined-only " .. file .. " | grep -v -e __asan -e __ubsan -e __odr")
    local symbols = {}
    for symbol in output:gmatch("%x+ %a (%S+)") do
      symbols[#symbols + 1] = symbol
    end
    assert.same({ "luaopen_e2b_core" }, symbols)
  end)

  it("survives being opened twice in one state", function()
    local server = watch.peer(OK)
    local transfer = exchange.raw(exchange.target(server), "/")
    local engine = core.engine()
    engine:start(transfer)
    package.loaded["e2b.core"] = nil
    local again = require("e2b.core")
    package.loaded["e2b.core"] = core
    assert.equal(engine, again.engine())
    exchange.drive({ transfer })
    assert.is_true((transfer:result()))
  end)
end)

describe("the engine", function()
  local watch = exchange.watch()
  local engine = core.engine()

  it("runs calls one after the other over one connection", function()
    local server = watch.peer(OK)
    local target = exchange.target(server)
    for _ = 1, 20 do
      local ok, value, _, status = exchange.get(target, "/")
      assert.same({ true, { 1 }, 200 }, { ok, value, status })
    end
    assert.equal(1, server:count("connection"))
    assert.equal(1, core.stats().sockets)
    assert.equal(1, core.stats().easies)
  end)

  it("runs many at once and tells of each exactly once", function()
    local server = watch.peer(MIXED)
    local target = exchange.target(server)
    local transfers = {}
    for i = 1, 50 do
      transfers[i] = exchange.raw(target, "/slow")
      engine:start(transfers[i])
    end
    assert.equal(50, core.stats().in_flight)
    local began = core.now()
    exchange.drive(transfers)
    assert.is_true(core.now() - began < 1.5 * support.slack)
    for i = 1, 50 do
      assert.is_true((transfers[i]:result()))
    end
  end)

  it("does not block in step()", function()
    local server = watch.peer(MIXED)
    local transfer = exchange.raw(exchange.target(server), "/slow")
    engine:start(transfer)
    local began = core.now()
    local steps = 0
    while core.now() - began < 0.1 do
      engine:step()
      steps = steps + 1
    end
    assert.is_true(steps > 20)
    assert.is_nil((engine:finished()))
    exchange.drive({ transfer })
  end)

  it("waits for one transfer, and tells of that one no other way", function()
    local server = watch.peer(MIXED)
    local target = exchange.target(server)
    local slow, fast = exchange.raw(target, "/slow"), exchange.raw(target, "/now")
    assert.is_false(engine:wait(0, slow)) -- not even started
    engine:start(slow)
    engine:start(fast)
    local done, news
    repeat done, news = engine:wait(1, slow) until done or news
    assert.same({ false, true }, { done, news })
    assert.same({ fast, "done" }, { engine:finished() })
    repeat done, news = engine:wait(1, slow) until done or news
    assert.same({ true, false }, { done, news })
    assert.is_nil((engine:finished()))
    assert.same({ true, false }, { engine:wait(1, slow) })
    assert.is_true((slow:result()))
    assert.is_true((fast:result()))
    assert.same({ true, false }, { engine:wait(1, slow) })
    local never = exchange.raw(target, "/never")
    engine:start(never)
    local took = support.timed(function() assert.same({ false, false }, { engine:wait(0.05, never) }) end)
    assert.is_true(took >= 0.05 and took < 0.05 + support.tolerance, took)
    never:cancel()
    assert.same({ true, false }, { engine:wait(1, never) })
    never:result()
  end)

  it("waits no longer than asked, and never longer than a second", function()
    for _, seconds in ipairs({ 0, 0.05, 30 }) do
      local took = support.timed(function()
        assert.is_false(engine:wait(seconds))
      end)
      local expected = math.min(seconds, 1)
      assert.is_true(took >= expected and took < expected + support.tolerance, seconds .. " took " .. took)
    end
  end)

  it("comes back from waiting when a signal comes", function()
    local result = child([[
      local posix = require("spec.support.posix")
      posix.on_signal(28)
      local function interrupted(what)
        local pipe = io.popen("sleep 0.2; kill -28 " .. core.getpid(), "r")
        local took = support.timed(function() engine:wait(1) end)
        assert(took < 0.8, what .. " slept on: " .. took)
        pipe:close()
      end
      interrupted("idle")
      engine:start(exchange.raw(target, "/never"))
      engine:wait(0.2)
      interrupted("perform")
      engine:pollfd()
      engine:wait(0.2)
      interrupted("sockets")
    ]], { args = { watch.peer(MIXED).url } })
    assert.equal("", result.err)
  end)

  it("queues what is over its cap on connections, inside the deadline of the queued", function()
    local server = watch.peer(MIXED)
    local target = exchange.target(server)
    engine:connections(1)
    local slow = exchange.raw(target, "/slow")
    local queued = exchange.raw(target, "/now", { connect_timeout = 0.1 })
    local late = exchange.raw(target, "/now", { timeout = 0.1 })
    local began = core.now()
    for _, transfer in ipairs({ slow, queued, late }) do
      engine:start(transfer)
    end
    local late_at
    repeat
      engine:wait(1)
      for transfer in engine.finished, engine do
        if transfer == late then
          late_at = core.now() - began
        end
      end
    until late_at
    assert.is_true(late_at >= 0.1 and late_at < 0.1 + support.tolerance, tostring(late_at))
    local ok, facts = late:result()
    assert.is_false(ok)
    assert.same({ "deadline", "request_timeout", "no" }, { facts.cause, facts.deadline, facts.sent })
    exchange.drive({ slow, queued })
    assert.is_true((slow:result()))
    -- waiting for a connection is not connecting
    assert.is_true((queued:result()))
    assert.equal(1, server:count("connection"))
    engine:connections(100)
  end)

  it("uses a handle again that waited for a connection in vain, for a stream, too", function()
    local target = exchange.target(watch.peer(MIXED))
    engine:connections(1)
    local slow = exchange.raw(target, "/slow")
    engine:start(slow)
    engine:wait(0.05)
    for i = 1, 4 do
      local facts = exchange.fail(exchange.raw(target, "/now", { timeout = 0.03, stream = i % 2 == 0 or nil }))
      assert.same({ "deadline", "no" }, { facts.cause, facts.sent }, facts.text)
    end
    local upload = exchange.raw(target, "/now", { timeout = 0.03, source = "chunks" }, { method = "PUT" })
    assert.equal("deadline", exchange.fail(upload).cause)
    exchange.drive({ slow })
    assert.is_true((slow:result()))
    engine:connections(100)
  end)

  it("has room for a call beside any number of open streams", function()
    local envelopes = require("spec.support.envelopes")
    local server = watch.peer(envelopes.handler .. [[
      if request.method == "GET" then return conn:respond(200, "{}") end
      begin()
      send('{"event":{"start":{"pid":1}}}')
      conn:wait_closed()
    ]])
    engine:connections(2)
    local streams, left = {}, 20
    for i = 1, 20 do
      streams[i] = envelopes.open(server)
      engine:start(streams[i])
    end
    local limit = core.now() + 5 * support.slack
    while left > 0 and core.now() < limit do
      engine:wait(0.1)
      for transfer in engine.finished, engine do
        if transfer:event() == "start" then left = left - 1 end
      end
    end
    assert.equal(0, left)
    local target = exchange.target(server)
    for _ = 1, 3 do assert.is_true((exchange.get(target, "/", { timeout = 2 }))) end
    for _, transfer in ipairs(streams) do transfer:cancel() end
    -- what is no stream still counts
    local before = server:count("connection")
    assert.is_true((exchange.get(target, "/", { timeout = 2 })))
    assert.is_true(server:count("connection") <= before + 1)
    engine:connections(100)
  end)

  it("keeps deadlines within 100 ms", function()
    local server = watch.peer(MIXED)
    local target = exchange.target(server)
    for _, seconds in ipairs({ 0.05, 0.3, 1.2 }) do
      local transfer = exchange.raw(target, "/never", { timeout = seconds })
      local took, facts = support.timed(exchange.fail, transfer)
      assert.is_true(took >= seconds and took < seconds + support.tolerance, seconds .. " took " .. took)
      assert.same({ "deadline", "request_timeout", "maybe" }, { facts.cause, facts.deadline, facts.sent })
    end
  end)

  it("bounds connecting by its own clock", function()
    -- the connection is accepted, but nobody answers the TLS hello
    local server = watch.peer([[conn:wait_closed()]])
    local target = exchange.target((server.url:gsub("^http:", "https:")))
    local took, facts = support.timed(exchange.fail, exchange.raw(target, "/", { connect_timeout = 0.2, timeout = 5 }))
    assert.is_true(took >= 0.2 and took < 0.2 + support.tolerance, tostring(took))
    assert.same({ "deadline", "connect_timeout", "no" }, { facts.cause, facts.deadline, facts.sent })
  end)

  it("bounds the silence between two bytes by its idle clock, and nothing else", function()
    local server = watch.peer([[conn:serve(function(request)
      if request.path == "/wait" then conn:sleep(0.3) end
      conn:begin_chunked(200)
      for _ = 1, 6 do
        conn:sleep(0.08)
        conn:chunk("1")
      end
      if request.path == "/hang" then conn:wait_closed() return end
      conn:chunk("")
    end)]])
    local target = exchange.target(server)
    local ok, value = exchange.get(target, "/", { idle_timeout = 0.25 * support.slack })
    assert.same({ true, 111111 }, { ok, value })
    -- the time before the answer begins is not idle time
    assert.is_true((exchange.get(target, "/wait", { idle_timeout = 0.25 * support.slack })))
    local facts = exchange.fail(exchange.raw(target, "/hang", { idle_timeout = 0.25 * support.slack }))
    assert.same({ "deadline", "idle_timeout", "yes" }, { facts.cause, facts.deadline, facts.sent })
  end)

  it("ends what is in flight when it is closed, and is usable again", function()
    local server = watch.peer(MIXED)
    local target = exchange.target(server)
    assert.is_true((exchange.get(target, "/now")))
    local transfers = {}
    for i = 1, 3 do
      transfers[i] = exchange.raw(target, "/never")
      engine:start(transfers[i])
    end
    engine:wait(0.1)
    engine:close()
    assert.same({ 0, 0, 0 }, { core.stats().in_flight, core.stats().sockets, core.stats().engines })
    exchange.drive(transfers)
    for i = 1, 3 do
      local ok, facts = transfers[i]:result()
      assert.same({ false, "cancelled" }, { ok, facts.cause })
    end
    assert.is_true((exchange.get(target, "/now")))
  end)

  it("goes with its Lua state, whatever was going on", function()
    local server = watch.peer(MIXED)
    for _, mode in ipairs({ "perform", "sockets" }) do
      child(([[
        if %q == "sockets" then engine:pollfd() end
        local prepared = exchange.raw(target, "/now")
        local never = exchange.raw(target, "/never", { timeout = 100 })
        local paused = exchange.raw(target, "/never", { stream = true, source = "chunks" }, { method = "POST" })
        local done = exchange.raw(target, "/now")
        for _, transfer in ipairs({ never, paused, done }) do engine:start(transfer) end
        repeat engine:wait(1) until engine:finished()
        KEPT = { prepared, never, done } -- the rest goes first
        if os.exit and _VERSION ~= "Lua 5.1" then os.exit(0, true) end
      ]]):format(mode), { args = { server.url } })
    end
  end)

  it("refuses what makes no sense", function()
    local server = watch.peer(OK)
    local transfer = exchange.raw(exchange.target(server), "/")
    assert.has_error(function() engine:start({}) end)
    assert.has_error(function() engine:connections(0) end)
    assert.has_error(function() engine.wait(engine) end)
    engine:start(transfer)
    assert.has_error(function() engine:start(transfer) end, "this transfer was started or cancelled already")
    exchange.drive({ transfer })
    assert.has_error(function() engine:start(transfer) end)
    assert.truthy(tostring(engine):match("^e2b%.engine %(%a+, 0 in flight%)$"))
  end)
end)

describe("socket mode", function()
  local watch = exchange.watch()

  it("takes over what is in flight: two transfers, one of them in the middle of its body", function()
    local server = watch.peer([[conn:serve(function(request)
      if request.path == "/body" then
        conn:begin_chunked(200)
        conn:chunk("[1")
        conn:sleep(0.3)
        conn:chunk(",2]")
        conn:chunk("")
      else
        conn:sleep(0.3)
        conn:respond(200, "[3]")
      end
    end)]])
    child([[
      local a, b = exchange.raw(target, "/body"), exchange.raw(target, "/")
      local began = core.now()
      engine:start(a)
      engine:start(b)
      while not a:status() do engine:wait(0.05) end
      local fd = engine:pollfd()
      assert(fd == engine:pollfd() and engine:events() == "r")
      exchange.drive({ a, b }, nil, 3)
      local _, one = a:result()
      local _, two = b:result()
      assert(one[2] == 2 and two[1] == 3)
      assert(core.now() - began < 0.3 + 0.4 * support.slack, "late: " .. core.now() - began)
      assert(exchange.get(target, "/"))
      engine:close()
      assert(core.stats().sockets == 0 and core.stats().easies == 0)
    ]], { args = { server.url } })
  end)

  it("takes over a paused one", function()
    local server = watch.peer([[conn:serve(function()
      conn:respond(200, ("x"):rep(3000000))
    end)]])
    child([[
      local a = exchange.raw(target, "/", { stream = true, high_water = 100000 })
      local b = exchange.raw(target, "/", { stream = true, high_water = 100000 })
      engine:start(a)
      engine:start(b)
      local size = { [a] = 0, [b] = 0 }
      local function take(transfer)
        while true do
          local bytes = transfer:read()
          if not bytes then return end
          size[transfer] = size[transfer] + #bytes
        end
      end
      local limit = core.now() + 5 * support.slack
      repeat engine:wait(0.05) until a:status() and b:status() or core.now() > limit
      engine:wait(0.2)         -- both are over their mark now
      size[a] = size[a] + #a:read()   -- goes on in perform mode …
      engine:wait(0.2)
      engine:pollfd()          -- … and in socket mode
      take(a)
      take(b)
      exchange.drive({ a, b }, take, 5)
      take(a)
      take(b)
      assert(size[a] == 3000000 and size[b] == 3000000, size[a] .. " " .. size[b])
      assert(a:result() and b:result())
    ]], { args = { server.url } })
  end)

  it("takes over one that was paused once and waits for bytes now", function()
    local server = watch.peer([[conn:serve(function()
      conn:begin_chunked(200)
      conn:chunk(("x"):rep(1000000))
      conn:sleep(0.5)
      conn:chunk(("x"):rep(1000000))
      conn:chunk("")
    end)]])
    child([[
      local transfer = exchange.raw(target, "/", { stream = true, high_water = 100000 })
      local size = 0
      local function take()
        while true do
          local bytes = transfer:read()
          if not bytes then return end
          size = size + #bytes
        end
      end
      engine:start(transfer)
      engine:wait(0.2)
      engine:wait(0.1)         -- over its mark
      while size < 1000000 do
        take()
        engine:wait(0.1)
      end
      engine:pollfd()
      exchange.drive({ transfer }, take, 2)
      take()
      assert(size == 2000000 and transfer:result(), size)
    ]], { args = { server.url } })
  end)

  it("is one descriptor and a timeout to any loop", function()
    local server = watch.peer(MIXED)
    child([[
      local posix = require("spec.support.posix")
      local fd = engine:pollfd()
      assert(posix.is_cloexec(fd))
      -- a loop that knows nothing but pollfd, events and timeout
      local function loop(transfers)
        local left, limit = #transfers, core.now() + 5 * support.slack
        while left > 0 do
          local timeout = engine:timeout()
          assert(timeout and timeout <= 1.01, tostring(timeout))
          posix.poll(fd, timeout)
          engine:step()
          for _, event in engine.finished, engine do
            assert(event == "done")
            left = left - 1
          end
          assert(core.now() < limit, "stuck")
        end
      end
      while engine:timeout() do engine:step() end
      local transfers = {}
      for i = 1, 20 do
        transfers[i] = exchange.raw(target, i % 2 == 0 and "/slow" or "/now")
        engine:start(transfers[i])
      end
      loop(transfers)
      for i = 1, 20 do assert((transfers[i]:result())) end
      assert(engine:timeout() == nil)
      -- a deadline is part of the timeout
      local late = exchange.raw(target, "/never", { timeout = 0.2 })
      local began = core.now()
      engine:start(late)
      loop({ late })
      local took = core.now() - began
      assert(took >= 0.2 and took < 0.2 + support.tolerance, took)
      -- refused connections are errors of the socket
      local refused = exchange.raw(exchange.target("http://127.0.0.1:1"), "/")
      engine:start(refused)
      loop({ refused })
      local ok, facts = refused:result()
      assert(ok == false and facts.curl == 7 and facts.sent == "no", facts.text)
    ]], { args = { server.url } })
  end)

  it("wakes a loop that sleeps with an old timeout", function()
    local server = watch.peer(MIXED)
    child([[
      local posix = require("spec.support.posix")
      local fd = engine:pollfd()
      assert(posix.poll(fd, 1))       -- opened: look at it once
      engine:step()
      assert(not posix.poll(fd, 0))
      local transfer = exchange.raw(target, "/now")
      engine:start(transfer)
      assert(posix.poll(fd, 0), "start")
      engine:step()
      exchange.drive({ transfer })
      local other = exchange.raw(target, "/never")
      engine:start(other)
      engine:step()
      while posix.poll(fd, 0.1) do engine:step() end
      engine:close()
      assert(posix.poll(fd, 0), "close")
      engine:step()
      exchange.drive({ other })
      -- a pause taken back: libcurl has the rest of the body already, so no socket will tell
      local paused = exchange.raw(target, "/large", { stream = true, high_water = 1000 })
      engine:start(paused)
      while not paused:status() do engine:wait(0.1) end
      for _ in engine.finished, engine do end
      while posix.poll(fd, 0.2) do engine:step() end
      assert(#paused:read() < 20000)
      assert(posix.poll(fd, 0), "read")
      local limit = core.now() + 5
      repeat
        posix.poll(fd, engine:timeout())
        engine:step()
        paused:read()
      until core.stats().in_flight == 0 or core.now() > limit
      assert(paused:result())
      for _ in engine.finished, engine do end
      -- the same descriptor goes on
      assert(fd == engine:pollfd())
      assert(exchange.get(target, "/now"))
    ]], { args = { server.url } })
  end)

  it("does not spin while it waits", function()
    local server = watch.peer(MIXED)
    child([[
      engine:pollfd()
      local transfer = exchange.raw(target, "/never", { timeout = 1 })
      local before = os.clock()
      exchange.run(transfer)
      local cpu = os.clock() - before
      assert(cpu < 0.1 * support.slack, "CPU seconds: " .. cpu)
    ]], { args = { server.url } })
  end)
end)
