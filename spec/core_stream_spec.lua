-- Large bodies, both ways, in both modes: every byte in its place, and memory that stays flat.
-- Each runs in a child: peak memory belongs to a process. E2B_SPEC_STREAM_BYTES makes them smaller.
local support = require("spec.support.support")
local stream = require("spec.support.stream_peer")
local peer = require("spec.support.peer")

local PRELUDE = [[
  local support = require("spec.support.support")
  local exchange = require("spec.support.exchange")
  local stream = require("spec.support.stream_peer")
  local posix = require("spec.support.posix")
  local core = support.core()
  local engine = core.engine()
  local target = exchange.target(arg[1])
  local size, path = stream.size, arg[3]
  if arg[2] == "sockets" then engine:pollfd() end
  -- what a first transfer takes is not what a large one adds
  assert(exchange.read_all(exchange.raw(target, "/2000000", { stream = true }), function() end))
  local before = exchange.peak_kb()
  local function finish(...)
    local ok, value = ...
    assert(ok, ok == false and value.text)
    local grown = exchange.peak_kb() - before
    assert(grown < 5000 * math.min(support.slack, 4), "peak memory grew by " .. grown .. " kB")
    engine:close()
    return value
  end
]]

describe("a large body", function()
  local server, folder

  setup(function()
    server = peer.start(stream.handler)
    folder = support.tmpdir()
  end)

  teardown(function()
    server:stop()
    support.cleanup(folder)
  end)

  local function child(mode, source)
    local result = support.run(PRELUDE .. source, {
      args = { server.url, mode, folder .. "/body" }, timeout = 300,
      env = {
        -- the whole of it once is enough
        E2B_SPEC_STREAM_BYTES = string.format("%.0f", mode == "perform" and stream.size or stream.size / 5),
        -- a sanitizer that keeps what was freed makes memory grow by itself
        ASAN_OPTIONS = (os.getenv("ASAN_OPTIONS") or "") .. ":quarantine_size_mb=1",
      },
    })
    assert.equal(0, result.code, result.out .. result.err)
  end

  for _, mode in ipairs({ "perform", "sockets" }) do
    it("is read in pieces by a reader that rests (" .. mode .. ")", function()
      child(mode, [[
        local at, rests = 0, 0
        local transfer = exchange.raw(target, "/" .. ("%.0f"):format(size), { stream = true })
        engine:start(transfer)
        local function take()
          while true do
            local data = transfer:read()
            if not data then return end
            at = stream.check(at, data)
            if at > size / 4 * (rests + 1) then      -- longer than the sockets' buffers hide
              rests = rests + 1
              local limit = core.now() + 0.15
              repeat engine:wait(limit - core.now()) until core.now() >= limit
              return
            end
          end
        end
        local done
        repeat
          engine:wait(1)
          for _, event in engine.finished, engine do done = done or event == "done" end
          take()
        until done
        take()
        take()
        assert(at == size, "read " .. at)
        assert(rests >= 3)
        local down, _, total = transfer:progress()
        assert(down == size and total == size)
        finish(transfer:result())
      ]])
    end)

    it("goes into a file, and from that file back (" .. mode .. ")", function()
      child(mode, [[
        local file = assert(io.open(path, "wb"))
        local url = ("/%.0fc"):format(size)
        finish(exchange.run(exchange.raw(target, url, { sink = posix.fileno(file) }), nil, 300))
        file:close()
        stream.check_file(path, size)
        file = assert(io.open(path, "rb"))
        local opts = { source = posix.fileno(file), source_size = size }
        local transfer = exchange.raw(target, "/", opts, { method = "PUT" })
        local value = finish(exchange.run(transfer, nil, 300))
        assert(value[1] == size, value[1])
        local _, up, _, total = transfer:progress()
        assert(up == size and total == size)
        file:close()
        os.remove(path)
      ]])
    end)

    it("is sent in pieces by a writer that rests (" .. mode .. ")", function()
      child(mode, [[
        local transfer = exchange.raw(target, "/", { source = "chunks" }, { method = "POST" })
        engine:start(transfer)
        local at, rests, done = 0, 0, false
        local function give()
          while at < size do
            if at > size / 4 * (rests + 1) then
              rests = rests + 1
              engine:wait(0.15)
            end
            local n = math.min(100000, size - at)
            local taken = transfer:write(stream.bytes(at, n))
            assert(taken ~= nil, "the transfer ended early")
            if not taken then return end
            at = at + n
          end
          transfer:close_write()
        end
        give()
        repeat
          engine:wait(1)
          for _, event in engine.finished, engine do
            if event == "write" then give() end
            done = done or event == "done"
          end
        until done
        assert(at == size and rests >= 3)
        assert(finish(transfer:result())[1] == size)
      ]])
    end)
  end
end)
