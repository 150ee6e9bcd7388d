-- Streams of events: what envelopes become in Lua. The peers are raw sockets.
local exchange = require("spec.support.exchange")
local envelopes = require("spec.support.envelopes")
local core = require("e2b.core")

local watched = exchange.watch()

local WATCH = { body = { path = "/tmp", recursive = true, include_entry = true } }

-- What a stream with these envelopes gives: its events, and what result() says.
local function read(source, row, args, opts)
  local server = watched.peer(envelopes.handler .. "begin()\n" .. source)
  return envelopes.read(envelopes.open(server, opts, row, args))
end

local function read_payloads(payloads, row, args)
  local lines = {}
  for i, payload in ipairs(payloads) do
    lines[i] = ("send(%q)"):format(payload)
  end
  lines[#lines + 1] = "finish()"
  return read(table.concat(lines, "\n"), row, args)
end

-- The events of a stream that ends well.
local function events(payloads, row, args)
  local got, ok, facts = read_payloads(payloads, row, args)
  assert.is_true(ok, not ok and facts.text)
  return got
end

describe("the request of a stream", function()
  it("is one envelope, and asks for no compression", function()
    local server = watched.peer(envelopes.handler .. "begin() finish()")
    local _, ok = envelopes.read(envelopes.open(server, { gzip = true, headers = { "X-Own", "1" } }))
    assert.is_true(ok)
    local request = server:requests()[1]
    assert.are.equal("POST /process.Process/Start", request.method .. " " .. request.path)
    assert.are.equal("application/connect+json", request.headers["content-type"])
    assert.are.equal("1", request.headers["connect-protocol-version"])
    assert.are.equal("identity", request.headers["accept-encoding"])
    assert.are.equal("1", request.headers["x-own"])
    local json = '{"process":{"cmd":"x"}}'
    assert.are.equal("\0\0\0\0" .. string.char(#json) .. json, request.body)
  end)

  it("announces the length of a long body", function()
    local server = watched.peer(envelopes.handler .. "begin() finish()")
    local args = { body = { process = { cmd = ("x"):rep(70000) } } }
    assert.is_true(select(2, envelopes.read(envelopes.open(server, nil, nil, args))))
    local body = server:requests()[1].body
    local size = 70000 + #'{"process":{"cmd":""}}'
    local length = string.char(0, math.floor(size / 65536), math.floor(size / 256) % 256, size % 256)
    assert.are.equal("\0" .. length, body:sub(1, 5))
    assert.are.equal(size + 5, #body)
  end)

  it("is written by the row alone", function()
    local target = exchange.target("http://127.0.0.1:1")
    assert.has_error(function() core.transfer(target, "process_start", envelopes.start, { sink = 1 }) end)
    assert.has_error(function()
      exchange.raw(target, "/"):event()
    end, "this transfer's answer is not a stream of events")
    assert.has_error(function()
      core.transfer(target, "process_start", envelopes.start):read()
    end, "this transfer's body is a stream of events: event() reads it")
    local _, message = core.transfer(target, "process_start", envelopes.start, { source = "chunks" })
    assert.is_truthy(message:find("either a body or a source"))
  end)
end)

describe("the events of a process", function()
  it("come in order, decoded", function()
    assert.are.same({
      { "start", 1234 }, { "stdout", "hi\n" }, { "stderr", "oh!\n" }, { "pty", "$" },
      { "end", { exit_code = 0, exited = true, status = "exit status 0" } },
    }, events({
      '{"event":{"start":{"pid":1234}}}',
      '{"event":{"data":{"stdout":"aGkK"}}}',
      '{"event":{"data":{"stderr":"b2ghCg=="}}}',
      '{"event":{"keepalive":{}}}',
      '{"event":{"data":{"pty":"JA=="}}}',
      '{"event":{"end":{"exited":true,"status":"exit status 0"}}}',
    }))
  end)

  it("say how the process ended", function()
    local function ended(text)
      return events({ '{"event":{"end":' .. text .. "}}" })[1][2]
    end
    assert.are.same({ exit_code = 3, exited = true, status = "exit status 3", error = "exit status 3" },
      ended('{"exitCode":3,"exited":true,"status":"exit status 3","error":"exit status 3"}'))
    assert.are.same({ exit_code = -1, exited = false, status = "signal: killed", error = "signal: killed" },
      ended('{"exitCode":-1,"status":"signal: killed","error":"signal: killed"}'))
    assert.are.same({ exit_code = 0, exited = false }, ended("{}"))
    assert.are.same({ exit_code = 7, exited = true }, ended('{"exitCode":"7","exited":true,"error":null}'))
    if math.type then
      assert.are.equal("integer", math.type(ended('{"exitCode":3.0}').exit_code))
    end
  end)

  it("are the same in any spelling of JSON", function()
    local escaped = ("aGk/"):gsub("/", "\\/")
    for _, text in ipairs({
      '{"event":{"data":{"stdout":"aGk/"}}}',
      ' {\n\t"event" : { "data" : { "stdout" : "aGk/" } } } \r\n',
      '{"event": {"data": {"stdout": "aGk/"}}}',
      '{"event":{"data":{"stdout":"' .. escaped .. '"}}}',
      '{"event":{"data":{"stdout":"\\u0061Gk/"}}}',
      '{"event":{"data":{"stdout":"aGk_"}}}',
      '{"event":{"data":{"stderr":null,"stdout":"aGk/","new":[1]}},"more":{}}',
      '{"event":{"new":1,"data":{"stdout":"aGk/"}}}',
      '{"\\u0065vent":{"data":{"stdout":"aGk/"}}}',
      '{"event":{"data":{"stdout":"aGk/"},"start":null}}',
    }) do
      assert.are.same({ { "stdout", "hi?" } }, events({ text }), text)
    end
    assert.are.same({ { "stdout", "h" } }, events({ '{"event":{"data":{"stdout":"aA"}}}' }))
    assert.are.same({ { "start", 77 } }, events({ '{"event":{"start":{"pid":"77"}}}' }))
  end)

  it("leave out what says nothing and what is not known", function()
    assert.are.same({ { "stdout", "a" }, { "stdout", "b" } }, events({
      "", "{}", " {} ", '{"event":null}', '{"event":{}}', '{"event":{"data":{}}}', '{"event":{"keepalive":{}}}',
      '{"event":{"data":{"stdout":"YQ=="}}}', '{"event":{"data":{"stdout":""}}}', '{"event":{"data":{"stderr":""}}}',
      '{"event":{"data":{"video":"YQ=="}}}', '{"event":{"data":{"stdout":"Yg=="}}}', '{"event":{"news":{"x":1}}}',
      '{"event":{"data":{ "stdout":"", "x":1}}}',
    }))
  end)

  it("keep every byte of the output", function()
    local all = {}
    for i = 0, 255 do
      all[#all + 1] = string.char(i)
    end
    all = table.concat(all)
    for length = 0, 40 do
      local bytes = all:sub(-length - 1, -2) .. all .. all:sub(1, length)
      local got = events({ '{"event":{"data":{"stdout":"' .. core.base64_encode(bytes) .. '"}}}' })
      assert.are.same({ { "stdout", bytes } }, got)
    end
  end)

  it("join what is there of one kind, and of one kind only", function()
    local got = events({
      '{"event":{"data":{"stdout":"YQ=="}}}', '{"event":{"data":{"stdout":"Yg=="}}}',
      '{"event":{"data":{"stderr":"Yw=="}}}', '{"event":{"data":{"stdout":"ZA=="}}}',
    })
    local text = { stdout = "", stderr = "" }
    for _, event in ipairs(got) do
      text[event[1]] = text[event[1]] .. event[2]
    end
    assert.are.same({ stdout = "abd", stderr = "c" }, text)
    assert.are.equal("c", (got[#got][1] == "stdout" and got[#got - 1] or got[#got])[2])

    -- all of it is in the buffer before the first is asked for
    local server = watched.peer(envelopes.handler .. [[
      local parts = {}
      for i = 1, 100 do parts[i] = envelope('{"event":{"data":{"stdout":"' .. ("YWFh"):rep(333) .. '"}}}') end
      parts[#parts + 1] = envelope('{"event":{"data":{"stderr":"Yg=="}}}')
      parts[#parts + 1] = envelope("{}", 2)
      conn:respond(200, table.concat(parts), { ["Content-Type"] = "application/connect+json" })
    ]])
    local transfer = envelopes.open(server)
    core.engine():start(transfer)
    exchange.drive({ transfer })
    local sizes = {}
    envelopes.take(transfer, function(kind, bytes)
      sizes[#sizes + 1] = kind .. " " .. #bytes
    end)
    assert.is_true(transfer:result())
    assert.are.same({ "stdout " .. 65 * 999, "stdout " .. 35 * 999, "stderr 1" }, sizes)
  end)

  it("hand over a chunk of any size as one", function()
    local got, ok = read([[
      send('{"event":{"data":{"stdout":"' .. ("YWFh"):rep(1000000) .. '"}}}')
      send('{"event":{"data":{"stdout":"Yg=="}}}')
      finish()
    ]])
    assert.is_true(ok)
    assert.are.equal(3000000, #got[1][2])
    assert.are.equal(("a"):rep(3000000), got[1][2])
    assert.are.same({ "stdout", "b" }, got[2])
  end)
end)

describe("the events of a watched folder", function()
  local function watch(payloads)
    return events(payloads, "dir_watch", WATCH)
  end

  it("come in order, with names of Lua", function()
    assert.are.same({
      { "start" },
      { "filesystem", { name = "a", type = "create" } },
      { "filesystem", { name = "sub/b", type = "write", entry = {
        name = "b", type = "file", path = "/tmp/sub/b", size = 13, mode = 420, permissions = "-rw-r--r--",
        owner = "user", group = "user", modified_time = 1767323045, metadata = { k = "v" },
      } } },
      { "filesystem", { name = "a", type = "remove" } }, { "filesystem", { name = "a", type = "rename" } },
      { "filesystem", { name = "a", type = "chmod" } }, { "filesystem", { name = "a" } },
      { "filesystem", { name = "", type = "write" } },
    }, watch({
      '{"start":{}}', '{"filesystem":{"name":"a","type":"EVENT_TYPE_CREATE"}}', '{"keepalive":{}}',
      '{"filesystem":{"name":"sub/b","type":"EVENT_TYPE_WRITE","entry":{"name":"b","type":"FILE_TYPE_FILE",'
        .. '"path":"/tmp/sub/b","size":"13","mode":420,"permissions":"-rw-r--r--","owner":"user","group":"user",'
        .. '"modifiedTime":"2026-01-02T03:04:05.678901234Z","metadata":{"k":"v"}}}}',
      '{"filesystem":{"name":"a","type":"EVENT_TYPE_REMOVE"}}', '{"filesystem":{"name":"a","type":4}}',
      '{"filesystem":{"name":"a","type":5}}', '{"filesystem":{"name":"a","type":"EVENT_TYPE_NEW"}}',
      '{"filesystem":{"type":"EVENT_TYPE_WRITE"}}', "{}", '{"new":{}}',
    }))
  end)

  it("are asked for with the server's names", function()
    local server = watched.peer(envelopes.handler .. "begin() finish()")
    assert.is_true(select(2, envelopes.read(envelopes.open(server, nil, "dir_watch", WATCH))))
    local request = server:requests()[1]
    assert.are.equal("/filesystem.Filesystem/WatchDir", request.path)
    assert.are.same({ path = "/tmp", recursive = true, includeEntry = true }, core.json_decode(request.body:sub(6)))
  end)
end)

describe("the end of a stream", function()
  it("is a success, whatever metadata it carries", function()
    for _, payload in ipairs({ "{}", " {}\n", '{"metadata":{"x-foo":["a"]}}', '{"error":null}' }) do
      local got, ok, value = read(("finish(%q)"):format(payload))
      assert.are.same({}, got)
      assert.is_true(ok, payload)
      assert.is_true(value)
    end
  end)

  it("is a failure with the server's words", function()
    local got, ok, facts = read([[
      send('{"event":{"start":{"pid":5}}}')
      finish('{"error":{"code":"not_found","message":"process with pid 7 not found","details":[]},"metadata":{}}')
    ]])
    assert.are.same({ { "start", 5 } }, got)
    assert.is_false(ok)
    assert.are.same({ "connect", "not_found", "process with pid 7 not found", true, "yes", 200 },
      { facts.cause, facts.error_code, facts.message, facts.has_body, facts.sent, facts.status })
    assert.are.equal("the server ended the stream with an error", facts.text)
  end)

  it("is a failure without a word of the server's, too", function()
    for _, error in ipairs({ "{}", '{"code":7}', '{"code":"canceled"}', '{"message":"m"}' }) do
      local _, ok, facts = read('finish(\'{"error":' .. error .. "}')")
      assert.is_false(ok)
      assert.are.equal("connect", facts.cause)
    end
  end)

  it("is known to who did not read the stream", function()
    for _, case in ipairs({ { "finish()", true }, { 'finish(\'{"error":{"code":"internal"}}\')', false } }) do
      local server = watched.peer(envelopes.handler .. [[
        begin()
        for _ = 1, 20 do send('{"event":{"data":{"stdout":"YQ=="}}}') end
      ]] .. case[1])
      local transfer = envelopes.open(server)
      local ok, facts = exchange.run(transfer)
      assert.are.equal(case[2], ok)
      assert.are.equal(case[2] or "internal", ok or facts.error_code)
      assert.is_nil(transfer:event())
    end
  end)

  it("does not wait for a body that goes on", function()
    local server = watched.peer(envelopes.handler .. [[
      begin()
      send('{"event":{"start":{"pid":5}}}')
      send("{}", 2)
      conn:wait_closed()
    ]])
    local began = core.now()
    local got, ok = envelopes.read(envelopes.open(server))
    assert.is_true(ok)
    assert.are.same({ { "start", 5 } }, got)
    assert.is_true(core.now() - began < 2.5, "it waited")
  end)

  it("counts, however the body ends after it", function()
    local got, ok = read([[
      send('{"event":{"start":{"pid":5}}}')
      send("{}", 2)
      conn:close()
    ]])
    assert.are.same({ { "start", 5 } }, got)
    assert.is_true(ok)
  end)

  it("leaves the connection to the next call", function()
    local server = watched.peer([[
      conn:serve(function(request)
        if request.path == "/process.Process/List" then return conn:respond(200, "{}") end
        conn:begin_chunked(200)
        conn:chunk("\2\0\0\0\2{}")
        conn:chunk("")
      end)
    ]])
    assert.is_true(select(2, envelopes.read(envelopes.open(server))))
    assert.is_true(exchange.run(assert(core.transfer(exchange.target(server), "process_list"))))
    assert.are.equal(1, server:count("connection"))
  end)
end)

describe("a stream that is no stream", function()
  it("fails as any call does", function()
    local server = watched.answers({
      { status = 502, body = '{"sandboxId":"i1","message":"The sandbox was not found","code":502}' },
      { status = 401, body = '{"code":"unauthenticated","message":"no"}' },
    })
    local got, ok, facts, _ = envelopes.read(envelopes.open(server))
    assert.are.same({}, got)
    assert.is_false(ok)
    assert.are.same({ "http", 502, "The sandbox was not found", true },
      { facts.cause, facts.status, facts.message, facts.has_body })
    _, ok, facts = envelopes.read(envelopes.open(server))
    assert.is_false(ok)
    assert.are.same({ "http", 401, "unauthenticated" }, { facts.cause, facts.status, facts.error_code })
  end)

  it("tells of its head before there is an event", function()
    local server = watched.peer(envelopes.handler .. "begin() conn:wait_signal('go') finish()")
    local transfer = envelopes.open(server)
    local seen
    assert.is_nil(transfer:status())
    assert.is_false(transfer:event())
    core.engine():start(transfer)
    exchange.drive({ transfer }, function(_, event)
      seen = event
      assert.are.equal(200, transfer:status())
      assert.is_false(transfer:event())
      server:signal("go")
    end)
    assert.are.equal("read", seen)
    assert.is_nil(transfer:event())
    assert.is_true(transfer:result())
    assert.is_nil(transfer:event())
  end)

  it("is cancelled like any transfer, and what had come is still there", function()
    local server = watched.peer(envelopes.handler .. [[
      begin()
      send('{"event":{"start":{"pid":5}}}')
      conn:wait_closed()
    ]])
    local transfer = envelopes.open(server)
    core.engine():start(transfer)
    local limit = core.now() + 5
    repeat
      core.engine():wait(0.1)
      core.engine():finished()
    until transfer:progress() > 0 or core.now() > limit
    transfer:cancel()
    assert.are.equal("start", (transfer:event()))
    assert.is_nil(transfer:event())
    assert.are.equal("cancelled", select(2, transfer:result()).cause)
  end)
end)
