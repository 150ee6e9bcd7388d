-- Every status that the service, or something in front of it, may answer.
local failing = require("spec.support.failing")
local support = require("spec.support.support")

local function body(code, message, error_code)
  return string.format('{"code":%d,"message":"%s"%s}', code, message,
    error_code and (',"error_code":"' .. error_code .. '"') or "")
end

local HTML = { ["Content-Type"] = "text/html" }
local PAGE = "<html>\n<head><title>502 Bad Gateway</title></head>\n<body><center>nginx</center></body>\n</html>\n"

-- Without retries: one request, and what the caller gets for a GET and for a create. `get` and `create`: retryable.
local ROWS = {
  { "400", { status = 400, body = body(400, "bad timeout") },
    { kind = "invalid_argument", server_message = "bad timeout" }, get = false, create = false },
  { "401", { status = 401, body = body(401, "invalid API key") },
    { kind = "authentication", server_message = "invalid API key" }, get = false, create = false },
  { "401 without a body", { status = 401 },
    { kind = "authentication", server_message = failing.NONE }, get = false, create = false },
  { "403", { status = 403, body = body(403, "team is blocked") },
    { kind = "forbidden", server_message = "team is blocked" }, get = false, create = false },
  { "404", { status = 404, body = body(404, "not there") },
    { kind = "not_found", server_message = "not there" }, get = false, create = false, v1 = true },
  { "409", { status = 409, body = body(409, "in transition", "sandbox_start_in_flight") },
    { kind = "conflict", error_code = "sandbox_start_in_flight" }, get = false, create = false },
  { "429 with a long Retry-After", { status = 429, body = body(429, "slow down"), headers = { ["Retry-After"] = "7" } },
    { kind = "rate_limit", retry_after = 7, server_message = "slow down" }, get = true, create = true },
  { "429 without Retry-After (a quota)", { status = 429, body = body(429, "you have reached the maximum number of") },
    { kind = "quota", retry_after = failing.NONE }, get = false, create = false },
  { "500", { status = 500, body = body(500, "oops", "internal_server_error") },
    { kind = "server", error_code = "internal_server_error", server_message = "oops" }, get = true, create = false },
  { "502 with an HTML page", { status = 502, body = PAGE, headers = HTML },
    { kind = "server", error_code = failing.NONE, server_message = failing.NONE }, get = true, create = false },
  { "503 of E2B", { status = 503, body = body(503, "no capacity", "sandbox_capacity_unavailable") },
    { kind = "busy", error_code = "sandbox_capacity_unavailable" }, get = true, create = true },
  { "503 of something in between", { status = 503, body = "<h1>Service Unavailable</h1>", headers = HTML },
    { kind = "busy", server_message = failing.NONE }, get = true, create = false },
  { "503 without a body", { status = 503 }, { kind = "busy" }, get = true, create = false },
  { "504", { status = 504, body = body(504, "placement", "sandbox_placement_timeout") },
    { kind = "server", error_code = "sandbox_placement_timeout" }, get = true, create = false },
  { "504 with an HTML page", { status = 504, body = PAGE, headers = HTML },
    { kind = "server" }, get = true, create = false },
  { "418, which means nothing here", { status = 418, body = body(418, "teapot") }, {}, get = false, create = false },
  { "299, a success without the body that belongs to it", { status = 299, body = "" },
    { kind = "protocol" }, create = false },
  { "an error with a body that is a JSON string", { status = 500, body = '"oops"' }, { kind = "server" } },
  { "an error with a body of the wrong types", { status = 400, body = '{"code":"x","message":{"a":1}}' },
    { kind = "invalid_argument", server_message = failing.NONE } },
  { "an error with a message full of control characters", { status = 400,
    body = '{"code":400,"message":"a\\u0000b\\u001b[31mc\\r\\nd"}' }, { kind = "invalid_argument" } },
  { "an error with a message of a megabyte", { status = 400, body = body(400, ("long "):rep(200000)) },
    { kind = "invalid_argument" } },
}

describe("the answer", function()
  for _, row in ipairs(ROWS) do
    it(row[1], failing.test(function(t)
      local answer = { status = row[2].status, body = row[2].body, headers = { ["X-E2B-Trace-ID"] = "trace-1" } }
      for name, value in pairs(row[2].headers or {}) do
        answer.headers[name] = value
      end
      local server = t:answers({ answer })
      local client = t:client(server, { retries = 0 })
      local want = {
        status = answer.status, sent = "yes", attempts = 1, request_id = "trace-1", deadline = failing.NONE,
      }
      for name, value in pairs(row[3]) do
        want[name] = value
      end
      want.operation, want.retryable, want.sandbox_id = "Sandbox.get_info", row.get, "x"
      local err = t:fails(want, client.Sandbox.get_info("x"))
      if err.kind == "not_found" then
        assert.equal("sandbox", err.resource)
      end
      assert.is_nil(err.message:find("<html", 1, true))
      assert.equal(1, t:count(server))
      t:works(client)
      want.operation, want.retryable, want.sandbox_id = "Sandbox.create", row.create, failing.NONE
      t:fails(want, client.Sandbox.create())
      -- 404 (and 405) of the v2 route may come from an older server: its v1 route is asked once
      assert.equal(row.v1 and 3 or 2, t:count(server))
      t:works(client)
      -- one log entry a request
      assert.equal(server:count(), #t.log)
    end))
  end

  it("204 where a body belongs", failing.test(function(t)
    local server = t:answers({ { status = 204 } })
    local client = t:client(server, { retries = 0 })
    t:fails({ kind = "protocol", sent = "yes", status = 204 }, client.Sandbox.get_info("x"))
    t:fails({ kind = "protocol", sent = "yes", retryable = false }, client.Sandbox.create())
    t:works(client)
  end))

  it("200 in place of 204 and 201 is a success too", failing.test(function(t)
    local server = t:peer([[
      conn:respond(200, request.path:match("sandboxes$") and CREATED or "")
    ]])
    local client = t:client(server)
    assert.is_true((assert(client.Sandbox.kill("x"))))
    assert.is_true((assert(client.Sandbox.set_timeout("x", 60))))
    assert.equal("made", assert(client.Sandbox.create()).sandbox_id)
  end))

  it("404 of a kill is no failure", failing.test(function(t)
    local server = t:answers({ { status = 404, body = body(404, "gone") } })
    local client = t:client(server)
    local ok, existed = client.Sandbox.kill("x")
    assert.is_true(ok)
    assert.is_false(existed)
    assert.equal(1, t:count(server))
    t:works(client)
  end))

  it("404 with a web page is a wrong address, not a sandbox that is gone", failing.test(function(t)
    local page = { status = 404, headers = { ["Content-Type"] = "text/html" }, body = "<html>nothing here</html>" }
    local server = t:answers({ page })
    local client = t:client(server)
    local err = t:fails({ kind = "protocol", status = 404, retryable = false }, client.Sandbox.kill("x"))
    assert.matches("api_url", err.message, 1, true)
    t:works(client)
  end))

  it("404 of a kill that isn't the service's tells nothing", failing.test(function(t)
    local rows = { { "text/plain", "404 page not found\n" }, { "application/json", '{"error":"no route"}' } }
    for _, row in ipairs(rows) do
      local server = t:answers({ { status = 404, headers = { ["Content-Type"] = row[1] }, body = row[2] } })
      local client = t:client(server)
      local err = t:fails({ kind = "protocol", status = 404, sent = "yes", retryable = false, sandbox_id = "x" },
        client.Sandbox.kill("x"))
      assert.matches("api_url", err.message, 1, true)
      t:works(client)
    end
    local client = t:client(t:peer([[ conn:send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") ]]))
    assert.same({ true, false }, { client.Sandbox.kill("x") })
  end))

  it("404 of a kill that was tried before is this kill's doing", failing.test(function(t)
    local gone = ("conn:respond(404, %q)"):format(body(404, "gone"))
    local client = t:client(t:peer("if n == 1 then conn:reset() else " .. gone .. " end"))
    assert.same({ true, true }, { client.Sandbox.kill("x") })
    client = t:client(t:peer("if n == 1 then conn:respond(502, '') else " .. gone .. " end"))
    assert.same({ true, true }, { client.Sandbox.kill("x") })
    client = t:client(t:peer([[if n == 1 then
      conn:answer({ status = 429, headers = { ["Retry-After"] = "0" }, body = "" }) else ]] .. gone .. " end"))
    assert.same({ true, false }, { client.Sandbox.kill("x") })
  end))

  it("201 that names no template is of the template asked for", failing.test(function(t)
    local client = t:client(t:peer([[conn:respond(201, '{"sandboxID":"made","envdVersion":"0.2.0"}')]]))
    local sandbox = assert(client.Sandbox.create("mine"))
    assert.equal("mine", sandbox.template_id)
    assert.matches("made, mine, running", tostring(sandbox), 1, true)
  end))

  it("100 Continue and 103 Early Hints before the answer are no answer", failing.test(function(t)
    local server = t:peer([[
      conn:send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX-E2B-Trace-ID: early\r\n\r\n")
      conn:respond(201, CREATED)
    ]])
    local client = t:client(server)
    assert.equal("made", assert(client.Sandbox.create()).sandbox_id)
    t:works(client)
  end))
end)

describe("a redirect to another host", function()
  for _, status in ipairs({ 301, 302, 303, 307, 308 }) do
    it(tostring(status) .. " is never followed", failing.test(function(t)
      local elsewhere = t:peer("conn:respond(200, OK)")
      local server = t:answers({ { status = status, headers = { Location = elsewhere.url .. "/sandboxes/ok?key=1" } } })
      local client = t:client(server)
      local err = t:fails({ kind = "protocol", status = status, sent = "yes", retryable = false, attempts = 1 },
        client.Sandbox.get_info("x"))
      assert.truthy(err.message:find("127.0.0.1", 1, true), err.message)
      t:fails({ kind = "protocol", status = status, sent = "yes", retryable = false, attempts = 1 },
        client.Sandbox.create())
      t:fails({ kind = "protocol", status = status }, client.Sandbox.kill("x"))
      t:fails({ kind = "protocol", status = status }, client:request("GET", "/x"))
      assert.equal(4, t:count(server))
      t:works(client)
      assert.equal(0, elsewhere:count("connection"))
    end))
  end

  it("with a Location that is no URL", failing.test(function(t)
    local server = t:answers({
      { status = 302, headers = { Location = "://\27[31m" .. failing.KEY } }, { status = 302 },
    })
    local client = t:client(server)
    t:fails({ kind = "protocol", status = 302 }, client.Sandbox.get_info("x"))
    t:fails({ kind = "protocol", status = 302 }, client.Sandbox.get_info("x"))
    t:works(client)
  end))
end)

describe("access", function()
  it("without a key is refused before anything is sent, with where to get one", failing.test(function(t)
    local server = t:peer("conn:respond(200, OK)")
    for _, key in ipairs({ "", false }) do
      local client = t:client(server, { api_key = key or nil, getenv = function() return key and "" or nil end })
      if key == false then
        client = require("e2b").client({ api_url = server.url, getenv = function() end })
      end
      local err = t:fails({ kind = "authentication", sent = "no", retryable = false }, client.Sandbox.create())
      assert.truthy(err.message:find("E2B_API_KEY", 1, true), err.message)
      t:fails({ kind = "authentication", sent = "no" }, client.Sandbox.get_info("x"))
    end
    assert.equal(0, server:count("connection"))
  end))

  it("keeps a key of any other shape", failing.test(function(t)
    local server = t:peer("conn:respond(200, OK)")
    local client = t:client(server, { api_key = "sk-another-5ec4e7" })
    t:works(client)
    assert.equal("sk-another-5ec4e7", server:requests()[1].headers["x-api-key"])
    assert.is_nil(support.find_secret({ "sk-another-5ec4e7" }, t.log))
  end))
end)
