-- The same promises over HTTP/2, where libcurl has more reasons to send a request again by itself.
local failing = require("spec.support.failing")
local support = require("spec.support.support")
local tls = require("spec.support.tls")
local e2b = require("e2b")

local TEXTS = string.format("local OK, CREATED = %s, %s\n", support.serialize(failing.DETAIL),
  support.serialize(failing.CREATED))

-- A peer that speaks HTTP/2; `source` runs for each request: h, stream, method, n (which request of the peer it is).
local function h2(t, source)
  local set = tls.make()
  local server = t:raw({ tls = set.good, alpn = "h2", handler = TEXTS .. [[
    local http2 = require("spec.support.http2")
    http2.serve(conn, function(h, stream, method)
      shared.n = (shared.n or 0) + 1
      local n = shared.n
      local function fine()
        h:respond(stream, method == "POST" and 201 or 200, method == "POST" and CREATED or OK)
      end
      ]] .. source .. [[

    end)
  ]] })
  return server, t:client(server, { ca_file = set.ca_file })
end

local function has_http2()
  return require("e2b.core").libcurl().http2
end

describe("HTTP/2", function()
  it("is there: without it this file tests nothing", function()
    assert.is_true(has_http2())
  end)

  it("carries many calls at once over one connection", failing.test(function(t)
    local server, client = h2(t, "fine()")
    t:works(client)
    local _, failed = e2b.map({ 1, 2, 3, 4, 5, 6, 7, 8 }, function() return client.Sandbox.create() end)
    assert.equal(0, failed)
    assert.equal(9, server:count("stream"))
    assert.equal(1, server:count("connection"))
  end))

  local deaths = {
    ["closed under the request"] = "conn:close()",
    ["reset under the request"] = "conn:reset()",
    ["ended by GOAWAY that leaves the request out"] = "h:goaway(0) conn:close()",
    ["ended by GOAWAY that takes the request in"] = "h:goaway(stream) conn:close()",
    ["kept, the stream refused"] = "h:reset(stream, h.REFUSED_STREAM)",
    ["kept, the stream broken"] = "h:reset(stream, h.INTERNAL_ERROR)",
  }
  for name, death in pairs(deaths) do
    it("a reused connection " .. name .. ": a create is one request, never two", failing.test(function(t)
      local server, client = h2(t, "if n == 2 then " .. death .. " else fine() end")
      t:works(client)
      local err = t:fails({ retryable = false, attempts = 1 }, client.Sandbox.create({ retries = 3 }))
      assert.truthy(err.kind == "network" or err.kind == "protocol", err.kind)
      assert.truthy(err.sent == "maybe" or err.sent == "yes", err.sent)
      t:works(client)
      local posts = 0
      for _, event in ipairs(server:events("headers")) do
        if event.method == "POST" then
          posts = posts + 1
        end
      end
      assert.equal(1, posts)
    end))

    it("a reused connection " .. name .. ": a GET works", failing.test(function(t)
      t:fast_retries()
      local server, client = h2(t, "if n == 2 then " .. death .. " else fine() end")
      t:works(client)
      t:works(client)
      assert.equal(3, server:count("stream"))
    end))
  end

  it("a connection that the server closed while idle: a create works and is one request", failing.test(function(t)
    local server, client = h2(t, "fine() if n == 1 then h:goaway(stream) conn:close() end")
    t:works(client)
    support.sleep(0.05)
    assert.equal("made", assert(client.Sandbox.create()).sandbox_id)
    assert.equal(2, server:count("stream"))
  end))

  it("a cancelled call leaves the others of the connection alone", failing.test(function(t)
    local server, client = h2(t, [[
      if n == 1 then return fine() end
      if method == "POST" then return end
      fine()
    ]])
    t:works(client)
    local task = e2b.spawn(function() return client.Sandbox.create() end)
    e2b.sleep(0.1)
    task:cancel()
    t:fails({ kind = "cancelled", sent = "maybe" }, task:wait())
    t:takes(0.2, function()
      t:fails({ kind = "timeout", deadline = "request_timeout", sent = "maybe" },
        client.Sandbox.create({ request_timeout = 0.2 }))
    end)
    t:works(client)
    assert.equal(1, server:count("connection"))
  end))
end)
