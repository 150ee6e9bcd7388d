-- Certificates that must be refused: nothing of the request is sent, the key least of all.
local failing = require("spec.support.failing")
local tls = require("spec.support.tls")

local function refused(kind, words)
  return failing.test(function(t)
    local set = tls.make()
    local server = t:peer("conn:respond(200, OK)", { tls = set[kind] })
    local client = t:client(server, { ca_file = set.ca_file, retries = 0 })
    local want = { kind = "tls", sent = "no", attempts = 1, status = failing.NONE, deadline = failing.NONE }
    local err = t:fails(want, client.Sandbox.get_info("x"))
    assert.truthy(err.message:lower():find(words), err.message)
    t:fails(want, client.Sandbox.create())
    assert.equal(0, server:count())
    -- the next call on the same client, once the server has got itself a good certificate
    local port = server.port
    server:stop()
    t:peer("conn:respond(200, OK)", { tls = set.good, port = port })
    t:works(client)
  end)
end

describe("TLS", function()
  it("works with a certificate of a given authority", failing.test(function(t)
    local set = tls.make()
    local server = t:peer("conn:respond(201, CREATED)", { tls = set.good })
    local client = t:client(server, { ca_file = set.ca_file })
    t:works(client)
    assert(client.Sandbox.create())
    local by_name = t:client("https://localhost:" .. server.port, { ca_file = set.ca_file })
    t:works(by_name)
  end))

  it("refuses a certificate of an unknown authority", refused("untrusted", "certificate"))
  it("refuses an expired certificate", refused("expired", "expired"))
  it("refuses a certificate for another host", refused("wrong_host", "127.0.0.1"))

  it("refuses the certificate of a private authority that wasn't given", failing.test(function(t)
    local set = tls.make()
    local server = t:peer("conn:respond(200, OK)", { tls = set.good })
    local client = t:client(server, { retries = 0 })
    t:fails({ kind = "tls", sent = "no" }, client.Sandbox.get_info("x"))
    assert.equal(0, server:count())
  end))

  it("says so when the server speaks no TLS at all", failing.test(function(t)
    local server = t:raw({ handler = "conn:send('HTTP/1.1 400 Bad Request\\r\\n\\r\\n') conn:close()" })
    local client = t:client("https://127.0.0.1:" .. server.port, { retries = 0 })
    t:fails({ kind = "tls", sent = "no" }, client.Sandbox.create())
    assert.equal(0, server:count())
  end))

  it("is a network failure when the server hangs up in the handshake", failing.test(function(t)
    local server = t:raw({ handler = "conn:close()" })
    local client = t:client("https://127.0.0.1:" .. server.port, { retries = 0 })
    local err = t:fails({ sent = "no", retryable = true, attempts = 1 }, client.Sandbox.create())
    assert.truthy(err.kind == "tls" or err.kind == "network", err.kind)
  end))

  it("names the file of authorities that can't be read", failing.test(function(t)
    local set = tls.make()
    local server = t:peer("conn:respond(200, OK)", { tls = set.good })
    local missing = set.folder .. "/missing.pem"
    local made, client = pcall(t.client, t, server, { ca_file = missing, retries = 0 })
    if made then
      local err = t:fails({ kind = "tls", sent = "no" }, client.Sandbox.get_info("x"))
      assert.truthy(err.message:find(missing, 1, true), err.message)
    else
      assert.truthy(tostring(client):find(missing, 1, true), tostring(client))
    end
  end))
end)
