-- Answers that begin well: too slow, too long, too deep, or of something else altogether.
local failing = require("spec.support.failing")
local support = require("spec.support.support")

describe("an answer that trickles in", function()
  it("of 5,000 one-byte chunks, each within the idle bound, ends at the deadline of the call", failing.test(function(t)
    local server = t:peer([[
      conn:begin_chunked(200)
      for i = 1, 5000 do
        if not conn:chunk(" ") then
          return conn:note({ what = "gave up", at = i })
        end
        conn:sleep(0.01)
      end
      conn:note({ what = "sent all" })
    ]])
    local client = t:client(server, { idle_timeout = 0.2, retries = 0 })
    t:takes(0.7, function()
      t:fails({ kind = "timeout", deadline = "request_timeout", attempts = 1, status = 200 },
        client.Sandbox.get_info("x", { request_timeout = 0.7 }))
    end)
    server:wait_event("gave up")
    t:works(client)
  end))

  it("of 5,000 one-byte chunks that comes in time is an answer", failing.test(function(t)
    local server = t:peer([[
      conn:begin_chunked(200)
      local text = OK .. (" "):rep(5000 - #OK)
      for i = 1, #text do
        conn:chunk(text:sub(i, i))
      end
      conn:chunk("")
    ]])
    local client = t:client(server)
    assert.equal("ok", assert(client.Sandbox.get_info("x")).sandbox_id)
    t:works(client)
  end))

  it("and stands still ends at the idle timeout", failing.test(function(t)
    local server = t:peer([[
      conn:begin_chunked(200)
      for _ = 1, 3 do conn:chunk(" ") conn:sleep(0.1) end
      conn:wait_closed()
    ]])
    local client = t:client(server, { idle_timeout = 0.3, retries = 0 })
    t:takes(0.5, function()
      t:fails({ kind = "timeout", deadline = "idle_timeout", attempts = 1 }, client.Sandbox.get_info("x"))
    end)
    server:wait_event("closed")
    t:works(client)
  end))
end)

local function success(t, body, headers, options)
  local server = t:answers({ { status = 200, body = body, headers = headers } })
  return server, t:client(server, options)
end

describe("200 with", function()
  local ROWS = {
    { "an empty body", "" },
    { "white space", " \r\n\t " },
    { "an HTML page", "<!DOCTYPE html><html><body>Sign in to this network</body></html>",
      { ["Content-Type"] = "text/html" } },
    { "an HTML page that calls itself JSON", "<html></html>" },
    { "truncated JSON", failing.DETAIL:sub(1, -20) },
    { "JSON and something after it", failing.DETAIL .. "}" },
    { "two JSON values", failing.DETAIL .. failing.DETAIL },
    { "null", "null" },
    { "a number", "1" },
    { "a string", '"sandbox"' },
    { "a list where an object belongs", "[" .. failing.DETAIL .. "]" },
    { "an empty object", "{}" },
    { "an empty list", "[]" },
    { "an id that is a number", (failing.DETAIL:gsub('"sandboxID":"ok"', '"sandboxID":1')) },
    { "an id that is null", (failing.DETAIL:gsub('"sandboxID":"ok"', '"sandboxID":null')) },
    { "a size that is NaN", (failing.DETAIL:gsub('"cpuCount":2', '"cpuCount":NaN')) },
    { "bytes that are no text", ("\0\1\255\254"):rep(100) },
    { "10,000 lists in each other", ("["):rep(10000) .. ("]"):rep(10000) },
    { "10,000 objects in each other", ('{"a":'):rep(10000) .. "1" .. ("}"):rep(10000) },
    { "10,000 objects in each other in a field", (failing.DETAIL:gsub('"metadata":{}',
      '"news":' .. ('{"a":'):rep(10000) .. "1" .. ("}"):rep(10000))) },
  }
  for _, row in ipairs(ROWS) do
    it(row[1], failing.test(function(t)
      local server, client = success(t, row[2], row[3])
      t:fails({ kind = "protocol", sent = "yes", status = 200, attempts = 1, operation = "Sandbox.get_info" },
        client.Sandbox.get_info("x"))
      t:works(client)
      assert.equal(1, t:count(server))
    end))
  end

  for _, row in ipairs({ ROWS[1], ROWS[3], ROWS[5], ROWS[12], ROWS[22] }) do
    it(row[1] .. " to a create: it may have been made, and is not repeated", failing.test(function(t)
      local server, client = success(t, row[2], row[3])
      t:fails({ kind = "protocol", sent = "yes", retryable = false, attempts = 1, operation = "Sandbox.create" },
        client.Sandbox.create())
      t:works(client)
      assert.equal(1, t:count(server))
    end))
  end

  for name, row in pairs({
    ["a size that is a string"] = { "cpuCount", '"cpuCount":2', '"cpuCount":"two"', "two" },
    ["a time that is none"] = { "startedAt", '"2026%-01%-02T03:04:05Z"', '"yesterday"', "yesterday" },
    ["metadata that is a list"] = { "metadata", '"metadata":{}', '"metadata":["a"]', { "a" } },
    ["a state that is a number"] = { "state", '"running"', "1", 1 },
  }) do
    it(name .. " is an answer, with that field in `extra`", failing.test(function(t)
      local _, client = success(t, (failing.DETAIL:gsub(row[2], row[3])))
      local sandbox, message = client.Sandbox.get_info("x")
      assert.equal("ok", sandbox and sandbox.sandbox_id, message)
      assert.same({ [row[1]] = row[4] }, sandbox.extra)
      assert.is_string(tostring(sandbox))
      t:works(client)
    end))
  end

  it("fields of another type to a create still gives the sandbox, which can be killed", failing.test(function(t)
    local server = t:answers({
      { status = 201, body = (failing.CREATED:gsub('"alias":"base"', '"alias":5')
        :gsub('"templateID":"base",', ""):gsub('"trafficAccessToken":(%b"")', '"trafficAccessToken":{"is":%1}')) },
      { status = 204 },
    })
    local client = t:client(server)
    local sandbox, message = client.Sandbox.create()
    assert.equal("made", sandbox and sandbox.sandbox_id, message)
    assert.is_nil(sandbox.name)
    assert.same({ alias = 5 }, sandbox.extra)
    support.assert_no_secret(failing.SECRETS, sandbox, tostring(sandbox))
    assert.is_true((sandbox:kill()))
    assert.same({ "POST /v2/sandboxes", "DELETE /sandboxes/made" }, (function(list)
      for i, request in ipairs(server:requests()) do list[i] = request.method .. " " .. request.path end
      return list
    end)({}))
    t:works(client)
  end))

  for _, row in ipairs({
    { "an object where a list belongs", failing.DETAIL }, { "null", "null" }, { "a list of numbers", "[1,2]" },
    { "a list with one bad row", "[" .. failing.DETAIL .. ",{}]" }, { "an empty body", "" },
    { "null in the list", "[null]" },
  }) do
    it(row[1] .. " to a list", failing.test(function(t)
      local server, client = success(t, row[2])
      t:fails({ kind = "protocol", sent = "yes" }, client.Sandbox.list():next_items())
      local paginator = client.Sandbox.list()
      local ok, message = pcall(function()
        for _ in paginator do error("an item came") end
      end)
      assert.is_false(ok)
      assert.equal(paginator.err.message, (tostring(message):gsub("^[^:]+:%d+: ", "")))
      t:fails({ kind = "protocol" }, client.Template.list():all())
      assert.equal(3, t:count(server))
      t:works(client)
    end))
  end
end)

describe("an answer that is too large", function()
  -- 200 blocks of 1 MiB, unless the client hangs up before
  local flood = [[
    %s
    local block = (" "):rep(1048576)
    for i = 1, 200 do
      if not %s then return conn:note({ what = "gave up", at = i }) end
    end
    conn:note({ what = "sent all" })
    conn:close()
  ]]
  local ways = {
    ["200 MB with a length"] = flood:format(
      [[conn:send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 209715200\r\n\r\n")]],
      "conn:send(block)"),
    ["200 MB in chunks"] = flood:format("conn:begin_chunked(200)", "conn:chunk(block)"),
    ["200 MB until the connection ends"] = flood:format(
      [[conn:send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")]],
      "conn:send(block)"),
  }
  for name, source in pairs(ways) do
    it(name .. " is given up at 32 MiB", failing.test(function(t)
      local server = t:peer(source)
      local client = t:client(server)
      t:fails({ kind = "too_large", sent = "yes", attempts = 1, operation = "Sandbox.get_info" },
        client.Sandbox.get_info("x"))
      local gave_up = server:wait_event("gave up")
      assert.is_true(gave_up.at < 50, "the peer got rid of " .. gave_up.at .. " MiB")
      assert.equal(0, server:count("sent all"))
      t:works(client)
    end))
  end

  it("is given up at the bound of the client", failing.test(function(t)
    local body = failing.DETAIL .. (" "):rep(3000 - #failing.DETAIL)
    local server = t:peer("conn:respond(request.method == 'POST' and 201 or 200, " .. support.serialize(body) .. ")")
    t:fails({ kind = "too_large", sent = "yes" }, t:client(server, { max_answer_bytes = 2999 }).Sandbox.get_info("x"))
    local err = t:fails({ kind = "too_large", sent = "yes", retryable = false },
      t:client(server, { max_answer_bytes = 2999 }).Sandbox.create())
    assert.truthy(err.message:find("2999", 1, true), err.message)
    assert.equal("ok", assert(t:client(server, { max_answer_bytes = 3000 }).Sandbox.get_info("x")).sandbox_id)
  end))

  it("of an error status is cut, not refused: the status counts", failing.test(function(t)
    local server = t:peer([[
      conn:begin_chunked(500)
      local block = (" "):rep(1048576)
      for i = 1, 200 do
        if not conn:chunk(block) then return conn:note({ what = "gave up", at = i }) end
      end
      conn:chunk("")
    ]])
    local client = t:client(server, { retries = 0 })
    local err = t:fails({ sent = "yes", status = 500, attempts = 1 }, client.Sandbox.get_info("x"))
    assert.truthy(err.kind == "server" or err.kind == "too_large", err.kind)
    t:works(client)
  end))

  it("with headers without end", failing.test(function(t)
    local server = t:peer([[
      conn:send("HTTP/1.1 200 OK\r\n")
      local block = ("X-Filler: " .. ("x"):rep(8000) .. "\r\n"):rep(20)
      for i = 1, 2000 do
        if not conn:send(block) then return conn:note({ what = "gave up", at = i }) end
      end
      conn:note({ what = "sent all" })
    ]])
    local client = t:client(server, { retries = 0, request_timeout = 20 })
    local err = t:fails({ attempts = 1 }, client.Sandbox.get_info("x"))
    assert.truthy(err.kind == "too_large" or err.kind == "network" or err.kind == "protocol", err.kind)
    assert.equal(0, server:count("sent all"))
    t:works(client)
  end))

  it("with interim answers without end", failing.test(function(t)
    local server = t:peer([[
      local block = ("HTTP/1.1 103 Early Hints\r\nLink: </" .. ("x"):rep(500) .. ">\r\n\r\n"):rep(200)
      for i = 1, 2000 do
        if not conn:send(block) then return conn:note({ what = "gave up", at = i }) end
      end
      conn:note({ what = "sent all" })
      conn:close()
    ]])
    local client = t:client(server, { retries = 0, request_timeout = 20 })
    t:fails({ kind = "too_large", attempts = 1, retryable = false }, client.Sandbox.create())
    server:wait_event("gave up")
    t:works(client)
  end))

  it("is never held whole in memory", failing.test(function(t)
    local server = t:peer(ways["200 MB in chunks"])
    local result = support.run(string.format([[
      local client = require("e2b").client({ api_key = "k", api_url = %q, getenv = function() end, retries = 0 })
      local function peak()
        return tonumber(io.open("/proc/self/status"):read("*a"):match("VmHWM:%%s*(%%d+)")) / 1024
      end
      local before = peak()
      local _, _, err = client.Sandbox.get_info("x")
      print(err.kind, peak() - before)
    ]], server.url))
    local kind, grown = result.out:match("^(%S+)%s+(%S+)\n$")
    assert.equal("too_large", kind, result.err)
    -- 32 MiB, and the doubling of a buffer that grows; a sanitizer's shadow comes on top
    assert.is_true(tonumber(grown) < 110 * support.slack, "grown by " .. grown .. " MiB")
  end))

  -- a bomb has to be made: 200 MB of nothing, 1,000 times smaller on the wire
  local function bomb(folder, megabytes)
    local output, code = support.shell(string.format("head -c %d /dev/zero | tr '\\0' ' ' | gzip -9 >%s/bomb",
      megabytes * 1024 * 1024, folder))
    assert(code == 0, output)
  end

  for _, asked in ipairs({ "get_info", "list", "metrics" }) do
    it("as a gzip bomb (" .. asked .. ")", failing.test(function(t)
      local folder = support.tmpdir()
      bomb(folder, 100)
      local server = t:peer(string.format([[
        local file = io.open(%q, "rb")
        local body = file:read("*a")
        file:close()
        conn:note({ what = "asked", accept = request.headers["accept-encoding"] or "nothing" })
        conn:respond(200, body, { ["Content-Encoding"] = "gzip" })
      ]], folder .. "/bomb"))
      local client = t:client(server)
      local before = collectgarbage("count")
      local value, message, err
      if asked == "list" then
        value, message, err = client.Sandbox.list():next_items()
      elseif asked == "metrics" then
        value, message, err = client.Sandbox.get_metrics("x")
      else
        value, message, err = client.Sandbox.get_info("x")
      end
      t:fails({ sent = "yes" }, value, message, err)
      local accept = server:events("asked")[1].accept
      if accept:find("gzip", 1, true) then
        assert.equal("too_large", err.kind)
      else
        -- not asked for, so not decoded: 100 kB that are no JSON
        assert.equal("protocol", err.kind)
      end
      support.collect()
      assert.is_true(collectgarbage("count") - before < 8 * 1024)
      t:works(client)
      support.cleanup(folder)
    end))
  end

  it("compressed as asked for is fine", failing.test(function(t)
    local folder = support.tmpdir()
    support.write_file(folder .. "/page", "[" .. (failing.DETAIL .. ","):rep(99) .. failing.DETAIL .. "]")
    support.shell("gzip -9 " .. folder .. "/page")
    local server = t:peer(string.format([[
      local file = io.open(%q, "rb")
      local body = file:read("*a")
      file:close()
      if (request.headers["accept-encoding"] or ""):find("gzip") then
        conn:respond(200, body, { ["Content-Encoding"] = "gzip" })
      else
        conn:note({ what = "not asked" })
        conn:respond(200, "[" .. OK .. "]")
      end
    ]], folder .. "/page.gz"))
    local client = t:client(server)
    local items = assert(client.Sandbox.list():next_items())
    assert.equal(server:count("not asked") == 1 and 1 or 100, #items)
    support.cleanup(folder)
  end))

  it("as broken gzip", failing.test(function(t)
    local server = t:peer([[conn:respond(200, "this is no gzip at all", { ["Content-Encoding"] = "gzip" })]])
    local client = t:client(server)
    local err = t:fails({ attempts = 1 }, client.Sandbox.list():next_items())
    assert.truthy(err.kind == "protocol", err.kind)
    t:works(client)
  end))
end)

describe("something that is no HTTP", function()
  for name, source in pairs({
    ["a greeting of SSH"] = "conn:send('SSH-2.0-OpenSSH_9.2\\r\\n') conn:close()",
    ["HTTP/0.9"] = "conn:send(OK) conn:close()",
    ["an unknown version"] = "conn:send('HTTP/9.9 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n{}') conn:close()",
    ["a status that is no number"] = "conn:send('HTTP/1.1 abc OK\\r\\nContent-Length: 2\\r\\n\\r\\n{}') conn:close()",
    ["two lengths that differ"] =
      "conn:send('HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nContent-Length: 3\\r\\n\\r\\n{}') conn:close()",
    ["a length below zero"] = "conn:send('HTTP/1.1 200 OK\\r\\nContent-Length: -2\\r\\n\\r\\n{}') conn:close()",
    ["a broken chunk size"] = "conn:begin_chunked(200) conn:send('zz\\r\\n{}\\r\\n') conn:close()",
    ["a chunk size beyond 64 bits"] =
      "conn:begin_chunked(200) conn:send('fffffffffffffffffff\\r\\n{}\\r\\n') conn:close()",
    ["NUL in a header"] =
      "conn:send('HTTP/1.1 200 OK\\r\\nX-A: a\\0b\\r\\nContent-Length: 2\\r\\n\\r\\n{}') conn:close()",
  }) do
    it(name, failing.test(function(t)
      local server = t:peer(source)
      local client = t:client(server, { retries = 0 })
      local err = t:fails({ attempts = 1 }, client.Sandbox.get_info("x"))
      assert.truthy(err.kind == "protocol" or err.kind == "network", err.kind)
      t:fails({ attempts = 1, retryable = false }, client.Sandbox.create())
      assert.equal(2, t:count(server))
      t:works(client)
    end))
  end
end)
