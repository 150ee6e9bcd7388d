-- Transfers: what is sent, what comes back, and what becomes of each failure.
local support = require("spec.support.support")
local exchange = require("spec.support.exchange")
local core = support.core()
local engine = core.engine()

local SECRET = "e2b_5ec4e7c0ffee"

describe("a target", function()
  local watch = exchange.watch()

  it("shows scheme and host only", function()
    local target = exchange.target("https://api.example.com:8443/deep/path", {
      headers = { { "X-API-Key", SECRET } }, user_agent = SECRET, ca_file = "/" .. SECRET,
      proxy = "http://u:" .. SECRET .. "@p",
    })
    assert.equal("e2b.target (https://api.example.com:8443)", tostring(target))
  end)

  it("takes only URLs that it can send to", function()
    for _, url in ipairs({
      "", "ftp://x", "file:///etc/passwd", "https://", "http:///x", "api.e2b.app", "http://a b", "http://a\r\nb",
      "http://user:pw@host", "http://h/?q=1", "http://h/#f", "HTTPS//x", "http://h\0x",
    }) do
      local target, message = core.target({ url = url })
      assert.is_nil(target, url)
      assert.truthy(message:find("URL", 1, true))
    end
    for _, url in ipairs({ "http://127.0.0.1:1/", "https://h", "http://[::1]:80/base//" }) do
      assert.truthy(core.target({ url = url }))
    end
  end)

  it("refuses control characters and never shows the value", function()
    for _, bad in ipairs({ "\r\nX-Evil: 1", "\n", "\0", "\27[1m", "\127" }) do
      local target, message = core.target({ url = "http://h", headers = { { "X-API-Key", SECRET .. bad } } })
      assert.is_nil(target)
      assert.truthy(message:find("X-API-Key", 1, true))
      support.assert_no_secret(SECRET, message)
      assert.is_nil((core.target({ url = "http://h", headers = { { "X" .. bad, "1" } } })))
      assert.is_nil((core.target({ url = "http://h", user_agent = SECRET .. bad })))
      assert.is_nil((core.target({ url = "http://h", proxy = "http://" .. bad })))
    end
    assert.is_nil((core.target({ url = "http://h", headers = { { "", "1" } } })))
    assert.is_nil((core.target({ url = "http://h", headers = { { "a b", "1" } } })))
    assert.is_nil((core.target({ url = "http://h", headers = { { "a:", "1" } } })))
    assert.is_nil((core.target({ url = "http://h", ca_file = "a\0b" })))
    assert.has_error(function() core.target({}) end)
    assert.has_error(function() core.target({ url = 1 }) end)
    assert.has_error(function() core.target({ url = "http://h", headers = { "X-API-Key" } }) end)
    assert.has_error(function() core.target({ url = "http://h", headers = { { "X-API-Key" } } }) end)
  end)

  it("keeps its secrets out of the request id of a success, as out of a failure's facts", function()
    local server = watch.peer([[
      conn:serve(function(request)
        conn:respond(request.path == "/ok" and 200 or 500, "[1]",
          { ["X-E2B-Trace-ID"] = "t " .. request.headers["x-api-key"] })
      end)
    ]])
    local target = exchange.target(server, { headers = { { "X-API-Key", SECRET } } })
    local stars = "t " .. ("*"):rep(#SECRET)
    assert.equal(stars, (select(7, exchange.get(target, "/ok"))))
    assert.equal(stars, exchange.fail(exchange.raw(target, "/failed")).request_id)
  end)

  it("outlives its handle for the transfers that need it", function()
    local server = watch.peer([[
      conn:serve(function(request) conn:respond(200, '["' .. request.headers.x .. '"]') end)
    ]])
    local transfer = exchange.raw(exchange.target(server, { headers = { { "X", "kept" } } }), "/")
    support.collect()
    assert.equal(0, core.stats().targets)
    local _, value = exchange.run(transfer)
    assert.same({ "kept" }, value)
  end)
end)

describe("a request", function()
  local watch = exchange.watch()
  local ECHO = [[conn:serve(function() conn:respond(200, "[]") end)]]

  it("carries the target's headers, the call's own, and nothing libcurl would add for a form", function()
    local server = watch.peer(ECHO)
    local target = exchange.target(server.url .. "/base/", {
      headers = { { "X-API-Key", SECRET }, { "X-Empty", "" }, { "X-Twice", "target" } }, user_agent = "e2b-lua-sdk/1",
    })
    exchange.run(exchange.raw(target, "/a/%2e%2e/b", { headers = { "X-Own", "1", "x-twice", "call" } }))
    exchange.run(exchange.raw(target, "/p", nil, { method = "POST", body = { a = 1 } }))
    exchange.run(exchange.raw(target, "/p", nil, { method = "POST" }))
    exchange.run(exchange.raw(target, "/../q", nil, {
      method = "PATCH", body = ("x"):rep(2000000), content_type = "text/plain",
    }))
    exchange.run(exchange.raw(target, "/d", nil, { method = "DELETE" }))
    local requests = server:requests()
    local first = requests[1]
    assert.equal("GET /base/a/%2e%2e/b", first.method .. " " .. first.path)
    assert.same({ SECRET, "", "call", "e2b-lua-sdk/1", "1" }, { first.headers["x-api-key"], first.headers["x-empty"],
      first.headers["x-twice"], first.headers["user-agent"], first.headers["x-own"] })
    assert.is_nil(first.headers["content-type"])
    assert.same({ "POST", '{"a":1}', "application/json", "7" }, { requests[2].method, requests[2].body,
      requests[2].headers["content-type"], requests[2].headers["content-length"] })
    assert.same({ "POST", "", "0" }, { requests[3].method, requests[3].body, requests[3].headers["content-length"] })
    assert.is_nil(requests[3].headers["content-type"])
    assert.same({ "PATCH", "/base/../q", 2000000, "text/plain" },
      { requests[4].method, requests[4].path, #requests[4].body, requests[4].headers["content-type"] })
    assert.is_nil(requests[4].headers.expect)
    assert.same({ "DELETE", "" }, { requests[5].method, requests[5].body })
    for _, request in ipairs(requests) do
      assert.equal(SECRET, request.headers["x-api-key"])
    end
  end)

  it("is refused with a message when it could not be sent as it is", function()
    local target = exchange.target("http://127.0.0.1:1")
    local function refused(...)
      local transfer, message = core.transfer(target, ...)
      assert.is_nil(transfer)
      assert.is_string(message)
      support.assert_no_secret(SECRET, message)
      return message
    end
    local message = refused("raw", { method = "GET", path = "/" }, { headers = { "X-Token", SECRET .. "\r\n" } })
    assert.truthy(message:find("X-Token"))
    refused("raw", { method = "GET", path = "/" }, { headers = { "X\0", "1" } })
    refused("raw", { method = "GE T", path = "/" })
    refused("raw", { method = "GET", path = "/a b" })
    refused("raw", { method = "GET", path = "/a\r\nb" })
    refused("raw", { method = "GET", path = "a" })
    refused("raw", { method = "POST", path = "/", body = "x" }, { source = "chunks" })
    refused("sandbox_get", { sandbox_id = ".." })
    for _, bad in ipairs({
      { timeout = -1 }, { timeout = "1" }, { timeout = 0 / 0 }, { sink = 1.5 }, { source = "file" },
      { headers = { "X" } }, { headers = { 1, 2 } }, { headers = 1 }, { stream = true, sink = 1 },
    }) do
      assert.has_error(function() core.transfer(target, "raw", { method = "GET", path = "/" }, bad) end)
    end
    assert.has_error(function() core.transfer(target, "no_such_call", {}) end, "no REST call is named 'no_such_call'")
    assert.has_error(function() core.transfer({}, "raw", {}) end)
  end)

  it("asks for gzip where the row says so, and counts what comes out of it", function()
    local zeros = support.tmpdir()
    support.shell("head -c 50000000 /dev/zero | tr '\\0' ' ' | gzip -9 > " .. zeros .. "/bomb")
    support.shell("printf '[7]' | gzip > " .. zeros .. "/small")
    local server = watch.peer([[conn:serve(function(request)
      local name = request.path:match("%w+$")
      local file = io.open("]] .. zeros .. [[/" .. name, "rb")
      conn:respond(200, file:read("*a"), { ["Content-Encoding"] = "gzip" })
      file:close()
    end)]])
    local target = exchange.target(server)
    local ok, value = exchange.get(target, "/small")
    assert.same({ true, { 7 } }, { ok, value })
    assert.truthy(server:requests()[1].headers["accept-encoding"]:find("gzip", 1, true))
    local before = exchange.peak_kb()
    local facts = exchange.fail(exchange.raw(target, "/bomb", { max_bytes = 1000000 }))
    assert.equal("too_large", facts.cause)
    assert.is_true(exchange.peak_kb() - before < 8000)
    support.cleanup(zeros)
  end)
end)

describe("a result", function()
  local watch = exchange.watch()

  it("brings the value and what the headers said", function()
    local server = watch.peer([[conn:serve(function()
      conn:send("HTTP/1.1 103 Early Hints\r\nX-Next-Token: early\r\n\r\n")
      conn:respond(200, '{"a":[1,null],"n":5}', { Date = "Fri, 02 Jan 2026 03:04:05 GMT", ["X-Next-Token"] = "cursor",
        ["x-total-running"] = "12", ["X-E2B-Trace-ID"] = "trace\2" })
    end)]])
    local transfer = exchange.raw(exchange.target(server), "/")
    assert.is_nil(transfer:status())
    assert.same({ 0, 0, nil, 0 }, { transfer:progress() })
    assert.has_error(function() transfer:result() end)
    local results = { exchange.run(transfer) }
    assert.is_true(results[1])
    assert.equal(5, results[2].n)
    assert.same({ 1767323045, 200, "cursor", 12, "trace?" },
      { results[3], results[4], results[5], results[6], results[7] })
    assert.has_error(function() transfer:result() end, "the result of this transfer was taken already")
    assert.equal(200, transfer:status())
    assert.same({ 20, 0, 20, 0 }, { transfer:progress() })
    support.assert_no_secret("cursor", transfer, engine)
  end)

  it("understands the Date header in each form that HTTP allows", function()
    local dates = { "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
      "Thu, 29 Feb 2024 23:59:60 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", "yesterday" }
    local answers = {}
    for i, date in ipairs(dates) do answers[i] = { status = 200, body = "[]", headers = { Date = date } } end
    local target, seen = exchange.target(watch.answers(answers)), {}
    for i = 1, #dates do
      local _, _, date = exchange.run(exchange.raw(target, "/"))
      seen[i] = date or "none"
    end
    assert.same({ 784111777, 784111777, 784111777, 1709251200, 0, "none" }, seen)
  end)

  it("has nothing of an interim answer, and nothing of trailers", function()
    local server = watch.peer([[conn:serve(function()
      conn:send("HTTP/1.1 103 Early Hints\r\nX-Next-Token: early\r\nX-Total-Running: 1\r\n\r\n")
      conn:send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-E2B-Trace-ID\r\n\r\n")
      conn:send("3\r\n[1]\r\n0\r\nX-E2B-Trace-ID: late\r\n\r\n")
    end)]])
    local results = { exchange.get(exchange.target(server), "/") }
    assert.same({ true, { 1 }, nil, 200 }, results)
  end)

  it("of another status has the server's words and headers", function()
    local server = watch.answers({
      { status = 404, body = '{"code":404,"message":"no such sandbox","error_code":"gone"}',
        headers = { ["X-E2B-Trace-ID"] = "t1", ["Retry-After"] = "7" } },
      { status = 302, headers = { Location = "https://user:pw@evil.example:99/x" } },
      { status = 302, headers = { Location = "/elsewhere" } },
      { status = 500, body = "<html>" .. ("x"):rep(100000), headers = { ["Content-Type"] = "text/html" } },
    })
    local target = exchange.target(server, { headers = { { "X-API-Key", SECRET } } })
    local facts = exchange.fail(exchange.raw(target, "/"))
    assert.same({ "http", 404, "no such sandbox", true, "t1", "7", "yes", "127.0.0.1" }, { facts.cause, facts.status,
      facts.message, facts.has_body, facts.request_id, facts.retry_after, facts.sent, facts.primary_ip })
    facts = exchange.fail(exchange.raw(target, "/"))
    assert.same({ "http", 302, "evil.example:99" }, { facts.cause, facts.status, facts.location_host })
    facts = exchange.fail(exchange.raw(target, "/"))
    assert.is_nil(facts.location_host)
    facts = exchange.fail(exchange.raw(target, "/"))
    assert.same({ "http", 500, "text/html" }, { facts.cause, facts.status, facts.content_type })
    assert.is_nil(facts.has_body)
    support.assert_no_secret(SECRET, facts)
  end)

  it("that is not what the row promises is a failure", function()
    local server = watch.answers({
      { body = "<html>" }, { body = "" }, { body = '{"a":' }, { body = '["a"]' }, { body = ("["):rep(10000) },
    })
    local target = exchange.target(server)
    for _, cause in ipairs({ "json", "json", "json", "shape", "json" }) do
      local facts = exchange.fail(assert(core.transfer(target, "sandbox_get", { sandbox_id = "a" })))
      assert.same({ cause, "yes", 200 }, { facts.cause, facts.sent, facts.status })
      assert.is_string(facts.text)
    end
  end)

  it("is capped, decoded or not, announced or not, headers too", function()
    local server = watch.peer([[conn:serve(function(request)
      if request.path == "/chunked" then
        conn:begin_chunked(200)
        while conn:chunk((" "):rep(65536)) do end
        return conn:close()
      elseif request.path == "/headers" then
        conn:send("HTTP/1.1 200 OK\r\n")
        while conn:send("X: " .. ("h"):rep(60000) .. "\r\n") do end
        return conn:close()
      end
      conn:respond(200, "[" .. (" "):rep(99998) .. "]")
    end)]])
    local target = exchange.target(server)
    assert.is_true((exchange.get(target, "/", { max_bytes = 100000 })))
    for _, path in ipairs({ "/", "/chunked", "/headers" }) do
      local transfer = exchange.raw(target, path, { max_bytes = 99999 })
      local facts = exchange.fail(transfer)
      assert.equal("too_large", facts.cause)
      assert.is_true((transfer:progress()) < 300000)
    end
  end)

  it("says whether the request was sent", function()
    local server = watch.peer([[conn:serve(function(request)
      if request.path == "/cut" then conn:close()
      elseif request.path == "/reset" then conn:reset()
      elseif request.path == "/half" then conn:send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345") conn:close()
      elseif request.path == "/head" then conn:send("HTTP/1.1 200 OK\r\nContent-Le") conn:close()
      else conn:respond(200, "[]") end
    end)]])
    local target = exchange.target(server)
    local closed = exchange.target("http://127.0.0.1:" .. require("spec.support.peer").free_port())
    local refused = exchange.fail(exchange.raw(closed, "/"))
    assert.same({ "curl", 7, "no" }, { refused.cause, refused.curl, refused.sent })
    assert.is_nil(refused.status)
    local unresolved = exchange.fail(exchange.raw(exchange.target("http://no-such-host.invalid"), "/", { timeout = 8 }))
    assert.equal("no", unresolved.sent)
    for path, expected in pairs({ ["/cut"] = { 52, "maybe" }, ["/reset"] = { 56, "maybe" }, ["/half"] = { 18, "yes" },
                                  ["/head"] = { nil, "maybe" } }) do
      local facts = exchange.fail(exchange.raw(target, path, nil, { method = "POST" }))
      assert.equal("curl", facts.cause)
      assert.equal(expected[2], facts.sent, path)
      assert.is_true(expected[1] == nil or expected[1] == facts.curl, path .. " " .. facts.curl)
    end
    assert.is_true((exchange.get(target, "/")))
  end)

  it("can be asked for again when Lua could not make it", function()
    local server = watch.answers({ { body = "[1]" } })
    local transfer = exchange.raw(exchange.target(server), "/")
    engine:start(transfer)
    exchange.drive({ transfer })
    local ok = pcall(coroutine.wrap(function() -- no more stack than the result needs twice
      return transfer:result()
    end))
    assert.is_true(ok)
  end)
end)

describe("the replay guard", function()
  local watch = exchange.watch()
  -- Answers once; the next request on that connection is read, and the connection dies without a byte.
  local DIES = [[
    local first = true
    conn:serve(function()
      if first then first = false conn:respond(200, "[]") return end
      if shared.died then return conn:respond(200, "[]") end
      shared.died = true
      conn:reset()
    end)
  ]]

  it("lets libcurl send a GET or a DELETE again", function()
    for _, again in ipairs({
      { "raw", { method = "GET", path = "/2" } }, { "raw", { method = "DELETE", path = "/2" } },
      { "template_list" }, { "sandbox_kill", { sandbox_id = "i1" } },
    }) do
      local server = watch.peer(DIES)
      local target = exchange.target(server)
      assert.is_true((exchange.get(target, "/1")))
      assert.is_true((exchange.run(assert(core.transfer(target, again[1], again[2])))))
      assert.equal(3, server:count())
      engine:close()
    end
  end)

  it("lets libcurl send a call again that only looks into a sandbox", function()
    local calls = {
      process_list = { "process.Process/List", '{"processes":[]}' },
      fs_stat = { "filesystem.Filesystem/Stat", '{"entry":{"name":"x"}}' },
      fs_list = { "filesystem.Filesystem/ListDir", '{"entries":[]}' },
    }
    for name, call in pairs(calls) do
      assert.is_false(core.calls[name].idempotent) -- nothing above libcurl makes it again
      local server = watch.peer((DIES:gsub('"%[%]"', ("'%s'"):format(call[2]))))
      local target = exchange.target(server)
      assert.is_true((exchange.get(target, "/1")))
      assert.is_true((exchange.run(assert(core.transfer(target, name, { body = name ~= "process_list" and {
        path = "x",
      } or nil })))))
      assert.equal(3, server:count())
      assert.equal("/" .. call[1], server:requests()[3].path)
      engine:close()
    end
  end)

  it("never lets it send a POST twice", function()
    local server = watch.peer(DIES)
    local target = exchange.target(server)
    assert.is_true((exchange.get(target, "/1")))
    local facts = exchange.fail(exchange.raw(target, "/2", nil, { method = "POST", body = { a = 1 } }))
    assert.same({ true, "maybe" }, { facts.replay, facts.sent })
    assert.equal(2, server:count())
    assert.is_true((exchange.get(target, "/3")))
    for call, body in pairs({
      sandbox_create = { template = "base" }, sandbox_resume = { timeout = 1 }, sandbox_timeout = { timeout = 1 },
      sandbox_pause = {}, process_signal = { process = { pid = 7 } }, watcher_events = { watcher_id = "w" },
    }) do
      server = watch.peer(DIES)
      target = exchange.target(server)
      assert.is_true((exchange.get(target, "/1")))
      facts = exchange.fail(assert(core.transfer(target, call, {
        sandbox_id = call:find("^sandbox_[^c]") and "i1" or nil, body = body,
      })))
      assert.same({ true, "maybe", 2 }, { facts.replay, facts.sent, server:count() })
    end
  end)
end)

describe("cancelling", function()
  local watch = exchange.watch()

  it("takes a transfer out at once and tells nobody", function()
    local server = watch.peer([[conn:serve(function() conn:wait_closed() end)]])
    local transfer = exchange.raw(exchange.target(server), "/")
    engine:start(transfer)
    engine:wait(0.1)
    server:wait_event("connection")
    transfer:cancel()
    transfer:cancel()
    assert.equal(0, core.stats().in_flight)
    assert.is_nil((engine:finished()))
    server:wait_event("closed")
    local ok, facts = transfer:result()
    assert.same({ false, "cancelled", "maybe" }, { ok, facts.cause, facts.sent })
    transfer:cancel()
  end)

  it("works before the start, and in the queue of news", function()
    local server = watch.answers({ { body = "[1]" } })
    local target = exchange.target(server)
    local unsent, done = exchange.raw(target, "/"), exchange.raw(target, "/")
    unsent:cancel()
    assert.has_error(function() engine:start(unsent) end)
    local ok, facts = unsent:result()
    assert.same({ false, "cancelled", "no" }, { ok, facts.cause, facts.sent })
    engine:start(done)
    while not engine:wait(1) do end -- luacheck: ignore 542
    done:cancel()
    assert.equal(0, select("#", engine:finished()))
    assert.is_true((done:result())) -- what arrived is not thrown away
  end)

  it("is what collecting an unstarted or forgotten transfer does", function()
    local server = watch.peer([[conn:serve(function() conn:respond(200, "[]") end)]])
    local target = exchange.target(server)
    for _ = 1, 10 do
      exchange.raw(target, "/")
    end
    engine:start(exchange.raw(target, "/")) -- nobody asks for it
    support.collect()
    assert.equal(1, core.stats().transfers)
    while not engine:wait(1) do end -- luacheck: ignore 542
    assert.equal("done", select(2, engine:finished()))
    support.collect()
    assert.equal(0, core.stats().transfers)
  end)
end)
