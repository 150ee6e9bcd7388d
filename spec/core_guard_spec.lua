-- What ends a transfer that nobody needs any more, and what else a wait may wait for.
local support = require("spec.support.support")
local exchange = require("spec.support.exchange")
local posix = require("spec.support.posix")
local core = support.core()

local watched = exchange.watch()
local SILENT = "conn:read_request() conn:wait_closed()"

describe("a guard", function()
  local function running(server)
    local transfer = exchange.raw(exchange.target(server), "/")
    core.engine():start(transfer)
    local limit = core.now() + 5 * support.slack
    while server:count() == 0 and core.now() < limit do
      core.engine():wait(0.01)
    end
    return transfer
  end

  it("ends its transfer when it is collected, connection and all", function()
    local server = watched.peer(SILENT)
    local before = support.fd_count()
    local transfer = running(server)
    assert.is_true(support.fd_count() > before)
    assert.are.equal("e2b.guard", tostring(core.guard(transfer)))
    support.collect()
    assert.are.equal(0, core.stats().in_flight)
    assert.are.equal(0, core.stats().sockets)
    assert.is_nil(core.engine():finished())
    assert.are.equal("cancelled", select(2, transfer:result()).cause)
    server:wait_event("closed")
    core.engine():close()
    assert.are.equal(before, support.fd_count())
  end)

  it("and its transfer may both be forgotten", function()
    local server = watched.peer(SILENT)
    for _ = 1, 3 do
      server:forget()
      core.guard(running(server))
      support.collect()
      support.collect()
      assert.are.equal(0, core.stats().transfers)
    end
  end)

  it("that is released lets its transfer go on", function()
    local server = watched.answers({ { body = "[1]" } })
    local transfer = exchange.raw(exchange.target(server), "/")
    local guard = core.guard(transfer)
    assert.has_error(function() core.guard(transfer) end, "this transfer has a guard already")
    guard:release()
    guard:release()
    assert.are.equal("e2b.guard (released)", tostring(guard))
    local second = core.guard(transfer)
    second:release()
    guard, second = nil, nil -- luacheck: ignore 311
    support.collect()
    assert.is_true(exchange.run(transfer))
  end)

  it("leaves what is done as it is", function()
    local server = watched.answers({ { body = "[1]" } })
    local transfer = exchange.raw(exchange.target(server), "/")
    core.engine():start(transfer)
    local function drive(guard)
      exchange.drive({ transfer })
      return guard
    end
    assert.is_truthy(drive(core.guard(transfer)))
    support.collect()
    local ok, value = transfer:result()
    assert.is_true(ok)
    assert.are.same({ 1 }, value)
  end)

  it("of a transfer that was never started keeps it from being started", function()
    local transfer = exchange.raw(exchange.target("http://127.0.0.1:1"), "/")
    core.guard(transfer)
    support.collect()
    assert.has_error(function() core.engine():start(transfer) end)
    assert.are.equal("cancelled", select(2, transfer:result()).cause)
  end)

  it("outlives its transfer", function()
    local guard = core.guard(exchange.raw(exchange.target("http://127.0.0.1:1"), "/"))
    support.collect()
    assert.are.equal(0, core.stats().transfers)
    guard:release()
    assert.has_error(function() core.guard() end)
  end)
end)

describe("a wait", function()
  for _, mode in ipairs({ "idle", "perform", "sockets" }) do
    it("ends when a descriptor is readable (" .. mode .. ")", function()
      local source = [[
        local support = require("spec.support.support")
        local exchange = require("spec.support.exchange")
        local posix = require("spec.support.posix")
        local core = support.core()
        local engine = core.engine()
        local transfer
        if arg[2] == "sockets" then engine:pollfd() end
        if arg[2] ~= "idle" then
          transfer = exchange.raw(exchange.target(arg[1]), "/")
          engine:start(transfer)
        end
        local pipe = io.popen("exec 2>/dev/null; sleep 0.3; echo x; sleep 0.3")
        local fd = posix.fileno(pipe)
        local began = core.now()
        local news, others, readable = engine:wait(0.05, transfer, fd)
        assert(news == false and not others and readable == false)
        assert(core.now() - began >= 0.05)
        repeat
          news, others, readable = engine:wait(1, transfer, fd)
          assert(news == false and not others)
        until readable
        local took = core.now() - began
        assert(took > 0.25 and took < 0.3 + 0.3 * support.slack, took)
        assert(select(3, engine:wait(1, nil, fd)) == true, "it still is")
        assert(pipe:read("*l") == "x")
        -- the other end goes away
        repeat readable = select(3, engine:wait(1, transfer, fd)) until readable
        assert(pipe:read("*l") == nil)
        pipe:close()
        if transfer then transfer:cancel() end
        engine:close()
      ]]
      local server = watched.peer(SILENT)
      local result = support.run(source, { args = { server.url, mode }, timeout = 20 })
      assert.are.equal(0, result.code, result.out .. result.err)
    end)
  end

  it("ends for its transfer while nothing can be read", function()
    local server = watched.answers({ { body = "[1]", delay = 0.1 } })
    local from, to = posix.pipe()
    local transfer = exchange.raw(exchange.target(server), "/")
    core.engine():start(transfer)
    local limit = core.now() + 5 * support.slack
    local done, others, readable
    repeat
      done, others, readable = core.engine():wait(1, transfer, from)
      assert.is_false(others)
      assert.is_false(readable)
    until done or core.now() > limit
    assert.is_true(done)
    assert.is_true(transfer:result())
    posix.close(to)
    assert.is_true(select(3, core.engine():wait(1, nil, from)))
    posix.close(from)
    assert.has_error(function() core.engine():wait(0, nil, -1) end)
    assert.are.equal(1, select("#", core.engine():wait(0)))
    assert.are.equal(2, select("#", core.engine():wait(0, transfer)))
  end)
end)
