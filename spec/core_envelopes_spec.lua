-- Streams of events that break, or try to: lengths, flags, garbage, cuts, pieces, and more than a buffer holds.
local support = require("spec.support.support")
local exchange = require("spec.support.exchange")
local envelopes = require("spec.support.envelopes")
local stream = require("spec.support.stream_peer")
local core = require("e2b.core")

local watched = exchange.watch()

local function read(source, opts, row)
  local server = watched.peer(envelopes.handler .. "begin()\n" .. source)
  return envelopes.read(envelopes.open(server, opts, row))
end

-- What becomes of a stream that begins well: the facts. Its first event is never lost.
local function failure(source, row)
  local first = row == "dir_watch" and "{\"start\":{}}" or '{"event":{"start":{"pid":5}}}'
  local got, ok, facts = read(("send(%q)\n"):format(first) .. source, nil, row)
  assert.are.equal("start", got[1] and got[1][1], source)
  assert.is_nil(got[2], source)
  assert.is_false(ok, source)
  assert.are.equal(200, facts.status)
  assert.are.equal("yes", facts.sent)
  return facts
end

local function broken(source, text, row)
  local facts = failure(source, row)
  assert.are.equal("connect", facts.cause, source)
  assert.are.equal(text, facts.text, source)
  assert.is_nil(facts.curl)
  assert.is_nil(facts.error_code)
end

describe("an envelope", function()
  it("that announces 4 GB is refused at once", function()
    local facts = failure('send("{}", 0, 2 ^ 32 - 1) conn:wait_closed()')
    assert.are.equal("too_large", facts.cause)
    assert.are.equal("an event of the stream is larger than 16 MiB", facts.text)
    facts = failure('send("", 0, 2 ^ 24 + 1) conn:wait_closed()')
    assert.are.equal("too_large", facts.cause)
    facts = failure('send("{}", 2, 2 ^ 31) conn:wait_closed()')
    assert.are.equal("too_large", facts.cause)
    facts = failure('conn:chunk(envelope(\'{"event":{}}\') .. envelope("", 0, 2 ^ 32 - 1)) conn:wait_closed()')
    assert.are.equal("too_large", facts.cause)
  end)

  it("of 16 MiB, the most there may be, is read whole", function()
    local got, ok = read([[
      local head, tail = '{"event":{"data":{"stdout":"', '"}}}'
      local text = ("YWFh"):rep(math.floor((2 ^ 24 - #head - #tail) / 4))
      local blanks = (" "):rep(2 ^ 24 - #head - #tail - #text)
      send(head .. text .. tail .. blanks)
      finish()
    ]], { high_water = 1000 })
    assert.is_true(ok)
    assert.are.equal(1, #got)
    assert.are.equal(math.floor((2 ^ 24 - 32) / 4) * 3, #got[1][2])
  end)

  it("with other flags is no envelope", function()
    for _, flags in ipairs({ 1, 3, 5, 255 }) do
      broken(('send("{}", %d) finish()'):format(flags), "the stream is compressed")
    end
    for _, flags in ipairs({ 4, 0x3c, 0x80, 0xfe }) do
      broken(('send("{}", %d) finish()'):format(flags), "the stream is not one of envelopes")
    end
    -- the flag is enough, there need not be more
    broken('conn:chunk("<") conn:wait_closed()', "the stream is not one of envelopes")
  end)

  it("holds a JSON object", function()
    for _, payload in ipairs({
      "x", "[]", "[{}]", "null", "1", '"x"', " ", "{", '{"event":', '{"event":{"data":{"stdout":"YQ=="}}', "{}{}",
      "{}x", '{"event":{"data":{"stdout":"YQ=="}}}x', '{"event":{"data":{"stdout":"YQ==\'}}}', "\0", "\1\2", "<html>",
      '{"event":{"data":{"stdout":"YQ=="}}}\0', ("["):rep(200), ('{"event":'):rep(300),
    }) do
      broken(("send(%s) finish()"):format(support.serialize(payload):gsub("^return ", "")),
        "an event of the stream is not a JSON object")
    end
  end)

  it("holds one event", function()
    for _, payload in ipairs({
      '{"event":{"start":{"pid":5},"data":{"stdout":"YQ=="}}}',
      '{"event":{"data":{"stdout":"YQ==","stderr":"YQ=="}}}',
      '{"event":{"data":{"stdout":"YQ==","pty":""}}}',
      '{"event":{"data":{"stdout":"YQ=="},"keepalive":{}}}',
    }) do
      broken(("send(%q) finish()"):format(payload), "an event of the stream is of two kinds at once")
    end
    broken([[send('{"start":{},"filesystem":{"name":"x"}}') finish()]],
      "an event of the stream is of two kinds at once", "dir_watch")
  end)

  it("holds an event of the right shape", function()
    for _, payload in ipairs({
      '{"event":[1]}', '{"event":"start"}', '{"event":{"start":7}}', '{"event":{"data":"x"}}', '{"event":{"end":true}}',
      '{"event":{"end":{"exitCode":"x"}}}', '{"event":{"end":{"exitCode":1.5}}}', '{"event":{"end":{"exitCode":[]}}}',
      '{"event":{"end":{"exitCode":true}}}', '{"event":{"end":{"exited":"true"}}}', '{"event":{"end":{"exited":1}}}',
      '{"event":{"end":{"exitCode":"99999999999999999999"}}}', '{"event":{"end":{"exitCode":1e300}}}',
      '{"event":{"end":[1]}}',
    }) do
      broken(("send(%q) finish()"):format(payload), "an event of the stream has the wrong shape")
    end
    for _, payload in ipairs({
      '{"filesystem":"x"}', '{"filesystem":{"name":7}}', '{"start":1}', '{"filesystem":[1]}',
    }) do
      broken(("send(%q) finish()"):format(payload), "an event of the stream has the wrong shape", "dir_watch")
    end
  end)

  it("holds a process id that there can be", function()
    for _, pid in ipairs({ "-1", "0", "4294967296", "1e300", "1.5", '"x"', '"-1"', "true", "null", "[]", '""' }) do
      broken(('send(\'{"event":{"start":{"pid":%s}}}\') finish()'):format(pid),
        "a process of the stream has an impossible id")
    end
    broken([[send('{"event":{"start":{}}}') finish()]], "a process of the stream has an impossible id")
    local got, ok = read([[send('{"event":{"start":{"pid":4294967295}}}') finish()]])
    assert.is_true(ok)
    assert.are.equal(4294967295, got[1][2])
  end)

  it("holds base64", function()
    for _, text in ipairs({
      '"Y"', '"YQ=="==', '"YQ==YQ=="', '"YQ=a"', '"=YQ="', '"Y Q="', '"YQ\\n=="', '"\195\169YQ="', "7", "{}",
      '"YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhY!FhYWFhYWFh"', '"YQ==="', '"===="', '"="', "[1]", "true",
    }) do
      local facts = failure(('send(\'{"event":{"data":{"stdout":%s}}}\') finish()'):format(text))
      assert.are.equal("connect", facts.cause, text)
    end
    broken([[send('{"event":{"data":{"stdout":"Y"}}}') finish()]], "the output of a process is not base64")
  end)

  it("that is broken loses nothing of those before it", function()
    local got, ok, facts = read([[
      local parts = {}
      for i = 1, 50 do parts[i] = envelope('{"event":{"data":{"stdout":"YWFh"}}}') end
      conn:chunk(table.concat(parts) .. envelope('{"event":{"data":{"stdout":"!"}}}'))
      finish()
    ]])
    local size = 0
    for _, event in ipairs(got) do
      size = size + #event[2]
    end
    assert.are.equal(150, size)
    assert.is_false(ok)
    assert.are.equal("connect", facts.cause)
  end)
end)

describe("the end of a stream", function()
  it("is one JSON object, and the last", function()
    for _, payload in ipairs({ "", "x", "[]", "null", '{"error"' }) do
      broken(("finish(%q)"):format(payload), "the end of the stream is not a JSON object")
    end
    broken("finish('{\"error\":\"x\"}')", "the end of the stream has the wrong shape")
    broken([[conn:chunk(envelope("{}", 2) .. "x") conn:chunk("")]], "bytes follow the end of the stream")
    broken([[conn:chunk(envelope("{}", 2) .. envelope("{}")) conn:sleep(9)]], "bytes follow the end of the stream")
    broken([[send("{}", 2) conn:sleep(0.1) send("{}", 2) conn:chunk("")]], "bytes follow the end of the stream")
  end)

  it("is missed when the body just ends", function()
    local facts = failure('conn:chunk("")')
    assert.are.equal("cut", facts.cause)
    assert.are.equal("the stream was cut: it has no end", facts.text)
    for _, piece in ipairs({
      'envelope("{}"):sub(1, 6)', '"\\0"', '"\\0\\0\\0\\0"', "envelope('{\"event\":{}}'):sub(1, -2)",
      'envelope("{}", 2):sub(1, 6)', '"\\2"',
    }) do
      facts = failure("conn:chunk(" .. piece .. ') conn:chunk("")')
      assert.are.equal("cut", facts.cause, piece)
      assert.are.equal("the stream was cut in the middle of an envelope", facts.text)
    end
  end)

  it("is missed when the connection breaks", function()
    for _, piece in ipairs({ "conn:close()", 'conn:chunk("\\0\\0") conn:close()', "conn:reset()" }) do
      local facts = failure("send('{}') " .. piece)
      assert.are.equal("curl", facts.cause, piece)
      assert.are.equal("number", type(facts.curl))
    end
  end)

  it("is missed by an idle clock that only an event, or any byte, restarts", function()
    local server = watched.peer(envelopes.handler .. [[
      begin()
      for _ = 1, 8 do
        send('{"event":{"keepalive":{}}}')
        conn:sleep(0.1)
      end
      conn:wait_closed()
    ]])
    local began = core.now()
    local got, ok, facts = envelopes.read(envelopes.open(server, { idle_timeout = 0.4 }))
    local took = core.now() - began
    assert.are.same({}, got)
    assert.is_false(ok)
    assert.are.same({ "deadline", "idle_timeout" }, { facts.cause, facts.deadline })
    assert.is_true(took > 1, took)
  end)

  it("is kept when a clock runs out while the body does not end", function()
    local server = watched.peer(envelopes.handler .. [[begin() send("{}", 2) conn:wait_closed()]])
    local _, ok = envelopes.read(envelopes.open(server, { timeout = 0.3 }))
    assert.is_true(ok)
  end)

  it("of a stream with too many bytes is not waited for", function()
    local facts = select(3, read([[
      for _ = 1, 100 do send('{"event":{"keepalive":{}}}') end
      finish()
    ]], { max_bytes = 100 }))
    assert.are.equal("too_large", facts.cause)
  end)
end)

describe("a stream in pieces", function()
  local SOURCE = [[
    local text = envelope('{"event":{"start":{"pid":5}}}') .. envelope('{"event":{"data":{"stdout":"aGkK"}}}')
      .. envelope('{"event":{"data":{"stdout":"aGkK"}}}') .. envelope('{"event":{"data":{"stderr":"aGkK"}}}')
      .. envelope('{"event":{"end":{"exitCode":1,"exited":true}}}') .. envelope("{}", 2)
  ]]

  local function check(source)
    local server = watched.peer(envelopes.handler .. SOURCE .. source)
    local got, ok = envelopes.read(envelopes.open(server))
    assert.is_true(ok)
    local joined = {}
    for _, event in ipairs(got) do
      local last = joined[#joined]
      if last and last[1] == event[1] then
        last[2] = last[2] .. event[2]
      else
        joined[#joined + 1] = event
      end
    end
    assert.are.same({ { "start", 5 }, { "stdout", "hi\nhi\n" }, { "stderr", "hi\n" },
      { "end", { exit_code = 1, exited = true } } }, joined)
  end

  it("of one byte each, one TCP segment each, is the same", function()
    check([[
      begin()
      for i = 1, #text do
        conn:chunk(text:sub(i, i))
        conn:sleep(0.0005)
      end
      conn:chunk("")
    ]])
  end)

  it("of any size is the same", function()
    for size = 2, 60, 7 do
      check(([[
        begin()
        for i = 1, #text, %d do conn:chunk(text:sub(i, i + %d)) end
        conn:chunk("")
      ]]):format(size, size - 1))
    end
  end)

  it("that ends with the connection is the same", function()
    check([[conn:send("HTTP/1.1 200 OK\r\n\r\n" .. text) conn:close()]])
  end)

  it("brings no news before an envelope is whole", function()
    local server = watched.peer(envelopes.handler .. [[
      begin()
      local text = envelope('{"event":{"start":{"pid":5}}}')
      conn:wait_signal("head")
      for i = 1, #text do
        conn:chunk(text:sub(i, i))
        conn:sleep(0.002)
      end
      finish()
    ]])
    local transfer = envelopes.open(server)
    local news = 0
    core.engine():start(transfer)
    exchange.drive({ transfer }, function(_, event)
      assert.are.equal("read", event)
      news = news + 1
      if news == 1 then -- the head
        server:signal("head")
      end
      while transfer:event() do end -- luacheck: ignore 542
    end)
    assert.is_true(transfer:result())
    -- The head, the envelope, and the end when that came by itself.
    assert.is_true(news == 2 or news == 3, news)
  end)
end)

describe("a reader that rests", function()
  it("makes the sandbox wait, and loses nothing", function()
    for _, high_water in ipairs({ 1, 1000, 100000 }) do
      local server = watched.peer(envelopes.handler .. [[
        begin()
        for i = 1, 300 do
          if not send('{"event":{"data":{"stdout":"' .. ("YWFh"):rep(4000) .. '"}}}') then return end
        end
        conn:note({ what = "sent" })
        finish()
      ]])
      local transfer = envelopes.open(server, { high_water = high_water })
      core.engine():start(transfer)
      local limit = core.now() + 0.1
      repeat
        core.engine():wait(0.05)
        for _ in core.engine().finished, core.engine() do end -- luacheck: ignore 542
      until core.now() > limit
      assert.is_true(transfer:progress() < math.max(high_water, 60000) + 20000, transfer:progress())
      local size, done = 0, false
      repeat
        local rest = envelopes.take(transfer, function(_, bytes)
          size = size + #bytes
        end)
        if rest == false then
          core.engine():wait(1)
          for _, event in core.engine().finished, core.engine() do
            done = done or event == "done"
          end
        end
        assert(core.now() < limit + 20 * support.slack, "stuck")
      until rest == nil
      assert.is_true(done)
      assert.are.equal(300 * 12000, size)
      assert.is_true(transfer:result())
    end
  end)

  for _, mode in ipairs({ "perform", "sockets" }) do
    it("takes a gigabyte through a buffer that stays small (" .. mode .. ")", function()
      local server = watched.peer(envelopes.handler .. [[
        local stream, mime = require("spec.support.stream_peer"), require("mime")
        begin({ Connection = "close" })
        local size, at = tonumber(request.headers["x-size"]), 0
        while at < size do
          local n = math.min(32768, size - at)
          local text = mime.b64(stream.bytes(at, n))
          if not send('{"event":{"data":{"stdout":"' .. text .. '"}}}') then return end
          at = at + n
        end
        send('{"event":{"end":{"exited":true}}}')
        finish()
      ]])
      local result = support.run([[
        local support = require("spec.support.support")
        local exchange = require("spec.support.exchange")
        local envelopes = require("spec.support.envelopes")
        local stream = require("spec.support.stream_peer")
        local core = support.core()
        local engine = core.engine()
        if arg[2] == "sockets" then engine:pollfd() end
        local function run(size)
          local headers = { "X-Size", string.format("%.0f", size) }
          local transfer = envelopes.open(arg[1], { headers = headers })
          local at, rests, ended = 0, 0, nil
          engine:start(transfer)
          local done
          repeat
            engine:wait(1)
            for _, event in engine.finished, engine do done = done or event == "done" end
            envelopes.take(transfer, function(kind, value)
              if kind == "end" then ended = value return end
              at = stream.check(at, value)
            end)
            if at > size / 4 * (rests + 1) and size > 1e7 then
              rests = rests + 1
              local limit = core.now() + 0.15
              repeat engine:wait(limit - core.now()) until core.now() >= limit
            end
          until done
          envelopes.take(transfer, function(kind, value)
            if kind == "end" then ended = value return end
            at = stream.check(at, value)
          end)
          local ok, facts = transfer:result()
          assert(ok, not ok and facts.cause .. ": " .. facts.text)
          assert(at == size and ended.exited and ended.exit_code == 0, at)
        end
        run(3000000)
        local before = exchange.peak_kb()
        run(stream.size)
        local grown = exchange.peak_kb() - before
        assert(grown < 3000 * math.min(support.slack, 4), "peak memory grew by " .. grown .. " kB")
      ]], {
        args = { server.url, mode }, timeout = 300,
        env = {
          E2B_SPEC_STREAM_BYTES = string.format("%.0f", mode == "perform" and stream.size or stream.size / 5),
          ASAN_OPTIONS = (os.getenv("ASAN_OPTIONS") or "") .. ":quarantine_size_mb=1",
        },
      })
      assert.are.equal(0, result.code, result.out .. result.err)
    end)
  end
end)
