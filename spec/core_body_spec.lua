-- Bodies in pieces: read, written, from and to descriptors.
local support = require("spec.support.support")
local exchange = require("spec.support.exchange")
local posix = require("spec.support.posix")
local core = support.core()
local engine = core.engine()

describe("a body in pieces", function()
  local watch = exchange.watch()

  it("is read as it comes", function()
    local server = watch.peer([[conn:serve(function(request)
      conn:begin_chunked(200)
      for i = 1, 3 do
        conn:wait_signal(i)
        conn:chunk("piece " .. i)
      end
      conn:wait_signal("end")
      conn:chunk("")
    end)]])
    local transfer = exchange.raw(exchange.target(server), "/", { stream = true })
    assert.is_false(transfer:read())
    engine:start(transfer)
    local function await()
      local limit = core.now() + 5 * support.slack
      while true do
        assert.is_true(core.now() < limit)
        engine:wait(0.5)
        local which, event = engine:finished()
        if which then
          assert.equal(transfer, which)
          return event
        end
      end
    end
    assert.equal("read", await()) -- the headers
    assert.equal(200, transfer:status())
    assert.is_false(transfer:read())
    for i = 1, 3 do
      server:signal(i)
      assert.equal("read", await())
      assert.equal("pie", transfer:read(3))
      assert.equal("ce " .. i, transfer:read())
      assert.is_false(transfer:read())
    end
    server:signal("end")
    assert.equal("done", await())
    assert.is_nil(transfer:read())
    assert.same({ true, true, nil, 200 }, { transfer:result() })
    assert.is_nil(transfer:read())
    assert.has_error(function() transfer:read(0) end)
    assert.has_error(function() transfer:write("x") end)
    assert.has_error(function() transfer:close_write() end)
    assert.has_error(function() exchange.raw(exchange.target(server), "/"):read() end)
  end)

  it("is news once for a reader that has not looked, and never after its end", function()
    local server = watch.peer([[conn:serve(function(request)
      conn:begin_chunked(200)
      conn:chunk("12345")
      conn:wait_signal("more")
      conn:chunk("67890")
      conn:wait_signal("end")
      conn:chunk("")
    end)]])
    local transfer = exchange.raw(exchange.target(server), "/", { stream = true })
    local function await(condition)
      local limit = core.now() + 5 * support.slack
      repeat
        engine:step()
        assert.is_true(core.now() < limit)
      until condition()
    end
    engine:start(transfer)
    await(function() return transfer:progress() == 5 end)
    assert.same({ transfer, "read" }, { engine:finished() })
    server:signal("more")
    await(function() return transfer:progress() == 10 end)
    assert.equal(0, select("#", engine:finished()))
    assert.equal("1234567890", transfer:read())
    assert.is_false(transfer:read()) -- from now on it wants to be told
    server:signal("end")
    await(function() return core.stats().in_flight == 0 end)
    assert.same({ transfer, "done" }, { engine:finished() })
    assert.equal(0, select("#", engine:finished()))

    local short = exchange.raw(exchange.target(watch.answers({ { body = "[1]" } })), "/", { stream = true })
    engine:start(short)
    await(function() return core.stats().in_flight == 0 end)
    assert.same({ short, "done" }, { engine:finished() }) -- "read" and "done" in one
    assert.equal(0, select("#", engine:finished()))
    assert.equal("[1]", short:read())
  end)

  it("still gives what arrived when it breaks off", function()
    local server = watch.peer([[conn:serve(function()
      conn:begin_chunked(200)
      conn:chunk("12345")
      conn:close()
    end)]])
    local transfer = exchange.raw(exchange.target(server), "/", { stream = true })
    engine:start(transfer)
    exchange.drive({ transfer })
    assert.equal("12345", transfer:read())
    assert.is_nil(transfer:read())
    local ok, facts = transfer:result()
    assert.same({ false, "curl", "yes" }, { ok, facts.cause, facts.sent })
  end)

  it("of a failed answer is not streamed, but kept for the message", function()
    local server = watch.peer([[conn:serve(function(request)
      if request.path == "/endless" then
        conn:begin_chunked(500)
        while conn:chunk(("x"):rep(10000)) do end
        return conn:close()
      end
      conn:respond(403, '{"code":403,"message":"no"}')
    end)]])
    local target = exchange.target(server)
    local path = support.tmpdir() .. "/sink"
    local file = assert(io.open(path, "wb"))
    for _, opts in ipairs({ { stream = true }, { sink = posix.fileno(file) } }) do
      local transfer = exchange.raw(target, "/", opts)
      local facts = exchange.fail(transfer)
      assert.same({ "http", 403, "no" }, { facts.cause, facts.status, facts.message })
      transfer = exchange.raw(target, "/endless", opts)
      facts = exchange.fail(transfer)
      assert.same({ "http", 500 }, { facts.cause, facts.status })
      assert.is_true((transfer:progress()) < 200000)
    end
    file:close()
    assert.equal("", support.read_file(path))
  end)

  it("goes to a descriptor, or says why not", function()
    local server = watch.answers({ { body = ("abc"):rep(100000) } })
    local target = exchange.target(server)
    local path = support.tmpdir() .. "/sink"
    local file = assert(io.open(path, "wb"))
    assert.same({ true, true, nil, 200 }, { exchange.get(target, "/", { sink = posix.fileno(file) }) })
    file:close()
    assert.equal(("abc"):rep(100000), support.read_file(path))
    local full = posix.open("/dev/full", 1)
    local facts = exchange.fail(exchange.raw(target, "/", { sink = full }))
    assert.same({ "sink", 28, "yes" }, { facts.cause, facts.os_errno, facts.sent })
    posix.close(full)
    facts = exchange.fail(exchange.raw(target, "/", { sink = 999999 }))
    assert.same({ "sink", 9 }, { facts.cause, facts.os_errno })
    facts = exchange.fail(exchange.raw(target, "/", { stream = true, max_bytes = 1000 }))
    assert.equal("too_large", facts.cause)
  end)

  it("is sent in chunks that are written when there are any", function()
    local server = watch.peer([[
      conn:serve(function(request) conn:respond(200, '["' .. #request.body .. '"]') end)
    ]])
    local target = exchange.target(server)
    for _, size in ipairs({ false, 600000 }) do
      local opts = { source = "chunks", high_water = 100000, source_size = size or nil }
      local transfer = exchange.raw(target, "/", opts, { method = "POST" })
      local piece = ("w"):rep(60000)
      assert.is_true(transfer:write(piece))
      assert.is_false(transfer:write(piece)) -- nothing of it was taken
      engine:start(transfer)
      local left, writes = 9, 0
      while left > 0 do
        if transfer:write(piece) then
          left = left - 1
        else
          local which, event
          repeat
            engine:wait(1)
            which, event = engine:finished()
          until which
          assert.equal("write", event)
          writes = writes + 1
        end
      end
      assert.is_true(writes >= 3)
      engine:wait(0.05) -- it runs dry and pauses
      transfer:close_write()
      transfer:close_write()
      assert.has_error(function() transfer:write("x") end)
      exchange.drive({ transfer })
      local _, up, _, total = transfer:progress()
      assert.same({ 600000, size or nil }, { up, total })
      local ok, value = transfer:result()
      assert.same({ true, { "600000" } }, { ok, value })
    end
    local sent = server:requests()
    assert.equal("chunked", sent[1].headers["transfer-encoding"])
    assert.equal("600000", sent[2].headers["content-length"])
    assert.is_nil(sent[1].headers.expect)
  end)

  it("that is shorter or longer than announced ends the transfer", function()
    local server = watch.peer([[conn:serve(function() conn:respond(200, "[]") end)]])
    local target = exchange.target(server)
    local short = exchange.raw(target, "/", { source = "chunks", source_size = 10 }, { method = "PUT" })
    short:write("12345")
    short:close_write()
    local facts = exchange.fail(short)
    assert.equal("source", facts.cause)
    assert.is_nil(facts.os_errno)
    local path = support.tmpdir() .. "/source"
    support.write_file(path, ("s"):rep(100000))
    local file = assert(io.open(path, "rb"))
    facts = exchange.fail(exchange.raw(target, "/", { source = posix.fileno(file), source_size = 100001 },
      { method = "PUT" }))
    assert.equal("source", facts.cause)
    file:close()
    file = assert(io.open(path, "rb"))
    assert.is_true((exchange.run(exchange.raw(target, "/", { source = posix.fileno(file) }, { method = "PUT" }))))
    file:close()
    assert.equal(("s"):rep(100000), server:requests()[server:count()].body)
    local folder = posix.open("/", 0)
    facts = exchange.fail(exchange.raw(target, "/", { source = folder }, { method = "PUT" }))
    assert.same({ "source", 21 }, { facts.cause, facts.os_errno })
    posix.close(folder)
  end)

  it("does not let the idle clock run while the other side of the buffer is ours", function()
    local server = watch.peer([[conn:serve(function() conn:respond(200, ("x"):rep(3000000)) end)]])
    local transfer = exchange.raw(exchange.target(server), "/",
      { stream = true, high_water = 50000, idle_timeout = 0.2 })
    engine:start(transfer)
    local limit = core.now() + 0.6
    while core.now() < limit do
      engine:wait(0.1)
      for _, event in engine.finished, engine do
        assert.equal("read", event)
      end
    end
    local size = 0
    local ok
    local function take()
      while true do
        local bytes = transfer:read()
        if not bytes then return end
        size = size + #bytes
      end
    end
    take()
    exchange.drive({ transfer }, take)
    take()
    ok = transfer:result()
    assert.is_true(ok)
    assert.equal(3000000, size)
  end)
end)
