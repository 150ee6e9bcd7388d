-- Streams of events: what envelopes become in Lua. The peers are raw sockets.
local exchange = require("spec.support.exchange")
local envelopes = require("spec.support.envelopes")

local watched = exchange.watch()

local function serve(source)
  return watched.peer(envelopes.handler .. source)
end

describe("a stream of events", function()
  it("is read event by event", function()
    local server = serve([[
      begin()
      send('{"event":{"start":{"pid":1234}}}')
      send('{"event":{"data":{"stdout":"aGkK"}}}')
      send('{"event":{"data":{"stderr":"b2ghCg=="}}}')
      send('{"event":{"keepalive":{}}}')
      send('{"event":{"data":{"pty":"JA=="}}}')
      send('{"event":{"end":{"exited":true,"status":"exit status 0"}}}')
      finish()
    ]])
    local args = { body = { process = { cmd = "x" } } }
    local got, ok, facts = envelopes.read(exchange.target(server), "process_start", args)
    assert.are.same({
      { "start", 1234 }, { "stdout", "hi\n" }, { "stderr", "oh!\n" }, { "pty", "$" },
      { "end", { exit_code = 0, exited = true, status = "exit status 0" } },
    }, got)
    assert.is_true(ok, not ok and facts.text)
    local request = server:requests()[1]
    assert.are.equal("POST /process.Process/Start", request.method .. " " .. request.path)
    assert.are.equal("application/connect+json", request.headers["content-type"])
    assert.are.equal("1", request.headers["connect-protocol-version"])
    assert.are.equal("identity", request.headers["accept-encoding"])
    local json = '{"process":{"cmd":"x"}}'
    assert.are.equal("\0\0\0\0" .. string.char(#json) .. json, request.body)
  end)
end)
