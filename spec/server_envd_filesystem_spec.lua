-- The filesystem service through the daemon: what each call does to real files and what it answers.
local daemon_process = require("spec.support.daemon")
local support = require("spec.support.support")

describe("the filesystem service", function()
  local daemon, home

  setup(function()
    daemon = daemon_process.start()
  end)

  teardown(function()
    daemon:stop()
  end)

  -- Every spec has a home without history; whatever it did, the daemon has nothing to complain about.
  before_each(function()
    home = daemon.root .. "/home/user"
    support.shell("rm -rf " .. home .. "/* " .. home .. "/.[!.]* " .. daemon.root .. "/tmp/*")
  end)

  after_each(function()
    assert.equal("", daemon:complaints())
  end)

  local function shell(command)
    local output, code = support.shell("cd " .. support.quote(home) .. " && " .. command)
    assert(code == 0, output)
    return output
  end

  local function fails(status, code, message, answer)
    assert.equal(status, answer.status, answer.body)
    assert.equal(code, answer.json.code)
    assert.equal(message, answer.json.message)
    assert.equal("application/json", answer.headers["content-type"])
  end

  local function entry(call, message, user)
    local answer = daemon:rpc(call, message, user)
    assert(answer.status == 200, answer.body)
    assert.equal("application/json", answer.headers["content-type"])
    return answer.json.entry
  end

  local function paths_of(message)
    local answer = daemon:rpc("ListDir", message)
    assert(answer.status == 200, answer.body)
    local list = {}
    for i, one in ipairs(answer.json.entries or {}) do
      list[i] = one.path
    end
    return list
  end

  describe("Stat", function()
    it("describes a file to the nanosecond", function()
      shell("printf hello > a.txt && chmod 640 a.txt && touch -d '2026-01-01T00:00:00.005Z' a.txt")
      local info = entry("Stat", { path = "a.txt" })
      info.owner, info.group = nil, nil
      assert.same({
        name = "a.txt", type = "FILE_TYPE_FILE", path = "/home/user/a.txt", size = "5", mode = 416,
        permissions = "-rw-r-----", modifiedTime = "2026-01-01T00:00:00.005Z",
      }, info)
    end)

    it("writes fractions with 0, 3, 6 or 9 digits, and no time at all for the epoch", function()
      shell("touch -d '2026-01-01T00:00:00Z' a && touch -d '2026-01-01T00:00:00.000120Z' b "
        .. "&& touch -d '1969-12-31T23:59:59.123456789Z' c && touch -d '1970-01-01T00:00:00Z' d")
      assert.equal("2026-01-01T00:00:00Z", entry("Stat", { path = "a" }).modifiedTime)
      assert.equal("2026-01-01T00:00:00.000120Z", entry("Stat", { path = "b" }).modifiedTime)
      assert.equal("1969-12-31T23:59:59.123456789Z", entry("Stat", { path = "c" }).modifiedTime)
      assert.is_nil(entry("Stat", { path = "d" }).modifiedTime)
    end)

    it("leaves out what is zero", function()
      shell("touch empty && chmod 0 empty")
      local info = entry("Stat", { path = "empty" })
      assert.is_nil(info.size)
      assert.is_nil(info.mode)
      assert.equal("----------", info.permissions)
      assert.is_nil(info.metadata)
      assert.is_nil(info.symlinkTarget)
    end)

    it("writes permissions with Go's letters", function()
      shell("mkdir d && chmod 1777 d && touch s && chmod 4755 s && touch g && chmod 2755 g && mkfifo p && ln -s s l "
        .. "&& mkdir all && chmod 7777 all")
      local function permissions(path)
        return entry("Stat", { path = path }).permissions
      end
      assert.equal("dtrwxrwxrwx", permissions("d"))
      assert.equal("urwxr-xr-x", permissions("s"))
      assert.equal("grwxr-xr-x", permissions("g"))
      assert.equal("prw-r--r--", permissions("p"))
      assert.equal("Lrwxrwxrwx", permissions("l"))
      assert.equal("dugtrwxrwxrwx", permissions("all"))
      assert.equal(511, entry("Stat", { path = "all" }).mode)
      assert.is_nil(entry("Stat", { path = "p" }).type)
    end)

    it("describes a link by its target, and resolves it all the way", function()
      shell("printf hello > test.txt && chmod 600 test.txt && ln -s test.txt link && ln -s link second && mkdir d "
        .. "&& ln -s d folder")
      local info = entry("Stat", { path = "link" })
      assert.equal("link", info.name)
      assert.equal("FILE_TYPE_FILE", info.type)
      assert.equal("/home/user/test.txt", info.symlinkTarget)
      assert.equal(384, info.mode)
      assert.equal("8", info.size)
      assert.equal("/home/user/test.txt", entry("Stat", { path = "second" }).symlinkTarget)
      assert.equal("FILE_TYPE_DIRECTORY", entry("Stat", { path = "folder" }).type)
    end)

    it("describes broken and cyclic links", function()
      shell("ln -s nowhere broken && ln -s b a && ln -s a b")
      for _, name in ipairs({ "broken", "a" }) do
        local info = entry("Stat", { path = name })
        assert.is_nil(info.type)
        assert.is_nil(info.mode)
        assert.equal("/home/user/" .. name, info.symlinkTarget)
        assert.equal("Lrwxrwxrwx", info.permissions)
      end
    end)

    it("takes absolute paths verbatim and cleans the others", function()
      shell("mkdir d && touch d/f")
      assert.equal("/home/user/d/f", entry("Stat", { path = "x/.././d//f" }).path)
      assert.equal("/home/user/../user/d/f", entry("Stat", { path = "/home/user/../user/d/f" }).path)
      local info = entry("Stat", { path = "/home/user/d/" })
      assert.equal("/home/user/d/", info.path)
      assert.equal("d", info.name)
      assert.equal("/home/user", entry("Stat", { path = "" }).path)
      assert.equal("/home/user/d", entry("Stat", { path = "~/d" }).path)
      assert.equal("/home/user", entry("Stat", { path = "~" }).path)
      assert.equal("/root", entry("Stat", { path = "~" }, "root").path)
      assert.equal("/tmp", entry("Stat", { path = "../../tmp" }).path)
      assert.equal("/", entry("Stat", { path = "/" }).name)
    end)

    it("says what it does not find", function()
      shell("touch file")
      fails(404, "not_found", "file not found: lstat /home/user/none: no such file or directory",
        daemon:rpc("Stat", { path = "none" }))
      fails(500, "internal", "error getting file info: lstat /home/user/file/x: not a directory",
        daemon:rpc("Stat", { path = "file/x" }))
      local answer = daemon:rpc("Stat", { path = "~other/x" })
      assert.equal(400, answer.status)
      assert.equal("invalid_argument", answer.json.code)
      assert.matches("cannot expand user%-specific home dir", answer.json.message)
      fails(401, "unauthenticated", "invalid username: 'nobody-here'", daemon:rpc("Stat", { path = "" }, "nobody-here"))
    end)

    it("takes names of any bytes that JSON can carry", function()
      for _, name in ipairs({ "a b", 'q"\\', "new\nline", "\1\127", "\230\150\135", "-rf", "%41", "*", "~x/.." }) do
        local path = name:find("^~") and "d" or name
        assert.equal("/home/user/" .. path, daemon:write("./" .. path, "x").path)
        assert.equal(path, entry("Stat", { path = "./" .. path }).name)
      end
    end)
  end)

  describe("ListDir", function()
    before_each(function()
      shell("mkdir -p subdir1/subdir1_1 subdir1/subdir1_2 subdir2/subdir2_1 && touch file1.txt subdir2/z")
    end)

    it("goes as deep as asked, each folder before what is in it", function()
      assert.same({ "/home/user/file1.txt", "/home/user/subdir1", "/home/user/subdir2" }, paths_of({ path = "" }))
      assert.same(paths_of({ path = "" }), paths_of({ path = "", depth = 0 }))
      local two = {
        "/home/user/file1.txt", "/home/user/subdir1", "/home/user/subdir1/subdir1_1", "/home/user/subdir1/subdir1_2",
        "/home/user/subdir2", "/home/user/subdir2/subdir2_1", "/home/user/subdir2/z",
      }
      assert.same(two, paths_of({ path = "", depth = 2 }))
      assert.same(two, paths_of({ path = "/home/user/", depth = 3 }))
    end)

    it("sorts by bytes", function()
      shell("rm -rf * && touch b B a _ 10 9 'x y' x-y x.y && mkdir x && touch x/1")
      assert.same({ "10", "9", "B", "_", "a", "b", "x", "x/1", "x y", "x-y", "x.y" }, (function()
        local list = paths_of({ path = "", depth = 2 })
        for i, path in ipairs(list) do
          list[i] = path:sub(#"/home/user/" + 1)
        end
        return list
      end)())
    end)

    it("answers an empty folder with nothing", function()
      assert.equal("{}", daemon:rpc("ListDir", { path = "subdir1/subdir1_1" }).body)
    end)

    it("lists a linked folder below the link's name, and does not enter links in it", function()
      shell("ln -s subdir2 link && ln -s . subdir2/self && ln -s missing subdir2/broken")
      local below = {
        "/home/user/link/broken", "/home/user/link/self", "/home/user/link/subdir2_1", "/home/user/link/z",
      }
      assert.same(below, paths_of({ path = "link", depth = 5 }))
      local answer = daemon:rpc("ListDir", { path = "link" })
      assert.equal("/home/user/link/broken", answer.json.entries[1].symlinkTarget)
      assert.is_nil(answer.json.entries[1].type)
      assert.equal("FILE_TYPE_DIRECTORY", answer.json.entries[2].type)
      assert.equal("/home/user/subdir2", answer.json.entries[2].symlinkTarget)
    end)

    it("says what is no folder", function()
      shell("ln -s b a && ln -s a b && ln -s file1.txt link")
      fails(404, "not_found", "directory not found: lstat /home/user/none: no such file or directory",
        daemon:rpc("ListDir", { path = "none" }))
      fails(400, "invalid_argument", "path is not a directory: /home/user/file1.txt",
        daemon:rpc("ListDir", { path = "file1.txt" }))
      fails(400, "invalid_argument", "path is not a directory: /home/user/link",
        daemon:rpc("ListDir", { path = "link" }))
      fails(400, "failed_precondition", 'cyclic symlink or chain >255 links at "/home/user/a"',
        daemon:rpc("ListDir", { path = "a" }))
      assert.equal(400, daemon:rpc("ListDir", { path = "", depth = -1 }).status)
    end)

    it("lists thousands of entries", function()
      shell("mkdir many && cd many && seq -f 'f%04g' 1 2000 | xargs touch")
      local list = paths_of({ path = "many" })
      assert.equal(2000, #list)
      assert.equal("/home/user/many/f2000", list[2000])
    end)
  end)

  describe("MakeDir", function()
    it("makes a folder and those above it, as the user's own", function()
      local info = entry("MakeDir", { path = "a/b/c" })
      assert.equal("c", info.name)
      assert.equal("FILE_TYPE_DIRECTORY", info.type)
      assert.equal("/home/user/a/b/c", info.path)
      assert.equal("drwxr-xr-x", info.permissions)
      assert.equal("user", info.owner)
      assert.equal("user", info.group)
      assert.is_true(tonumber(info.size) > 0)
      assert.equal("user", entry("Stat", { path = "a" }).owner)
      if daemon_process.is_root then
        assert.equal("root", entry("MakeDir", { path = "/tmp/x/y" }, "root").owner)
        assert.equal("1000:1000\n", shell("stat -c %u:%g a/b"):match("^[^\n]*\n"))
      end
    end)

    it("leaves those that are there as they are", function()
      shell("mkdir -m 700 a")
      entry("MakeDir", { path = "a/b" })
      assert.equal("drwx------", entry("Stat", { path = "a" }).permissions)
    end)

    it("says what is there already", function()
      shell("mkdir d && touch file && ln -s d link")
      fails(409, "already_exists", "directory already exists: /home/user/d", daemon:rpc("MakeDir", { path = "d" }))
      fails(409, "already_exists", "directory already exists: /home/user/link",
        daemon:rpc("MakeDir", { path = "link" }))
      fails(400, "invalid_argument", "path already exists but it is not a directory: /home/user/file",
        daemon:rpc("MakeDir", { path = "file" }))
      assert.equal("internal", daemon:rpc("MakeDir", { path = "file/x" }).json.code)
    end)
  end)

  describe("Move", function()
    it("renames, replaces files and takes metadata along", function()
      daemon:write("a", "1", { ["X-Metadata-Key"] = "v" })
      shell("printf 2 > b")
      local info = entry("Move", { source = "a", destination = "b" })
      assert.equal("/home/user/b", info.path)
      assert.equal("b", info.name)
      assert.equal("1", support.read_file(home .. "/b"))
      assert.is_nil(support.read_file(home .. "/a"))
      assert.is_true(info.metadata == nil or info.metadata.key == "v")
    end)

    it("makes the folders above the destination", function()
      shell("touch a")
      entry("Move", { source = "a", destination = "x/y/z" })
      assert.equal("user", entry("Stat", { path = "x/y" }).owner)
      fails(404, "not_found", "source file not found: rename /home/user/none /home/user/p/q: no such file or directory",
        daemon:rpc("Move", { source = "none", destination = "p/q" }))
      assert.equal("FILE_TYPE_DIRECTORY", entry("Stat", { path = "p" }).type)
    end)

    it("moves links themselves and folders whole", function()
      shell("touch t && ln -s t l && mkdir -p d/e")
      assert.equal("Lrwxrwxrwx", entry("Move", { source = "l", destination = "m" }).permissions)
      entry("Move", { source = "d", destination = "f" })
      assert.same({ "/home/user/f/e" }, paths_of({ path = "f" }))
    end)

    it("does not replace folders", function()
      shell("mkdir -p d/x e && touch a")
      fails(500, "internal", "error renaming: rename /home/user/a /home/user/d: file exists",
        daemon:rpc("Move", { source = "a", destination = "d" }))
      fails(500, "internal", "error renaming: rename /home/user/e /home/user/d: file exists",
        daemon:rpc("Move", { source = "e", destination = "d" }))
      assert.equal("not_found", daemon:rpc("Move", { source = "none", destination = "d" }).json.code)
      assert.equal("internal", daemon:rpc("Move", { source = "d", destination = "d/x/y" }).json.code)
    end)
  end)

  describe("Remove", function()
    local function remove(path)
      local answer = daemon:rpc("Remove", { path = path })
      assert.equal(200, answer.status, answer.body)
      assert.equal("{}", answer.body)
    end

    it("takes files and whole trees, and does not mind what is gone", function()
      shell("touch a && mkdir -p d/e/f && touch d/e/g")
      remove("a")
      remove("d")
      remove("d")
      remove("none/at/all")
      assert.same({}, paths_of({ path = "" }))
    end)

    it("removes a link and not what it leads to", function()
      shell("mkdir d && touch d/f && ln -s d l && mkdir t && ln -s ../d t/l")
      remove("l")
      remove("/home/user/t/")
      assert.same({ "/home/user/d", "/home/user/d/f" }, paths_of({ path = "", depth = 2 }))
    end)

    it("lets others in between", function()
      shell("mkdir big && cd big && seq -f 'f%06g' 1 2000 | xargs touch")
      local connection = daemon:connect()
      local body = '{"path":"big"}'
      connection:send("POST /filesystem.Filesystem/Remove HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        .. "Content-Length: " .. #body .. "\r\n\r\n" .. body)
      -- Either the tree is gone already, or this answer comes while it is being removed.
      assert.equal(204, daemon:request("GET", "/health").status)
      assert.equal(200, daemon_process.read(connection, "POST").status)
      connection:close()
      assert.same({}, paths_of({ path = "" }))
    end)
  end)

  it("asks for the token, in every call", function()
    local locked = daemon_process.start({ access_token = "secret" })
    for _, call in ipairs({ "Stat", "ListDir", "MakeDir", "Move", "Remove", "CreateWatcher" }) do
      local answer = locked:request("POST", "/filesystem.Filesystem/" .. call, {
        headers = { ["Content-Type"] = "application/json" }, body = "{}", token = false,
      })
      assert.equal(401, answer.status)
      assert.equal(401, answer.json.code)
    end
    assert.equal(200, locked:rpc("Stat", { path = "" }).status)
    locked:stop()
  end)

  it("starts at the working directory it was given", function()
    local other = daemon_process.start({ default_workdir = "/tmp" })
    assert.equal("/tmp", other:rpc("Stat", { path = "" }).json.entry.path)
    assert.equal(404, other:rpc("Stat", { path = "x" }).status)
    assert.equal("/home/user", other:rpc("Stat", { path = "." }).json.entry.path)
    other:stop()
  end)
end)
