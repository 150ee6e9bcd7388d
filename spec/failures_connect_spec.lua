-- The connection can't be made: nothing was sent, so any call may be tried again, a create too.
local failing = require("spec.support.failing")
local peer = require("spec.support.peer")
local support = require("spec.support.support")

-- A listener whose queue is full: the kernel drops further handshakes without a word, as a firewall does.
local function full_listener()
  local socket = require("socket")
  local listener = assert(socket.bind("127.0.0.1", 0, 0))
  local _, port = listener:getsockname()
  local open = {}
  for i = 1, 4 do
    local client = socket.tcp4()
    client:settimeout(0)
    client:connect("127.0.0.1", tonumber(port))
    open[i] = client
  end
  return "http://127.0.0.1:" .. port, function()
    for _, client in ipairs(open) do
      client:close()
    end
    listener:close()
  end
end

describe("a connection that is refused", function()
  it("is tried once without retries, and the next call works when the server is up", failing.test(function(t)
    local port = peer.free_port()
    local client = t:client("http://127.0.0.1:" .. port, { retries = 0 })
    local want = { kind = "network", sent = "no", retryable = true, attempts = 1, status = failing.NONE,
      deadline = failing.NONE, operation = "Sandbox.get_info", sandbox_id = "x" }
    t:takes(0, function()
      t:fails(want, client.Sandbox.get_info("x"))
    end)
    t:fails({ kind = "network", sent = "no", retryable = true, attempts = 1, operation = "Sandbox.create" },
      client.Sandbox.create())
    t:peer("", { port = port })
    t:works(client)
  end))

  it("is tried four times with growing pauses, whatever the call", failing.test(function(t)
    local client = t:client("http://127.0.0.1:" .. peer.free_port())
    -- 0.5 + 0.75 + 1.125 s, each 50 % up or down
    t:takes_between(1.18, 3.7, function()
      t:fails({ kind = "network", sent = "no", retryable = true, attempts = 4 }, client.Sandbox.create())
    end)
  end))

  it("ends well when the server comes up meanwhile: one create reaches it", failing.test(function(t)
    local server = t:peer("conn:respond(201, CREATED)", { port = peer.free_port(), listen_after = 0.2 })
    local client = t:client(server)
    local sandbox = assert(client.Sandbox.create())
    assert.equal("made", sandbox.sandbox_id)
    assert.equal(1, t:count(server))
    t:works(client)
  end))

  it("stays within the deadline of the call", failing.test(function(t)
    local client = t:client("http://127.0.0.1:" .. peer.free_port(), { request_timeout = 0.3 })
    t:takes_between(0, 0.3 + support.tolerance, function()
      t:fails({ sent = "no", retryable = true, attempts = { 1, 2 } }, client.Sandbox.create())
    end)
  end))

  it("counts the attempts it was asked for", failing.test(function(t)
    local client = t:client("http://127.0.0.1:" .. peer.free_port())
    t:fails({ kind = "network", attempts = 1 }, client.Sandbox.create({ retries = 0 }))
  end))
end)

describe("a connection that is never accepted", function()
  it("ends at the connect timeout", failing.test(function(t)
    local url, close = full_listener()
    local client = t:client(url, { connect_timeout = 0.3, retries = 0 })
    for _, call in ipairs({ "get_info", "create" }) do
      t:takes(0.3, function()
        t:fails({ kind = "timeout", deadline = "connect_timeout", sent = "no", retryable = true, attempts = 1 },
          client.Sandbox[call]("x"))
      end)
    end
    close()
  end))

  it("ends at the call's own deadline when that comes first", failing.test(function(t)
    local url, close = full_listener()
    local client = t:client(url, { connect_timeout = 10, request_timeout = 0.25 })
    t:takes(0.25, function()
      t:fails({ kind = "timeout", deadline = "request_timeout", sent = "no", retryable = true, attempts = 1 },
        client.Sandbox.create())
    end)
    close()
  end))

  it("covers a TLS handshake that isn't answered", failing.test(function(t)
    local server = t:raw({ handler = "conn:wait_closed()" })
    local client = t:client("https://127.0.0.1:" .. server.port, { connect_timeout = 0.3, retries = 0 })
    t:takes(0.3, function()
      t:fails({ kind = "timeout", deadline = "connect_timeout", sent = "no", retryable = true },
        client.Sandbox.create())
    end)
    server:wait_event("closed")
  end))
end)

describe("no answer in the time given", function()
  it("ends at the request timeout: a GET may be repeated, a create may not", failing.test(function(t)
    local server = t:peer("conn:wait_closed()")
    local client = t:client(server)
    local want = { kind = "timeout", deadline = "request_timeout", sent = "maybe", attempts = 1 }
    t:takes(0.3, function()
      t:fails(want, client.Sandbox.get_info("x", { request_timeout = 0.3 }))
    end)
    assert.is_true(t.failures[1][2].retryable)
    t:takes(0.3, function()
      t:fails(want, client.Sandbox.create({ request_timeout = 0.3 }))
    end)
    assert.is_false(t.failures[2][2].retryable)
    assert.equal(2, t:count(server))
    -- both connections were given up, not left behind
    server:wait_event("closed", 2)
    t:works(client)
  end))

  it("ends at the request timeout when the headers came but not the body", failing.test(function(t)
    local server = t:peer([[
      conn:send("HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 400\r\n\r\n{")
      conn:wait_closed()
    ]])
    local client = t:client(server)
    t:takes(0.3, function()
      t:fails({ kind = "timeout", deadline = "request_timeout", retryable = false, attempts = 1 },
        client.Sandbox.create({ request_timeout = 0.3 }))
    end)
    assert.equal(1, t:count(server))
    t:works(client)
  end))

  it("counts the time in a queue behind the connection cap", function()
    -- the cap is the engine's, which all clients of a process share: so in a process of its own
    local result = support.run([[
      local failing = require("spec.support.failing")
      local e2b = require("e2b")
      failing.test(function(t)
        e2b.close()
        local server = t:peer("conn:wait_signal('go') conn:respond(200, OK)")
        local client = t:client(server, { connections = 1 })
        local first = e2b.spawn(function() return client.Sandbox.get_info("first", { request_timeout = 5 }) end)
        e2b.sleep(0.1)
        t:takes(0.3, function()
          t:fails({ kind = "timeout", deadline = "request_timeout", sent = "no", retryable = true },
            client.Sandbox.create({ request_timeout = 0.3 }))
        end)
        server:signal("go")
        assert(first:wait())
        assert(t:count(server) == 1)
        t:works(client)
      end)()
    ]])
    assert.equal(0, result.code, result.err)
  end)
end)
