-- The local server's HTTP with bodies that are streamed, over a Unix socket: server and clients in one controller.
local cqueues = require("cqueues")
local ce = require("cqueues.errno")
local condition = require("cqueues.condition")
local cs = require("cqueues.socket")
local support = require("spec.support.support")
assert(require("e2b.server.requirements").load())
local http = require("e2b.server.http")

local MIB = 1024 * 1024

describe("HTTP with streamed bodies", function()
  local folder, path, cq, server, app

  before_each(function()
    folder = support.tmpdir()
    path = folder .. "/s"
    cq = cqueues.new()
    app = {}
    server = assert(http.listen(cq, app, { path = path, stream = true }))
  end)

  after_each(function()
    server:close()
    support.cleanup(folder)
  end)

  local function answer(body, headers)
    return { status = 200, headers = headers or {}, body = body }
  end

  -- Runs clients until they are done.
  local function run(...)
    local left = select("#", ...)
    for i = 1, left do
      local client = select(i, ...)
      cq:wrap(function()
        client()
        left = left - 1
      end)
    end
    local deadline = support.now() + 20 * support.slack
    while left > 0 and support.now() < deadline do assert(cq:step(0.1)) end
    assert.equal(0, left, "a client hangs")
  end

  local function connect()
    local socket = assert(cs.connect({ path = path }))
    socket:setmode("b", "b")
    socket:onerror(function(_, _, why) return why end)
    socket:settimeout(10 * support.slack)
    assert(socket:connect(5))
    return socket
  end

  local function ask(text)
    local socket = connect()
    socket:xwrite(text, "n")
    return socket
  end

  -- Sends a text and reads until the connection is closed.
  local function whole(text)
    local socket = ask(text)
    local all = socket:xread("*a") or ""
    socket:close()
    return all
  end

  local CLOSE = "Host: x\r\nConnection: close\r\n"

  it("is for the owner of the socket only", function()
    assert.matches("^srw%-%-%-%-%-%-%-", (support.shell("ls -l " .. path)))
  end)

  it("hands out a body in pieces, and holds none of it", function()
    local largest, total, kilobytes = 0, 0, 0
    function app.handle(_, request)
      while true do
        local piece = request.read()
        if not piece then break end
        largest, total = math.max(largest, #piece), total + #piece
        if total % (8 * MIB) < #piece then
          collectgarbage()
          kilobytes = math.max(kilobytes, collectgarbage("count"))
        end
      end
      return answer(tostring(total))
    end
    collectgarbage()
    local before = collectgarbage("count")
    local piece = ("x"):rep(MIB)
    for _, chunked in ipairs({ false, true }) do
      total = 0
      run(function()
        local socket = ask("POST / HTTP/1.1\r\n" .. CLOSE
          .. (chunked and "Transfer-Encoding: chunked\r\n\r\n" or "Content-Length: " .. 64 * MIB .. "\r\n\r\n"))
        for _ = 1, 64 do socket:xwrite(chunked and "100000\r\n" .. piece .. "\r\n" or piece, "n") end
        if chunked then socket:xwrite("0\r\nTrailer: x\r\n\r\n", "n") end
        local all = socket:xread("*a")
        assert.matches("\r\n\r\n" .. string.format("%d", 64 * MIB) .. "$", all)
        socket:close()
      end)
    end
    assert.is_true(largest <= 65536, largest)
    assert.is_true(kilobytes - before < 8 * 1024, kilobytes - before)
  end)

  it("tells a body that ended from one that was cut, and from one that lies", function()
    local seen = {}
    function app.handle(_, request)
      local text, piece, problem = ""
      repeat
        piece, problem = request.read()
        text = text .. (piece or "")
      until not piece
      seen[#seen + 1] = { text, problem, request.read() == nil }
      return answer("")
    end
    local chunked = "POST / HTTP/1.1\r\n" .. CLOSE .. "Transfer-Encoding: chunked\r\n\r\n"
    run(function() whole(chunked .. "3\r\nabc\r\n0\r\n\r\n") end)
    assert.same({ "abc", nil, true }, seen[1])
    for _, rest in ipairs({ "3\r\nab", "3\r\nabc\r\n", "5", "" }) do
      seen = {}
      run(function()
        local socket = ask(chunked .. rest)
        socket:shutdown("w")
        socket:xread("*a")
        socket:close()
      end)
      assert.is_string(seen[1][2], rest)
    end
    for _, rest in ipairs({ "3\r\nabcd\r\n", "g\r\n", "-1\r\n", "3 x\r\nabc\r\n", "3\nabc\n", "0x3\r\nabc\r\n" }) do
      seen = {}
      run(function() whole(chunked .. rest) end)
      assert.equal("malformed", seen[1][2], rest)
    end
    seen = {}
    run(function()
      local socket = ask("POST / HTTP/1.1\r\n" .. CLOSE .. "Content-Length: 10\r\n\r\nabc")
      socket:shutdown("w")
      socket:xread("*a")
      socket:close()
    end)
    assert.equal("abc", seen[1][1])
    assert.is_string(seen[1][2])
  end)

  it("refuses requests that two readers could see differently", function()
    local handled = 0
    function app.handle()
      handled = handled + 1
      return answer("")
    end
    for _, fields in ipairs({
      "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "Content-Length: 3\r\nContent-Length: 4\r\n",
      "Content-Length: +3\r\n", "Content-Length: 3,3\r\n", "Content-Length: 0x3\r\n",
      "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked, chunked\r\n",
      "Transfer-Encoding: identity, chunked\r\n", "Transfer-Encoding: xchunked\r\n", "Transfer-Encoding : chunked\r\n",
      "Transfer-Encoding:\11chunked\r\n", "X: a\r\n b\r\n",
      "X: a\rContent-Length: 3\r\n", "X: a\nContent-Length: 3\r\n",
      "X: a\0b\r\n", "Host: a\r\nHost: b\r\n", ": x\r\n", "a b: x\r\n",
    }) do
      run(function()
        assert.matches("^HTTP/1.1 400 ", whole("POST / HTTP/1.1\r\nConnection: close\r\n" .. fields
          .. "\r\nGET /smuggled HTTP/1.1\r\n\r\n"), 1, false, fields)
      end)
    end
    assert.equal(0, handled)
  end)

  it("asks for a body that waits to be asked for when it is read, not before", function()
    function app.handle(_, request)
      if request.path == "/refuse" then return { status = 403, headers = {}, body = "no" } end
      return answer((request.body()))
    end
    local head = " HTTP/1.1\r\n" .. CLOSE .. "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    run(function()
      local socket = ask("POST /" .. head)
      assert.equal("HTTP/1.1 100 Continue\r\n", socket:xread("*L"))
      socket:xwrite("abc", "n")
      assert.matches("\r\n\r\nHTTP/1.1 200 OK\r\n.*\r\n\r\nabc$", "\r\n" .. socket:xread("*a"))
      socket:close()
      assert.matches("^HTTP/1.1 403 ", whole("POST /refuse" .. head))
    end)
  end)

  it("reads a small rest of a body, and closes after a large one", function()
    function app.handle() return answer("done") end
    run(function()
      local socket = ask("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" .. ("x"):rep(100000)
        .. "GET / HTTP/1.1\r\n" .. CLOSE .. "\r\n")
      local all = socket:xread("*a")
      local _, count = all:gsub("HTTP/1.1 200", "")
      assert.equal(2, count)
      socket:close()
      socket = ask("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n" .. ("x"):rep(1000000))
      local head = socket:xread(-4096)
      assert.matches("^HTTP/1.1 200 .*\r\nconnection: close\r\n", head)
      socket:close()
    end)
  end)

  it("streams an answer piece by piece, as it comes", function()
    local turn = condition.new()
    function app.handle(_, request)
      return { status = 200, headers = { "content-type", "text/x" }, stream = function(write)
        assert(write("one"))
        assert(write(""))
        turn:wait()
        assert(write(request.path))
      end }
    end
    run(function()
      local socket = ask("GET /two HTTP/1.1\r\nHost: x\r\n\r\n")
      assert.equal("HTTP/1.1 200 OK\r\n", socket:xread("*L"))
      local fields = {}
      for line in function() return socket:xread("*l") end do
        if line == "" or line == "\r" then break end
        fields[#fields + 1] = line:gsub("\r$", "")
      end
      assert.same({ "content-type: text/x", "transfer-encoding: chunked" }, fields)
      assert.equal("3\r\none\r\n", socket:xread(8))
      turn:signal()
      assert.equal("4\r\n/two\r\n0\r\n\r\n", socket:xread(14))
      -- The connection stays.
      socket:xwrite("HEAD /x HTTP/1.1\r\n" .. CLOSE .. "\r\n", "n")
      assert.matches("^HTTP/1.1 200 OK\r\n.*\r\n\r\n$", socket:xread("*a"))
      socket:close()
    end)
  end)

  it("frames by length when that is known, and by the end of the connection for HTTP/1.0", function()
    function app.handle(_, request)
      return { status = 200, headers = {}, length = request.path == "/known" and 4 or nil, stream = function(write)
        write("ab")
        write("cd")
      end }
    end
    run(function()
      assert.matches("\r\ncontent%-length: 4\r\n.*\r\n\r\nabcd$", whole("GET /known HTTP/1.1\r\n" .. CLOSE .. "\r\n"))
      local old = whole("GET / HTTP/1.0\r\n\r\n")
      assert.matches("^HTTP/1.0 200 .*\r\nconnection: close\r\n\r\nabcd$", old)
      assert.is_nil(old:find("chunked", 1, true))
    end)
  end)

  it("never lets an answer that broke off look whole", function()
    local stderr = io.stderr
    local said = {}
    io.stderr = { write = function(_, ...) said[#said + 1] = table.concat({ ... }) end } -- luacheck: ignore 122
    function app.handle(_, request)
      return { status = 200, headers = {}, length = request.path == "/short" and 10 or nil, stream = function(write)
        write("abc")
        if request.path == "/raise" then error("broken") end
        if request.path == "/long" then return end
      end }
    end
    run(function()
      local raised = whole("GET /raise HTTP/1.1\r\nHost: x\r\n\r\n")
      assert.matches("3\r\nabc\r\n$", raised)
      local short = whole("GET /short HTTP/1.1\r\nHost: x\r\n\r\n")
      assert.matches("content%-length: 10\r\n\r\nabc$", short)
    end)
    io.stderr = stderr -- luacheck: ignore 122
    assert.matches("broken", said[1] or "", 1, true)
  end)

  it("tells a handler that its client is gone, be it writing or waiting", function()
    local ended, waited
    function app.handle(_, request)
      return { status = 200, headers = {}, stream = function(write)
        write("x")
        if request.path == "/wait" then
          local gone = request.on_gone()
          waited = cqueues.poll(gone, 10) == gone and request.gone()
        else
          local piece, count = ("x"):rep(65536), 0
          while write(piece) do count = count + 1 end
          ended = count
          assert.is_nil(write("more"))
        end
      end }
    end
    run(function()
      local socket = ask("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
      socket:xread(1)
      socket:close()
      socket = ask("GET /write HTTP/1.1\r\nHost: x\r\n\r\n")
      socket:xread(100000)
      socket:close()
      local deadline = support.now() + 5
      while not (ended and waited ~= nil) and support.now() < deadline do cqueues.sleep(0.01) end
    end)
    assert.is_true(waited)
    assert.is_true(ended >= 1)
  end)

  it("does not take a next request for a client that is gone", function()
    local woke
    function app.handle(_, request)
      if request.path == "/second" then return answer("second") end
      return { status = 200, headers = {}, stream = function(write)
        local gone = request.on_gone()
        woke = cqueues.poll(gone, 0.1) == gone or request.gone()
        write("first")
      end }
    end
    run(function()
      local all = whole("GET /first HTTP/1.1\r\nHost: x\r\n\r\nGET /second HTTP/1.1\r\n" .. CLOSE .. "\r\n")
      assert.matches("first\r\n0\r\n\r\nHTTP/1.1 200 .*second$", all)
    end)
    assert.is_false(woke)
  end)

  it("holds back a handler that writes faster than its client reads", function()
    local written = 0
    function app.handle()
      return { status = 200, headers = {}, stream = function(write)
        local piece = ("x"):rep(65536)
        while written < 256 * MIB and write(piece) do written = written + #piece end
      end }
    end
    run(function()
      local socket = ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
      socket:xread(1000)
      cqueues.sleep(0.2)
      assert.is_true(written < 4 * MIB, written)
      socket:close()
    end)
  end)

  it("gives a connection away, to those that ask on the socket", function()
    function app.handle(_, request)
      assert.equal("CONNECT", request.method)
      return { status = 200, headers = {}, takeover = function(wire)
        local got = wire.socket:xread(5)
        wire:write(request.path .. got:upper(), 5)
      end }
    end
    run(function()
      assert.matches("^HTTP/1.1 200 OK\r\n\r\n127.0.0.1:80HELLO$",
        whole("CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: x\r\n\r\nhello"))
    end)
  end)

  it("cuts a connection when told to", function()
    function app.handle() return { drop = true, headers = {} } end
    run(function() assert.equal("", whole("GET / HTTP/1.1\r\n" .. CLOSE .. "\r\n")) end)
  end)

  it("leaves no descriptor behind", function()
    function app.handle(_, request)
      return { status = 200, headers = {}, stream = function(write)
        request.on_gone()
        while write("x") do cqueues.sleep(0.01) end
      end }
    end
    local before = support.fd_count()
    run(function()
      for i = 1, 20 do
        local socket = ask("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
          .. (i % 2 == 0 and "0\r\n\r\n" or "5\r\nab"))
        if i % 2 == 0 then socket:xread(20) end
        socket:close()
      end
      local deadline = support.now() + 5
      while support.fd_count() > before and support.now() < deadline do cqueues.sleep(0.01) end
    end)
    assert.is_true(support.fd_count() <= before, support.fd_count() - before)
    assert.is_number(ce.EPIPE)
  end)
end)
