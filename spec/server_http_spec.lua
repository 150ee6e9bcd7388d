-- The local server as an HTTP server: what it reads, what it refuses, what it survives.
local local_server = require("e2b.server")
local http_client = require("spec.support.http_client")
local support = require("spec.support.support")

describe("the local server over HTTP", function()
  local server, client

  setup(function()
    server = local_server.start()
    client = http_client.new(server)
  end)

  teardown(function()
    server:stop()
  end)

  local AUTH

  before_each(function()
    AUTH = "Host: x\r\nX-API-Key: " .. server.api_key .. "\r\n"
  end)

  -- Whatever a spec did to it, the server must still answer the next client.
  after_each(function()
    assert.equal(200, client:get("/health").status)
  end)

  it("keeps a connection and says the time", function()
    local kept = client:keep()
    local first, second = kept:get("/v2/sandboxes"), kept:get("/v2/templates")
    assert.equal(200, first.status)
    assert.equal(200, second.status)
    assert.is_nil(first.headers.connection)
    assert.matches("^%a%a%a, %d%d %a%a%a %d%d%d%d %d%d:%d%d:%d%d GMT$", first.headers.date)
    assert.matches("^%x+$", first.headers["x-e2b-trace-id"])
    assert.not_equal(first.headers["x-e2b-trace-id"], second.headers["x-e2b-trace-id"])
    local list = server:requests()
    assert.equal(list[#list - 1].connection, list[#list].connection)
    kept:close()
  end)

  it("answers several requests sent at once, in order", function()
    local text = "GET /health HTTP/1.1\r\n" .. AUTH .. "\r\nGET /nowhere HTTP/1.1\r\n" .. AUTH
      .. "\r\nGET /health HTTP/1.1\r\nConnection: close\r\n" .. AUTH .. "\r\n"
    local statuses = {}
    for status in client:raw(text):gmatch("HTTP/1%.1 (%d+)") do
      statuses[#statuses + 1] = status
    end
    assert.same({ "200", "404", "200" }, statuses)
  end)

  it("reads chunked bodies", function()
    local answer = client:request("POST", "/v2/sandboxes", { body = { templateID = "base" }, chunked = true })
    assert.equal(201, answer.status)
    local pieces = client:raw("POST /v2/sandboxes HTTP/1.1\r\nConnection: close\r\nContent-Type: application/json\r\n"
      .. "Transfer-Encoding: chunked\r\n" .. AUTH
      .. '\r\nA\r\n{"template\r\nB;x=y\r\nID":"base"}\r\n0\r\nTrailer: x\r\n\r\n')
    assert.matches("^HTTP/1.1 201", pieces)
  end)

  it("asks for a body that waits to be asked for", function()
    local answer = client:raw("POST /v2/sandboxes HTTP/1.1\r\nConnection: close\r\nExpect: 100-continue\r\n"
      .. "Content-Type: application/json\r\nContent-Length: 21\r\n" .. AUTH .. '\r\n{"templateID":"base"}')
    assert.matches("^HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201", answer)
  end)

  it("gives a 204 no length, and HEAD no body", function()
    local id = client:create()
    local gone = client:delete("/sandboxes/" .. id)
    assert.equal(204, gone.status)
    assert.is_nil(gone.headers["content-length"])
    local head = client:request("HEAD", "/v2/sandboxes")
    assert.equal(200, head.status)
    assert.equal("", head.body)
    local raw = client:raw("HEAD /v2/sandboxes HTTP/1.1\r\nConnection: close\r\n" .. AUTH .. "\r\n")
    assert.matches("^HTTP/1.1 200 .*\r\n\r\n$", raw)
  end)

  it("speaks HTTP/1.0", function()
    assert.matches("^HTTP/1.0 200 .*Health check successful$", client:raw("GET /health HTTP/1.0\r\n\r\n"))
  end)

  it("answers unknown paths and wrong methods in JSON", function()
    local missing = client:get("/nowhere")
    assert.equal(404, missing.status)
    assert.equal(404, missing.json.code)
    assert.is_string(missing.json.message)
    local wrong = client:request("PATCH", "/v2/sandboxes")
    assert.equal(405, wrong.status)
    assert.equal(405, wrong.json.code)
    assert.same({ "GET", "POST" }, { wrong.headers.allow:match("GET"), wrong.headers.allow:match("POST") })
    assert.equal(404, client:get("/v2/sandboxes/").status)
    assert.equal(404, client:get("//v2/sandboxes").status)
  end)

  it("lets browsers in", function()
    local preflight = client:request("OPTIONS", "/v2/sandboxes",
      { headers = { Origin = "http://a.example", ["Access-Control-Request-Headers"] = "x-api-key" } })
    assert.equal(204, preflight.status)
    assert.equal("*", preflight.headers["access-control-allow-origin"])
    assert.equal("x-api-key", preflight.headers["access-control-allow-headers"])
    local answer = client:get("/v2/sandboxes", { Origin = "http://a.example" })
    assert.equal("*", answer.headers["access-control-allow-origin"])
    for _, name in ipairs({ "X-Next-Token", "X-Total-Running", "RateLimit-Reset", "Retry-After" }) do
      assert.matches(name, answer.headers["access-control-expose-headers"], 1, true)
    end
    assert.is_nil(client:get("/v2/sandboxes").headers["access-control-allow-origin"])
  end)

  it("refuses malformed requests and closes", function()
    for _, text in ipairs({
      "\22\3\1hello\r\n\r\n", "GET\r\n\r\n", "GET /health\r\n\r\n", "GET /health HTTP/3.0\r\n\r\n",
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET /health HTTP/1.1\r\nno colon\r\n\r\n",
      "GET /health HTTP/1.1\r\nspace : x\r\n\r\n", "OPTIONS * HTTP/1.1\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\n\r\n",
    }) do
      assert.matches("^HTTP/1.1 400 ", client:raw(text), 1, false, text)
    end
  end)

  it("refuses lengths and encodings that lie", function()
    for _, header in ipairs({
      "Content-Length: -5", "Content-Length: 0x10", "Content-Length: ",
      "Transfer-Encoding: @@@", "Transfer-Encoding: foo, chunked", "Transfer-Encoding: gzip",
    }) do
      local answer = client:raw("POST /v2/sandboxes HTTP/1.1\r\n" .. header .. "\r\n" .. AUTH .. "\r\nabcdef")
      assert.matches("^HTTP/1.1 400 ", answer, 1, false, header)
    end
    local two = client:raw("POST /v2/sandboxes HTTP/1.1\r\nConnection: close\r\nContent-Length: 21\r\n"
      .. "Content-Length: 22\r\nContent-Type: application/json\r\n" .. AUTH .. '\r\n{"templateID":"base"} ')
    assert.matches("^HTTP/1.1 400 .*invalid content%-length", two)
    local chunk = client:raw("POST /v2/sandboxes HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" .. AUTH
      .. "\r\nxyz\r\nabc")
    assert.matches("^HTTP/1.1 400 ", chunk)
  end)

  it("takes 16 MiB and no more, however it is sent", function()
    local head = "POST /v2/sandboxes HTTP/1.1\r\nContent-Type: application/json\r\n" .. AUTH
    assert.matches("^HTTP/1.1 413 ", client:raw(head .. "Content-Length: 16777217\r\n\r\n"))
    assert.matches("^HTTP/1.1 413 ", client:raw(head .. "Content-Length: 99999999999999999999\r\n\r\n"))
    assert.matches("^HTTP/1.1 413 ", client:raw(head .. "Transfer-Encoding: chunked\r\n\r\nfffffff0\r\nabc"))
    assert.matches("^HTTP/1.1 413 ", client:raw(head .. "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc"))
    local piece = "100000\r\n" .. ("a"):rep(1048576) .. "\r\n"
    assert.matches("^HTTP/1.1 413 ", client:raw(head .. "Transfer-Encoding: chunked\r\n\r\n" .. piece:rep(17)))
    local body = '{"templateID":"base","metadata":{"k":"' .. ("v"):rep(16777216 - 41) .. '"}}'
    assert.equal(16777216, #body)
    local answer = client:request("POST", "/v2/sandboxes",
      { body = body, headers = { ["Content-Type"] = "application/json" } })
    assert.equal(201, answer.status)
    assert.equal(16777216 - 41, #client:info(answer.json.sandboxID).metadata.k)
    client:delete("/sandboxes/" .. answer.json.sandboxID)
  end)

  it("bounds lines and headers", function()
    assert.matches("^HTTP/1.1 431 ", client:raw("GET /x?" .. ("a"):rep(2000000) .. " HTTP/1.1\r\n\r\n"))
    assert.matches("^HTTP/1.1 431 ", client:raw("GET /x HTTP/1.1\r\nA: " .. ("a"):rep(2000000) .. "\r\n\r\n"))
    assert.matches("^HTTP/1.1 431 ", client:raw("GET /x HTTP/1.1\r\n" .. ("A: b\r\n"):rep(300) .. "\r\n"))
    assert.matches("^HTTP/1.1 431 ", client:raw("GET /x HTTP/1.1\r\n" .. ("A: " .. ("b"):rep(60000) .. "\r\n"):rep(30)
      .. "\r\n"))
    local long = client:get("/v2/sandboxes?metadata=k%3D" .. ("a"):rep(200000))
    assert.equal(200, long.status)
  end)

  it("does not mind clients that vanish", function()
    for _ = 1, 20 do
      local connection = client:connect()
      connection:send("POST /v2/sandboxes HTTP/1.1\r\nContent-Length: 100\r\n" .. AUTH .. "\r\nabc")
      connection:close()
      connection = client:connect()
      connection:send("POST /v2/sandboxes HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" .. AUTH .. "\r\n64\r\nabc")
      connection:close()
      connection = client:connect()
      connection:setoption("linger", { on = true, timeout = 0 })
      connection:send("GET /v2/sandboxes HTTP/1.1\r\n" .. AUTH .. "\r\n")
      connection:close()
      connection = client:connect()
      connection:send("GET /v2/sand")
      connection:close()
    end
    -- What was cut short is no request: nothing of it may be acted on.
    for _, request in ipairs((server:requests())) do
      assert.not_equal("abc", request.body)
    end
  end)

  it("serves 200 connections at once", function()
    local connections = {}
    for i = 1, 200 do
      connections[i] = client:connect()
    end
    for _, connection in ipairs(connections) do
      connection:send("GET /v2/sandboxes HTTP/1.1\r\n" .. AUTH .. "\r\n")
    end
    for _, connection in ipairs(connections) do
      assert.equal(200, http_client.read(connection).status)
    end
    for _, connection in ipairs(connections) do
      connection:close()
    end
  end)

  it("does not let one slow client hold up the others", function()
    local slow = client:connect()
    slow:send("POST /v2/sandboxes HTTP/1.1\r\nContent-Length: 21\r\nContent-Type: application/json\r\n" .. AUTH)
    local seconds = support.timed(function()
      for _ = 1, 10 do
        assert.equal(200, client:get("/health").status)
      end
    end)
    assert.is_true(seconds < 2 * support.slack)
    slow:send('Connection: close\r\n\r\n{"templateID"')
    support.sleep(0.05)
    slow:send(':"base"}')
    assert.equal(201, http_client.read(slow).status)
    slow:close()
  end)

  it("cuts a connection when it is told to", function()
    server:set({ fail_next = { drop = true, count = 2 } })
    assert.is_nil(client:get("/v2/sandboxes"))
    local kept = client:keep()
    assert.is_nil(kept:get("/v2/sandboxes"))
    kept:close()
    assert.equal(200, client:get("/v2/sandboxes").status)
  end)

  it("closes connections that were idle for as long as it was told", function()
    local impatient = local_server.start({ keep_alive = 0.2 })
    local kept = http_client.new(impatient):keep()
    assert.equal(200, kept:get("/v2/sandboxes").status)
    local seconds = support.timed(function()
      assert.is_nil((kept.connection:receive(1)))
    end)
    assert.is_true(seconds > 0.1 and seconds < 2 * support.slack)
    kept:close()
    impatient:stop()
  end)
end)
