-- Streams out of a sandbox, on time: every clock of theirs is kept, a slow reader loses nothing, and what a function of
-- the caller's raises comes back to the caller.
local breaking = require("spec.support.breaking")
local envd_peer = require("spec.support.envd_peer")
local failing = require("spec.support.failing")
local support = require("spec.support.support")
local core = require("e2b.core")
local e2b = require("e2b")

local serve, of_health, READERS = breaking.serve, breaking.of_health, breaking.READERS

local CLOCKS = {
  { "request_timeout, before the head of the answer", "on.Start = function() conn:wait_closed() end",
    "request_timeout", { request_timeout = 0.2, timeout = 5 } },
  { "request_timeout, before the first event", "on.Start = function() begin() conn:wait_closed() end",
    "request_timeout", { request_timeout = 0.2, timeout = 5 } },
  { "timeout, when it is shorter than request_timeout", "on.Start = function() conn:wait_closed() end",
    "timeout", { timeout = 0.2 } },
  { "timeout, after the first event", "broken = function() conn:wait_closed() end",
    "timeout", { timeout = 0.2, request_timeout = 0.05 * 3 } },
  { "timeout, while events come", [[broken = function()
    while send('{"event":{"data":{"stdout":"YWJj"}},"filesystem":{"name":"a","type":"EVENT_TYPE_WRITE"}}') do
      conn:sleep(0.01)
    end
  end]], "timeout", { timeout = 0.2 }, only_commands = true },
  { "idle_timeout, while keepalives are missing", "broken = function() conn:wait_closed() end",
    "idle_timeout", { idle_timeout = 0.2 } },
}

breaking.each_mode(function(it_)
  describe("the clock of a stream", function()
    for _, clock in ipairs(CLOCKS) do
      it_(clock[1], function(t)
        local all = clock[2]:find("^on") and " on.Connect, on.WatchDir = on.Start, on.Start" or ""
        local server = serve(t, clock[2] .. all)
        local sandbox = server.sandbox()
        for _, reader in ipairs(READERS) do
          if not (reader.watch and clock.only_commands) then
            local ok, message, err = t:takes(0.2, function() return reader.read(sandbox, clock[4]) end)
            t:fails({ kind = "timeout", deadline = clock[3] }, ok, message, err)
          end
        end
        assert(of_health(server) == (clock[3] == "idle_timeout" and #READERS or 0))
      end)
    end

    it_("of a wait is not that of the process", function(t)
      local server = serve(t, "broken = function() conn:wait_signal('go') ended(0) finish() end")
      local handle = assert(server.sandbox().commands:start("x"))
      local ok, message, err = t:takes(0.2, function() return handle:wait({ timeout = 0.2 }) end)
      t:fails({ kind = "timeout", deadline = "timeout", pid = 7 }, ok, message, err)
      server:signal("go")
      assert(assert(handle:wait()).ok)
    end)
  end)

  -- Functions of the caller's ----------------------------------------------------------------------------------------

  describe("a function of the caller's that raises", function()
    local FLOWS = [[
      broken = function()
        while conn:chunk(envelope('{"event":{"data":{"stdout":"YQo="}}}')
          .. envelope('{"event":{"data":{"stderr":"Yg=="}}}')) do
          conn:sleep(0.005)
        end
      end
    ]]
    local mine = { "a value of its own" }

    local function raises(fn)
      local ok, raised = e2b.pcall(fn)
      assert(not ok, "it was swallowed")
      return raised
    end

    local function signals(server)
      return #envd_peer.messages(server, "SendSignal")
    end

    it_("ends a run and its process, and the raise goes on", function(t)
      local server = serve(t, FLOWS)
      local sandbox = server.sandbox()
      for i, name in ipairs({ "on_stdout", "on_stderr" }) do
        local calls = 0
        local raised = raises(function()
          return sandbox.commands:run("x", { [name] = function()
            calls = calls + 1
            error(mine)
          end })
        end)
        assert(raised == mine and calls == 1, tostring(raised))
        assert(signals(server) == i)
      end
      assert(assert(sandbox.commands:list()))
    end)

    it_("ends a wait, and neither the process nor what was read before", function(t)
      local server = serve(t, FLOWS)
      local handle = assert(server.sandbox().commands:start("x"))
      assert(handle:read() == "stdout")
      assert(raises(function() return handle:wait({ on_stderr = function() error(mine) end }) end) == mine)
      assert(handle.stdout:find("^a\n"))
      assert(signals(server) == 0)
      assert(core.stats().in_flight == 0)
    end)

    it_("ends a loop, which lets go of nothing", function(t)
      local server = serve(t, FLOWS)
      local handle = assert(server.sandbox().commands:start("x"))
      assert(raises(function()
        for line in handle:lines() do
          assert(line == "a")
          error(mine)
        end
      end) == mine)
      assert(handle:read_line() and signals(server) == 0)
      handle:disconnect()
    end)

    it_("may be the end of a task, and of nothing else", function(t)
      local server = serve(t, FLOWS)
      local sandbox = server.sandbox()
      local other = assert(sandbox.commands:start("x"))
      local results, failed = e2b.all(function()
        return sandbox.commands:run("x", { on_stdout = function() error("on purpose") end })
      end, function()
        for _ = 1, 20 do assert(other:read()) end
        return true
      end)
      assert(failed == 1 and results[1].err.kind == "raised" and results[1].message:find("on purpose", 1, true))
      assert(results[2].ok, results[2].message)
      assert(signals(server) == 1)
      other:disconnect()
    end)
  end)
end)

describe("a task that reads, or writes, what never stops", function()
  it("is ended by a cancel, and lets the others have their turn", failing.test(function(t)
    local server = serve(t, [[
      local piece = envelope('{"event":{"data":{"stdout":"YWFh"}}}'):rep(1000)
      broken = function() while conn:chunk(piece) do end end -- luacheck: ignore
      on.files = function()
        conn:begin_chunked(200)
        while conn:chunk(piece) do end -- luacheck: ignore
      end
    ]])
    local sandbox = server.sandbox()
    -- A function that waits and doesn't look at what became of it: meanwhile more has come, so the reading never waits.
    local function take() e2b.sleep(0.005) end
    for _, read in ipairs({
      function() return sandbox.commands:run("x", { on_stdout = take }) end,
      function() return sandbox.files:read("x", { to = take }) end,
      function()
        return sandbox.files:write("x", function()
          take()
          return "a"
        end)
      end,
    }) do
      local ticks = 0
      local task = e2b.spawn(read)
      local ticker = e2b.spawn(function()
        while e2b.sleep(0.001) do ticks = ticks + 1 end
      end)
      e2b.sleep(0.3)
      assert(ticks > 1, "no other task had its turn")
      task:cancel()
      local value, message, err = t:takes_between(0, 1, function() return task:wait() end)
      t:fails({ kind = "cancelled" }, value, message, err)
      ticker:cancel()
      ticker:wait()
    end
  end))
end)

describe("a reader that is slower than the writer", function()
  it("gets all of a gigabyte through a bounded buffer", failing.test(function(t)
    local server = serve(t, [[
      local stream, mime = require("spec.support.stream_peer"), require("mime")
      broken = function()
        -- whole periods of the bytes, in base64 once
        local PERIOD, envelopes = 1000003, {}
        for at = 0, PERIOD * 3 - 1, 30000 do
          local text = mime.b64(stream.bytes(at, math.min(30000, PERIOD * 3 - at)))
          envelopes[#envelopes + 1] = envelope('{"event":{"data":{"stdout":"' .. text .. '"}}}')
        end
        local all = table.concat(envelopes)
        local size, at = math.ceil(stream.size / (PERIOD * 3)), 0
        while at < size do
          if not conn:chunk(all) then return end
          at = at + 1
        end
        ended(0)
        finish()
      end
    ]])
    local result = support.run([[
      local e2b = require("e2b")
      local exchange = require("spec.support.exchange")
      local stream = require("spec.support.stream_peer")
      local support = require("spec.support.support")
      local client = e2b.client({ api_url = arg[1], sandbox_url = arg[1], api_key = "key" })
      local sandbox = assert(client.Sandbox.create())
      local size = math.ceil(stream.size / 3000009) * 3000009
      local at, before, rests = 0, nil, 0
      local handle = assert(sandbox.commands:start("x", { max_output = 100000 }))
      local ticks = e2b.spawn(function()
        local n = 0
        while at < size do
          e2b.sleep(0.05)
          n = n + 1
        end
        return n
      end)
      assert(e2b.all(function()
        while true do
          local name, data, err = handle:read()
          if not name then
            assert(not err, data)
            break
          end
          at = stream.check(at, data)
          if not before and at > size / 10 then before = exchange.peak_kb() end
          if at > size / 4 * (rests + 1) then
            rests = rests + 1
            e2b.sleep(0.3)
          end
        end
        return true
      end)[1].ok)
      assert(at == size and handle.exit_code == 0, at)
      local grown = exchange.peak_kb() - before
      assert(grown < 5000 * math.min(support.slack, 4), "peak memory grew by " .. grown .. " kB")
      assert(handle.stdout_dropped == size - 100000)
      assert(handle.stdout == stream.bytes(size - 100000, 100000))
      assert(ticks:wait() > 4, "another task stood still")
    ]], {
      args = { server.url }, timeout = 120,
      env = { ASAN_OPTIONS = (os.getenv("ASAN_OPTIONS") or "") .. ":quarantine_size_mb=1" },
    })
    assert.are.equal(0, result.code, result.out .. result.err)
  end))
end)
