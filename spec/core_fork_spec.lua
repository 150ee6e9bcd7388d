-- A forked child: it leaves the parent's connections alone, and works by itself.
local support = require("spec.support.support")
local exchange = require("spec.support.exchange")

local SERVER = [[conn:serve(function(request)
  if request.path == "/slow" then conn:sleep(0.5) end
  conn:respond(200, '["' .. conn.number .. '"]')
end)]]

-- In a process of its own, with two transfers in flight and pooled connections: forks, and runs `child` and `parent`.
local function forking(server, mode, child, parent)
  local result = support.run([[
    local support = require("spec.support.support")
    local exchange = require("spec.support.exchange")
    local posix = require("spec.support.posix")
    local core = support.core()
    local engine = core.engine()
    local target = exchange.target(arg[1], { ca_file = arg[3] })
    if arg[2] == "sockets" then engine:pollfd() end
    assert(exchange.get(target, "/"))
    local slow = exchange.raw(target, "/slow")
    local other = exchange.raw(target, "/slow")
    local unsent = exchange.raw(target, "/")
    local finished = exchange.raw(target, "/")
    engine:start(slow)
    engine:start(other)
    engine:start(finished)
    exchange.drive({ finished })
    local sockets = core.stats().sockets
    assert(sockets >= 3 and core.stats().in_flight == 2)
    local old_fd = arg[2] == "sockets" and engine:pollfd() or nil
    local pid = posix.fork()
    if pid == 0 then
      local ok, why = xpcall(function() ]] .. child .. [[ end, debug.traceback)
      if not ok then io.stderr:write("child: ", tostring(why), "\n") end
      posix.exit(ok and 0 or 1)
    end
    ]] .. (parent or "") .. [[
    assert(posix.wait(pid) == 0, "the child failed")
    exchange.drive({ slow, other })
    local _, a = slow:result()
    local _, b = other:result()
    assert(a[1] and b[1])
    assert(finished:result())
    assert(core.stats().sockets == sockets, "the parent's connections stay")
    assert(exchange.run(unsent))
    engine:close()
    assert(core.stats().sockets == 0)
  ]], { args = { server.url, mode, server.ca } })
  assert.equal(0, result.code, result.out .. result.err)
end

describe("a fork", function()
  local watch = exchange.watch()

  for _, mode in ipairs({ "perform", "sockets" }) do
    it("closes the child's copies, answers cancelled there, and disturbs nothing (" .. mode .. ")", function()
      local server = watch.peer(SERVER)
      forking(server, mode, [[
        local open = {}
        for fd = 3, 200 do open[fd] = posix.is_open(fd) end
        assert(engine:wait(0))                -- there is news: the parent's two
        assert(core.stats().sockets == 0 and core.stats().in_flight == 0)
        local closed = 0
        for fd = 3, 200 do
          if open[fd] and not posix.is_open(fd) then closed = closed + 1 end
        end
        assert(closed >= sockets, closed .. " closed of " .. sockets)
        assert(not old_fd or not posix.is_open(old_fd), "the parent's poller")
        exchange.drive({ slow, other })
        for _, transfer in ipairs({ slow, other }) do
          local ok, facts = transfer:result()
          assert(ok == false and facts.cause == "cancelled", "cancelled")
        end
        assert(engine:finished() == nil)
        -- its own engine: new connections, the prepared transfer goes out here too
        local ok, value = exchange.run(unsent)
        assert(ok)
        assert(exchange.get(target, "/"))
        assert(core.stats().sockets == 1)
        assert(finished:result())             -- what had arrived before is there
        engine:close()
      ]])
      -- 1 + 3 of the parent, 1 of the child; the parent's last goes over one of its own
      assert.equal(4, server:count("connection"))
    end)

    it("closes them also when the child only lets things go (" .. mode .. ")", function()
      local server = watch.peer(SERVER)
      forking(server, mode, [[
        slow, other, unsent, finished, target = nil, nil, nil, nil, nil
        support.collect()
        engine:close()
        for _ in engine.finished, engine do end
        support.collect()
        assert(core.stats().transfers == 0 and core.stats().targets == 0)
      ]])
    end)

    it("lets either side cancel its own (" .. mode .. ")", function()
      local server = watch.peer(SERVER)
      forking(server, mode, [[
        slow:cancel()
        local ok, facts = slow:result()
        assert(ok == false and facts.cause == "cancelled")
        engine:step()
      ]], [[ engine:wait(0.05) ]])
    end)
  end

  it("says no TLS goodbye on the parent's connections", function()
    local certificates = require("spec.support.tls").make()
    local server = watch.peer({ handler = SERVER, tls = certificates.good })
    server.ca = certificates.ca_file
    forking(server, "perform", [[
      exchange.drive({ slow, other })
      engine:close()
      assert(exchange.get(target, "/"))
      engine:close()
    ]])
  end)

  it("gives the child a descriptor of its own in socket mode", function()
    local server = watch.peer(SERVER)
    forking(server, "sockets", [[
      local fd = engine:pollfd()
      assert(posix.is_open(fd) and posix.is_cloexec(fd))
      assert(engine:timeout() == 0)           -- news: the parent's two
      exchange.drive({ slow, other })
      engine:step()
      local transfer = exchange.raw(target, "/")
      engine:start(transfer)
      local limit = core.now() + 5 * support.slack
      repeat
        assert(posix.poll(fd, engine:timeout()) or true)
        engine:step()
      until engine:finished() or core.now() > limit
      assert(transfer:result())
    ]])
  end)

  it("closes nothing in the child but the parent's sockets", function()
    local server = watch.peer(SERVER)
    local result = support.run([[
      local support = require("spec.support.support")
      local exchange = require("spec.support.exchange")
      local posix = require("spec.support.posix")
      local core = support.core()
      local engine = core.engine()
      local target = exchange.target(arg[1])
      assert(exchange.get(target, "/"))
      engine:close()
      -- cancelled while it connects: libcurl closes that socket without a word
      local transfer = exchange.raw(target, "/slow")
      engine:start(transfer)
      engine:step()
      transfer:cancel()
      assert(core.stats().sockets == 0, "counted: " .. core.stats().sockets)
      -- its number goes to something else
      local files = {}
      for i = 1, 10 do files[i] = posix.open("/dev/null") end
      local pid = posix.fork()
      if pid == 0 then
        engine:step()
        local lost = 0
        for i = 1, 10 do
          if not posix.is_open(files[i]) then lost = lost + 1 end
        end
        posix.exit(lost)
      end
      assert(posix.wait(pid) == 0, "the child has lost a file")
    ]], { args = { server.url } })
    assert.equal(0, result.code, result.out .. result.err)
  end)

  it("does not reach programs that the process starts", function()
    local server = watch.peer(SERVER)
    assert.is_true((exchange.get(exchange.target(server), "/")))
    assert.equal(1, support.core().stats().sockets)
    -- (libcurl's own socket pair is not a connection, and not in this list)
    local inherited = support.shell([[
      for file in /proc/self/fd/*; do
        inode=$(readlink $file | sed -n 's/^socket:.\([0-9]*\).$/\1/p')
        if [ -n "$inode" ] && grep -q " $inode " /proc/net/tcp /proc/net/tcp6; then echo connection; fi
      done
    ]])
    assert.equal("", inherited)
  end)
end)
