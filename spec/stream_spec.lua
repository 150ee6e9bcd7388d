-- Calls that are read or written while they run: clocks, ends, failures, and what is asked of a sandbox that went
-- quiet.
local exchange = require("spec.support.exchange")
local envd_peer = require("spec.support.envd_peer")
local support = require("spec.support.support")
local core = require("e2b.core")
local e2b = require("e2b")

local watched = exchange.watch()

local function serve(source, options)
  options = options or {}
  options.watched = watched
  return envd_peer.start(source, options)
end

-- A stream as the floors above open it.
local function open(server, context, opts, row)
  local body = (row or "process_start") == "process_start" and { process = { cmd = "x" } } or nil
  local client = server.client
  local all = { operation = "spec", sandbox_id = "i1", target = assert(client:sandbox_target(nil, "i1", "tok-1")) }
  for name, value in pairs(context or {}) do all[name] = value end
  return client:open(row or "process_start", { body = body, query = not body and { path = "/f" } or nil }, opts, all)
end

local function read_all(stream)
  local got = {}
  while true do
    local kind, value, err = stream:event()
    if not kind then return got, value, err end
    got[#got + 1] = { kind, value }
  end
end

local HANGS = [[
  on.Start = function()
    begin()
    event('{"start":{"pid":7}}')
    conn:wait_closed()
    conn:close()
  end
]]

for _, mode in ipairs(envd_peer.MODES) do
  local function it_(name, fn)
    it(name, function() mode.run(fn) end)
  end

  describe("a stream of events, in " .. mode.name .. ",", function()
    it_("is read to its end, and then has none", function()
      local server = serve([[
        on.Start = function()
          begin()
          event('{"start":{"pid":7}}')
          conn:sleep(0.02)
          output("stdout", "a", "stderr", "b")
          conn:sleep(0.02)
          ended(3)
          finish()
        end
      ]])
      local stream = assert(open(server))
      local got, message = read_all(stream)
      assert.is_nil(message)
      assert.are.equal("start", got[1][1])
      assert.are.same({ "stdout", "a" }, got[2])
      assert.are.same({ "stderr", "b" }, got[3])
      assert.are.equal(3, got[4][2].exit_code)
      assert.are.equal(4, #got)
      assert.is_nil((stream:event()))
      stream:close()
      assert.is_nil((stream:event()))
    end)

    it_("leaves its connection to the next one", function()
      local server = serve("on.Start = function() run(0, 'x') end")
      for _ = 1, 5 do read_all(assert(open(server))) end
      local connections = {}
      for _, request in ipairs(server:requests()) do connections[request.connection] = true end
      assert.is_nil(next(connections, (next(connections))))
    end)

    it_("gives the caller back at the caller's deadline and goes on", function()
      local server = serve([[
        on.Start = function()
          begin()
          event('{"start":{"pid":7}}')
          conn:wait_signal("go")
          ended(0)
          finish()
        end
      ]])
      local stream = assert(open(server))
      assert.are.equal("start", (stream:event()))
      local began = core.now()
      assert.is_false((stream:event(core.now() + 0.1)))
      local took = core.now() - began
      assert.is_true(took >= 0.09 and took < 0.1 + support.tolerance, "took " .. took)
      server:signal("go")
      assert.are.equal("end", (stream:event()))
      assert.is_nil((stream:event()))
    end)

    it_("asks for signs of life and says how long it may take", function()
      local server = serve("on.Start = function() run(0) end")
      read_all(assert(open(server)))
      read_all(assert(open(server, { timeout = 2.5 })))
      local short = open(server, { timeout = 0.00001 }) -- may be over before it has begun
      if short then read_all(short) end
      read_all(assert(open(server, { timeout = 1e12 })))
      read_all(assert(open(server, nil, { idle_timeout = 30 })))
      read_all(assert(open(server, nil, { idle_timeout = 0.5 })))
      read_all(assert(open(server, nil, { idle_timeout = 0 })))
      local seen = {}
      for _, request in ipairs(server:requests()) do
        local timeout = request.headers["connect-timeout-ms"] or "-"
        seen[timeout .. " " .. request.headers["keepalive-ping-interval"]] = true
        assert.are.equal("tok-1", request.headers["x-access-token"])
        assert.are.equal("i1", request.headers["e2b-sandbox-id"])
        assert.are.equal("49983", request.headers["e2b-sandbox-port"])
        assert.is_nil(request.headers["x-api-key"])
      end
      seen["1 50"] = nil
      assert.are.same({
        ["- 50"] = true, ["2500 50"] = true, ["9999999999 50"] = true, ["- 15"] = true, ["- 1"] = true,
      }, seen)
    end)

    it_("is over after `timeout`, kept within 100 ms, and nobody is asked why", function()
      local server = serve(HANGS)
      local stream = assert(open(server, { timeout = 0.3 }))
      local began = core.now()
      local _, message, err = read_all(stream)
      local took = core.now() - began
      assert.are.equal("timeout timeout", err.kind .. " " .. err.deadline)
      assert.are.equal("spec: not over within 0.3 s (timeout)", message)
      assert.is_true(took >= 0.25 and took < 0.3 + support.tolerance, "took " .. took)
      local _, again, same = stream:event()
      assert.are.equal(message, again)
      assert.are.equal(err, same)
      assert.are.equal(1, server:count())
    end)

    it_("is over when nothing comes within request_timeout", function()
      local server = serve("on.Start = function() conn:wait_closed() conn:close() end")
      local stream = assert(open(server, { timeout = 10 }, { request_timeout = 0.2 }))
      local began = core.now()
      local _, message, err = read_all(stream)
      local took = core.now() - began
      assert.are.equal("timeout request_timeout", err.kind .. " " .. err.deadline)
      assert.is_truthy(message:find("within 0.2 s (request_timeout)", 1, true), message)
      assert.is_true(took >= 0.15 and took < 0.2 + support.tolerance, "took " .. took)
      assert.are.equal(1, server:count())
    end)

    it_("may take longer than request_timeout once something came", function()
      local server = serve([[
        on.Start = function()
          begin()
          event('{"start":{"pid":7}}')
          conn:sleep(0.4)
          ended(0)
          finish()
        end
      ]])
      local got, message = read_all(assert(open(server, nil, { request_timeout = 0.2 })))
      assert.is_nil(message)
      assert.are.equal(2, #got)
    end)

    it_("is kept alive by keepalives alone", function()
      local server = serve([[
        on.Start = function()
          begin()
          event('{"start":{"pid":7}}')
          for _ = 1, 6 do
            conn:sleep(0.1)
            event('{"keepalive":{}}')
          end
          ended(0)
          finish()
        end
      ]])
      local got, message = read_all(assert(open(server, nil, { idle_timeout = 0.3 })))
      assert.is_nil(message)
      assert.are.equal(2, #got)
    end)

    it_("isn't taken for quiet because the program was busy", function()
      local server = serve([[
        on.Start = function()
          begin()
          event('{"start":{"pid":7}}')
          for _ = 1, 10 do
            conn:sleep(0.1)
            event('{"keepalive":{}}')
          end
          ended(0)
          finish()
        end
      ]])
      local stream = assert(open(server, nil, { idle_timeout = 0.3 }))
      assert.are.equal("start", (stream:event()))
      support.sleep(0.8)
      local got, message = read_all(stream)
      assert.is_nil(message)
      assert.are.equal("end", got[1][1])
    end)

    it_("ends when all connections are closed", function()
      local stream = assert(open(serve(HANGS)))
      assert.are.equal("start", (stream:event()))
      core.engine():close()
      local _, _, err = stream:event()
      assert.are.equal("cancelled", err.kind)
      local _, _, again = stream:event()
      assert.are.equal(err, again)
    end)

    it_("is told to the logger, however it ends", function()
      local seen = {}
      local server = serve([[
        on.Start = function()
          if request.headers["x-hang"] then
            begin()
            event('{"start":{"pid":7}}')
            conn:wait_closed()
            return conn:close()
          end
          if request.headers["x-bad"] then return answer(429, '{"code":429,"message":"no"}') end
          run(0, "secret output")
        end
      ]], { client = { logger = function(event) seen[#seen + 1] = event end } })
      read_all(assert(open(server)))
      read_all(assert(open(server, { headers = { "X-Bad", "1" } })))
      read_all(assert(open(server, { headers = { "X-Hang", "1" }, timeout = 0.1 })))
      read_all(assert(open(server, { headers = { "X-Hang", "1" } }, { idle_timeout = 0.1 })))
      local stream = assert(open(server, { headers = { "X-Hang", "1" } }))
      stream:event()
      stream:close()
      local lines = {}
      for i, event in ipairs(seen) do
        lines[i] = ("%s %s %s %s"):format(event.method, event.path, tostring(event.status), tostring(event.kind))
        assert.is_true(event.seconds >= 0 and event.seconds < 5)
        support.assert_no_secret({ "tok-1", "secret output" }, event)
      end
      local start = "POST /process.Process/Start "
      assert.are.same({
        start .. "200 nil", start .. "429 rate_limit", start .. "200 timeout", start .. "200 timeout",
        start .. "200 cancelled",
      }, lines)
    end)

    -- What becomes of a stream that goes quiet or breaks is a matter of what the sandbox says of its health.
    local ENDINGS = {
      { health = "health()", kind = nil, text = "the sandbox itself answers" },
      { health = "answer(502, '{\"message\":\"The sandbox was not found\",\"code\":502}')", kind = "sandbox_gone",
        text = "the sandbox was killed or reached its end of life" },
      { health = "answer(502, '{\"message\":\"The sandbox is running but port is not open\",\"code\":502}')",
        kind = "network", text = "can't be reached" },
      { health = "conn:respond(502, '<html>bad gateway</html>', { ['Content-Type'] = 'text/html' })", kind = "network",
        text = "can't be reached" },
      { health = "health(503)", kind = "busy", text = "too busy to answer" },
      { health = "health(429)", kind = "busy", text = "too busy to answer" },
      { health = "health(500)", kind = "network", text = "can't be reached" },
      { health = "conn:close()", kind = "network", text = "can't be reached" },
    }
    for number, ending in ipairs(ENDINGS) do
      it_("that goes quiet asks for the sandbox's health, outcome " .. number, function()
        local server = serve(HANGS .. "on.health = function() " .. ending.health .. " end")
        local began = core.now()
        local _, message, err = read_all(assert(open(server, nil, { idle_timeout = 0.25 })))
        local took = core.now() - began
        assert.are.equal(ending.kind or "timeout", err.kind)
        if not ending.kind then assert.are.equal("idle_timeout", err.deadline) end
        assert.is_truthy(message:find(ending.text, 1, true), message)
        assert.is_true(took >= 0.2 and took < 0.25 + 2 * support.tolerance, "took " .. took)
        assert.are.equal("/health", server:requests()[2].path)
        assert.are.equal(2, server:count())
      end)

      it_("that is cut asks for the sandbox's health, outcome " .. number, function()
        local server = serve([[
          on.Start = function()
            begin()
            event('{"start":{"pid":7}}')
            conn:chunk(envelope('{"event":{"data":{"stdout":"YQ=="}}}'):sub(1, -9))
            conn:close()
          end
          on.health = function() ]] .. ending.health .. " end")
        local _, message, err = read_all(assert(open(server)))
        assert.are.equal(ending.kind or "network", err.kind)
        assert.is_truthy(message:find(ending.text, 1, true), message)
        assert.are.equal("i1", err.sandbox_id)
        assert.are.equal("spec", err.operation)
        assert.are.equal(2, server:count())
      end)
    end

    it_("that ends cleanly without its last envelope is cut as well", function()
      local server = serve([[
        on.Start = function()
          begin()
          event('{"start":{"pid":7}}')
          conn:chunk("")
        end
      ]])
      local _, message, err = read_all(assert(open(server)))
      assert.are.equal("network", err.kind)
      assert.is_truthy(message:find("the sandbox itself answers", 1, true), message)
    end)

    it_("asks for the health no longer than its own time", function()
      local server = serve([[
        on.Start = function()
          begin()
          event('{"start":{"pid":7}}')
          conn:sleep(0.1)
          conn:reset()
        end
        on.health = function() conn:wait_closed() conn:close() end
      ]])
      local began = core.now()
      local _, _, err = read_all(assert(open(server, { timeout = 0.5 })))
      local took = core.now() - began
      assert.are.equal("network", err.kind)
      assert.is_true(took < 0.5 + support.tolerance, "took " .. took)
    end)

    it_("tells what the server ended it with, without asking for the health", function()
      local codes = {
        canceled = "cancelled", unknown = "server", invalid_argument = "invalid_argument",
        deadline_exceeded = "timeout", not_found = "not_found", already_exists = "conflict",
        permission_denied = "forbidden", resource_exhausted = "rate_limit", failed_precondition = "conflict",
        aborted = "conflict", out_of_range = "invalid_argument", unimplemented = "unsupported", internal = "server",
        unavailable = "busy", data_loss = "server", unauthenticated = "authentication",
      }
      local server = serve([[
        on.Start = function()
          begin()
          finish('{"error":{"code":"' .. request.headers["x-code"] .. '","message":"because of it"}}')
        end
      ]])
      local count = 0
      for code, kind in pairs(codes) do
        local _, message, err = read_all(assert(open(server, { headers = { "X-Code", code }, resource = "process" })))
        assert.are.equal(kind, err.kind, code)
        assert.are.equal(code, err.error_code)
        assert.is_truthy(message:find(code .. ": because of it", 1, true), message)
        assert.are.equal("because of it", err.server_message)
        count = count + 1
      end
      assert.are.equal(count, server:count())
    end)

    it_("tells what went wrong when its code is a number, or nobody's", function()
      local server = serve([[
        on.Start = function()
          begin()
          finish('{"error":{"code":' .. request.headers["x-code"] .. ',"message":"because of it"}}')
        end
      ]])
      local codes = { ["429"] = "rate_limit", ["404"] = "not_found", ["5"] = "server", ['"nonsense"'] = "server" }
      for code, kind in pairs(codes) do
        local _, message, err = read_all(assert(open(server, { headers = { "X-Code", code }, resource = "process" })))
        assert.are.equal(kind, err.kind, code)
        assert.is_truthy(message:find("because of it", 1, true), message)
        assert.are.equal("because of it", err.server_message)
      end
      assert.are.equal(4, server:count())
    end)

    it_("tells what the proxy says instead of a stream", function()
      local server = serve([[
        on.Start = function()
          answer(tonumber(request.headers["x-status"]), '{"message":"' .. request.headers["x-said"] .. '","code":1}')
        end
      ]])
      local answers = {
        { 502, "The sandbox was not found", "sandbox_gone" }, { 502, "port is not open", "network" },
        { 409, "still transitioning", "conflict" }, { 429, "too many", "rate_limit" }, { 503, "busy", "busy" },
        { 507, "full", "no_space" }, { 401, "no", "authentication" }, { 404, "no", "not_found" },
        { 500, "oh", "server" }, { 415, "what", "invalid_argument" }, { 504, "slow", "timeout" },
      }
      for _, given in ipairs(answers) do
        local stream = assert(open(server, { headers = { "X-Status", tostring(given[1]), "X-Said", given[2] } }))
        local _, message, err = read_all(stream)
        assert.are.equal(given[3], err.kind, given[2])
        assert.are.equal(given[1], err.status)
        assert.is_truthy(message:find(given[2], 1, true), message)
      end
      assert.are.equal(#answers, server:count())
    end)

    it_("that breaks the protocol says so, without asking for the health", function()
      local server = serve([[
        local bad = {
          function() send('{"event":{', 0) end,
          function() send("{}", 1) end,
          function() send("", 0, 4294967295) end,
          function() send("[1]", 2) end,
          function() finish() conn:chunk("more") end,
        }
        on.Start = function()
          begin()
          event('{"start":{"pid":7}}')
          bad[tonumber(request.headers["x-bad"])]()
          conn:wait_closed()
          conn:close()
        end
      ]])
      for number = 1, 4 do
        local _, message, err = read_all(assert(open(server, { headers = { "X-Bad", tostring(number) } })))
        assert.are.equal(number == 3 and "too_large" or "protocol", err.kind, message)
      end
      assert.are.equal(4, server:count())
    end)

    it_("can be closed, more than once", function()
      local server = serve(HANGS)
      local stream = assert(open(server))
      assert.are.equal("start", (stream:event()))
      stream:close()
      stream:close()
      server:wait_event("closed")
      local _, message, err = stream:event()
      assert.are.equal("cancelled", err.kind)
      assert.are.equal("spec: cancelled", message)
    end)

    it_("that is dropped is closed by the collector", function()
      local server = serve(HANGS)
      local function drop()
        local stream = assert(open(server))
        assert.are.equal("start", (stream:event()))
        stream:event(core.now() + 0.01)
      end
      drop()
      support.collect()
      server:wait_event("closed")
      assert.are.equal(0, core.stats().in_flight)
    end)

    it_("is begun again when it was surely not sent", function()
      local port = require("spec.support.peer").free_port()
      local client = require("spec.support.platform").client_of({ url = "http://127.0.0.1:" .. port }, { retries = 1 })
      local stream = assert(open({ client = client }))
      local began = core.now()
      local _, message, err = read_all(stream)
      assert.are.equal("network", err.kind)
      assert.are.equal(2, err.attempts)
      assert.are.equal("no", err.sent)
      assert.is_true(core.now() - began >= 0.25 - support.tolerance)
      assert.is_truthy(message:find("can't be reached", 1, true), message)
      local _, _, once = read_all(assert(open({ client = client }, nil, { retries = 0 })))
      assert.are.equal(1, once.attempts)
    end)
  end)

  describe("bytes that are read, in " .. mode.name .. ",", function()
    it_("come as they come; the head can be waited for", function()
      local server = serve([[
        on.files = function()
          conn:begin_chunked(200)
          conn:wait_signal("one")
          conn:chunk("hello ")
          conn:wait_signal("two")
          conn:chunk("world")
          conn:chunk("")
        end
      ]])
      local stream = assert(open(server, { transfer = { stream = true } }, nil, "files_read"))
      local ok, status = stream:headers()
      assert.are.equal("true 200", tostring(ok) .. " " .. tostring(status))
      assert.is_false((stream:read(core.now() + 0.05)))
      server:signal("one")
      assert.are.equal("hello ", stream:read())
      server:signal("two")
      assert.are.equal("world", stream:read())
      assert.is_nil((stream:read()))
      assert.is_nil((stream:read()))
      assert.is_nil(server:requests()[1].headers["keepalive-ping-interval"])
    end)

    it_("that were there before the head was asked for are not lost", function()
      local server = serve("on.files = function() conn:respond(200, 'abc') end")
      local stream = assert(open(server, { transfer = { stream = true } }, nil, "files_read"))
      e2b.sleep(0.05)
      assert.is_true((stream:headers()))
      assert.are.equal("abc", stream:read())
      assert.is_nil((stream:read()))
      stream = assert(open(server, { transfer = { stream = true } }, nil, "files_read"))
      assert.are.equal("abc", stream:read())
      assert.is_true((stream:headers()))
    end)

    it_("are none of a file that isn't there, and the head says so", function()
      local server = serve([[on.files = function() answer(404, '{"code":404,"message":"path does not exist"}') end]])
      local stream = assert(open(server, { transfer = { stream = true }, resource = "file" }, nil, "files_read"))
      local ok, message, err = stream:headers()
      assert.is_nil(ok)
      assert.are.equal("not_found file", err.kind .. " " .. err.resource)
      assert.are.equal("spec: the file was not found (404: path does not exist)", message)
      local _, again = stream:read()
      assert.are.equal(message, again)
    end)

    it_("are told of as they come", function()
      local server = serve([[
        on.files = function()
          conn:send("HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n")
          for _ = 1, 3 do
            conn:send(("x"):rep(100000))
            conn:sleep(0.12)
          end
        end
      ]])
      local told = {}
      local stream = assert(open(server, {
        transfer = { stream = true }, progress = function(done, total) told[#told + 1] = { done, total } end,
      }, nil, "files_read"))
      local size = 0
      while true do
        local bytes = stream:read()
        if not bytes then break end
        size = size + #bytes
      end
      assert.are.equal(300000, size)
      assert.are.same({ 300000, 300000 }, told[#told])
      assert.is_true(#told >= 3 and #told <= 8, #told .. " times")
    end)
  end)

  describe("bytes that are written, in " .. mode.name .. ",", function()
    it_("arrive as they are given, and the answer is the call's", function()
      local server = serve([[
        on.files = function()
          answer(200, '[{"name":"f","path":"/f","type":"file"}]')
        end
      ]])
      local stream = assert(open(server, { transfer = { source = "chunks" } }, nil, "files_write"))
      local piece = ("0123456789"):rep(20000)
      for _ = 1, 5 do assert(stream:write(piece)) end
      assert(stream:write("end"))
      local value, meta = stream:finish()
      assert.are.equal("/f", value[1].path)
      assert.are.equal(200, meta.status)
      local body = server:requests()[1].body
      assert.are.equal(1000003, #body)
      assert.are.equal(piece:rep(5) .. "end", body)
      assert.are.equal("/f", (stream:finish())[1].path)
    end)

    it_("that the server doesn't want end with its word", function()
      local server = serve([[
        on.files = nil
      ]] .. [[
        local read = conn.read_body
        function conn:read_body(head)
          if head.path:find("^/files") then
            self:respond(507, '{"code":507,"message":"not enough disk space available"}')
            self:wait_closed()
            self:close()
            return nil
          end
          return read(self, head)
        end
      ]])
      local stream = assert(open(server, { transfer = { source = "chunks" } }, nil, "files_write"))
      local message, err
      for _ = 1, 1000 do
        local ok
        ok, message, err = stream:write(("x"):rep(100000))
        if not ok then break end
        e2b.sleep(0.001)
      end
      assert.are.equal("no_space", err and err.kind, message)
      local _, again = stream:finish()
      assert.are.equal(message, again)
    end)
  end)
end

describe("a stream in tasks", function()
  it("is not ended by the cancel of one that waits for it", function()
    local server = serve([[
      on.Start = function()
        begin()
        event('{"start":{"pid":7}}')
        conn:wait_signal("go")
        ended(0)
        finish()
      end
    ]])
    local stream = assert(open(server))
    assert.are.equal("start", (stream:event()))
    local kind
    local task = e2b.spawn(function()
      local _, _, err = stream:event()
      kind = err.kind
    end)
    e2b.sleep(0.02)
    task:cancel()
    task:wait()
    assert.are.equal("cancelled", kind)
    server:signal("go")
    assert.are.equal("end", (stream:event()))
    assert.is_nil((stream:event()))
  end)

  it("can be waited for by several, and each event goes to one", function()
    local server = serve([[
      on.Start = function()
        begin()
        event('{"start":{"pid":7}}')
        for i = 1, 20 do
          conn:sleep(0.005)
          output(i % 2 == 0 and "stdout" or "stderr", "x")
        end
        finish()
      end
    ]])
    local stream = assert(open(server))
    local count = 0
    local function take()
      while stream:event() do count = count + 1 end
    end
    local _, failed = e2b.all(take, take, take)
    assert.are.equal(0, failed)
    assert.are.equal(21, count)
  end)

  it("wakes who waits when it is closed", function()
    local server = serve(HANGS)
    local stream = assert(open(server))
    local err
    local task = e2b.spawn(function() err = select(3, read_all(stream)) end)
    e2b.sleep(0.05)
    stream:close()
    local began = core.now()
    task:wait()
    assert.is_true(core.now() - began < support.tolerance)
    assert.are.equal("cancelled", err.kind)
  end)

  it("ends with the time of a shield, and can be read on after it", function()
    local server = serve(HANGS)
    local stream = assert(open(server))
    assert.are.equal("start", (stream:event()))
    local began = core.now()
    local _, _, err = require("e2b.tasks").shield(function() return stream:event() end, 0.1)
    assert.are.equal("timeout", err.kind)
    assert.is_true(core.now() - began < 0.1 + support.tolerance)
    assert.is_false((stream:event(core.now() + 0.02)))
    stream:close()
  end)
end)

describe("a call to a sandbox", function()
  local function call(server, row, args, context, opts)
    local client = server.client
    local all = { operation = "spec", sandbox_id = "i1", target = assert(client:sandbox_target(nil, "i1", "tok-1")) }
    for name, value in pairs(context or {}) do all[name] = value end
    return client:call(row, args, opts, all)
  end

  it("that broke asks for the sandbox's health", function()
    local server = serve([[
      on.SendSignal = function() conn:close() end
      on.health = function() answer(502, '{"message":"The sandbox was not found"}') end
    ]])
    local _, message, err = call(server, "process_signal", { body = { process = { pid = 7 } } })
    assert.are.equal("sandbox_gone", err.kind)
    assert.is_truthy(message:find("killed or reached its end of life", 1, true), message)
    assert.is_false(err.retryable)
    assert.are.equal(2, server:count())
  end)

  it("has headers and options of its own, and nobody else's call has them", function()
    local server = serve("on.List = function() answer(200) end")
    assert(call(server, "process_list", { body = {} }, { headers = { "X-Own", "1" } }))
    assert(call(server, "process_list", { body = {} }))
    assert.are.equal("1", server:requests()[1].headers["x-own"])
    assert.is_nil(server:requests()[2].headers["x-own"])
    local _, _, err = call(server, "process_list", { body = {} }, { transfer = { max_bytes = 1 } })
    assert.are.equal("too_large", err.kind)
    assert(call(server, "process_list", { body = {} }))
  end)

  it("may take the time its transfer has", function()
    local server = serve("on.List = function() conn:sleep(0.3) answer(200) end")
    assert(call(server, "process_list", { body = {} }, { transfer = { timeout = 0 } }, { request_timeout = 0.1 }))
    local _, _, err = call(server, "process_list", { body = {} }, { transfer = { timeout = 0.1 } })
    assert.are.equal("timeout", err.kind)
  end)

  for _, mode in ipairs(envd_peer.MODES) do
    it("tells how far it is, in " .. mode.name, function()
      mode.run(function()
        local server = serve([[
          on.files = function()
            conn:send("HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n")
            for _ = 1, 3 do
              conn:send(("x"):rep(100000))
              conn:sleep(0.15)
            end
          end
        ]])
        local told = {}
        local bytes = assert(call(server, "files_read", { query = { path = "/f" } }, {
          progress = function(done, total) told[#told + 1] = { done, total } end,
        }))
        assert.are.equal(300000, #bytes)
        assert.are.same({ 300000, 300000 }, told[#told])
        assert.is_true(#told >= 3 and #told <= 8, #told .. " times")
        for i = 2, #told do assert.is_true(told[i][1] >= told[i - 1][1]) end
      end)
    end)
  end

  it("whose listener raises is ended, and the raise goes on", function()
    local server = serve("on.files = function() conn:wait_closed() conn:close() end")
    local ok, raised = pcall(call, server, "files_read", { query = { path = "/f" } }, {
      progress = function() error("stop here", 0) end,
    })
    assert.is_false(ok)
    assert.are.equal("stop here", raised)
    server:wait_event("closed")
    assert.are.equal(0, core.stats().in_flight)
  end)
end)

describe("a stream that broke", function()
  local SLOW_HEALTH = [[
    on.Start = function()
      begin()
      event('{"start":{"pid":7}}')
      conn:sleep(0.05)
      conn:close()
    end
    on.health = function() conn:sleep(0.4) health() end
  ]]

  it("can be closed while the sandbox is asked how it is", function()
    local stream = assert(open(serve(SLOW_HEALTH)))
    local results = e2b.all(function() return read_all(stream) end, function()
      e2b.sleep(0.2)
      stream:close()
      stream:close()
      local _, _, err = stream:event()
      return err
    end)
    assert.is_true(results[1].ok, results[1].message)
    assert.is_true(results[2].ok, results[2].message)
    assert.are.equal("cancelled", results[2].value.kind)
  end)

  it("tells all who wait for it the same", function()
    local stream = assert(open(serve(SLOW_HEALTH)))
    local function wait()
      local _, _, err = read_all(stream)
      return err
    end
    local results = e2b.all(wait, wait, function()
      e2b.sleep(0.2)
      assert.is_false((stream:event(core.now() + 0.05))) -- its own deadline is over first
      return wait()
    end)
    for i = 1, 3 do assert.is_true(results[i].ok, results[i].message) end
    assert.are.equal("network", results[1].value.kind)
    assert.are.equal(results[1].value, results[2].value)
    assert.are.equal(results[1].value, results[3].value)
  end)

  it("leaves nothing behind when all who waited for it were cancelled, the first one first", function()
    local server = serve(HANGS)
    do
      local stream = assert(open(server))
      assert.are.equal("start", (stream:event()))
      local function wait() return stream:event() end
      local first, second = e2b.spawn(wait), e2b.spawn(wait)
      e2b.sleep(0.05)
      first:cancel()
      e2b.sleep(0.02)
      second:cancel()
      first:wait(1)
      second:wait(1)
    end
    support.collect()
    server:wait_event("closed")
    assert.are.equal(0, core.stats().in_flight)
  end)
end)

describe("a stream that was not sent", function()
  local function free_port()
    local server = serve("")
    local port = server.port
    server:stop()
    return port
  end

  local function open_at(port, context, opts, row)
    local client = e2b.client({
      api_key = "e2b_0", sandbox_url = "http://127.0.0.1:" .. port, getenv = function() end,
    })
    return open({ client = client }, context, opts, row)
  end

  it("is not tried again when its time would be over", function()
    for _, timeout in ipairs({ 0.1, 0.2 }) do
      local began = core.now()
      local _, message, err = read_all(assert(open_at(free_port(), { timeout = timeout })))
      local took = core.now() - began
      assert.are.equal("network", err.kind, message)
      assert.is_true(took < timeout + support.tolerance, "took " .. took)
    end
  end)

  it("is tried again with all that was written", function()
    local port = free_port()
    local server = watched.peer({
      port = port, listen_after = 0.3, handler = [[
        local request = conn:read_request()
        conn:respond(200, ('[{"path":"%d"}]'):format(#request.body))
      ]],
    })
    local stream = assert(open_at(port, { transfer = { source = "chunks" } }, nil, "files_write"))
    for _ = 1, 3 do assert(stream:write(("x"):rep(100000))) end
    local value, meta = stream:finish()
    assert(value, meta)
    assert.are.equal("300000", value[1].path)
    assert.is_true(meta.attempts > 1)
    server:stop()
  end)

  it("is not tried again without retries", function()
    local stream = assert(open_at(free_port(), { transfer = { source = "chunks" } }, { retries = 0 }, "files_write"))
    local _, _, err = stream:finish()
    assert.are.same({ "network", 1, "no" }, { err.kind, err.attempts, err.sent })
  end)
end)

describe("the signs of life asked of a stream", function()
  it("come as often as they can, and one that is late is no silence", function()
    local server = serve([[
      on.Start = function()
        begin()
        event('{"start":{"pid":7}}')
        conn:sleep(1.3)
        ended(0)
        finish()
      end
    ]])
    local got, message = read_all(assert(open(server, nil, { idle_timeout = 1 })))
    assert.is_nil(message)
    assert.are.equal(2, #got)
    assert.are.equal("1", server:requests()[1].headers["keepalive-ping-interval"])
  end)
end)

describe("what a sandbox says went wrong", function()
  it("is what the number in it says, whatever the status is", function()
    local server = serve([[
      on.Stat = function() answer(500, '{"code":' .. request.headers["x-code"] .. ',"message":"too many"}') end
    ]])
    local target = assert(server.client:sandbox_target(nil, "i1", "tok-1"))
    for code, kind in pairs({ ["429"] = "rate_limit", ["507"] = "no_space", ["13"] = "server", ["200"] = "server" }) do
      local _, message, err = server.client:call("fs_stat", { body = { path = "x" } }, nil, {
        operation = "spec", target = target, headers = { "X-Code", code },
      })
      assert.are.equal(kind, err.kind, message)
      assert.are.equal(500, err.status)
    end
  end)

  it("is told apart from what the platform says", function()
    local server = serve([[ on.Stat = function() fail(500, "internal", "no luck") end ]])
    local _, message = server.client:call("fs_stat", { body = { path = "x" } }, nil, {
      operation = "spec", target = assert(server.client:sandbox_target(nil, "i1", "tok-1")),
    })
    assert.are.equal("spec: the sandbox's daemon failed (internal: no luck)", message)
  end)
end)
