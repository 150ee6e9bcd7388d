-- Connections that break. What was sent may have been done: a GET is asked again, a create never.
local failing = require("spec.support.failing")
local support = require("spec.support.support")
local unpack = table.unpack or unpack -- luacheck: ignore 113 143

-- Where the cut is, as Lua for the peer; `%s` is close or reset.
local WHERE = {
  ["before the status line"] = "conn:%s()",
  ["in the status line"] = "conn:send('HTTP/1.1 20') conn:%s()",
  ["in the headers"] = "conn:send('HTTP/1.1 200 OK\\r\\nContent-Type: appl') conn:%s()",
  ["in the body"] = "conn:send('HTTP/1.1 200 OK\\r\\nContent-Length: 900\\r\\n\\r\\n' .. OK:sub(1, 50)) conn:%s()",
  ["in a chunked body"] = "conn:begin_chunked(200) conn:chunk(OK:sub(1, 50)) conn:%s()",
}

for where, source in pairs(WHERE) do
  for _, how in ipairs({ "close", "reset" }) do
    describe("a connection cut " .. where .. " (" .. how .. ")", function()
      local cut = source:format(how)

      it("is a failure that says so", failing.test(function(t)
        local server = t:peer(cut)
        local client = t:client(server, { retries = 0 })
        local err = t:fails({ kind = "network", retryable = true, attempts = 1, operation = "Sandbox.get_info" },
          client.Sandbox.get_info("x"))
        assert.truthy(err.sent == "maybe" or err.sent == "yes", err.sent)
        t:works(client)
        assert.equal(1, t:count(server))
      end))

      it("is never followed by a second create", failing.test(function(t)
        local server = t:peer(cut)
        local client = t:client(server)
        local err = t:fails({ kind = "network", retryable = false, attempts = 1, operation = "Sandbox.create" },
          client.Sandbox.create())
        assert.truthy(err.sent == "maybe" or err.sent == "yes", err.sent)
        assert.equal(1, t:count(server))
        t:works(client)
      end))

      it("is followed by a second GET", failing.test(function(t)
        t:fast_retries()
        local server = t:peer("if n == 1 then " .. cut .. " else conn:respond(200, OK) end")
        local client = t:client(server)
        assert(client.Sandbox.get_info("x"))
        assert.equal(2, t:count(server))
        t:works(client)
      end))
    end)
  end
end

describe("calls on a cut connection", function()
  local calls = {
    pause = { once = true }, resume = { once = true }, connect = { once = true }, set_timeout = { once = true, 60 },
    kill = { once = false }, get_info = { once = false },
  }
  for name, how in pairs(calls) do
    it((how.once and "never repeat " or "repeat ") .. name, failing.test(function(t)
      t:fast_retries()
      local server = t:peer("conn:close()")
      local client = t:client(server)
      t:fails({ kind = "network", attempts = how.once and 1 or 4, retryable = not how.once, sent = "maybe" },
        client.Sandbox[name]("x", how[1]))
      assert.equal(how.once and 1 or 4, t:count(server))
      t:works(client)
    end))
  end

  it("repeat a list", failing.test(function(t)
    t:fast_retries()
    local server = t:peer("if n == 1 then conn:reset() else conn:respond(200, '[]') end")
    local client = t:client(server)
    assert.same({}, { unpack(assert(client.Sandbox.list():all())) })
    assert.equal(2, t:count(server))
  end))

  it("say of a repeated kill that the sandbox is gone", failing.test(function(t)
    t:fast_retries()
    local server = t:peer([[if n == 1 then conn:reset() else
      conn:respond(404, '{"code":404,"message":"sandbox not found"}') end]])
    local client = t:client(server)
    assert.is_true((assert(client.Sandbox.kill("x"))))
    assert.equal(2, t:count(server))
  end))
end)

describe("a reused connection", function()
  -- closed while idle, before the next call: both ends have had the time to see it
  local idle = [[
    conn:serve(function(request)
      conn:respond(request.method == "POST" and 201 or 200, %s)
      if request.number == 1 then
        conn:close()
      end
    end)
  ]]

  local function used_once(t, server)
    local client = t:client(server)
    assert(client.Sandbox.get_info("first"))
    support.sleep(0.05)
    return client
  end

  it("that the server closed while idle: a GET works", failing.test(function(t)
    local server = t:raw({ handler = idle:format(support.serialize(failing.DETAIL)) })
    local client = used_once(t, server)
    assert(client.Sandbox.get_info("ok"))
    assert.equal(2, server:count())
    assert.equal(2, server:count("connection"))
  end))

  it("that the server closed while idle: a create works and is one request", failing.test(function(t)
    local server = t:raw({ handler = idle:format("request.method == 'POST' and "
      .. support.serialize(failing.CREATED) .. " or " .. support.serialize(failing.DETAIL)) })
    local client = used_once(t, server)
    assert(client.Sandbox.create())
    assert.equal(2, server:count())
    assert.equal("POST", server:requests()[2].method)
  end))

  -- bytes that nobody asked for must not become the answer of the next call
  it("with leftover bytes after the answer: the next call gets its own answer", failing.test(function(t)
    local server = t:raw({ handler = string.format([[
      local OK, CREATED = %s, %s
      conn:serve(function(request)
        if request.method == "POST" then
          conn:respond(201, CREATED)
        else
          conn:send(conn:text_of(200, OK) .. conn:text_of(200, (OK:gsub('"ok"', '"poison"'))))
        end
      end)
    ]], support.serialize(failing.DETAIL), support.serialize(failing.CREATED)) })
    local client = used_once(t, server)
    assert.equal("ok", assert(client.Sandbox.get_info("ok")).sandbox_id)
    assert.equal("made", assert(client.Sandbox.create()).sandbox_id)
    local posts = 0
    for _, request in ipairs(server:requests()) do
      posts = posts + (request.method == "POST" and 1 or 0)
    end
    assert.equal(1, posts)
  end))

  -- closed at the very moment at which the next request arrives: libcurl would send that request again by itself
  for _, how in ipairs({ "close", "reset" }) do
    local race = [[
      conn:serve(function(request)
        if request.number == 2 then
          conn:]] .. how .. [[()
        else
          conn:respond(request.method == "POST" and 201 or 200, request.method == "POST" and CREATED or OK)
        end
      end)
    ]]
    local texts = string.format("local OK, CREATED = %s, %s\n", support.serialize(failing.DETAIL),
      support.serialize(failing.CREATED))

    it("that dies (" .. how .. ") under the next request: a GET works", failing.test(function(t)
      local server = t:raw({ handler = texts .. race })
      local client = used_once(t, server)
      assert(client.Sandbox.get_info("ok"))
      assert.equal(3, server:count())
      assert.equal(server:requests()[1].connection, server:requests()[2].connection)
    end))

    it("that dies (" .. how .. ") under the next request: a create is one request, never two", failing.test(function(t)
      local server = t:raw({ handler = texts .. race })
      local client = used_once(t, server)
      t:fails({ kind = "network", sent = "maybe", retryable = false, attempts = 1 }, client.Sandbox.create())
      assert.equal(2, server:count())
      assert.equal("POST", server:requests()[2].method)
      assert.equal(1, server:requests()[2].connection)
      t:works(client)
      assert.equal(3, server:count())
    end))

    it("that dies (" .. how .. ") with the first bytes of the next request", failing.test(function(t)
      -- of the create the peer reads one byte; sent a second time it would be read, and counted, on another connection
      local server = t:raw({ handler = texts .. [[
        local first = conn:read_request()
        conn:respond(200, OK)
        if conn.number == 1 then
          conn.socket:read(1)
          conn:note({ what = "second" })
          conn:]] .. how .. [[()
          return
        end
        conn:serve(function() conn:respond(201, CREATED) end)
      ]] })
      local client = used_once(t, server)
      t:fails({ kind = "network", sent = "maybe", retryable = false, attempts = 1 }, client.Sandbox.create())
      assert.equal(1, server:count("second"))
      t:works(client)
      support.sleep(0.05)
      assert.equal(2, server:count())
      for _, request in ipairs(server:requests()) do
        assert.equal("GET", request.method)
      end
    end))
  end
end)

describe("an answer that comes before the request is sent", function()
  for _, how in ipairs({ "close", "reset" }) do
    it("and a connection that ends then (" .. how .. ") is one failed create", failing.test(function(t)
      -- the peer reads the head only: 4 MB of body are on their way when it answers and hangs up
      local server = t:raw({ handler = [[
        local request = conn:read_head()
        if request then
          request.body = ""
          conn:log_request(request)
          if request.method == "GET" then
            conn:respond(200, ]] .. support.serialize(failing.DETAIL) .. [[)
          else
            conn:respond(413, '{"code":413,"message":"too much"}', { Connection = "close" })
            conn:]] .. how .. [[()
          end
        end
      ]] })
      local client = t:client(server)
      local err = t:fails({ attempts = 1, retryable = false },
        client.Sandbox.create("base", { metadata = { a = ("x"):rep(4 * 1024 * 1024) } }))
      assert.truthy(err.kind == "too_large" or err.kind == "network", err.kind)
      assert.equal(1, server:count())
      t:works(client)
    end))
  end
end)
