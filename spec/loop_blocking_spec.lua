local core = require("e2b.core")
local blocking = require("e2b.loop.blocking")
local driver = require("e2b.loop.driver")
local loops = require("e2b.loop.init")
local support = require("spec.support.support")
local peer = require("spec.support.peer")

local now = core.now

local function target(url) return assert(core.target({ url = url, headers = {}, user_agent = "spec" })) end

local function get(where)
  return assert(core.transfer(where, "raw", { method = "GET", path = "/" }, { timeout = 10, max_bytes = 65536 }))
end

-- A start() for a transfer, and a log of what happened to it.
local function starter(transfer, log)
  return function(done)
    core.engine():start(transfer)
    driver.watch(transfer, done)
    log[#log + 1] = "started"
    return function()
      log[#log + 1] = "cancelled"
      driver.unwatch(transfer)
      transfer:cancel()
    end
  end
end

describe("loop.blocking", function()
  local before
  before_each(function() before = support.snapshot() end)
  after_each(function()
    support.assert_no_leak({ transfers = before.transfers, in_flight = before.in_flight })
  end)

  it("can always wait and is chosen by default", function()
    assert.is_true(blocking.may_wait())
    assert.equal(blocking, loops.choose())
    assert.equal(blocking, loops.choose("blocking"))
    local own = {}
    assert.equal(own, loops.choose(own))
    assert.is_true(loops.known("blocking"))
    assert.is_false(loops.known("nothing"))
  end)

  it("returns what done gets", function()
    local server = peer.answers({ { status = 200, body = "{}" } })
    local transfer, log = get(target(server.url)), {}
    local got, event, more = blocking.await(starter(transfer, log), now() + 5)
    assert.equal(transfer, got)
    assert.equal("done", event)
    assert.is_nil(more)
    assert.same({ "started" }, log)
    assert.is_true((transfer:result()))
    server:stop()
  end)

  it("returns any number of values, nils among them", function()
    -- Something else completes the wait: another transfer's news.
    local server = peer.answers({ { status = 200, body = "{}" } })
    local transfer = get(target(server.url))
    local n, values
    local function keep(...) n, values = select("#", ...), { ... } end
    keep(blocking.await(function(done)
      core.engine():start(transfer)
      driver.watch(transfer, function() done(nil, 2, nil, 4, nil) end)
      return function() end
    end, now() + 5))
    assert.equal(5, n)
    assert.equal(2, values[2])
    assert.equal(4, values[4])
    transfer:result()
    server:stop()
  end)

  it("gives up at the deadline, on time, and cancels", function()
    local server = peer.start([[conn:read_request() conn:wait_closed()]])
    local transfer, log = get(target(server.url)), {}
    local begin = now()
    local value, why = blocking.await(starter(transfer, log), now() + 0.15)
    local took = now() - begin
    assert.is_nil(value)
    assert.equal("deadline", why)
    assert.is_true(took >= 0.15 and took < 0.15 + support.tolerance, took)
    assert.same({ "started", "cancelled" }, log)
    assert.equal(0, core.stats().in_flight)
    local ok, facts = transfer:result()
    assert.is_false(ok)
    assert.equal("cancelled", facts.cause)
    server:stop()
  end)

  it("sleeps without a transfer", function()
    local began, cancelled = now(), 0
    local value, why = blocking.await(function() return function() cancelled = cancelled + 1 end end, now() + 0.1)
    local took = now() - began
    assert.is_nil(value)
    assert.equal("deadline", why)
    assert.equal(1, cancelled)
    assert.is_true(took >= 0.1 and took < 0.1 + support.tolerance, took)
  end)

  it("drives what is in flight even when the deadline is past", function()
    local server = peer.answers({ { status = 200, body = "{}" } })
    local transfer, finished = get(target(server.url)), false
    core.engine():start(transfer)
    driver.watch(transfer, function() finished = true end)
    local limit = now() + 5
    while not finished and now() < limit do
      assert.same({ nil, "deadline" }, { blocking.await(function() return function() end end, 0) })
    end
    assert.is_true(finished)
    transfer:result()
    server:stop()
  end)

  it("cancels and passes the error on when the wait is broken off", function()
    local server = peer.start([[conn:read_request() conn:wait_closed()]])
    local transfer, log = get(target(server.url)), {}
    -- lua's own Ctrl-C is a hook that raises; this one raises a few instructions after the wait has begun
    local ok, message = pcall(blocking.await, function(done)
      local cancel = starter(transfer, log)(done)
      debug.sethook(function()
        debug.sethook()
        error("interrupted!", 0)
      end, "", 40)
      return cancel
    end, now() + 10)
    debug.sethook()
    assert.is_false(ok)
    assert.equal("interrupted!", message)
    assert.equal("cancelled", log[#log])
    assert.equal(0, core.stats().in_flight)
    transfer:result()
    server:stop()
  end)

  it("ends with Ctrl-C, at once, in a real process", function()
    local server = peer.start([[conn:read_request() conn:wait_closed()]])
    local result = support.run(([[
      local client = require("e2b.client").new({ api_url = %q, api_key = "k" })
      local core = require("e2b.core")
      -- a child of ours presses Ctrl-C while we wait
      os.execute("(sleep 0.3; kill -INT " .. core.getpid() .. ") &")
      local begin = core.now()
      local ok, message = pcall(client.request, client, "GET", "/")
      io.write(tostring(ok), " ", tostring(message), " ", core.now() - begin < 2 and "soon" or "late", " ",
        core.stats().in_flight)
    ]]):format(server.url), { timeout = 20 })
    assert.matches("^false .*interrupted! soon 0$", result.out, result.err)
    server:stop()
  end)

  it("exchanges one transfer, and hands out what else there is to tell", function()
    local server = peer.start([[conn:serve(function(request)
      conn:sleep(request.path == "/slow" and 0.3 or 0.05)
      conn:respond(200, "[]")
    end)]])
    local where, told = target(server.url), {}
    local other = assert(core.transfer(where, "raw", { method = "GET", path = "/fast" }, {}))
    core.engine():start(other)
    driver.watch(other, function(transfer, event) told[transfer] = event end)
    local transfer = assert(core.transfer(where, "raw", { method = "GET", path = "/slow" }, {}))
    assert.equal("done", blocking.exchange(transfer, now() + 10))
    assert.same({ [other] = "done" }, told)
    assert.is_true((transfer:result()))
    assert.is_true((other:result()))
    assert.is_nil((core.engine():finished()))
    server:stop()
  end)

  it("gives an exchange up at the deadline, on time, and cancels it", function()
    local server = peer.start([[conn:read_request() conn:wait_closed()]])
    local transfer, begin = get(target(server.url)), now()
    assert.equal("deadline", blocking.exchange(transfer, begin + 0.15))
    local took = now() - begin
    assert.is_true(took >= 0.15 and took < 0.15 + support.tolerance, took)
    assert.equal("cancelled", select(2, transfer:result()).cause)
    assert.equal(0, core.stats().in_flight)
    server:stop()
  end)

  -- How many pcalls are on the stack: one more than outside while the exchange waits.
  local function pcalls()
    local count, level = 0, 2
    while true do
      local info = debug.getinfo(level, "f")
      if not info then return count end
      if info.func == pcall then count = count + 1 end
      level = level + 1
    end
  end

  it("cancels an exchange that is broken off, wherever that happens", function()
    local server = peer.start([[conn:read_request() conn:wait_closed()]])
    for count = 1, 60, 3 do
      local transfer = get(target(server.url))
      local ok, message = pcall(function()
        local outside = pcalls()
        debug.sethook(function()
          if pcalls() <= outside then return end -- not in the wait, or no longer: then it is not the wait's to tell
          debug.sethook()
          error("interrupted!", 0)
        end, "", count)
        return blocking.exchange(transfer, now() + 0.3)
      end)
      debug.sethook()
      if ok then break end -- it was over before the hook came
      assert.equal("interrupted!", message)
      assert.equal(0, core.stats().in_flight, count)
      transfer:cancel()
      transfer:result()
    end
    server:stop()
  end)

  it("refuses to exchange a transfer twice", function()
    local server = peer.answers({ { status = 200, body = "[]" } })
    local transfer = get(target(server.url))
    assert.equal("done", blocking.exchange(transfer))
    assert.has_error(function() blocking.exchange(transfer) end)
    assert.is_true((transfer:result()))
    server:stop()
  end)

  it("is back in Lua once a second", function()
    local hooks, began = 0, now()
    -- A count hook can only run when Lua code does.
    debug.sethook(function() hooks = hooks + 1 end, "", 1)
    blocking.await(function() return function() end end, began + 1.3)
    debug.sethook()
    assert.is_true(hooks > 0)
    assert.is_true(now() - began < 1.3 + support.tolerance)
  end)
end)
