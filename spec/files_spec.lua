-- sandbox.files against a peer that plays the daemon: what is asked, what is made of the answer, what is refused here.
local e2b = require("e2b")
local envd_peer = require("spec.support.envd_peer")

local DAEMON = [==[
  local ENTRY = '{"name":"a.txt","type":"FILE_TYPE_FILE","path":"/home/user/a.txt","size":"13","mode":420,'
    .. '"permissions":"-rw-r--r--","owner":"user","group":"user","modifiedTime":"2026-01-01T00:00:00.5Z",'
    .. '"metadata":{"camelCase":"1"}}'
  function on.Stat(message)
    if message.path == "missing" then return fail(404, "not_found", "file not found: lstat /q") end
    if message.path == "forbidden" then return fail(403, "permission_denied", "no") end
    if message.path == "proxy" then
      return conn:respond(502, '{"sandboxId":"i1","message":"The sandbox was not found","code":502}')
    end
    if message.path == "link" then
      return answer(200, '{"entry":{"name":"link","path":"/link","permissions":"L","symlinkTarget":"/x"}}')
    end
    return answer(200, '{"entry":' .. ENTRY .. '}')
  end
  function on.ListDir(message)
    if message.path == "empty" then return answer(200, "{}") end
    return answer(200, '{"entries":[{"name":"d","type":"FILE_TYPE_DIRECTORY","path":"/d","new":1},'
      .. '{"name":"pipe","path":"/pipe"},' .. ENTRY .. "]}")
  end
  function on.MakeDir(message)
    if message.path == "there" then return fail(409, "already_exists", "directory already exists: there") end
    if message.path == "file" then return fail(400, "invalid_argument", "path is a file") end
    return answer(200, '{"entry":' .. ENTRY .. '}')
  end
  function on.Move(message)
    if message.source == "missing" then return fail(404, "not_found", "source file not found") end
    return answer(200, '{"entry":' .. ENTRY .. '}')
  end
  function on.Remove(message)
    if message.path == "busy" then return fail(500, "internal", "device busy") end
    return answer(200, "{}")
  end
  local function unescape(text)
    return (text:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end))
  end
  function on.files(body)
    local path = unescape(request.path:match("[?&]path=([^&]*)") or "")
    if request.method == "GET" then
      if path == "missing" then
        return conn:respond(404, '{"code":404,"message":"path \'/home/user/missing\' does not exist"}\n')
      elseif path == "empty" then
        return conn:respond(200, "", { ["Content-Type"] = "text/plain" })
      elseif path == "large" then
        return conn:respond(200, ("x"):rep(100000), { ["Content-Type"] = "text/plain" })
      elseif path == "bytes" then
        local all = {}
        for i = 0, 255 do all[i + 1] = string.char(i) end
        return conn:respond(200, table.concat(all):rep(3), { ["Content-Type"] = "application/octet-stream" })
      end
      return conn:respond(200, "hello", { ["Content-Type"] = "application/json" })
    end
    if path == "full" then
      return conn:respond(507, '{"code":507,"message":"attempted to write 5 bytes: not enough disk space available"}')
    elseif path == "dir" then
      return conn:respond(400, '{"code":400,"message":"path is a directory: /home/user/dir"}')
    elseif path == "silent" then
      return conn:respond(200, "[]", { ["Content-Type"] = "text/plain; charset=utf-8" })
    end
    local infos = {}
    local function add(name)
      infos[#infos + 1] = ('{"name":%s,"path":%s,"type":"file"}'):format(json.encode(name:match("[^/]*$")),
        json.encode("/home/user/" .. name))
    end
    if request.headers["content-encoding"] and path == "" then
      add("packed")
    elseif (request.headers["content-type"] or ""):find("^multipart/") and path == "" then
      for name in request.body:gmatch('filename="([^"]*)"') do
        if name == "full" then return conn:respond(507, '{"code":507,"message":"no inodes"}') end
        add(name)
      end
    else
      add(path)
    end
    return conn:respond(200, "[" .. table.concat(infos, ",") .. "]", { ["Content-Type"] = "text/plain; charset=utf-8" })
  end
]==]

describe("sandbox.files", function()
  local server, sandbox, files

  setup(function() server = envd_peer.start(DAEMON) end)
  teardown(function()
    e2b.close()
    server:stop()
  end)

  before_each(function()
    sandbox = server.sandbox()
    files = sandbox.files
  end)

  local function last(of)
    local requests = (of or server):requests()
    return requests[#requests]
  end

  local function message_of(name)
    local all = envd_peer.messages(server, name)
    return all[#all].message, all[#all].headers
  end

  for _, mode in ipairs(envd_peer.MODES) do
    describe("in " .. mode.name, function()
      local function run(name, fn)
        it(name, function() mode.run(fn) end)
      end

      run("tells what is known of a file", function()
        local entry = assert(files:get_info("a.txt"))
        assert.same({
          name = "a.txt", type = "file", path = "/home/user/a.txt", size = 13, mode = 420, permissions = "-rw-r--r--",
          owner = "user", group = "user", modified_time = 1767225600, metadata = { camelCase = "1" },
        }, entry)
        assert.equal("Entry(/home/user/a.txt, file, 13 B)", tostring(entry))
        assert.same({ path = "a.txt" }, (message_of("Stat")))
        local link = assert(files:get_info("link"))
        assert.same({ nil, "/x", 0, 0 }, { link.type, link.symlink_target, link.size, link.mode })
        local value, text, err = files:get_info("missing")
        assert.is_nil(value)
        assert.matches("sandbox.files:get_info: the file was not found", text, nil, true)
        assert.same({ "not_found", "file", "i1", 404, "sandbox.files:get_info" },
          { err.kind, err.resource, err.sandbox_id, err.status, err.operation })
      end)

      run("tells whether there is a file", function()
        assert.is_true(files:exists("a.txt"))
        assert.is_false(files:exists("missing"))
        local value, _, err = files:exists("forbidden")
        assert.is_nil(value)
        assert.equal("forbidden", err.kind)
        value, _, err = files:exists("proxy")
        assert.is_nil(value)
        assert.equal("sandbox_gone", err.kind)
      end)

      run("lists a directory", function()
        local list = assert(files:list("/d", { depth = 3 }))
        assert.same({ path = "/d", depth = 3 }, (message_of("ListDir")))
        assert.same({ "d", "pipe", "a.txt" }, { list[1].name, list[2].name, list[3].name })
        assert.same({ "dir", "file" }, { list[1].type, list[3].type })
        assert.is_nil(list[2].type)
        assert.matches("PERMISSIONS", tostring(list))
        assert.matches("/home/user/a.txt", tostring(list), nil, true)
        assert.same({}, assert(files:list("empty")))
        assert.same({ path = "empty", depth = 1 }, (message_of("ListDir")))
      end)

      run("makes, renames and removes", function()
        assert.is_true(files:make_dir("new"))
        assert.is_false(files:make_dir("there"))
        local _, _, err = files:make_dir("file")
        assert.equal("invalid_argument", err.kind)
        assert.equal("a.txt", assert(files:rename("old", "new")).name)
        assert.same({ source = "old", destination = "new" }, (message_of("Move")))
        _, _, err = files:rename("missing", "new")
        assert.same({ "not_found", "file" }, { err.kind, err.resource })
        assert.is_true(files:remove("x"))
        _, _, err = files:remove("busy")
        assert.equal("server", err.kind)
      end)

      run("reads a string", function()
        assert.equal("hello", files:read("a b&c=ü.txt"))
        assert.equal("/files?path=a%20b%26c%3D%C3%BC.txt", last().path)
        assert.equal(1, select("#", files:read("x")))
        assert.equal("", files:read("empty"))
        assert.equal(768, #files:read("bytes", { format = "bytes" }))
        local value, text, err = files:read("missing")
        assert.is_nil(value)
        assert.matches("'/home/user/missing' does not exist", text, nil, true)
        assert.same({ "not_found", "file", "i1" }, { err.kind, err.resource, err.sandbox_id })
        value, text, err = files:read("large", { max_bytes = 5000 })
        assert.is_nil(value)
        assert.equal("too_large", err.kind)
        assert.matches("'to' or format = \"stream\"", text, nil, true)
      end)

      run("writes a string", function()
        local info = assert(files:write("dir/a b.txt", "content\0\255"))
        assert.same({ name = "a b.txt", path = "/home/user/dir/a b.txt", type = "file" }, info)
        assert.equal("WriteInfo(/home/user/dir/a b.txt)", tostring(info))
        local request = last()
        assert.equal("/files?path=dir%2Fa%20b.txt", request.path)
        assert.equal("application/octet-stream", request.headers["content-type"])
        assert.equal("content\0\255", request.body)
        assert.equal("tok-1", request.headers["x-access-token"])
        assert.equal("i1", request.headers["e2b-sandbox-id"])
        assert.equal("49983", request.headers["e2b-sandbox-port"])
        assert.is_nil(request.headers["x-api-key"])
        assert(files:write("empty", ""))
        assert.equal("", last().body)
      end)

      run("writes with metadata", function()
        assert(files:write("a", "b", { metadata = { Author = "me", ["x-1"] = "a b", none = "" } }))
        local headers = last().headers
        assert.same({ "me", "a b", "" },
          { headers["x-metadata-author"], headers["x-metadata-x-1"], headers["x-metadata-none"] })
      end)

      run("says why a file was not written", function()
        local value, text, err = files:write("full", "hello")
        assert.is_nil(value)
        assert.same({ "no_space", 507 }, { err.kind, err.status })
        assert.matches("not enough disk space", text)
        _, text, err = files:write("dir", "hello")
        assert.equal("invalid_argument", err.kind)
        assert.matches("path is a directory", text)
        assert.is_nil(text:find("incomplete"))
        _, _, err = files:write("silent", "hello")
        assert.equal("protocol", err.kind)
      end)

      run("writes many files in few requests", function()
        local before = #server:requests()
        local list = {}
        for i = 1, 450 do list[i] = { path = "many/" .. i, data = ("%d"):format(i):rep(10) } end
        local infos = assert(files:write_files(list))
        assert.equal(450, #infos)
        for i = 1, 450 do assert.equal("/home/user/many/" .. i, infos[i].path) end
        assert.equal(3, #server:requests() - before)
        local request = last()
        assert.matches("^multipart/form%-data; boundary=", request.headers["content-type"])
        assert.equal("/files", request.path)
      end)
    end)
  end

  it("is the same object again, and no field of the sandbox", function()
    assert.equal(files, sandbox.files)
    for name in pairs(sandbox) do assert.not_equal("files", name) end
    assert.equal("Files(i1)", tostring(files))
  end)

  it("names the user as each call does", function()
    assert(files:get_info("a.txt", { user = "root" }))
    local _, headers = message_of("Stat")
    assert.equal("Basic cm9vdDo=", headers.authorization)
    files:read("x", { user = "root" })
    assert.equal("/files?path=x&username=root", last().path)
    assert.is_nil(last().headers.authorization)
    assert(files:write("x", "y", { user = "root" }))
    assert.equal("/files?path=x&username=root", last().path)
    assert(files:write_files({ { path = "x", data = "y" } }, { user = "root" }))
    assert.equal("/files?username=root", last().path)
  end)

  it("sends what can't be named in a form by itself, in the order given", function()
    local nasty = { 'q"uote', "new\nline", "per%22cent", "back\\slash", "plain", "ü", "sp ace", "/abs/ü" }
    local list = {}
    for i, name in ipairs(nasty) do list[i] = { path = name, data = "data of " .. i } end
    local before = #server:requests()
    local infos = assert(files:write_files(list))
    for i, name in ipairs(nasty) do
      assert.equal("/home/user/" .. name, infos[i].path)
    end
    local forms = 0
    local requests = server:requests()
    for i = before + 1, #requests do
      local request = requests[i]
      if request.headers["content-type"]:find("^multipart") then
        forms = forms + 1
        assert.is_nil(request.body:find("line", 1, true))
      else
        assert.matches("^/files%?path=", request.path)
      end
    end
    assert.equal(1, forms)
  end)

  it("makes no request for an empty list", function()
    local before = #server:requests()
    assert.same({}, files:write_files({}))
    assert.equal(before, #server:requests())
  end)

  it("tells which of many files failed", function()
    local value, text, err = files:write_files({ { path = "a", data = "1" }, { path = "full", data = "2" } })
    assert.is_nil(value)
    assert.equal("no_space", err.kind)
    assert.equal(0, err.files_written)
    assert.matches("0 of 2 files were written", text, nil, true)
    value, text, err = files:write_files({
      { path = "b", data = "1" }, { path = "full", data = ("x"):rep(2000000) },
    })
    assert.is_nil(value)
    assert.same({ "no_space", "full" }, { err.kind, err.path })
    assert.matches('that was file 2, "full"; 1 of 2 files were written', text, nil, true)
  end)

  it("packs what is sent and asks for packed answers", function()
    assert(files:write("a", ("x"):rep(10000), { gzip = true }))
    local request = last()
    assert.equal("gzip", request.headers["content-encoding"])
    assert.equal("\31\139", request.body:sub(1, 2))
    assert.is_true(#request.body < 200)
    assert(files:write_files({ { path = "a", data = ("x"):rep(10000) } }, { gzip = true }))
    request = last()
    assert.equal("gzip", request.headers["content-encoding"])
    assert.matches("^multipart", request.headers["content-type"])
    files:read("x", { gzip = true })
    assert.matches("gzip", last().headers["accept-encoding"])
    files:read("x")
    assert.is_nil((last().headers["accept-encoding"] or ""):find("gzip"))
  end)

  describe("with an old daemon", function()
    local old

    local function start(version)
      old = envd_peer.start(DAEMON, { version = version })
      return old.sandbox().files
    end

    after_each(function() old:stop() end)

    it("sends forms, unpacked", function()
      local of = start("0.5.6")
      local info = assert(of:write("a b.txt", "content", { gzip = true }))
      assert.equal("/home/user/a b.txt", info.path)
      local request = last(old)
      assert.matches("^multipart/form%-data; boundary=", request.headers["content-type"])
      assert.is_nil(request.headers["content-encoding"])
      assert.equal("/files?path=a%20b.txt", request.path)
      local boundary = request.headers["content-type"]:match("boundary=(.*)$")
      assert.equal("--" .. boundary .. '\r\nContent-Disposition: form-data; name="file"; filename="a b.txt"\r\n'
        .. "Content-Type: application/octet-stream\r\n\r\ncontent\r\n--" .. boundary .. "--\r\n", request.body)
      local pieces = { "one", "two" }
      assert(of:write('d/"x', function() return table.remove(pieces, 1) end))
      request = last(old)
      assert.equal("/files?path=d%2F%22x", request.path)
      assert.matches('filename="file"', request.body, nil, true)
      assert.matches("\r\n\r\nonetwo\r\n--", request.body, nil, true)
    end)

    it("names the user where there is no default", function()
      local of = start("0.3.9")
      assert(of:read("x"))
      assert.equal("/files?path=x&username=user", last(old).path)
      assert(of:get_info("x"))
      assert.equal("Basic dXNlcjo=", last(old).headers.authorization)
    end)

    it("has no metadata, and says so before anything is sent", function()
      local of = start("0.6.1")
      local before = #old:requests()
      for _, call in ipairs({
        function() return of:write("a", "b", { metadata = { a = "1" } }) end,
        function() return of:write_files({ { path = "a", data = "b" } }, { metadata = { a = "1" } }) end,
      }) do
        local value, text, err = call()
        assert.is_nil(value)
        assert.equal("unsupported", err.kind)
        assert.matches("0.6.2", text, nil, true)
      end
      assert(of:write("a", "b", { metadata = {} }))
      assert.equal(before + 1, #old:requests())
    end)
  end)

  it("raises at the caller's line, and sends nothing", function()
    local before = #server:requests()
    local function raises(text, name, ...)
      local ok, message = pcall(files[name], ...)
      assert.is_false(ok, text)
      assert.matches(text, message, nil, true)
      assert.matches("files_spec.lua:%d+: ", message)
    end
    raises("write sandbox.files:read(…)", "read", "x")
    raises("the path must be a string, got nil", "read", files)
    raises("the path is empty", "read", files, "")
    raises("a path cannot hold a NUL byte", "read", files, "a\0b")
    raises("did you mean 'request_timeout'?", "read", files, "x", { requestTimeout = 5 })
    raises("did you mean 'idle_timeout'? It is in seconds.", "read", files, "x", { streamIdleTimeoutMs = 5 })
    raises("bad option 'user'", "read", files, "x", { user = "" })
    raises("bad option 'user'", "read", files, "x", { user = 5 })
    raises("bad option 'gzip'", "read", files, "x", { gzip = 1 })
    raises("bad option 'to'", "read", files, "x", { to = 5 })
    raises("bad option 'progress'", "read", files, "x", { progress = 5 })
    raises("format must be \"text\", \"bytes\"", "read", files, "x", { format = "blob" })
    raises("it takes no 'to'", "read", files, "x", { format = "stream", to = "x" })
    raises("write tostring(…)", "write", files, "x", 5)
    raises("a function or a reader expected, got nil", "write", files, "x")
    raises("got a field \"mode\"", "write", files, "x", { path = "y", mode = 1 })
    raises("write sandbox.files:write_files(…)", "write", files, { { path = "a", data = "b" } })
    raises("did you mean 'use_octet_stream'?", "write", files, "x", "y", { useOctetStream = true })
    raises("the local directory must be a string, got number", "put_tree", files, 5, "x")
    raises("the path is empty", "put_tree", files, ".", "")
    raises("the local directory must be a string", "get_tree", files, "x")
    raises("ignore[2] must be a string", "put_tree", files, ".", "x", { ignore = { "a", 5 } })
    for _, wrong in ipairs({ 0, -1, 1.5, "2" }) do raises("'depth'", "list", files, "x", { depth = wrong }) end
    raises("needs two paths", "rename", files, "x")
    raises("the path is empty", "remove", files, "")
    for text, metadata in pairs({
      ["can't be the name of a header"] = { ["a b"] = "1" }, ["must be printable ASCII"] = { a = "ü" },
      ["must be strings"] = { a = 5 }, ["246 are the most"] = { [("k"):rep(247)] = "1" },
      ["4096 are the most"] = { a = ("v"):rep(4090) }, ["which keeps them in lower case"] = { A = "1", a = "2" },
      ["begins or ends with a blank"] = { a = " x" },
    }) do
      raises(text, "write", files, "x", "y", { metadata = metadata })
      raises(text, "write_files", files, { { path = "x", data = "y" } }, { metadata = metadata })
    end
    raises("bad option 'metadata'", "write", files, "x", "y", { metadata = "a" })
    raises("a list of { path = …, data = … } expected", "write_files", files, "x")
    raises("it has a field \"a\"", "write_files", files, { a = "b" })
    raises("file 2 must be { path = …, data = … }", "write_files", files, { { path = "a", data = "b" }, "c" })
    raises("file 1 has an unknown field \"mode\"", "write_files", files, { { path = "a", data = "b", mode = 1 } })
    for _, pair in ipairs({ { "a", "a" }, { "a", "./a" }, { "d/a", "d//x/../a" }, { "~/a", "a" }, { "/a", "//a" } }) do
      raises("files 1 and 3 are the same file in the sandbox", "write_files", files,
        { { path = pair[1], data = "" }, { path = "b", data = "" }, { path = pair[2], data = "" } })
    end
    local ok, message = pcall(function() return files.makeDir end)
    assert.is_false(ok)
    assert.matches("write sandbox.files:make_dir(…)", message, nil, true)
    ok, message = pcall(function() return files.upload_url end)
    assert.is_false(ok)
    assert.matches("write sandbox:upload_url(…)", message, nil, true)
    assert.is_nil(files.nonsense)
    assert.equal(before, #server:requests())
  end)
end)
