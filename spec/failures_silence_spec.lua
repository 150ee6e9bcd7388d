-- Streams out of a sandbox that fall silent: it is noticed in time, and what the sandbox says of its health decides
-- what the error is.
local breaking = require("spec.support.breaking")
local failing = require("spec.support.failing")
local support = require("spec.support.support")
local probe = require("e2b.probe")
local e2b = require("e2b")

local serve, of_health, READERS = breaking.serve, breaking.of_health, breaking.READERS
local unpack = table.unpack or unpack -- luacheck: ignore 113 143

-- Seconds until silence is noticed in these specs.
local IDLE = 0.12

-- What the question for the sandbox's health brings to light, and what the error is then.
local VERDICTS = {
  { "answers", "health()", "timeout", "the sandbox itself answers" },
  { "is gone", [[answer(502, '{"message":"The sandbox was not found","code":502}')]], "sandbox_gone",
    "the sandbox was killed or reached its end of life" },
  { "has no room", "health(503)", "busy", "too busy to answer" },
  { "has too much to do", "health(429)", "busy", "too busy to answer" },
  { "fails", "health(500)", "network", "can't be reached" },
  { "is cut off", "conn:reset()", "network", "can't be reached" },
}

-- Where a stream falls silent, and by which clock that is noticed.
local SILENCES = {
  { "after its first event", "conn:wait_closed()" },
  { "in the middle of an envelope",
    [[conn:chunk(envelope('{"event":{"data":{"stdout":"YWJj"}}}'):sub(1, 12)) conn:wait_closed()]] },
  { "in the middle of a chunk of HTTP", [[conn:send("ffff\r\n\0\0\0") conn:wait_closed()]] },
}

breaking.each_mode(function(it_)
  describe("a stream that falls silent", function()
    for _, silence in ipairs(SILENCES) do
      for number, verdict in ipairs(VERDICTS) do
        -- Each verdict once, each silence once: they don't depend on each other.
        if number == 1 or silence == SILENCES[1] then
          it_(silence[1] .. ", of a sandbox that " .. verdict[1], function(t)
            local server = serve(t, "broken = function() " .. silence[2] .. " end on.health = function() " .. verdict[2]
              .. " end")
            local sandbox = server.sandbox()
            for i, reader in ipairs(number == 1 and READERS or { READERS[1], READERS[3], READERS[6] }) do
              local ok, message, err = t:takes_between(IDLE - 0.02, IDLE + support.tolerance, function()
                return reader.read(sandbox, { idle_timeout = IDLE })
              end)
              t:fails({
                kind = verdict[3], deadline = verdict[3] == "timeout" and "idle_timeout" or nil, sandbox_id = "i1",
                pid = not reader.watch and 7 or nil,
              }, ok, message, err)
              assert(message:find(verdict[4], 1, true), reader.name .. ": " .. message)
              assert(of_health(server) == i, reader.name .. " asked " .. of_health(server) .. " times")
            end
          end)
        end
      end
    end

    it_("whose host is gone, too", function(t)
      local server = serve(t, [[broken = function() shared.held = conn conn:wait_closed() end]])
      local handle = assert(server.sandbox().commands:start("x"))
      server:stop()
      local ok, message, err = t:takes_between(0, 1, function() return handle:wait() end)
      t:fails({ kind = "network", pid = 7 }, ok, message, err)
      assert(message:find("the sandbox can't be reached either", 1, true), message)
    end)

    it_("and trickles is over at its timeout at the latest", function(t)
      local server = serve(t, [[
        broken = function()
          conn:send("ffff\r\n\0\0\255\0")
          while conn:send(" ") do conn:sleep(0.02) end
        end
      ]])
      local sandbox = server.sandbox()
      for _, reader in ipairs(READERS) do
        local ok, message, err = t:takes(0.2, function()
          return reader.read(sandbox, { idle_timeout = IDLE, timeout = 0.2 })
        end)
        t:fails({ kind = "timeout", deadline = "timeout" }, ok, message, err)
      end
      assert(of_health(server) == 0)
    end)

    it_("and asks a sandbox that says nothing no longer than it may", function(t)
      local server = serve(t, [[
        broken = function() conn:wait_closed() end
        on.health = function() conn:wait_closed() end
      ]])
      local sandbox, seconds = server.sandbox(), probe.SECONDS
      assert(seconds == 5)
      probe.SECONDS = 0.3
      local results = { e2b.pcall(t.takes, t, IDLE + 0.3, function()
        return sandbox.commands:run("x", { idle_timeout = IDLE })
      end) }
      probe.SECONDS = seconds
      assert(results[1], results[2])
      t:fails({ kind = "busy" }, unpack(results, 2, 4))
    end)
  end)
end)

describe("streams that all fall silent at once", function()
  it("are told of within the stated bound, the sandbox's silence included", failing.test(function(t)
    local server = serve(t, [[
      broken = function() conn:wait_closed() end
      on.health = function() conn:wait_closed() end
    ]])
    local sandbox = server.sandbox()
    local results = t:takes_between(5.1, 5.2 + support.tolerance, function()
      return e2b.map(READERS, function(reader)
        if reader.needs_yield and _VERSION == "Lua 5.1" then return nil, "not here", { kind = "busy" } end
        return reader.read(sandbox, { idle_timeout = 0.2 })
      end)
    end)
    for i, result in ipairs(results) do
      assert(not result.ok and result.err.kind == "busy", READERS[i].name .. ": " .. tostring(result.message))
      assert(result.message == "not here" or result.message:find("too busy to answer", 1, true), result.message)
    end
    assert(of_health(server) >= #READERS - 1)
  end))
end)
