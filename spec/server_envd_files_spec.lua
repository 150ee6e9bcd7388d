-- The REST interface to files through the daemon: downloads, uploads, compositions, signatures.
local daemon_process = require("spec.support.daemon")
local native = require("e2b.server.native")
local signature = require("e2b.server.envd.signature")
local support = require("spec.support.support")

local escape = daemon_process.escape

describe("the daemon's files", function()
  local daemon, home, keeps_metadata

  setup(function()
    daemon = daemon_process.start()
    home = daemon.root .. "/home/user"
    support.write_file(home .. "/probe", "")
    keeps_metadata = native.fs_setxattr(home .. "/probe", "user.e2b.x", "y")
  end)

  teardown(function()
    daemon:stop()
  end)

  before_each(function()
    support.shell("rm -rf " .. home .. "/* " .. home .. "/.[!.]* " .. daemon.root .. "/tmp/*")
  end)

  after_each(function()
    assert.equal("", daemon:complaints())
  end)

  local function put(name, text)
    support.write_file(home .. "/" .. name, text)
  end

  local function content(name)
    return support.read_file(home .. "/" .. name)
  end

  local function fetch(path, headers)
    return daemon:request("GET", "/files?path=" .. escape(path), { headers = headers })
  end

  local function fails(status, message, answer)
    assert.equal(status, answer.status, answer.body)
    assert.same({ code = status, message = message }, answer.json)
    assert.equal("application/json; charset=utf-8", answer.headers["content-type"])
    assert.equal("nosniff", answer.headers["x-content-type-options"])
    assert.equal("\n", answer.body:sub(-1))
  end

  local function pack(text)
    local deflate = native.deflate()
    return deflate:write(text) .. deflate:write("", true)
  end

  local function unpacked(bytes)
    local inflate, parts = native.inflate(), {}
    inflate:push(bytes)
    while true do
      local piece, message = inflate:pull(65536)
      if not piece then
        assert.is_nil(message)
        assert.is_true(inflate:at_end())
        return table.concat(parts)
      end
      parts[#parts + 1] = piece
    end
  end

  local function form(...)
    local parts = {}
    for i, part in ipairs({ ... }) do
      parts[i] = '--XX\r\nContent-Disposition: form-data; name="' .. (part.name or "file") .. '"'
        .. (part.filename and "; filename=" .. part.filename or "") .. (part.more or "") .. "\r\n\r\n"
        .. part.text .. "\r\n"
    end
    return table.concat(parts) .. "--XX--\r\n"
  end

  local function post(query, body, headers)
    local fields = { ["Content-Type"] = "multipart/form-data; boundary=XX" }
    for name, value in pairs(headers or {}) do
      fields[name] = value
    end
    return daemon:request("POST", "/files" .. query, { headers = fields, body = body })
  end

  local function post_bytes(query, body, headers)
    local fields = { ["Content-Type"] = "application/octet-stream" }
    for name, value in pairs(headers or {}) do
      fields[name] = value
    end
    return daemon:request("POST", "/files" .. query, { headers = fields, body = body })
  end

  describe("a download", function()
    it("is the file with its headers", function()
      put("test.txt", "hello world")
      support.shell("touch -d '2026-01-02T03:04:05Z' " .. home .. "/test.txt")
      local answer = fetch("test.txt")
      assert.equal(200, answer.status)
      assert.equal("hello world", answer.body)
      assert.same({
        ["content-disposition"] = "inline; filename=test.txt", vary = "Accept-Encoding", ["accept-ranges"] = "bytes",
        ["last-modified"] = "Fri, 02 Jan 2026 03:04:05 GMT", ["content-length"] = "11",
        ["content-type"] = "text/plain; charset=utf-8",
      }, answer.headers)
    end)

    it("of an empty file is empty", function()
      put("empty", "")
      local answer = fetch("empty")
      assert.equal(200, answer.status)
      assert.equal("", answer.body)
      assert.equal("0", answer.headers["content-length"])
    end)

    it("names the file as it must be named", function()
      for name, expected in pairs({
        ["my document.pdf"] = 'inline; filename="my document.pdf"',
        ['q"b\\s'] = 'inline; filename="q\\"b\\\\s"',
        ["\230\150\135\230\161\163.pdf"] = "inline; filename*=utf-8''%E6%96%87%E6%A1%A3.pdf",
        ["\255raw"] = "inline; filename*=utf-8''%FFraw",
      }) do
        put(name, "x")
        assert.equal(expected, fetch(name).headers["content-disposition"])
      end
    end)

    it("says what kind of file it is", function()
      put("data.json", "\0")
      put("noext", "\137PNG\13\10\26\10")
      put("noext2", "\0\1\2")
      assert.equal("application/json", fetch("data.json").headers["content-type"])
      assert.equal("image/png", fetch("noext").headers["content-type"])
      assert.equal("application/octet-stream", fetch("noext2").headers["content-type"])
      assert.equal("\0\1\2", fetch("noext2").body)
    end)

    it("follows links, and takes every path the service takes", function()
      put("t", "x")
      support.shell("cd " .. home .. " && ln -s t l && mkdir d && ln -s ../t d/l")
      assert.equal("x", fetch("l").body)
      assert.equal("x", fetch("~/d/l").body)
      assert.equal("x", fetch("/home/user/./t").body)
    end)

    it("says why there is nothing", function()
      put("file", "x")
      fails(404, "path '/home/user/demo/test.txt' does not exist", fetch("demo/test.txt"))
      fails(400, "path '/home/user' is a directory", fetch(""))
      fails(400, "path '/home/user' is a directory", daemon:request("GET", "/files"))
      fails(500, "error checking if path exists '/home/user/file/x': stat /home/user/file/x: not a directory",
        fetch("file/x"))
      fails(400, "error expanding and resolving path '~o/x': failed to expand path '~o/x' for user 'user': "
        .. "cannot expand user-specific home dir", fetch("~o/x"))
      fails(401, "error looking up user 'ghost': user: unknown user ghost",
        daemon:request("GET", "/files?path=a&username=ghost"))
      support.shell("mkfifo " .. home .. "/pipe")
      assert.equal("seeker can't seek\n", fetch("pipe").body)
      assert.equal(405, daemon:request("HEAD", "/files?path=file").status)
    end)

    it("takes the user's home", function()
      support.write_file(daemon.root .. "/root/mine", "root's")
      local answer = daemon:request("GET", "/files?path=mine&username=root")
      assert.equal("root's", answer.body)
      os.remove(daemon.root .. "/root/mine")
    end)
  end)

  describe("a range", function()
    before_each(function()
      put("abc.txt", "abcdefghij")
    end)

    local function range(value, headers)
      headers = headers or {}
      headers.Range = value
      return fetch("abc.txt", headers)
    end

    it("is a part of the file", function()
      local answer = range("bytes=2-4")
      assert.equal(206, answer.status)
      assert.equal("cde", answer.body)
      assert.equal("bytes 2-4/10", answer.headers["content-range"])
      assert.equal("3", answer.headers["content-length"])
      assert.equal("text/plain; charset=utf-8", answer.headers["content-type"])
      assert.equal("ij", range("bytes=-2").body)
      assert.equal("hij", range("bytes=7-").body)
      assert.equal("hij", range("bytes=7-99").body)
    end)

    it("may be several", function()
      local answer = range("bytes=0-1, 8-")
      assert.equal(206, answer.status)
      local boundary = answer.headers["content-type"]:match("^multipart/byteranges; boundary=(%x+)$")
      assert.equal("--" .. boundary .. "\r\nContent-Range: bytes 0-1/10\r\nContent-Type: text/plain; charset=utf-8"
        .. "\r\n\r\nab\r\n--" .. boundary .. "\r\nContent-Range: bytes 8-9/10\r\nContent-Type: text/plain; "
        .. "charset=utf-8\r\n\r\nij\r\n--" .. boundary .. "--\r\n", answer.body)
    end)

    it("may lie outside", function()
      local answer = range("bytes=10-")
      assert.equal(416, answer.status)
      assert.equal("bytes */10", answer.headers["content-range"])
      assert.equal("invalid range: failed to overlap\n", answer.body)
      assert.equal(416, range("bytes=4-2").status)
      assert.equal("invalid range\n", range("letters=1-2").body)
      assert.equal(200, range("bytes=0-,0-,0-").status)
    end)

    it("is never compressed", function()
      local answer = range("bytes=0-1", { ["Accept-Encoding"] = "gzip" })
      assert.equal("ab", answer.body)
      assert.is_nil(answer.headers["content-encoding"])
      assert.equal(406, range("bytes=0-1", { ["Accept-Encoding"] = "gzip, *;q=0" }).status)
    end)

    it("depends on conditions", function()
      support.shell("touch -d '2026-01-02T03:04:05.6Z' " .. home .. "/abc.txt")
      local function status(headers)
        return fetch("abc.txt", headers).status
      end
      local same, before, after = "Fri, 02 Jan 2026 03:04:05 GMT", "Fri, 02 Jan 2026 03:04:04 GMT",
        "Fri, 02 Jan 2026 03:04:06 GMT"
      assert.equal(304, status({ ["If-Modified-Since"] = same }))
      assert.equal(304, status({ ["If-Modified-Since"] = after }))
      assert.equal(200, status({ ["If-Modified-Since"] = before }))
      assert.equal(200, status({ ["If-Modified-Since"] = "yesterday" }))
      assert.equal(304, status({ ["If-None-Match"] = "*" }))
      assert.equal(200, status({ ["If-None-Match"] = '"x"', ["If-Modified-Since"] = same }))
      assert.equal(412, status({ ["If-Unmodified-Since"] = before }))
      assert.equal(200, status({ ["If-Unmodified-Since"] = same }))
      assert.equal(412, status({ ["If-Match"] = '"x"' }))
      assert.equal(206, status({ Range = "bytes=0-1", ["If-Range"] = same }))
      assert.equal(200, status({ Range = "bytes=0-1", ["If-Range"] = before }))
      assert.equal(200, status({ Range = "bytes=0-1", ["If-Range"] = '"tag"' }))
    end)
  end)

  describe("a compressed download", function()
    it("is the file in gzip", function()
      local text = ("line of text\n"):rep(50000)
      put("big.txt", text)
      local answer = fetch("big.txt", { ["Accept-Encoding"] = "gzip" })
      assert.equal(200, answer.status)
      assert.equal("gzip", answer.headers["content-encoding"])
      assert.equal("text/plain; charset=utf-8", answer.headers["content-type"])
      assert.equal("inline; filename=big.txt", answer.headers["content-disposition"])
      assert.is_nil(answer.headers["content-length"])
      assert.is_true(#answer.body < #text / 10)
      assert.equal(text, unpacked(answer.body))
      put("noext", "")
      answer = fetch("noext", { ["Accept-Encoding"] = "gzip" })
      assert.equal("application/octet-stream", answer.headers["content-type"])
      assert.equal("", unpacked(answer.body))
    end)

    it("is refused when nothing is acceptable", function()
      put("a", "x")
      fails(406, "error parsing Accept-Encoding: no acceptable encoding found, supported: [gzip]",
        fetch("a", { ["Accept-Encoding"] = "br, identity;q=0" }))
      fails(404, "path '/home/user/none' does not exist", fetch("none", { ["Accept-Encoding"] = "br, identity;q=0" }))
    end)

    it("reads what has no size", function()
      support.shell("ln -s /proc/self/status " .. home .. "/status")
      assert.matches("Name:", unpacked(fetch("status", { ["Accept-Encoding"] = "gzip" }).body))
    end)
  end)

  describe("an upload", function()
    it("of bytes makes a file and the folders above", function()
      local answer = post_bytes("?path=x%2Fy%2Fhello.txt", "hello")
      assert.equal(200, answer.status)
      assert.equal("text/plain; charset=utf-8", answer.headers["content-type"])
      assert.equal('[{"name":"hello.txt","path":"/home/user/x/y/hello.txt","type":"file"}]', answer.body)
      assert.equal("hello", content("x/y/hello.txt"))
      local info = daemon:rpc("Stat", { path = "x/y/hello.txt" }).json.entry
      assert.equal("-rw-r--r--", info.permissions)
      assert.equal("user", info.owner)
      assert.equal("user", daemon:rpc("Stat", { path = "x" }).json.entry.owner)
    end)

    it("of a form makes its files, in order", function()
      local answer = post("", form({ filename = '"/home/user/b.txt"', text = "1" }, { name = "other", text = "no" },
        { filename = '"a/rel.txt"', text = "2" }, { filename = '"q\\"\\\\.txt"', text = "" }))
      assert.equal(200, answer.status)
      assert.same({
        { name = "b.txt", path = "/home/user/b.txt", type = "file" },
        { name = "rel.txt", path = "/home/user/a/rel.txt", type = "file" },
        { name = 'q"\\.txt', path = '/home/user/q"\\.txt', type = "file" },
      }, answer.json)
      assert.equal("1", content("b.txt"))
      assert.equal("2", content("a/rel.txt"))
      assert.equal("", content('q"\\.txt'))
      assert.equal("[]", post("", form({ name = "x", text = "1" })).body)
    end)

    it("goes where the query says", function()
      post("?path=there", form({ filename = "ignored", text = "1" }))
      assert.equal("1", content("there"))
      assert.is_nil(content("ignored"))
      post("", form({ filename = "x", more = "; filename*=utf-8''%E6%96%87", text = "2" }))
      assert.equal("2", content("\230\150\135"))
      for _, name in ipairs({ "\255\254", "new\nline", "a%20b", " ", "-", "$(x)" }) do
        assert.equal(200, post_bytes("?path=" .. escape("/home/user/" .. name), name).status)
        assert.equal(name, content(name))
      end
    end)

    it("replaces what is there, but keeps its mode", function()
      put("f", "something long")
      support.shell("chmod 751 " .. home .. "/f")
      post_bytes("?path=f", "new")
      assert.equal("new", content("f"))
      local info = daemon:rpc("Stat", { path = "f" }).json.entry
      assert.equal(489, info.mode)
      assert.equal("user", info.owner)
    end)

    it("works in chunks, and says 100 to who asks", function()
      local chunks = { "ab", ("c"):rep(100000), "d" }
      local answer = daemon:request("POST", "/files?path=c", {
        headers = { ["Content-Type"] = "application/octet-stream", Expect = "100-continue" }, chunks = chunks,
      })
      assert.equal(200, answer.status)
      assert.equal(table.concat(chunks), content("c"))
    end)

    it("unpacks gzip, of both kinds", function()
      local text = ("some text "):rep(100000)
      assert.equal(200, post_bytes("?path=a", pack(text), { ["Content-Encoding"] = "gzip" }).status)
      assert.equal(text, content("a"))
      local body = pack(form({ filename = "b", text = text }))
      assert.equal(200, post("", body, { ["Content-Encoding"] = "gzip" }).status)
      assert.equal(text, content("b"))
      assert.equal(200, post_bytes("?path=e", pack(""), { ["Content-Encoding"] = "gzip" }).status)
      assert.equal("", content("e"))
    end)

    it("refuses what it cannot unpack", function()
      fails(400, "error decompressing request body: unsupported Content-Encoding: br, supported: [gzip]",
        post_bytes("?path=a", "x", { ["Content-Encoding"] = "br" }))
      fails(400, "error decompressing request body: failed to create gzip reader: gzip: invalid header",
        post_bytes("?path=a", "this is no gzip", { ["Content-Encoding"] = "gzip" }))
      fails(400, "error decompressing request body: failed to create gzip reader: EOF",
        post_bytes("?path=a", "", { ["Content-Encoding"] = "gzip" }))
      assert.is_nil(content("a"))
      fails(500, "error writing file: unexpected EOF",
        post_bytes("?path=a", pack("whatever"):sub(1, -5), { ["Content-Encoding"] = "gzip" }))
    end)

    it("refuses what it does not understand", function()
      fails(400, "path query parameter is required for raw body upload", post_bytes("", "x"))
      fails(400, "unsupported content type: text/plain, expected multipart/form-data or application/octet-stream",
        post_bytes("?path=a", "x", { ["Content-Type"] = "text/plain" }))
      fails(500, "error parsing multipart form: no multipart boundary param in Content-Type",
        post("", "x", { ["Content-Type"] = "multipart/form-data" }))
      fails(500, "error reading form: multipart: NextPart: EOF", post("", "no form"))
      fails(400, "error getting multipart custom part file name: filename not found in Content-Disposition header",
        post("", form({ text = "x" })))
      fails(400, "error resolving path: failed to expand path '~o' for user 'user': "
        .. "cannot expand user-specific home dir", post("", form({ filename = "~o", text = "x" })))
      fails(401, "error looking up user 'ghost': user: unknown user ghost", post_bytes("?path=a&username=ghost", "x"))
      support.shell("mkdir " .. home .. "/d && touch " .. home .. "/f")
      fails(400, "path is a directory: /home/user/d", post_bytes("?path=d", "x"))
      fails(500, "error ensuring directories: path is a file: /home/user/f", post_bytes("?path=f%2Fx", "x"))
    end)

    it("stores a path once", function()
      fails(400, "you cannot upload multiple files to the same path '/home/user/a' in one upload request, "
        .. "only the first specified file was uploaded",
        post("", form({ filename = "a", text = "1" }, { filename = '"./a"', text = "2" })))
      assert.equal("1", content("a"))
    end)

    it("makes the same missing folder for many at once", function()
      local connections = {}
      for i = 1, 20 do
        connections[i] = daemon:connect()
        connections[i]:send("POST /files?path=deep%2Fer%2Fstill%2F" .. i .. " HTTP/1.1\r\nHost: x\r\n"
          .. "Content-Type: application/octet-stream\r\nContent-Length: 2\r\n\r\nx")
      end
      for i, connection in ipairs(connections) do
        connection:send("y")
        assert.equal(200, daemon_process.read(connection, "POST").status)
        connection:close()
        assert.equal("xy", content("deep/er/still/" .. i))
      end
    end)

    it("leaves what had arrived when it is cut", function()
      local connection = daemon:connect()
      connection:send("POST /files?path=cut HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
        .. "Content-Length: 1000\r\n\r\n" .. ("x"):rep(400))
      support.wait_for(function()
        return content("cut") == ("x"):rep(400)
      end)
      connection:close()
      assert.equal(204, daemon:request("GET", "/health").status)
      assert.equal(("x"):rep(400), content("cut"))
    end)

    it("writes to devices, and tells when there is no space", function()
      -- As root they belong to root already; as anybody else they can't be given away.
      support.shell("ln -s /dev/null " .. home .. "/null && ln -s /dev/full " .. home .. "/full")
      assert.equal(200, post_bytes("?path=%2Fhome%2Fuser%2Fnull&username=root", "gone").status)
      fails(507, "attempted to write 5 bytes: not enough disk space available",
        post_bytes("?path=%2Fhome%2Fuser%2Ffull&username=root", "bytes"))
      local answer = daemon:request("POST", "/files?path=%2Fhome%2Fuser%2Ffull&username=root", {
        headers = { ["Content-Type"] = "application/octet-stream" }, chunks = { "bytes" },
      })
      fails(507, "not enough disk space available", answer)
    end)
  end)

  describe("metadata", function()
    local function metadata_of(name)
      return daemon:rpc("Stat", { path = name }).json.entry.metadata
    end

    it("is kept with the file, and replaced as a whole", function()
      if not keeps_metadata then
        return
      end
      local answer = post_bytes("?path=a", "1", { ["X-Metadata-Author"] = "me", ["x-metadata-B-c"] = "two words" })
      assert.same({ author = "me", ["b-c"] = "two words" }, answer.json[1].metadata)
      assert.same({ author = "me", ["b-c"] = "two words" }, metadata_of("a"))
      post_bytes("?path=a", "2", { ["X-Metadata-Other"] = "x" })
      assert.same({ other = "x" }, metadata_of("a"))
      answer = post_bytes("?path=a", "3")
      assert.is_nil(answer.json[1].metadata)
      assert.is_nil(metadata_of("a"))
      native.fs_setxattr(home .. "/a", "user.e2b.outside", "v")
      native.fs_setxattr(home .. "/a", "user.e2b.binary", "\255")
      assert.same({ outside = "v" }, metadata_of("a"))
    end)

    it("is the same for all files of a form, and the first of a name counts", function()
      if not keeps_metadata then
        return
      end
      local answer = post("", form({ filename = "a", text = "" }, { filename = "b", text = "" }),
        { ["X-Metadata-K"] = { "first", "second" } })
      assert.same({ k = "first" }, answer.json[1].metadata)
      assert.same({ k = "first" }, answer.json[2].metadata)
    end)

    it("is refused before anything is written", function()
      for _, headers in ipairs({
        { ["X-Metadata-K"] = "caf\195\169" }, { ["X-Metadata-" .. ("k"):rep(247)] = "v" },
        { ["X-Metadata-K"] = ("v"):rep(4087) },
      }) do
        local answer = post_bytes("?path=a", "x", headers)
        assert.equal(400, answer.status)
        assert.matches("^invalid metadata: ", answer.json.message)
        assert.is_nil(content("a"))
      end
      assert.equal(200, post_bytes("?path=a", "x", { ["X-Metadata-" .. ("k"):rep(246)] = "v" }).status)
    end)
  end)

  describe("a composition", function()
    local function compose(text)
      local headers = { ["Content-Type"] = "application/json" }
      return daemon:request("POST", "/files/compose", { body = text, headers = headers })
    end

    it("puts files together and takes them away", function()
      put("p0", ("0"):rep(100000))
      put("p1", "")
      put("p2", "end")
      local answer = compose('{"source_paths":["p0","p1","~/p2"],"destination":"d/all.bin"}')
      assert.equal(200, answer.status, answer.body)
      assert.equal("application/json", answer.headers["content-type"])
      assert.same({ name = "all.bin", path = "/home/user/d/all.bin", type = "file" }, answer.json)
      assert.equal(("0"):rep(100000) .. "end", content("d/all.bin"))
      assert.same({ "d" }, native.fs_readdir(home))
      assert.same({ "all.bin" }, native.fs_readdir(home .. "/d"))
      assert.equal("user", daemon:rpc("Stat", { path = "d/all.bin" }).json.entry.owner)
    end)

    it("leaves everything when it fails", function()
      put("p0", "0")
      put("all", "old")
      support.shell("mkdir " .. home .. "/dir")
      fails(400, "source_paths must not be empty", compose('{"source_paths":[],"destination":"all"}'))
      fails(400, "source_paths must not be empty", compose('{"destination":"all"}'))
      fails(400, "destination is required", compose('{"source_paths":["p0"]}'))
      fails(400, 'source path "all" cannot be the same as destination',
        compose('{"source_paths":["all"],"destination":"/home/user/all"}'))
      fails(400, "source path is not a regular file: dir", compose('{"source_paths":["p0","dir"],"destination":"all"}'))
      fails(404, "source file not found: none", compose('{"source_paths":["p0","none"],"destination":"all"}'))
      fails(401, "error looking up user 'ghost': user: unknown user ghost",
        compose('{"source_paths":["p0"],"destination":"all","username":"ghost"}'))
      assert.equal(400, compose("{").status)
      assert.equal(400, compose('{"source_paths":"p0","destination":"all"}').status)
      assert.equal(500, compose('{"source_paths":["p0"],"destination":"dir"}').status)
      assert.equal("0", content("p0"))
      assert.equal("old", content("all"))
      assert.same({ "all", "dir", "p0" }, native.fs_readdir(home))
    end)
  end)

  describe("with a token", function()
    local locked
    local TOKEN = "tok-123"

    setup(function()
      locked = daemon_process.start({ access_token = TOKEN })
      support.write_file(locked.root .. "/home/user/a b", "content")
    end)

    teardown(function()
      locked:stop()
    end)

    local function get(query, token)
      return locked:request("GET", "/files?" .. query, { token = token or false })
    end

    local function signed(path, operation, user, expiration)
      local value = signature.sign(TOKEN, path, operation, user, expiration)
      return "path=" .. escape(path) .. "&signature=" .. escape(value)
        .. (user and "&username=" .. user or "") .. (expiration and "&signature_expiration=" .. expiration or "")
    end

    it("the token or a signature opens a file", function()
      assert.equal("content", get("path=a+b", TOKEN).body)
      assert.equal("content", get(signed("a b", "read")).body)
      assert.equal("content", get(signed("a b", "read", "user")).body)
      assert.equal("content", get(signed("a b", "read", nil, tostring(os.time() + 60))).body)
      fails(401, "missing signature query parameter", get("path=a+b"))
      fails(401, "access token present in header but does not match", get(signed("a b", "read"), "wrong"))
      fails(401, "invalid signature", get(signed("a b", "write")))
      fails(401, "invalid signature", get(signed("a b", "read") .. "&signature_expiration=1"))
      fails(404, "path '/home/user/demo/test.txt' does not exist", get(signed("demo/test.txt", "read", "user")))
    end)

    it("an expired signature is told so, word for word", function()
      local answer = get(signed("a b", "read", "user", tostring(os.time() - 1)))
      assert.equal(401, answer.status)
      assert.equal('{"code":401,"message":"signature is already expired"}\n', answer.body)
    end)

    it("a signed upload works as any other", function()
      local options = { token = false, body = "x", headers = { ["Content-Type"] = "application/octet-stream" } }
      local answer = locked:request("POST", "/files?" .. signed("up.txt", "write", "user"), options)
      assert.equal('[{"name":"up.txt","path":"/home/user/up.txt","type":"file"}]', answer.body)
      fails(401, "invalid signature", locked:request("POST", "/files?" .. signed("up.txt", "read", "user"), options))
    end)

    it("a time that is no number is refused in plain text", function()
      local answer = get("path=a&signature=x&signature_expiration=soon")
      assert.equal(400, answer.status)
      assert.matches("^text/plain", answer.headers["content-type"])
    end)

    it("a composition needs the token", function()
      local answer = locked:request("POST", "/files/compose?" .. signed("a b", "write"), { token = false, body = "{}" })
      assert.equal(401, answer.status)
      assert.matches("^unauthorized access", answer.json.message)
    end)
  end)

  it("goes both ways with a large file in little memory", function()
    local size = 64 * 1024 * 1024
    support.shell("head -c " .. size .. " /dev/urandom > " .. home .. "/big")
    local function memory()
      local pid = daemon:pid()
      return tonumber((support.read_file("/proc/" .. pid .. "/status") or ""):match("VmHWM:%s*(%d+)"))
    end
    local before = memory()
    local file = assert(io.open(home .. "/big", "rb"))
    local total, same = 0, true
    daemon:request("GET", "/files?path=big", { to = function(piece)
      total = total + #piece
      same = same and piece == file:read(#piece)
    end })
    file:close()
    assert.equal(size, total)
    assert.is_true(same)
    local output = support.shell("curl -sS --unix-socket " .. daemon.path .. " -F 'file=@" .. home
      .. "/big;filename=copy' http://x/files && cmp " .. home .. "/big " .. home .. "/copy && echo same")
    assert.matches("same\n$", output)
    if before and support.slack < 5 then -- a sanitizer keeps what is freed for a while
      assert.is_true(memory() - before < 16 * 1024, memory() - before)
    end
  end)
end)
