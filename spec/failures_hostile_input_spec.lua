-- What callers hand over is data: on the wire it stays inside its place, and what can't go there never leaves.
local failing = require("spec.support.failing")
local support = require("spec.support.support")

-- Each id, and the one path segment that it has to become; false: it can't be sent.
local IDS = {
  { "a/../b", "a%2F..%2Fb" }, { "../templates", "..%2Ftemplates" }, { "/etc/passwd", "%2Fetc%2Fpasswd" },
  { "a%2Fb", "a%252Fb" }, { "%", "%25" }, { "%00", "%2500" }, { "a?b=c#d", "a%3Fb%3Dc%23d" }, { "a b", "a%20b" },
  { "a\r\nX-Injected: 1\r\n\r\n", "a%0D%0AX-Injected%3A%201%0D%0A%0D%0A" }, { "a\0b", "a%00b" }, { "\0", "%00" },
  { "ä", "%C3%A4" }, { "🚀", "%F0%9F%9A%80" }, { "\255\254", "%FF%FE" }, { "a;b,c&d=e+f", "a%3Bb%2Cc%26d%3De%2Bf" },
  { "a\\..\\b", "a%5C..%5Cb" }, { "-_.~aZ9", "-_.~aZ9" }, { "...", "..." }, { ".", false }, { "..", false },
}

-- Calls a function that may raise (a caller's mistake) or answer nil, message, err; a table with what happened.
local function attempt(fn, ...)
  local results = { pcall(fn, ...) }
  if results[1] then
    return { value = results[2], message = results[3], err = results[4] }
  end
  return { raised = tostring(results[2]) }
end

-- A name for a spec out of hostile text.
local function label(format, text)
  return (string.format(format, (text:gsub("[%c\127-\255]", "?"))))
end

describe("an id", function()
  for _, row in ipairs(IDS) do
    it(label("%q is one path segment", row[1]), failing.test(function(t)
      local server = t:peer([[conn:respond(404, '{"code":404,"message":"no such sandbox"}')]])
      local client = t:client(server, { retries = 0 })
      local calls = {
        { "GET", "", function() return client.Sandbox.get_info(row[1]) end },
        { "DELETE", "", function() return client.Sandbox.kill(row[1]) end },
        { "POST", "/pause", function() return client.Sandbox.pause(row[1]) end },
        { "POST", "/resume", function() return client.Sandbox.resume(row[1]) end },
        { "POST", "/timeout", function() return client.Sandbox.set_timeout(row[1], 60) end },
        { "GET", "/metrics", function() return client.Sandbox.get_metrics(row[1]) end },
      }
      for _, call in ipairs(calls) do
        local got = attempt(call[3])
        support.assert_no_secret(failing.SECRETS, got)
        if row[2] == false then
          assert.is_nil(got.value)
          assert.truthy(got.raised or got.err)
        elseif call[1] ~= "DELETE" then
          t:fails({ kind = "not_found", status = 404, sandbox_id = row[1] }, got.value, got.message, got.err)
        end
      end
      local requests = server:requests()
      assert.equal(row[2] and #calls or 0, #requests)
      for i, request in ipairs(requests) do
        assert.equal(calls[i][1], request.method)
        assert.equal("/sandboxes/" .. row[2] .. calls[i][2], request.path)
        assert.is_nil(request.headers["x-injected"])
      end
      assert.equal(0, server:count("malformed"))
      t:works(client)
    end))
  end

  it("of a megabyte is an answer of the server's, or refused, and nothing else", failing.test(function(t)
    local server = t:peer([[conn:respond(414, '{"code":414,"message":"too long"}')]])
    local client = t:client(server, { retries = 0 })
    local got = attempt(client.Sandbox.get_info, ("x"):rep(1024 * 1024))
    assert.is_nil(got.value)
    assert.truthy(got.raised or got.err)
    assert.is_true(#(got.raised or got.message) < 2048)
    t:works(client)
  end))

  it("that is empty, or no id at all, raises at the caller's line", failing.test(function(t)
    local server = t:peer("conn:respond(200, OK)")
    local client = t:client(server)
    for _, id in ipairs({ "", 1, true, {}, print }) do
      local ok, message = pcall(function() return client.Sandbox.get_info(id) end)
      assert.is_false(ok)
      assert.truthy(tostring(message):find("failures_hostile_input_spec.lua:", 1, true), tostring(message))
    end
    assert.is_false((pcall(client.Sandbox.get_info)))
    assert.equal(0, server:count())
  end))
end)

local TEXTS = {
  ["CR and LF"] = "a\r\nX-Injected: 1\r\n\r\nGET / HTTP/1.1\r\n", ["NUL"] = "a\0b\0", ["a path"] = "/../../etc",
  ["a percent sign"] = "100%25 %", ["UTF-8"] = "grüße, 日本語", ["an emoji"] = "🚀👩‍👩‍👧", ["quotes"] = [["\"'\\/]],
  ["every control character"] = (function()
    local bytes = {}
    for i = 0, 31 do
      bytes[#bytes + 1] = string.char(i)
    end
    return table.concat(bytes) .. "\127"
  end)(),
  ["nothing"] = "", ["a megabyte"] = ("0123456789abcdef"):rep(65536), ["JSON"] = '{"a":[1,null]}',
  ["a number"] = "1e999",
}

describe("metadata and envs with", function()
  for name, text in pairs(TEXTS) do
    it(name .. " arrive as they are", failing.test(function(t)
      local server = t:peer("conn:respond(201, CREATED)")
      local client = t:client(server)
      local sandbox = assert(client.Sandbox.create("base", { metadata = { k = text }, envs = { V = text } }))
      assert.equal("made", sandbox.sandbox_id)
      assert.equal(1, t:count(server))
      local request = server:requests()[1]
      assert.is_nil(request.headers["x-injected"])
      assert.is_nil(request.headers.expect) -- servers that don't answer it would cost a second each
      local sent = support.core().json_decode(request.body)
      assert.is_true(sent.metadata.k == text)
      assert.is_true(sent.envVars.V == text)
      t:works(client)
    end))

    if #text < 1000 and text ~= "" then
      it(name .. " as names arrive as they are", failing.test(function(t)
        local server = t:peer("conn:respond(201, CREATED)")
        local client = t:client(server)
        assert(client.Sandbox.create("base", { metadata = { [text] = "v" } }))
        local sent = support.core().json_decode(server:requests()[1].body)
        assert.equal("v", sent.metadata[text])
      end))

      it(name .. " in a filter stay in the query", failing.test(function(t)
        local server = t:peer("conn:respond(200, '[]')")
        local client = t:client(server)
        assert(client.Sandbox.list({ metadata = { k = text, [text] = "v" } }):next_items())
        local path = server:requests()[1].path
        assert.is_nil(path:find("[%s%c]"))
        local value = assert(path:match("^/v2/sandboxes%?metadata=([^&]*)$"), path)
        -- encoded as one query value, then as a form, then each part: three times undone it is what was asked for
        local function decode(s)
          return (s:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
        end
        local found = {}
        for key, part in decode(value):gmatch("([^&=]*)=([^&=]*)") do
          found[decode(decode(key))] = decode(decode(part))
        end
        assert.same({ k = text, [text] = "v" }, found)
      end))
    end
  end

  it("bytes that are no UTF-8 never crash: sent as they are, or refused", failing.test(function(t)
    local server = t:peer("conn:respond(201, CREATED)")
    local client = t:client(server)
    local got = attempt(client.Sandbox.create, "base", { metadata = { k = "\255\254\192\128" } })
    assert.truthy(got.value or got.raised or got.err)
    t:works(client)
  end))

  it("what is no text raises and sends nothing", failing.test(function(t)
    local server = t:peer("conn:respond(201, CREATED)")
    local client = t:client(server)
    for _, value in ipairs({ 1, true, {}, print, 0 / 0 }) do
      local ok, message = pcall(function() return client.Sandbox.create("base", { metadata = { job = value } }) end)
      assert.is_false(ok)
      assert.truthy(tostring(message):find("metadata", 1, true), tostring(message))
      assert.truthy(tostring(message):find("failures_hostile_input_spec.lua:", 1, true), tostring(message))
    end
    assert.equal(0, server:count())
  end))
end)

describe("on the local server, metadata with", function()
  local server
  setup(function() server = require("e2b.server").start() end)
  teardown(function() server:stop() end)

  for name, text in pairs(TEXTS) do
    it(name .. " is stored, found and returned as it is", function()
      local client = require("e2b").client({ api_url = server.url, api_key = server.api_key, getenv = function() end })
      local made = assert(client.Sandbox.create("base", { metadata = { k = text, other = "1" } }))
      assert.is_true(assert(client.Sandbox.get_info(made.sandbox_id)).metadata.k == text)
      if #text < 1000 then
        local found = assert(client.Sandbox.list({ metadata = { k = text } }):all())
        assert.equal(1, #found)
        assert.equal(made.sandbox_id, found[1].sandbox_id)
        assert.is_true(found[1].metadata.k == text)
      end
      assert.is_true((made:kill()))
    end)
  end

  for _, row in ipairs(IDS) do
    it(label("the id %q is a proper error", row[1]), function()
      local client = require("e2b").client({ api_url = server.url, api_key = server.api_key, getenv = function() end })
      for _, call in ipairs({ "get_info", "pause", "resume", "connect" }) do
        local got = attempt(client.Sandbox[call], row[1])
        assert.is_nil(got.value)
        if got.err then
          assert.truthy(got.err.kind == "not_found" or got.err.kind == "invalid_argument", got.message)
        else
          assert.is_string(got.raised)
        end
      end
    end)
  end
end)

describe("a logger", function()
  it("that raises, or calls the client itself, changes nothing", failing.test(function(t)
    local server = t:peer("conn:respond(201, CREATED)")
    assert.equal("made", assert(t:client(server, { logger = error }).Sandbox.create()).sandbox_id)
    assert.equal("made", assert(t:client(server, { logger = function() error({}) end }).Sandbox.create()).sandbox_id)
    local client, inner
    client = t:client(server, { logger = function()
      if not inner then
        inner = true
        inner = assert(client.Sandbox.get_info("ok"))
      end
    end })
    assert.equal("made", assert(client.Sandbox.create()).sandbox_id)
    assert.equal("ok", inner.sandbox_id)
    inner = nil
    local results = require("e2b").all(function() return client.Sandbox.create() end)
    assert.is_true(results[1].ok, results[1].message)
  end))
end)

describe("a template name", function()
  for _, name in ipairs({ "team/name:tag", "../x", "a\r\nb", "🚀", "a\0b", ("x"):rep(100000) }) do
    it(label("%q is a value in the body", name:sub(1, 20)), failing.test(function(t)
      local server = t:peer("conn:respond(201, CREATED)")
      local client = t:client(server)
      assert(client.Sandbox.create(name))
      assert.equal(name, support.core().json_decode(server:requests()[1].body).templateID)
      t:works(client)
    end))
  end
end)

describe("a key", function()
  local BAD = {
    ["CR and LF"] = "e2b_5ec4e7\r\nX-Injected: 1", ["LF"] = "e2b_5ec4e7\n", ["CR"] = "\re2b_5ec4e7",
    ["NUL"] = "e2b_5ec4e7\0x",
    ["ESC"] = "e2b_5ec4e7\27[0m",
  }
  for name, key in pairs(BAD) do
    for _, way in ipairs({ "as text", "from a function", "from the environment" }) do
      it("with " .. name .. " " .. way .. " is refused, unsent and unshown", failing.test(function(t)
        local server = t:peer("conn:respond(200, OK)")
        local got = attempt(function()
          local client, message, err = require("e2b").client({
            api_key = way == "as text" and key or way == "from a function" and function() return key end or nil,
            api_url = server.url,
            logger = function(event) t.log[#t.log + 1] = event end,
            getenv = function(variable) return variable == "E2B_API_KEY" and key or nil end,
          })
          if not client then
            return client, message, err
          end
          return client.Sandbox.get_info("ok")
        end)
        assert.is_nil(got.value)
        support.assert_no_secret({ "5ec4e7" }, got, t.log)
        if not got.raised then
          t:fails({ kind = "authentication", sent = "no" }, got.value, got.message, got.err)
        end
        assert.equal(0, server:count("connection"))
      end))
    end
  end

  it("from a function that raises, or answers no text, is a failure of the call", failing.test(function(t)
    local server = t:peer("conn:respond(200, OK)")
    for _, fn in ipairs({ function() error("vault is sealed") end, function() end, function() return 42 end,
      function() return "" end, function() return {} end }) do
      local client = t:client(server, { api_key = fn })
      local got = attempt(client.Sandbox.get_info, "ok")
      assert.is_nil(got.value)
      assert.truthy(got.err or got.raised)
    end
    assert.equal(0, server:count("connection"))
  end))

  it("from a function is asked for at first use, and when it failed, again", failing.test(function(t)
    local server = t:peer("conn:respond(200, OK)")
    local asked = 0
    local client = t:client(server, { api_key = function()
      asked = asked + 1
      return asked > 1 and failing.KEY or nil
    end })
    assert.equal(0, asked)
    assert.is_nil((client.Sandbox.get_info("ok")))
    t:works(client)
    t:works(client)
    assert.equal(2, asked)
    assert.equal(failing.KEY, server:requests()[1].headers["x-api-key"])
  end))
end)

describe("headers", function()
  for name, headers in pairs({
    ["a value with CR and LF"] = { ["X-A"] = "5ec4e7\r\nX-Injected: 1" },
    ["a value with NUL"] = { ["X-A"] = "5ec4e7\0b" },
    ["a name with CR and LF"] = { ["X-A\r\nX-Injected"] = "5ec4e7" },
    ["a name with a colon"] = { ["X-A: b"] = "5ec4e7" },
    ["an empty name"] = { [""] = "5ec4e7" }, ["a name with a space"] = { ["X A"] = "5ec4e7" },
    ["a name with NUL"] = { ["X-A\0"] = "5ec4e7" },
  }) do
    for _, option in ipairs({ "headers", "api_headers" }) do
      it("with " .. name .. " (" .. option .. ") are refused, unsent and unshown", failing.test(function(t)
        local server = t:peer("conn:respond(200, OK)")
        local got = attempt(function()
          local client, message, err = require("e2b").client({
            api_key = failing.KEY, api_url = server.url, getenv = function() end, [option] = headers,
          })
          if not client then
            return client, message, err
          end
          return client.Sandbox.get_info("ok")
        end)
        assert.is_nil(got.value)
        assert.truthy(got.raised or got.err)
        support.assert_no_secret({ "5ec4e7" }, got)
        assert.equal(0, server:count("connection"))
      end))
    end
  end

  it("that are fine arrive once, and replace ours of the same name", failing.test(function(t)
    local server = t:peer("conn:respond(200, OK)")
    local client = t:client(server, {
      headers = { ["x-a"] = "1", ["ACCEPT"] = "mine/1" }, api_headers = { ["X-A"] = "2" },
    })
    t:works(client)
    local request = server:requests()[1]
    assert.equal("2", request.headers["x-a"])
    assert.equal("mine/1", request.headers.accept)
    assert.equal(failing.KEY, request.headers["x-api-key"])
  end))

  it("with an empty value arrive as such", failing.test(function(t)
    local server = t:peer("conn:respond(200, OK)")
    local client = t:client(server, { headers = { ["X-Empty"] = "" } })
    t:works(client)
    local value = server:requests()[1].headers["x-empty"]
    assert.truthy(value == nil or value == "")
  end))
end)

describe("a path for client:request", function()
  for _, path in ipairs({
    "x", "", "/a b", "/a\r\nX-Injected: 1", "/a\0b", "/a\tb", "http://127.0.0.1/", "//elsewhere/x\n",
  }) do
    it(label("%q is refused", path), failing.test(function(t)
      local server = t:peer("conn:respond(200, OK)")
      local client = t:client(server)
      local got = attempt(client.request, client, "GET", path)
      assert.is_nil(got.value)
      assert.truthy(got.raised or got.err)
      assert.equal(0, server:count("connection"))
      t:works(client)
    end))
  end

  it("with dots is not tidied up behind the caller's back", failing.test(function(t)
    local server = t:peer("conn:respond(200, OK)")
    local client = t:client(server)
    assert(client:request("GET", "/a/../b/./c"))
    assert.equal("/a/../b/./c", server:requests()[1].path)
  end))

  it("cannot leave the host", failing.test(function(t)
    local elsewhere = t:peer("conn:respond(200, OK)")
    local server = t:peer("conn:respond(200, OK)")
    local client = t:client(server)
    for _, path in ipairs({ "@127.0.0.1:" .. elsewhere.port .. "/x", "//127.0.0.1:" .. elsewhere.port .. "/x",
      "/@127.0.0.1:" .. elsewhere.port .. "/x", "/\\127.0.0.1:" .. elsewhere.port .. "/x" }) do
      attempt(client.request, client, "GET", path)
    end
    assert.equal(0, elsewhere:count("connection"))
  end))

  for _, method in ipairs({ "GET /x HTTP/1.1\r\nX-Injected: 1\r\n\r\nGET", "G T", "", "get\n", "GET\0" }) do
    it(label("%q is no method", method), failing.test(function(t)
      local server = t:peer("conn:respond(200, OK)")
      local client = t:client(server)
      local got = attempt(client.request, client, method, "/x")
      assert.is_nil(got.value)
      assert.truthy(got.raised or got.err)
      assert.equal(0, server:count("connection"))
      t:works(client)
    end))
  end
end)

describe("answers with hostile texts", function()
  it("print without control characters", failing.test(function(t)
    local detail = failing.DETAIL:gsub('"sandboxID":"ok"', '"sandboxID":"i\\u001b[31m\\r\\n1"')
      :gsub('"alias":"base"', '"alias":"a\\u0007\\u001b]0;title\\u0007"')
    local server = t:peer("conn:respond(200, request.path:match('^/v2') and '[' .. " .. support.serialize(detail)
      .. " .. ']' or " .. support.serialize(detail) .. ")")
    local client = t:client(server)
    local sandbox = assert(client.Sandbox.get_info("x"))
    assert.is_nil(tostring(sandbox):find("%c"), string.format("%q", tostring(sandbox)))
    local page = assert(client.Sandbox.list():next_items())
    assert.is_nil(tostring(page):gsub("\n", ""):find("%c"), string.format("%q", tostring(page)))
  end))

  it("in headers do no harm", failing.test(function(t)
    local server = t:peer([[
      conn:send("HTTP/1.1 500 " .. ("x"):rep(2000) .. "\r\nX-E2B-Trace-ID: a\27[31m" .. ("t"):rep(5000)
        .. "\r\nRetry-After: " .. ("9"):rep(400) .. "\r\nDate: not a date\r\nContent-Length: 0\r\n\r\n")
    ]])
    local client = t:client(server, { retries = 0 })
    local err = t:fails({ kind = "server", retry_after = failing.NONE }, client.Sandbox.get_info("x"))
    assert.is_nil(tostring(err.request_id):find("%c"))
    t:works(client)
  end))
end)
