-- Files that don't get through: transfers to and from a real sandbox are cut half way by a proxy in between, and disks
-- are full on either side. Half a file is never taken for a whole one, here or there; the error says how far it came.
local envd_peer = require("spec.support.envd_peer")
local peer = require("spec.support.peer")
local platform = require("spec.support.platform")
local stream = require("spec.support.stream_peer")
local support = require("spec.support.support")
local book = require("e2b.sandbox_book")
local core = require("e2b.core")

-- Hands on what comes, on one connection for each request, and breaks it where it was told to by GET /cut/…
local PROXY = [[
  local cqueues, sockets = require("cqueues"), require("cqueues.socket")
  local request = conn:read_head()
  if not request then return end
  local way, bytes, how = request.path:match("^/cut/(%a+)/(%d+)/(%a+)$")
  if way then
    shared.way, shared.left, shared.how = way, tonumber(bytes), how
    return conn:respond(204)
  end
  local server = sockets.connect("127.0.0.1", PORT)
  server:onerror(function(_, _, code) return code end)
  server:setmode("bn", "bn")
  local lines = { ("%s %s HTTP/1.1"):format(request.method, request.path), "Connection: close" }
  for _, header in ipairs(request.header_list) do lines[#lines + 1] = header[1] .. ": " .. header[2] end
  server:write(table.concat(lines, "\r\n") .. "\r\n\r\n")
  -- Both directions end before a socket is closed.
  local broken, ended = nil, false
  local function hand_on(from, to, cuts)
    while not broken do
      local data = from:read(-65536)
      if not data or broken then return end
      if cuts and #data >= shared.left then
        to:write(data:sub(1, shared.left))
        broken, shared.way = shared.how, nil
        if to == server then cqueues.sleep(0.05) end
        server:shutdown("rw")
        return
      end
      if cuts then shared.left = shared.left - #data end
      to:write(data)
    end
  end
  local is_file = request.path:find("^/files")
  cqueues.running():wrap(function()
    hand_on(conn.socket, server, is_file and request.method == "POST" and shared.way == "up")
    ended = true
  end)
  hand_on(server, conn.socket, is_file and request.method == "GET" and shared.way == "down")
  if not broken then conn.socket:shutdown("w") end
  conn.socket:shutdown("r")
  while not ended do cqueues.sleep(0.001) end
  server:close()
  if broken == "reset" then conn:reset() else conn:close() end
]]

local SIZE, CUT = 3000000, 300000

describe("transfers of files", function()
  local here, proxy, sandbox, files, direct, folder, secrets

  setup(function()
    here = platform.start()
    proxy = peer.start((PROXY:gsub("PORT", (here.server.url:match("%d+$")))))
    local direct_one = here:create({ timeout = 3600 })
    direct = direct_one.files
    local client = platform.client_of(here.server, { sandbox_url = proxy.url, proxy = false })
    sandbox = assert(client.Sandbox.connect(direct_one.sandbox_id))
    files = sandbox.files
    secrets = { here.server.api_key or "key", (book.tokens(direct_one)) }
    here.direct = direct_one
  end)

  teardown(function()
    sandbox, files, direct = nil, nil, nil
    here:cleanup()
    here:stop()
    proxy:stop()
  end)

  before_each(function() folder = support.tmpdir() end)
  after_each(function() support.cleanup(folder) end)

  local function cut(way, how, bytes)
    support.shell(("curl -s %s/cut/%s/%d/%s"):format(proxy.url, way, bytes or CUT, how))
  end

  local function fails(kind, value, message, err)
    if value ~= nil then error("expected a failure, got " .. tostring(value), 2) end
    if not err then error("no error: " .. tostring(message), 2) end
    if err.kind ~= kind then error(("%s instead of %s: %s"):format(err.kind, kind, message), 2) end
    support.assert_no_secret(secrets, message, err)
    assert(err.message == message and #message < 2048 and not message:find("[%z\1-\31\127]"), message)
    assert(core.stats().in_flight == 0, "something goes on")
    return err
  end

  local function listed() return (support.shell("ls -A " .. folder)) end

  local function bytes_of(size)
    local parts, at = {}, 0
    while at < size do
      local n = math.min(1000003, size - at)
      parts[#parts + 1], at = stream.bytes(at, n), at + n
    end
    return table.concat(parts)
  end

  -- What a caller may hand over: each is a whole file of SIZE bytes.
  local SOURCES = {
    { "a string", function() return bytes_of(SIZE) end },
    { "a small string", function() return bytes_of(CUT + 1000) end, CUT + 1000 },
    { "a local file", function()
      stream.write_file(folder .. "/in", SIZE)
      return { path = folder .. "/in" }
    end },
    { "a function", function()
      local at = 0
      return function()
        local n = math.min(50000, SIZE - at)
        at = at + n
        return n > 0 and stream.bytes(at - n, n) or nil
      end
    end, unknown = true },
    { "an open file", function()
      stream.write_file(folder .. "/in", SIZE)
      return assert(io.open(folder .. "/in", "rb"))
    end, unknown = true },
  }

  for _, mode in ipairs(envd_peer.MODES) do
    local function it_(name, fn)
      it(name .. " (" .. mode.name .. ")", function() mode.run(fn) end)
    end

    for _, source in ipairs(SOURCES) do
      it_("that are cut on the way up are not taken for whole: " .. source[1], function()
        local size = source[2] and source[3] or SIZE
        for _, how in ipairs({ "reset", "close" }) do
          assert(direct:write("f", "the old one"))
          assert(direct:write("kept", "the old one"))
          cut("up", how)
          local err = fails("network", files:write("f", source[2]()))
          assert(err.bytes_sent and err.bytes_sent > 0 and err.bytes_sent <= size, tostring(err.bytes_sent))
          local how_far = source.unknown and ("; %.0f bytes had been sent: the file in the sandbox may be incomplete")
            or "; %.0f of " .. size .. " bytes had been sent: the file in the sandbox may be incomplete"
          assert(err.message:find(how_far:format(err.bytes_sent), 1, true), err.message)
          assert(err.message:find("the sandbox itself answers", 1, true), err.message)
          assert(assert(direct:get_info("f")).size < size)
          -- With atomic = true it is the old one or the new one.
          cut("up", how)
          err = fails("network", files:write("kept", source[2](), { atomic = true }))
          assert(err.message:find("the file itself is as it was", 1, true), err.message)
          assert(direct:read("kept") == "the old one")
        end
        -- Nothing else was left beside it, and the next one gets through. A daemon that is slow opens the file once it
        -- was removed already: that happens to one of the two at most, or nobody removes them.
        local left = {}
        for _, entry in ipairs(assert(direct:list("."))) do
          if entry.name:find("e2b%-") then
            left[#left + 1] = entry.name
            assert(direct:remove(entry.path))
          end
        end
        assert(#left < 2, table.concat(left, " "))
        assert(assert(files:write("f", source[2]())).path == "/home/user/f")
        assert(assert(direct:get_info("f")).size == size)
      end)
    end

    it_("that are cut on the way up are not taken for whole: packed, as forms, and many", function()
      for _, opts in ipairs({ { gzip = true }, { use_octet_stream = false } }) do
        for _, data in ipairs({ bytes_of(SIZE), { path = folder .. "/in" } }) do
          stream.write_file(folder .. "/in", SIZE)
          assert(direct:write("g", "the old one"))
          cut("up", "reset")
          fails("network", files:write("g", data, opts))
          assert(assert(direct:get_info("g")).size < SIZE)
        end
      end
      local list = {}
      for i = 1, 5 do list[i] = { path = "many/" .. i, data = bytes_of(200000) } end
      list[6] = { path = "many/6", data = bytes_of(SIZE) }
      cut("up", "close", SIZE - 200000)
      local err = fails("network", files:write_files(list))
      assert(err.files_written < 6 and err.message:find(err.files_written .. " of 6 files were written", 1, true),
        err.message)
    end)

    it_("that are cut on the way down leave what was there, here", function()
      assert(direct:write("big", bytes_of(SIZE)))
      local to = folder .. "/out"
      for _, how in ipairs({ "reset", "close" }) do
        for _, opts in ipairs({ {}, { gzip = true } }) do
          support.write_file(to, "the old one")
          cut("down", how)
          fails("network", files:read("big", { to = to, gzip = opts.gzip }))
          assert(support.read_file(to) == "the old one" and listed() == "out\n", listed())
          cut("down", how)
          fails("network", files:read("big", { gzip = opts.gzip, retries = 0 }))
          cut("down", how)
          assert(files:read("big", opts) == bytes_of(SIZE)) -- a string is asked for again
          cut("down", how)
          local got, n = {}, 0
          fails("network", files:read("big", { gzip = opts.gzip, to = function(bytes)
            got[#got + 1], n = bytes, n + #bytes
          end }))
          assert(n < SIZE and stream.matches(0, table.concat(got)))
          cut("down", how)
          local reader = assert(files:read("big", { gzip = opts.gzip, format = "stream" }))
          local bytes, message, err
          repeat bytes, message, err = reader:read() until not bytes
          fails("network", bytes, message, err)
          assert(reader.err == err and reader.bytes < SIZE)
          assert(select(2, reader:read()) == message)
        end
      end
      assert(files:read("big", { to = to }) == SIZE)
      stream.check_file(to, SIZE)
    end)

    it_("of trees that are cut either way leave no archive behind", function()
      support.shell(("mkdir -p %s/tree && cd %s/tree && echo 1 > a && head -c 2000000 /dev/urandom > b"):format(folder,
        folder))
      cut("up", "reset")
      fails("network", files:put_tree(folder .. "/tree", "put"))
      assert(direct:exists("put/b") == false)
      assert(files:put_tree(folder .. "/tree", "put"))
      cut("down", "reset")
      fails("network", files:get_tree("put", folder .. "/got"))
      assert(not support.read_file(folder .. "/got/b"), "half of a file stayed")
      assert(files:get_tree("put", folder .. "/got"))
      assert(support.read_file(folder .. "/got/b") == support.read_file(folder .. "/tree/b"))
      local left = assert(here.direct.commands:run("find /tmp -maxdepth 1 -type f; rm -r put")).stdout
      assert(left == "", left)
    end)

    -- Disks ----------------------------------------------------------------------------------------------------------

    it_("end with no_space when the sandbox's disk is full", function()
      for _, source in ipairs(SOURCES) do
        local err = fails("no_space", direct:write("/dev/full", source[2]()))
        assert(err.status == 507 and not err.retryable and err.bytes_sent, err.message)
        assert(err.message:find("the disk of the sandbox is full", 1, true), err.message)
      end
      local err = fails("no_space", direct:write("/dev/full", "x"))
      assert(err.status == 507)
    end)

    it_("end with no_space when an open file here is on a full disk", function()
      if not io.open("/dev/full", "r") then return end -- not everywhere
      for _, size in ipairs({ 10, SIZE }) do -- the first is written at the very end
        assert(direct:write("some", bytes_of(size)))
        local file = assert(io.open("/dev/full", "w"))
        local err = fails("no_space", direct:read("some", { to = file }))
        assert(err.resource == "local_file" and err.errno == 28 and not err.retryable)
        assert(err.message:find("cannot write the open file after", 1, true), err.message)
        file:close()
      end
      local file = assert(io.open(folder .. "/open", "w"))
      assert(direct:read("some", { to = file }) == SIZE)
      stream.check_file(folder .. "/open", SIZE) -- nothing of it is still in a buffer
      file:close()
    end)
  end

  it("end with no_space when the disk here is full, and the temporary file is gone", function()
    assert(direct:write("some", bytes_of(SIZE)))
    local result = support.run([[
      local e2b = require("e2b")
      local client = e2b.client({ api_url = arg[1], sandbox_url = arg[1], api_key = arg[2], proxy = false })
      local files, folder = assert(client.Sandbox.connect(arg[3])).files, arg[4]
      local function once(opts)
        local to = folder .. "/out"
        opts.to = to
        local value, message, err = files:read("some", opts)
        assert(value == nil and err.kind == "no_space", message)
        assert(err.resource == "local_file" and err.path == to and not err.retryable, message)
        assert(message:find("no space left on device", 1, true) and message:find(to, 1, true), message)
        local pipe = io.popen("ls -A " .. folder)
        assert(pipe:read("*a") == "small\n")
        pipe:close()
      end
      assert(io.open(folder .. "/small", "w")):close()
      once({})
      once({ gzip = true })
      local results = e2b.all(function() once({}) return true end)
      assert(results[1].ok, results[1].message)
      assert(files:write("little", "x") and files:read("little", { to = folder .. "/out" }) == 1)
    ]], {
      args = { here.server.url, here.server.api_key or "key", here.direct.sandbox_id, folder },
      wrap = "unshare -rm sh -c 'mount -t tmpfs -o size=1m none " .. folder .. " && exec \"$@\"' sh",
    })
    if result.code ~= 0 and select(2, support.shell("unshare -rm true")) ~= 0 then return end -- no user namespaces
    assert(result.code == 0, result.out .. result.err)
  end)

  it("piece by piece, of any length, have equal sums there and here and take no memory", function()
    local result = support.run([[
      local e2b = require("e2b")
      local exchange = require("spec.support.exchange")
      local stream = require("spec.support.stream_peer")
      local support = require("spec.support.support")
      local client = e2b.client({ api_url = arg[1], sandbox_url = arg[1], api_key = arg[2], proxy = false })
      local sandbox = assert(client.Sandbox.connect(arg[3]))
      local files, folder, size = sandbox.files, arg[4], math.floor(stream.size / 10)
      local function there()
        return assert(sandbox.commands:run("sha256sum < big", { timeout = 120 })).stdout:match("^%x+")
      end
      local function go(most)
        local at = 0
        assert(files:write("big", function()
          local n = math.min(65536, most - at)
          at = at + n
          return n > 0 and stream.bytes(at - n, n) or nil
        end))
        -- a program takes what is read, and is waited for by closing it
        local pipe = assert(io.popen("sha256sum > " .. folder .. "/sum", "w"))
        at = 0
        assert(files:read("big", { to = function(bytes)
          at = stream.check(at, bytes)
          assert(pipe:write(bytes))
        end }) == most)
        pipe:close()
        assert(at == most)
        assert(support.read_file(folder .. "/sum"):match("^%x+") == there(), "the sums differ")
        local reader, n = assert(files:read("big", { format = "stream" })), 0
        repeat
          local bytes, message = reader:read()
          assert(not message, message)
          n = n + #(bytes or "")
        until not bytes
        assert(n == most)
      end
      go(math.min(size, 5000000))
      local before = exchange.peak_kb()
      go(size)
      local grown = exchange.peak_kb() - before
      assert(grown < 5000 * math.min(support.slack, 4), "peak memory grew by " .. grown .. " kB")
    ]], {
      args = { here.server.url, here.server.api_key or "key", here.direct.sandbox_id, folder }, timeout = 120,
      env = { ASAN_OPTIONS = (os.getenv("ASAN_OPTIONS") or "") .. ":quarantine_size_mb=1" },
    })
    assert(result.code == 0, result.out .. result.err)
  end)
end)
