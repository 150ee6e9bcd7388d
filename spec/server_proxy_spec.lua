-- The way into sandboxes: routing, both directions streamed, what the proxy changes and what it must not.
local json = require("e2b.server.json")
local local_server = require("e2b.server")
local http_client = require("spec.support.http_client")
local sandboxes = require("spec.support.sandboxes")
local support = require("spec.support.support")

-- A service in a sandbox: answers one connection after the other; the path says how.
local SERVICE = [[
local socket = require("socket")
local listener = assert(socket.bind("127.0.0.1", tonumber(arg[1])))
local function serve(c)
  local head = {}
  while true do
    local line = c:receive("*l")
    if not line then return end
    if line == "" then break end
    head[#head + 1] = line
  end
  local text = table.concat(head, "\n")
  local path = text:match("^%S+ (%S+)")
  local length = tonumber(text:match("[Cc]ontent%-[Ll]ength: (%d+)"))
  local body = length and c:receive(length) or ""
  if text:find("Transfer-Encoding: chunked", 1, true) then
    local parts = {}
    repeat
      local size = tonumber(c:receive("*l"), 16)
      parts[#parts + 1] = c:receive(size)
      c:receive("*l")
    until size == 0
    body = table.concat(parts)
  end
  local function say(...) return c:send(table.concat({ ... })) end
  if path == "/echo" or path == "/twice" then
    text = text .. "\n\n" .. body
    say("HTTP/1.1 200 Fine\r\nContent-Length: ", #text, "\r\nX-Hop: 1\r\nConnection: x-hop\r\n",
      path == "/twice" and "X-Two: a\r\nX-Two: b\r\n" or "", "\r\n", text)
  elseif path == "/chunked" then
    say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for i = 1, 3 do
      say("1\r\n", i, "\r\n")
      socket.sleep(0.05)
    end
    say("0\r\n\r\n")
  elseif path == "/close" then
    say("HTTP/1.1 200 OK\r\n\r\nuntil the end")
  elseif path == "/none" then
    say("HTTP/1.1 204 No Content\r\n\r\n")
  elseif path == "/head" then
    say("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
  elseif path == "/early" then
    say("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
  elseif path == "/interim" then
    local many = ("HTTP/1.1 100 Continue\r\n\r\n"):rep(1000)
    while say(many) do end
  elseif path == "/tiny" then
    say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    local many = ("1\r\nx\r\n"):rep(10000)
    while say(many) do end
  elseif path == "/cut" then
    say("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
  elseif path == "/mute" then
    return
  elseif path == "/lie" then
    say("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
  elseif path == "/wait" then
    say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
    local _, why = c:receive(1)
    local file = io.open("/tmp/gone", "w")
    file:write(why)
    file:close()
  elseif path == "/upgrade" then
    say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    local got = c:receive("*l")
    say((got or "nothing"):upper(), "\n")
  end
end
while true do
  local c = listener:accept()
  serve(c)
  c:close()
end
]]

describe("the way into a sandbox", function()
  local folder, server, one, service
  -- The real one, where this runs under a wrapper.
  local LUA = support.shell("readlink -f /proc/$PPID/exe"):match("[^\n]+")
  local PORT = support.free_port(8)

  local function start_service(some, port)
    some:request("POST", "/files?path=/tmp/service.lua", {
      headers = { ["Content-Type"] = "application/octet-stream" }, body = SERVICE,
    })
    local stream = some:start(LUA .. " /tmp/service.lua " .. port)
    stream:event()
    -- This machine may take longer than the proxy waits.
    support.wait_for(function()
      return some:shell("grep -ci ':0*" .. ("%04X"):format(port) .. " .* 0A ' /proc/net/tcp").stdout ~= "0\n"
    end, 10, "the service")
    return stream
  end

  setup(function()
    folder = support.tmpdir()
    server = local_server.start({ directory = folder })
    one = sandboxes.create(server)
    start_service(one, PORT)
    service = sandboxes.port(server, one, PORT)
  end)

  teardown(function()
    server:stop()
    support.cleanup(folder)
  end)

  local function raw(text, headers)
    local fields = ""
    for name, value in pairs(service.headers) do fields = fields .. name .. ": " .. value .. "\r\n" end
    return http_client.new(server):raw((text:gsub("\r\n\r\n", "\r\n" .. fields .. (headers or "") .. "\r\n", 1)))
  end

  describe("to a service", function()
    it("is there as soon as the service is", function()
      local port = PORT + 1
      one:start("sleep 0.1; exec " .. LUA .. " /tmp/service.lua " .. port):event()
      assert.equal(200, sandboxes.port(server, one, port):request("GET", "/echo").status)
    end)

    it("leads by headers and by the name of the host", function()
      assert.equal(200, service:request("GET", "/echo").status)
      local client = http_client.new(server)
      local host = ("%d-%s.e2b.example:80"):format(PORT, one.id)
      local answer = client:get("/echo", { Host = host })
      assert.equal(200, answer.status)
      assert.matches("\nHost: " .. host, answer.body, 1, true)
      assert.equal(200, client:get("/echo", { Host = ("%d-%s-6532622b.x.y"):format(PORT, one.id) }).status)
      assert.equal("Invalid host", client:get("/", { Host = ("%d-%s"):format(PORT, one.id) }).body)
    end)

    it("passes on what is meant for the service, and nothing of the connection", function()
      local answer = raw("POST /twice HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nX-A: 2\r\nX-Drop: 1\r\nTE: trailers\r\n"
        .. "Connection: close, X-Drop\r\nKeep-Alive: 5\r\nProxy-Authorization: y\r\nContent-Length: 3\r\n\r\nabc")
      assert.matches("^HTTP/1.1 200 Fine\r\n", answer)
      assert.matches("\r\nX%-Two: a\r\nX%-Two: b\r\n", answer)
      assert.is_nil(answer:find("X-Hop", 1, true))
      local head, body = answer:match("\r\n\r\n(.*)\n\n(.*)$")
      assert.equal("abc", body)
      assert.matches("^POST /twice HTTP/1.1\nHost: a\nX%-A: 1\nX%-A: 2\n", head)
      for _, name in ipairs({ "x-drop", "te:", "keep-alive", "proxy-authorization" }) do
        assert.is_nil(head:lower():find("\n" .. name, 1, true), name)
      end
      assert.matches("\nContent%-Length: 3\n", head)
      assert.matches("\nConnection: close$", head)
    end)

    it("frames bodies anew, whatever is in them", function()
      local evil = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
      local client = http_client.new(server)
      local headers = { Host = ("%d-%s.x"):format(PORT, one.id) }
      local answer = client:request("POST", "/echo", { body = evil, headers = headers })
      assert.equal(evil, answer.body:match("\n\n(.*)$"))
      answer = client:request("POST", "/echo", { body = evil, headers = headers, chunked = true })
      assert.equal(evil, answer.body:match("\n\n(.*)$"))
      assert.matches("\nTransfer%-Encoding: chunked\n", answer.body)
      assert.is_nil(answer.body:lower():find("content-length", 1, true))
      for _, fields in ipairs({ "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n", "Transfer-Encoding: gzip\r\n" }) do
        local answer_to = raw("POST /echo HTTP/1.1\r\nHost: x\r\n\r\n0\r\n\r\n", fields)
        assert.matches("^HTTP/1.1 400 ", answer_to, 1, false, fields)
      end
    end)

    it("takes every form of answer", function()
      local client = http_client.new(server)
      local kept = client:keep()
      local headers = { Host = ("%d-%s.x"):format(PORT, one.id) }
      assert.equal(204, kept:get("/none", headers).status)
      local head = kept:request("HEAD", "/head", { headers = headers })
      assert.equal("1000", head.headers["content-length"])
      assert.equal("ok", kept:get("/early", headers).body)
      -- All over one connection, though the service ends its own each time.
      kept:close()
      assert.matches("\r\n\r\n1\r\n1\r\n1\r\n2\r\n1\r\n3\r\n0\r\n\r\n$",
        raw("GET /chunked HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
      assert.matches("\r\n\r\nd\r\nuntil the end\r\n0\r\n\r\n$",
        raw("GET /close HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
      assert.matches("^HTTP/1.0 200 OK.*\r\n\r\nuntil the end$", raw("GET /close HTTP/1.0\r\n\r\n"))
    end)

    it("does not make a broken answer look whole", function()
      local cut = raw("GET /cut HTTP/1.1\r\nHost: x\r\n\r\n")
      assert.matches("Content%-Length: 1000\r\n.*\r\nabc$", cut)
      for _, path in ipairs({ "/mute", "/lie", "/interim" }) do
        local answer = service:request("GET", path)
        assert.equal(502, answer.status)
        assert.same({ sandboxId = one.id, code = 502, port = PORT,
          message = "The sandbox is running but port is not open" }, answer.json)
      end
    end)

    it("leaves time for others, however fast both ends are", function()
      -- A client that reads as fast as it can, in a process of its own.
      local reader = io.popen(("curl -sNm 3 -o /dev/null -H 'Host: %d-%s.x' %s/tiny"):format(PORT, one.id, server.url))
      support.sleep(0.3)
      local client, slowest = http_client.new(server), 0
      for _ = 1, 10 do
        local began = support.now()
        assert.equal(200, client:get("/health").status)
        slowest = math.max(slowest, support.now() - began)
        support.sleep(0.05)
      end
      reader:close()
      assert.is_true(slowest < 0.5 * support.slack, slowest)
    end)

    it("tells it when its client is gone", function()
      local connection = service:connect()
      local fields = ""
      for name, value in pairs(service.headers) do fields = fields .. name .. ": " .. value .. "\r\n" end
      connection:send("GET /wait HTTP/1.1\r\nHost: x\r\n" .. fields .. "\r\n")
      assert.matches("^HTTP/1.1 200", connection:receive("*l"))
      connection:close()
      support.wait_for(function() return one:shell("cat /tmp/gone").stdout == "closed" end, 5, "the news")
    end)

    it("becomes a tunnel when both want one", function()
      local connection = service:connect()
      local fields = ""
      for name, value in pairs(service.headers) do fields = fields .. name .. ": " .. value .. "\r\n" end
      connection:send("GET /upgrade HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
        .. fields .. "\r\nhello\n")
      assert.equal("HTTP/1.1 101 Switching Protocols", connection:receive("*l"))
      local head = ""
      repeat
        local line = assert(connection:receive("*l"))
        head = head .. line .. "\n"
      until line == ""
      assert.matches("Upgrade: websocket\nConnection: Upgrade\n", head, 1, true)
      assert.equal("HELLO", connection:receive("*l"))
      assert.is_nil((connection:receive(1)))
      connection:close()
      -- A 101 nobody asked for is no answer.
      assert.equal(502, service:request("GET", "/upgrade").status)
    end)

    it("ends at a port nobody listens on, after a moment", function()
      local seconds, answer = support.timed(function()
        return sandboxes.port(server, one, PORT + 7):request("GET", "/")
      end)
      assert.equal(502, answer.status)
      assert.same({ sandboxId = one.id, code = 502, port = PORT + 7,
        message = "The sandbox is running but port is not open" }, answer.json)
      assert.equal("application/json; charset=utf-8", answer.headers["content-type"])
      assert.is_true(seconds > 0.9 and seconds < 3 * support.slack, seconds)
    end)

    it("never ends at what another sandbox, or the machine, serves", function()
      local other = sandboxes.create(server)
      other:shell("true")
      assert.equal(502, sandboxes.port(server, other, PORT):request("GET", "/echo").status)
      local own = tonumber(server.url:match(":(%d+)$"))
      assert.equal(502, sandboxes.port(server, other, own):request("GET", "/health").status)
      other.client:delete("/sandboxes/" .. other.id)
    end)

    it("leads into a sandbox without a network too", function()
      local closed = sandboxes.create(server, { allow_internet_access = false })
      start_service(closed, PORT)
      assert.equal(200, sandboxes.port(server, closed, PORT):request("GET", "/echo").status)
      closed.client:delete("/sandboxes/" .. closed.id)
    end)

    it("obeys the sandbox's network settings", function()
      local private = sandboxes.create(server, {
        network = { allowPublicTraffic = false, maskRequestHost = "inside:${PORT}" },
      })
      start_service(private, PORT + 2)
      local port = sandboxes.port(server, private, PORT + 2)
      local denied = port:request("GET", "/echo")
      assert.equal(403, denied.status)
      assert.equal(private.id, denied.json.sandboxId)
      local token = private.answer.trafficAccessToken
      local function with_token(value)
        return port:request("GET", "/echo", { headers = { ["E2b-Traffic-Access-Token"] = value } })
      end
      assert.equal(403, with_token(token .. "x").status)
      local answer = with_token(token)
      assert.equal(200, answer.status)
      assert.matches("\nHost: inside:" .. PORT + 2, answer.body, 1, true)
      assert.is_nil(answer.body:find(token, 1, true))
      -- The daemon has a token of its own.
      assert.equal("x\n", private:shell("echo x").stdout)
      private.client:delete("/sandboxes/" .. private.id)
    end)
  end)

  describe("to the daemon", function()
    it("is closed for what is not for the outside", function()
      for _, path in ipairs({ "/init", "/freeze", "/upgrade" }) do
        local answer = one:request("POST", path, { body = "{}" })
        assert.equal(404, answer.status)
        assert.equal(path, answer.json.path)
        assert.matches("control plane", answer.json.message, 1, true)
      end
      assert.matches("^HTTP/1.1 400 ", raw("CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n"))
    end)

    it("streams both ways, in no more memory than it takes", function()
      local function peak()
        return tonumber(support.read_file("/proc/" .. server.pid .. "/status"):match("VmHWM:%s*(%d+)"))
      end
      one:shell("true")
      local before, bytes = peak(), 128 * 1024 * 1024
      local piece = ("0123456789abcdef"):rep(65536)
      local connection = one:connect()
      local fields = ""
      for name, value in pairs(one.headers) do fields = fields .. name .. ": " .. value .. "\r\n" end
      connection:send("POST /files?path=big HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n" .. fields
        .. "Content-Length: " .. bytes .. "\r\n\r\n")
      for _ = 1, bytes / #piece do assert(connection:send(piece)) end
      assert.equal(200, http_client.read(connection).status)
      connection:send("GET /files?path=big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" .. fields .. "\r\n")
      local count = -1
      repeat
        local chunk, _, partial = connection:receive(1048576)
        if count < 0 then
          count = #chunk - chunk:find("\r\n\r\n", 1, true) - 3
        else
          count = count + #(chunk or partial)
        end
      until not chunk
      connection:close()
      assert.equal(bytes, count)
      -- A sanitizer keeps what was freed.
      assert.is_true(peak() - before < 8 * 1024 or os.getenv("ASAN_OPTIONS") ~= nil, peak() - before)
      one:shell("rm big")
    end)

    it("ends with its client: an upload that is cut is not taken for whole", function()
      server:clear()
      local connection = one:connect()
      local fields = ""
      for name, value in pairs(one.headers) do fields = fields .. name .. ": " .. value .. "\r\n" end
      connection:send("POST /files?path=cut HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n" .. fields
        .. "Content-Length: 1000000\r\n\r\n" .. ("x"):rep(300000))
      connection:close()
      support.wait_for(function()
        local list = server:requests()
        return list[1] and list[1].body_bytes == 300000
      end, 5, "the beginning of the upload")
      local row = server:requests()[1]
      assert.equal(0, row.status)
      assert.equal(65536, #row.body)
    end)

    it("refuses a body whose framing breaks half way", function()
      local fields = ""
      for name, value in pairs(one.headers) do fields = fields .. name .. ": " .. value .. "\r\n" end
      local answer = http_client.new(server):raw("POST /files?path=x HTTP/1.1\r\nHost: x\r\n"
        .. "Content-Type: application/octet-stream\r\n" .. fields .. "Transfer-Encoding: chunked\r\n\r\n"
        .. "3\r\nabc\r\nnonsense\r\n")
      assert.matches("^HTTP/1.1 400 Bad Request\r\n.*malformed request body", answer)
    end)

    it("answers uploads that are refused before they have ended", function()
      local connection = one:connect()
      connection:send("POST /files?path=x HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
        .. "E2b-Sandbox-Id: " .. one.id .. "\r\nE2b-Sandbox-Port: 49983\r\nContent-Length: 100000000\r\n\r\n"
        .. ("x"):rep(1000000))
      local answer = http_client.read(connection)
      assert.equal(401, answer.status)
      assert.equal("close", answer.headers.connection)
      connection:close()
    end)

    it("lets signed addresses through without a token", function()
      one:shell("echo hello > signed.txt")
      local digest = require("openssl.digest").new("sha256")
      local text = digest:final(("signed.txt:read:user:%s"):format(one.token))
      local signature = "v1_" .. require("e2b.server.native").base64_encode(text):gsub("=+$", "")
      signature = signature:gsub("[+/]", { ["+"] = "%2B", ["/"] = "%2F" })
      local target = "/files?path=signed.txt&username=user&signature="
      local headers = { Host = "49983-" .. one.id .. ".e2b.example" }
      local client = http_client.new(server):with_key(false)
      assert.equal("hello\n", client:get(target .. signature, headers).body)
      assert.equal(401, client:get(target .. "v1_x", headers).status)
    end)
  end)

  describe("under the control of a spec", function()
    after_each(function()
      server:set({ fail_next = false })
    end)

    it("is written down: what was asked, the beginning of its body, the answer's status", function()
      server:clear()
      one:shell("echo x")
      one:request("POST", "/files?path=x", {
        headers = { ["Content-Type"] = "application/octet-stream" }, body = ("y"):rep(100000),
      })
      one:call("/process.Process/SendSignal", { process = { pid = 999999 }, signal = "SIGNAL_SIGKILL" })
      local list = server:requests()
      assert.same({ "/process.Process/Start", "/files", "/process.Process/SendSignal" },
        { list[1].path, list[2].path, list[3].path })
      assert.same({ 200, 200, 404 }, { list[1].status, list[2].status, list[3].status })
      assert.matches('"echo x"', list[1].body, 1, true)
      assert.same({ 65536, 100000 }, { #list[2].body, list[2].body_bytes })
      assert.equal("(hidden)", list[1].headers["x-access-token"])
    end)

    it("fails to order", function()
      local start = "/process.Process/Start"
      server:set({ fail_next = { status = 503, path = start, message = "busy" } })
      assert.equal("x", (one:request("GET", "/health").status == 204) and "x")
      local message = json.encode({ process = { cmd = "true" } })
      assert.equal(503, one:call(start, message).status)
      server:set({ fail_next = { drop = true, path = start } })
      assert.has_error(function() one:shell("true") end)
      server:set({ fail_next = { delay = 0.3, path = start } })
      assert.is_true(support.timed(function() one:shell("true") end) >= 0.3)
      server:set({ fail_next = { cut_after = 20, path = start } })
      local stream = one:start("echo x")
      assert.equal(200, stream:head().status)
      assert.has_error(function() stream:rest() end)
      assert.equal("x\n", one:shell("echo x").stdout)
    end)
  end)

  it("keeps no descriptor of an exchange that is over", function()
    local function count()
      return #support.shell("ls /proc/" .. server.pid .. "/fd")
    end
    one:shell("true")
    service:request("GET", "/echo")
    local before = count()
    for i = 1, 30 do
      service:request("GET", i % 2 == 0 and "/echo" or "/mute")
      local stream = one:start("sleep 0.01")
      if i % 2 == 0 then stream:event() end
      stream:close()
    end
    support.wait_for(function() return count() <= before end, 5, "the descriptors to go")
  end)
end)
