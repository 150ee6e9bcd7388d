-- The daemon's door: the Connect protocol, access token, users, CORS, control endpoints.
local daemon = require("spec.support.sandbox_daemon")
local json = require("e2b.server.json")
local message = require("e2b.server.envd.message")
local native = require("e2b.server.native")
local support = require("spec.support.support")

local LIST, START, CONNECT = "/process.Process/List", "/process.Process/Start", "/process.Process/Connect"

describe("the daemon of a local sandbox, its protocol:", function()
  local one

  setup(function()
    one = daemon.start({ envs = { GLOBAL = "g" } })
  end)

  teardown(function()
    daemon.stop_all()
  end)

  local function basic(name)
    return "Basic " .. native.base64_encode(name .. ":")
  end

  describe("unary calls", function()
    it("answer JSON with JSON", function()
      local answer = one:call(LIST, {})
      assert.equal(200, answer.status)
      assert.equal("application/json", answer.headers["content-type"])
      assert.equal("{}", answer.body)
      assert.equal(200, one:call(LIST, {}, { ["Content-Type"] = "application/json; charset=UTF-8" }).status)
      assert.equal(200, one:call(LIST, {}, { ["Connect-Protocol-Version"] = "1" }).status)
      assert.equal(200, one:call(LIST, ' { "unknown" : [ {} , null ] } ').status)
    end)

    it("fail as JSON with the code's status", function()
      local answer = one:call("/process.Process/SendSignal", { process = { pid = 999999 }, signal = "SIGNAL_SIGKILL" })
      assert.equal(404, answer.status)
      assert.equal("application/json", answer.headers["content-type"])
      assert.same({ code = "not_found", message = "process with pid 999999 not found" }, answer.json)
    end)

    it("are POST only, of services that are there, in JSON", function()
      local answer = one:request("GET", LIST)
      assert.equal(405, answer.status)
      assert.equal("POST", answer.headers.allow)
      for _, path in ipairs({ "/process.Process/Nothing", "/nothing.Nothing/List", "/", "/process.Process/List/" }) do
        answer = one:call(path, {})
        assert.equal(404, answer.status)
        assert.matches("^text/plain", answer.headers["content-type"])
        assert.equal("404 page not found\n", answer.body)
      end
      for _, kind in ipairs({ "application/proto", "application/grpc", "text/plain", "application/connect+json",
        "application/json; charset=latin1" }) do
        answer = one:call(LIST, {}, { ["Content-Type"] = kind })
        assert.equal(415, answer.status, kind)
        assert.equal("", answer.body)
        assert.matches("application/json", answer.headers["accept-post"])
      end
      assert.equal(415, one:call(LIST, {}, { ["Content-Type"] = false }).status)
    end)

    it("refuse what is no message", function()
      for _, body in ipairs({ "", "x", "[]", "null", "1", '{"process":', '{"process":1}', '{"process":{"pid":"x"}}',
        '{"process":{"pid":-1}}', '{"process":{"pid":1.5}}', '{"process":{"pid":4294967296}}',
        '{"process":{"tag":1}}', '{"process":{"pid":1},"signal":{}}', '{"process":{"pid":1},"signal":"KILL"}' }) do
        local answer = one:call("/process.Process/SendSignal", body)
        assert.equal(400, answer.status, body)
        assert.equal("invalid_argument", answer.json.code, body)
      end
    end)

    it("take any spelling of the same message", function()
      for _, body in ipairs({ '{"process":{"pid":999998}}', '{"process":{"pid":"999998"}}',
        '{"process":{"pid":999998.0}}', '{"process":{"pid":9.99998e5,"tag":null}}' }) do
        local answer = one:call("/process.Process/CloseStdin", body)
        assert.equal("process with pid 999998 not found", answer.json.message, body)
      end
    end)

    it("refuse another version of the protocol, other compressions, odd timeouts", function()
      local function code(headers)
        local answer = one:call(LIST, {}, headers)
        return answer.status, answer.json.code
      end
      assert.same({ 400, "invalid_argument" }, { code({ ["Connect-Protocol-Version"] = "2" }) })
      assert.same({ 501, "unimplemented" }, { code({ ["Content-Encoding"] = "br" }) })
      assert.same({ 400, "invalid_argument" }, { code({ ["Connect-Timeout-Ms"] = "x" }) })
      assert.same({ 400, "invalid_argument" }, { code({ ["Connect-Timeout-Ms"] = "-1" }) })
      assert.same({ 400, "invalid_argument" }, { code({ ["Connect-Timeout-Ms"] = "12345678901" }) })
      assert.same({ 504, "deadline_exceeded" }, { code({ ["Connect-Timeout-Ms"] = "0" }) })
      assert.equal(200, one:call(LIST, {}, { ["Connect-Timeout-Ms"] = "9999999999" }).status)
    end)

    it("may be packed with gzip, and answer so when that is accepted", function()
      local deflate = native.deflate()
      local packed = deflate:write("{}", "finish")
      local answer = one:call(LIST, packed, { ["Content-Encoding"] = "gzip" })
      assert.equal(200, answer.status)
      assert.equal("gzip", answer.headers["content-encoding"])
      assert.equal("\31\139", answer.body:sub(1, 2))
      answer = one:call(LIST, {}, { ["Accept-Encoding"] = "br, gzip;q=0.5" })
      local inflate = native.inflate()
      inflate:push(answer.body)
      assert.equal("{}", inflate:pull(10))
      assert.is_nil(one:call(LIST, {}, { ["Accept-Encoding"] = "br, identity" }).headers["content-encoding"])
      local bomb = native.deflate():write((" "):rep(20000000), "finish")
      for _, body in ipairs({ "garbage", packed:sub(1, -3), "", bomb }) do
        answer = one:call(LIST, body, { ["Content-Encoding"] = "gzip" })
        assert.equal(400, answer.status)
        assert.equal("invalid_argument", answer.json.code)
      end
    end)
  end)

  describe("streams", function()
    it("fail inside of a 200", function()
      local stream = one:open(CONNECT, { process = { pid = 7 } })
      assert.equal("application/connect+json", stream:head().headers["content-type"])
      assert.equal("chunked", stream:head().headers["transfer-encoding"])
      assert.same({ error = { code = "not_found", message = "process with pid 7 not found" } }, stream:rest().ending)
      local function code(headers)
        return one:open(CONNECT, { process = { pid = 7 } }, headers):rest().ending.error.code
      end
      assert.equal("invalid_argument", code({ ["Connect-Protocol-Version"] = "2" }))
      assert.equal("unimplemented", code({ ["Connect-Content-Encoding"] = "br" }))
      assert.equal("invalid_argument", code({ ["Connect-Timeout-Ms"] = "1s" }))
      assert.equal("deadline_exceeded", code({ ["Connect-Timeout-Ms"] = "0" }))
    end)

    it("of another content type are 415", function()
      for _, kind in ipairs({ "application/json", "application/connect+proto", "application/proto" }) do
        local answer = one:call(START, {}, { ["Content-Type"] = kind })
        assert.equal(415, answer.status)
        assert.equal("application/connect+json", answer.headers["accept-post"])
        assert.equal("", answer.body)
      end
    end)

    it("start with exactly one envelope", function()
      local envelope = daemon.envelope('{"process":{"pid":7}}')
      local function code(raw)
        return one:open(CONNECT, nil, nil, raw):rest().ending.error.code
      end
      assert.equal("not_found", code(envelope))
      assert.equal("unimplemented", code(""))
      assert.equal("unimplemented", code(envelope .. envelope))
      assert.equal("invalid_argument", code(envelope:sub(1, -2)))
      assert.equal("invalid_argument", code("\0\0\0"))
      assert.equal("invalid_argument", code("\2" .. envelope:sub(2)))
      assert.equal("invalid_argument", code("\1" .. envelope:sub(2)))
      assert.equal("invalid_argument", code("\3" .. envelope:sub(2)))
      assert.equal("resource_exhausted", code("\0\255\255\255\255x"))
      assert.equal("invalid_argument", code(daemon.envelope("nonsense")))
      -- No payload is a message too: the one without fields.
      assert.equal("unimplemented", code(daemon.envelope("")))
    end)

    it("may carry packed envelopes once that is agreed on", function()
      local deflate = native.deflate()
      local packed = deflate:write('{"process":{"pid":7}}', "finish")
      local raw = "\1" .. daemon.envelope(packed):sub(2)
      local ending = one:open(CONNECT, nil, { ["Connect-Content-Encoding"] = "gzip" }, raw):rest().ending
      assert.equal("not_found", ending.error.code)
    end)
  end)

  describe("users", function()
    it("that do not exist are refused everywhere, in the form of the call", function()
      local headers = { Authorization = basic("nobody-here") }
      local wrong = { code = "unauthenticated", message = "invalid username: 'nobody-here'" }
      local answer = one:call(LIST, {}, headers)
      assert.equal(401, answer.status)
      assert.same(wrong, answer.json)
      assert.same(wrong, one:open(CONNECT, { process = { pid = 7 } }, headers):rest().ending.error)
      answer = one:request("GET", "/health", { headers = headers })
      assert.equal(401, answer.status)
      assert.same(wrong, answer.json)
    end)

    it("are not named by what is no Basic header", function()
      for _, header in ipairs({ "Bearer x", "Basic", "Basic !!!", basic(""), "Basic " .. native.base64_encode("x") }) do
        assert.equal(200, one:call(LIST, {}, { Authorization = header }).status, header)
      end
    end)
  end)

  describe("the access token", function()
    local closed
    local TOKEN = "a-token"

    setup(function()
      closed = daemon.start({ access_token = TOKEN })
    end)

    it("is asked for, except where it is not", function()
      for _, given in ipairs({ false, "", "a-toke", "a-token2", "A-TOKEN" }) do
        for _, request in ipairs({ { "POST", LIST }, { "POST", START }, { "GET", "/metrics" }, { "GET", "/envs" },
          { "POST", "/files/compose" }, { "GET", "/nowhere" }, { "HEAD", "/health" }, { "POST", "/health" } }) do
          local answer = closed:request(request[1], request[2], { headers = { ["X-Access-Token"] = given or nil } })
          assert.equal(401, answer.status)
          assert.equal("application/json; charset=utf-8", answer.headers["content-type"])
          assert.equal("nosniff", answer.headers["x-content-type-options"])
          if request[1] ~= "HEAD" then
            assert.equal('{"code":401,"message":"unauthorized access, please provide a valid access token or method '
              .. 'signing if supported"}\n', answer.body)
          end
        end
      end
      assert.equal(204, closed:request("GET", "/health").status)
      assert.equal(200, closed:call(LIST, {}, { ["X-Access-Token"] = TOKEN }).status)
      assert.equal(200, closed:request("GET", "/metrics", { headers = { ["X-Access-Token"] = TOKEN } }).status)
      assert.equal("x\n", closed:shell("echo x", nil, { ["X-Access-Token"] = TOKEN }).stdout)
    end)

    it("comes before the user", function()
      local answer = closed:call(LIST, {}, { Authorization = basic("nobody-here") })
      assert.equal(401, answer.json.code)
    end)

    it("is not seen by what runs inside", function()
      local all = closed:shell("env; cat /proc/" .. closed.pid .. "/cmdline /proc/" .. closed.pid .. "/environ", nil,
        { ["X-Access-Token"] = TOKEN })
      assert.is_nil(all.stdout:find(TOKEN, 1, true))
    end)
  end)

  describe("CORS", function()
    it("lets every origin in", function()
      local answer = one:request("OPTIONS", START, { headers = {
        Origin = "https://x.y", ["Access-Control-Request-Method"] = "POST",
        ["Access-Control-Request-Headers"] = "x-access-token",
      } })
      assert.equal(204, answer.status)
      assert.equal("*", answer.headers["access-control-allow-origin"])
      assert.equal("POST", answer.headers["access-control-allow-methods"])
      assert.equal("x-access-token", answer.headers["access-control-allow-headers"])
      assert.equal("7200", answer.headers["access-control-max-age"])
      answer = one:call(LIST, {}, { Origin = "https://x.y" })
      assert.equal("*", answer.headers["access-control-allow-origin"])
      assert.matches("Location", answer.headers["access-control-expose-headers"])
      assert.is_nil(one:call(LIST, {}).headers["access-control-allow-origin"])
    end)
  end)

  describe("control endpoints:", function()
    it("health", function()
      local answer = one:request("GET", "/health")
      assert.equal(204, answer.status)
      assert.equal("", answer.body)
      assert.equal("no-store", answer.headers["cache-control"])
      assert.equal("", answer.headers["content-type"])
    end)

    it("metrics", function()
      local answer = one:request("GET", "/metrics")
      assert.equal(200, answer.status)
      local is = answer.json
      assert.is_true(math.abs(is.ts - os.time()) <= 2)
      assert.is_true(is.cpu_count >= 1 and is.cpu_count % 1 == 0)
      assert.is_true(is.cpu_used_pct >= 0 and is.cpu_used_pct <= 100)
      assert.is_true(is.mem_used > 0 and is.mem_used < is.mem_total and is.mem_cache >= 0)
      assert.equal(math.floor(is.mem_total / 1048576), is.mem_total_mib)
      assert.equal(math.floor(is.mem_used / 1048576), is.mem_used_mib)
      assert.is_true(is.disk_used > 0 and is.disk_used < is.disk_total)
    end)

    it("envs", function()
      local answer = one:request("GET", "/envs")
      assert.equal("no-store", answer.headers["cache-control"])
      assert.same({ E2B_SANDBOX = "true", E2B_SANDBOX_ID = "isandbox", E2B_TEMPLATE_ID = "base", GLOBAL = "g" },
        answer.json)
    end)

    it("init", function()
      local fresh = daemon.start({ envs = { OLD = "1" }, access_token = false })
      local function init(body, token)
        return fresh:request("POST", "/init", { body = json.encode(body), headers = { ["X-Access-Token"] = token } })
      end
      local function envs(token)
        return fresh:request("GET", "/envs", { headers = { ["X-Access-Token"] = token } }).json
      end
      local answer = init({ envVars = { A = "1", E2B_SANDBOX_ID = "no" }, defaultUser = "root",
        hyperloopIP = "10.0.0.1", timestamp = "2026-01-01T00:00:00Z" })
      assert.equal(204, answer.status)
      assert.equal("0.6.13", answer.headers["x-envd-version"])
      assert.same({ A = "1", E2B_SANDBOX = "true", E2B_SANDBOX_ID = "isandbox", E2B_TEMPLATE_ID = "base",
        E2B_EVENTS_ADDRESS = "http://10.0.0.1" }, envs())
      assert.equal("root|1\n", fresh:shell('echo "$USER|$A"').stdout)
      -- Not newer than the last: nothing changes.
      assert.equal(204, init({ envVars = { B = "2" }, timestamp = "2026-01-01T00:00:00Z" }).status)
      assert.equal("1", envs().A)
      assert.equal(204, init({ accessToken = "t1", defaultWorkdir = "/tmp", defaultUser = "" }).status)
      assert.equal("1", envs("t1").A)
      assert.equal(fresh:path("/tmp") .. "\n", fresh:shell("pwd", nil, { ["X-Access-Token"] = "t1" }).stdout)
      assert.equal(401, init({ accessToken = "t2" }).status)
      assert.equal(204, init({ accessToken = "t2" }, "t1").status)
      assert.equal(401, fresh:request("GET", "/envs", { headers = { ["X-Access-Token"] = "t1" } }).status)
      -- Without a token in it there is none any more.
      assert.equal(204, init({}, "t2").status)
      assert.equal("1", envs().A)
      for _, bad in ipairs({ { accessToken = "" }, { envVars = { A = 1 } }, { timestamp = "yesterday" },
        { defaultUser = 5 }, json.array({}) }) do
        assert.equal(400, init(bad).status)
      end
      fresh:stop()
    end)
  end)

  it("many clients that leave in the middle do no harm", function()
    local before = #(support.shell("ls /proc/" .. one.pid .. "/fd"))
    for i = 1, 60 do
      local stream = one:start("echo x; yes; sleep 300")
      if i % 3 == 0 then stream:event() end
      stream:close()
    end
    for _ = 1, 20 do
      local connection = one:connect()
      connection:send("POST " .. START .. " HTTP/1.1\r\nHost: x\r\nContent-Type: application/connect+json\r\n"
        .. "Content-Length: 100\r\n\r\n\0\0\0")
      connection:close()
    end
    for _, process in ipairs(one:call(LIST, {}).json.processes) do
      one:call("/process.Process/SendSignal", { process = { pid = process.pid }, signal = "SIGNAL_SIGKILL" })
    end
    support.wait_for(function() return one:call(LIST, {}).body == "{}" end)
    support.wait_for(function() return #(support.shell("ls /proc/" .. one.pid .. "/fd")) <= before end, 5,
      "the descriptors to be closed")
  end)
end)

describe("messages of the daemon", function()
  local FIELDS = {
    text = "string", maybe = "string?", flag = "bool", long_name = "uint32", bytes = "bytes", list = "[string]",
    map = "{string}", inner = { a = "string" }, kind = { enum = { NONE = 0, SOME = 1 } }, left = "bool?",
    right = "bool?", oneof = { "left", "right" },
  }
  local DEFAULTS = { text = "", flag = false, long_name = 0, bytes = "", list = {}, map = {} }

  it("have defaults for what is absent or null", function()
    assert.same(DEFAULTS, message.decode(FIELDS, "{}"))
    assert.same(DEFAULTS, message.decode(FIELDS,
      '{"text":null,"maybe":null,"flag":null,"longName":null,"list":null,"inner":null,"kind":null}'))
  end)

  it("read every kind of field, in both spellings", function()
    local got = message.decode(FIELDS, [[{"text":"\u00e4","maybe":"","flag":true,"longName":4294967295,"bytes":"_-8",
      "list":["a",""],"map":{"A":"1","long_name":"2"},"inner":{"a":"x","b":1},"kind":1,"left":false}]])
    assert.same({ text = "\195\164", maybe = "", flag = true, long_name = 4294967295, bytes = "\255\239",
      list = { "a", "" }, map = { A = "1", long_name = "2" }, inner = { a = "x" }, kind = "SOME", left = false }, got)
    assert.equal(7, message.decode(FIELDS, '{"long_name":"7"}').long_name)
    assert.equal(9, message.decode(FIELDS, '{"kind":9}').kind)
  end)

  it("refuse what is of another type", function()
    for _, bad in ipairs({ '"text":1', '"flag":"true"', '"flag":1', '"longName":true', '"longName":"0x10"',
      '"longName":1e-1', '"bytes":"*"', '"bytes":1', '"list":{}', '"list":[1]', '"map":[]', '"map":{"a":null}',
      '"inner":[]', '"inner":"x"', '"kind":"MORE"', '"kind":[]', '"left":true,"right":false' }) do
      local got, problem = message.decode(FIELDS, "{" .. bad .. "}")
      assert.is_nil(got, bad)
      assert.matches("^invalid value for field ", problem)
    end
    for _, bad in ipairs({ "", "[]", "null", "{", "{}x", "\255" }) do
      local got, problem = message.decode(FIELDS, bad)
      assert.is_nil(got, bad)
      assert.is_string(problem)
    end
  end)

  it("take long bytes past the reader of JSON, and only what are some", function()
    local fields = { input = { stdin = "bytes?", pty = "bytes?" }, note = "string" }
    local bytes = ("\0\1\2\253"):rep(10000)
    local text = native.base64_encode(bytes)
    assert.equal(bytes, message.decode(fields, '{"input":{"stdin":"' .. text .. '"}}').input.stdin)
    assert.equal(bytes, message.decode(fields, '{"input":{"pty":"' .. text .. '"},"note":"x"}').input.pty)
    assert.equal(bytes, message.decode(fields, '{"input": {"stdin": "' .. text .. '"}}').input.stdin)
    -- An escaped slash is the same letter.
    assert.equal(("\255"):rep(30000), message.decode(fields, '{"input":{"stdin":"' .. ("\\/"):rep(40000) .. '"}}')
      .input.stdin)
    assert.is_nil((message.decode(fields, '{"input":{"stdin":"' .. text .. '!"}}')))
    assert.is_nil((message.decode(fields, '{"input":{"stdin":"' .. text)))
    -- Neither a text that looks like the field nor the mark itself leads astray.
    local note = json.encode('"stdin":"' .. text .. '"')
    assert.is_string(message.decode(fields, '{"note":' .. note .. ',"input":{"stdin":"YQ=="}}').note)
    assert.is_nil((message.decode(fields, '{"input":{"stdin":"\\u0001"}}')))
    local mixed = message.decode(fields, '{"note":"\\u0001","input":{"stdin":"' .. text .. '"}}')
    assert.equal("\1", mixed.note)
    assert.equal(bytes, mixed.input.stdin)
  end)
end)
