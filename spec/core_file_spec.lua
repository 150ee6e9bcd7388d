-- Local files: reading, replacing when whole, and what trees of them are made of.
local support = require("spec.support.support")
local posix = require("spec.support.posix")
local core = support.core()

local ENOENT, EACCES, EEXIST, EISDIR, EINVAL, ENOSPC = 2, 13, 17, 21, 22, 28

local folder

local function names(dir)
  return table.concat(assert(core.fs_list(dir or folder)), " ")
end

local function mode_of(path)
  return core.fs_stat(path).mode
end

local function has(text, part)
  assert.is_truthy(text:find(part, 1, true), text)
end

local function put(path, text, mode)
  local file = assert(core.file_temp(path))
  assert(file:write(text))
  assert.is_true(file:commit(mode))
end

local function begin()
  folder = support.tmpdir()
end

describe("core.file_open", function()
  local fds
  before_each(function()
    begin()
    fds = support.fd_count()
  end)
  after_each(function()
    support.collect()
    assert.equal(fds, support.fd_count())
    support.cleanup(folder)
  end)

  it("reads in pieces, to the end", function()
    support.write_file(folder .. "/a", "hello\0world")
    local file = assert(core.file_open(folder .. "/a"))
    assert.equal(11, file:size())
    assert.is_true(posix.is_cloexec(file:fd()))
    assert.equal("hello\0", file:read(6))
    assert.equal("world", file:read())
    assert.is_nil(file:read())
    assert.is_nil(file:read(1))
    assert.equal(1, select("#", file:read(1)))
    assert.equal("e2b.file (" .. folder .. "/a)", tostring(file))
    file:close()
    file:close()
    assert.equal("e2b.file (closed)", tostring(file))
    assert.has_error(function() file:read() end, "attempt to use a closed file")
    assert.has_error(function() file:fd() end, "attempt to use a closed file")
  end)

  it("follows a link, and never reads more than a MiB at once", function()
    support.write_file(folder .. "/big", ("x"):rep(2 ^ 20 + 5))
    assert(core.fs_symlink("big", folder .. "/link"))
    local file = assert(core.file_open(folder .. "/link"))
    assert.equal(2 ^ 20, #file:read(2 ^ 30))
    assert.equal(5, #file:read(2 ^ 30))
    assert.has_error(function() file:read(0) end)
    file:close()
  end)

  it("refuses directories, devices and what isn't there, with the path in a sentence", function()
    for path, expected in pairs({
      [folder] = { "it is a directory", EISDIR },
      ["/dev/null"] = { "it is a device, not a file", EINVAL },
      [folder .. "/none"] = { "No such file or directory", ENOENT },
      [folder .. "/a\0b"] = { "a path cannot hold a NUL byte", EINVAL },
      [""] = { "No such file or directory", ENOENT },
    }) do
      local file, message, errno = core.file_open(path)
      assert.is_nil(file)
      assert.equal(("cannot read '%s': %s"):format(path:match("^%Z*"), expected[1]), message)
      assert.equal(expected[2], errno)
    end
    assert.has_error(function() core.file_open() end)
    assert.has_error(function() core.file_open({}) end)
  end)

  it("refuses a pipe, which may have nothing to read for ever", function()
    assert(os.execute("mkfifo " .. folder .. "/fifo"))
    -- in a process of its own: one that waits here would wait for ever
    local result = support.run([[print(require("e2b.core").file_open(arg[1]))]], {
      args = { folder .. "/fifo" }, timeout = 5,
    })
    assert.equal(("nil\tcannot read '%s/fifo': it is a pipe, not a file: a function that reads it can be given\t%d\n")
      :format(folder, EINVAL), result.out)
  end)

  it("closes what is collected", function()
    support.write_file(folder .. "/a", "a")
    for _ = 1, 20 do
      assert(core.file_open(folder .. "/a"))
    end
    support.collect()
    assert.equal(fds, support.fd_count())
  end)
end)

describe("core.file_temp", function()
  local fds
  before_each(function()
    begin()
    fds = support.fd_count()
  end)
  after_each(function()
    support.collect()
    assert.equal(fds, support.fd_count())
    support.cleanup(folder)
  end)

  it("shows nothing under the name before it is whole", function()
    local path = folder .. "/new"
    local file = assert(core.file_temp(path))
    assert.is_true(posix.is_cloexec(file:fd()))
    assert.is_true(file:write("half"))
    assert.is_nil(core.fs_stat(path))
    assert.is_true(file:write(" and half"))
    assert.equal(13, file:size())
    assert.is_true(file:commit())
    assert.equal("new", names())
    assert.equal("half and half", support.read_file(path))
    assert.has_error(function() file:commit() end, "attempt to use a closed file")
    assert.has_error(function() file:write("x") end, "attempt to use a closed file")
  end)

  local LINUX = core.fs_stat("/proc/self/fd") ~= nil
  local KILLED = [[
    local core = require("e2b.core")
    local file = assert(core.file_temp(arg[1] .. "/x"))
    assert(file:write("half"))
    os.execute("kill -9 " .. core.getpid())
  ]]

  it("has no name to leave behind when the process is killed", function()
    if not LINUX or support.shell("df --output=fstype " .. folder):find("overlay") then
      pending("needs a file system with files that have no name")
      return
    end
    support.run(KILLED, { args = { folder } })
    assert.equal("", names())
    support.write_file(folder .. "/x", "old")
    support.run(KILLED, { args = { folder } })
    assert.equal("x", names())
    assert.equal("old", support.read_file(folder .. "/x"))
  end)

  -- What linkat(2) with the name in /proc fails on: there is none, or hard links are not allowed.
  for what, wrap in pairs({
    ["without /proc"] = "unshare -rm sh -c 'mount -t tmpfs none /proc && exec \"$@\"' sh",
    ["where there are no hard links"] = "env LD_PRELOAD=%s/nolink.so",
  }) do
    it("does with a temporary name " .. what, function()
      if not LINUX or wrap:find("unshare") and support.shell("unshare -rm true"):find("unshare") then
        pending("needs Linux and a user namespace")
        return
      end
      if wrap:find("LD_PRELOAD") then
        support.write_file(folder .. "/nolink.c", "#include <errno.h>\nint linkat(int a, const char *b, int c, "
          .. "const char *d, int e);\nint linkat(int a, const char *b, int c, const char *d, int e)\n"
          .. "{ (void)a; (void)b; (void)c; (void)d; (void)e; errno = EACCES; return -1; }\n")
        local output, code = support.shell(("cd %s && ${CC:-cc} -shared -fPIC -o nolink.so nolink.c"):format(folder))
        assert(code == 0, output)
        wrap = wrap:format(folder)
      end
      assert(core.fs_mkdir(folder .. "/d"))
      support.write_file(folder .. "/d/old", "old")
      assert(core.fs_touch(folder .. "/d/old", tonumber("640", 8)))
      local result = support.run([[
        local core = require("e2b.core")
        for _, name in ipairs({ "old", "new" }) do
          local file = assert(core.file_temp(arg[1] .. "/" .. name))
          for i = 1, 20 do assert(file:write(("%05d"):format(i):rep(2000))) end
          assert(file:commit())
        end
        local file = assert(core.file_temp(arg[1] .. "/other"))
        print(table.concat(core.fs_list(arg[1]), " "), (file:size()))
        file:close()
        file = assert(core.file_temp(arg[1] .. "/taken"))
        assert(core.fs_mkdir(arg[1] .. "/taken"))
        print(file:commit())
      ]], { args = { folder .. "/d" }, wrap = wrap })
      -- LeakSanitizer, where the specs run under it, can't look for leaks without /proc, and says so at the end.
      if not result.err:find("LeakSanitizer has encountered a fatal error", 1, true) then
        assert.equal("", result.err)
        assert.equal(0, result.code)
      end
      assert.matches(wrap:find("unshare") and "^%.e2b%-%x+%.part new old\t0\n" or "^new old\t0\n", result.out)
      assert.matches("nil\tcannot write '[^']*': Is a directory\t21\n$", result.out)
      assert.equal("new old taken", names(folder .. "/d"))
      for _, name in ipairs({ "new", "old" }) do
        local text = support.read_file(folder .. "/d/" .. name)
        assert.equal(200000, #text)
        assert.equal("0000100001", text:sub(1, 10))
        assert.equal("0002000020", text:sub(-10))
      end
      assert.equal(tonumber("640", 8), mode_of(folder .. "/d/old"))
    end)
  end

  it("gives a new file the mode that any other has, a replaced one its own, or the one asked for", function()
    local result = support.run([[
      local core = require("e2b.core")
      local function put(path, mode)
        local file = assert(core.file_temp(path))
        assert(file:write("x"))
        assert(file:commit(mode))
      end
      put(arg[1] .. "/usual")
      put(arg[1] .. "/asked", tonumber("755", 8))
      put(arg[1] .. "/kept")
      put(arg[1] .. "/bits", tonumber("6755", 8))
    ]], {
      args = { folder },
      wrap = "sh -c 'umask 027; : > " .. folder .. "/kept; chmod 751 " .. folder .. "/kept; exec \"$@\"' sh",
    })
    assert.equal(0, result.code, result.err)
    assert.equal(tonumber("640", 8), mode_of(folder .. "/usual"))
    assert.equal(tonumber("755", 8), mode_of(folder .. "/asked"))
    assert.equal(tonumber("751", 8), mode_of(folder .. "/kept"))
    assert.equal(tonumber("755", 8), mode_of(folder .. "/bits"))
    assert.equal("asked bits kept usual", names())
  end)

  it("is removed when it is closed, collected or fails, and the old file stays", function()
    local path = folder .. "/old"
    support.write_file(path, "old")
    local file = assert(core.file_temp(path))
    file:write("new")
    file:close()
    assert.equal("old", names())
    file = assert(core.file_temp(path))
    file:write("new")
    file = nil -- luacheck: ignore 311
    support.collect()
    assert.equal("old", names())
    assert.equal("old", support.read_file(path))
    -- its place has been taken by a directory meanwhile
    file = assert(core.file_temp(folder .. "/gone"))
    assert(core.fs_mkdir(folder .. "/gone"))
    local ok, message, errno = file:commit()
    assert.is_nil(ok)
    assert.equal("cannot write '" .. folder .. "/gone': Is a directory", message)
    assert.equal(EISDIR, errno)
    assert.equal("gone old", names())
  end)

  it("is removed when the script ends, and left to its parent by a forked child", function()
    local result = support.run([[
      local core = require("e2b.core")
      file = assert(core.file_temp(arg[1] .. "/x"))
      file:write("x")
      error("no way")
    ]], { args = { folder } })
    assert.equal(1, result.code)
    assert.equal("", names())
    local file = assert(core.file_temp(folder .. "/x"))
    file:write("x")
    local pid = posix.fork()
    if pid == 0 then
      file:close()
      posix.exit(0)
    end
    assert.equal(0, posix.wait(pid))
    assert.is_true(file:commit())
    assert.equal("x", names())
  end)

  it("replaces what a link points to, and the link stays", function()
    assert(core.fs_mkdir(folder .. "/real"))
    support.write_file(folder .. "/real/file", "old")
    assert(core.fs_symlink("real/file", folder .. "/one"))
    assert(core.fs_symlink(folder .. "/one", folder .. "/two"))
    put(folder .. "/two", "new")
    assert.equal("new", support.read_file(folder .. "/real/file"))
    assert.equal("file", names(folder .. "/real"))
    assert.equal("symlink", core.fs_stat(folder .. "/two").type)
    assert.equal("symlink", core.fs_stat(folder .. "/one").type)
    -- one that points to nothing yet
    assert(core.fs_symlink("real/fresh", folder .. "/three"))
    put(folder .. "/three", "fresh")
    assert.equal("fresh", support.read_file(folder .. "/real/fresh"))
    -- and a circle
    assert(core.fs_symlink("b", folder .. "/a"))
    assert(core.fs_symlink("a", folder .. "/b"))
    local file, message = core.file_temp(folder .. "/a")
    assert.is_nil(file)
    has(message, "cannot write '" .. folder .. "/a': ")
  end)

  it("knows its place after the process went elsewhere", function()
    local lfs = require("lfs")
    local back = lfs.currentdir()
    assert(lfs.chdir(folder))
    local file = assert(core.file_temp("here"))
    assert(lfs.chdir("/"))
    file:write("x")
    local ok, message = file:commit()
    assert(lfs.chdir(back))
    assert.is_true(ok, message)
    assert.equal("here", names())
  end)

  it("refuses what it must not replace", function()
    assert(os.execute("mkfifo " .. folder .. "/fifo"))
    for path, expected in pairs({
      [folder] = { "it is a directory", EISDIR },
      [folder .. "/"] = { "it is a directory", EISDIR },
      ["/dev/null"] = { "it is a device, not a file", EINVAL },
      [folder .. "/fifo"] = { "it is a pipe, not a file", EINVAL },
      [folder .. "/none/x"] = { "No such file or directory", ENOENT },
      [folder .. "/new/"] = { "Is a directory", EISDIR },
      [folder .. "/a\0b"] = { "a path cannot hold a NUL byte", EINVAL },
      [folder .. "/" .. ("n"):rep(256)] = { "File name too long", 36 },
      [""] = { "No such file or directory", ENOENT },
    }) do
      local file, message, errno = core.file_temp(path)
      assert.is_nil(file, path)
      assert.equal(("cannot write '%s': %s"):format(path:match("^%Z*"), expected[1]), message)
      if expected[2] ~= 36 then
        assert.equal(expected[2], errno)
      end
    end
    support.write_file(folder .. "/locked", "x")
    assert(core.fs_touch(folder .. "/locked", tonumber("444", 8)))
    if not support.shell("id -u"):find("^0%s*$") then
      local file, _, errno = core.file_temp(folder .. "/locked")
      assert.is_nil(file)
      assert.equal(EACCES, errno)
    end
    assert.equal("fifo locked", names())
  end)

  it("tells of a full disk, and leaves nothing on it", function()
    local result = support.run([[
      local core = require("e2b.core")
      local file = assert(core.file_temp(arg[1] .. "/x"))
      local block, ok, message, errno = ("x"):rep(65536), true
      for _ = 1, 40 do
        ok, message, errno = file:write(block)
        if not ok then break end
      end
      print(tostring(ok), message, errno)
      file:close()
      print(#core.fs_list(arg[1]))
    ]], {
      args = { folder },
      wrap = "unshare -rm sh -c 'mount -t tmpfs -o size=1m none " .. folder .. " && exec \"$@\"' sh",
    })
    if result.code ~= 0 and support.shell("unshare -rm true"):find("unshare") then
      pending("needs a user namespace")
      return
    end
    assert.equal(("nil\tcannot write '%s/x': No space left on device\t%d\n0\n"):format(folder, ENOSPC), result.out)
  end)

  it("can't be committed when it was opened for reading", function()
    support.write_file(folder .. "/a", "a")
    local file = assert(core.file_open(folder .. "/a"))
    assert.has_error(function() file:commit() end)
    assert.equal("a", file:read())
    file:close()
    assert.equal("a", support.read_file(folder .. "/a"))
    file = assert(core.file_temp(folder .. "/b"))
    assert.has_error(function() file:commit("rwx") end)
    assert.has_error(function() file:commit(-1) end)
    assert.has_error(function() file:commit(1.5) end)
    assert.is_true(file:commit())
  end)

  it("takes names of every byte", function()
    for byte = 1, 255 do
      if byte ~= 47 then
        put(folder .. "/x" .. string.char(byte), tostring(byte))
      end
    end
    local list = assert(core.fs_list(folder))
    assert.equal(254, #list)
    for i, name in ipairs(list) do
      assert.equal(tostring(name:byte(2)), support.read_file(folder .. "/" .. name))
      assert.is_true(i == 1 or list[i - 1]:byte(2) < name:byte(2))
    end
  end)
end)

describe("the local primitives", function()
  local fds
  before_each(function()
    begin()
    fds = support.fd_count()
  end)
  after_each(function()
    support.collect()
    assert.equal(fds, support.fd_count())
    support.cleanup(folder)
  end)

  it("list a directory in order, 10,000 names too", function()
    assert.same({}, core.fs_list(folder))
    support.shell(("cd %s && seq -f n%%05g 10000 | xargs touch && touch .hidden"):format(folder))
    local list = core.fs_list(folder)
    assert.equal(10001, #list)
    assert.equal(".hidden", list[1])
    for i = 1, 10000 do
      if list[i + 1] ~= ("n%05d"):format(i) then
        assert.equal(("n%05d"):format(i), list[i + 1])
      end
    end
    local none, message, errno = core.fs_list(folder .. "/n00001")
    assert.is_nil(none)
    assert.equal("cannot list '" .. folder .. "/n00001': Not a directory", message)
    assert.equal(20, errno)
    assert.is_nil(core.fs_list(folder .. "\0"))
  end)

  it("tell what is there", function()
    support.write_file(folder .. "/file", "12345")
    assert(core.fs_touch(folder .. "/file", tonumber("640", 8), 1700000000.75))
    assert.same({ type = "file", size = 5, mode = tonumber("640", 8), mtime = 1700000000 },
      core.fs_stat(folder .. "/file"))
    assert(core.fs_touch(folder .. "/file", nil, -1.5))
    assert.equal(-2, core.fs_stat(folder .. "/file").mtime)
    assert.equal("dir", core.fs_stat(folder).type)
    assert.equal("other", core.fs_stat("/dev/null").type)
    local long = ("t"):rep(1000)
    for _, target in ipairs({ "file", "nowhere", "/", long }) do
      assert(core.fs_symlink(target, folder .. "/link"))
      local entry = core.fs_stat(folder .. "/link")
      assert.equal("symlink", entry.type)
      assert.equal(target, entry.target)
      assert(core.fs_remove(folder .. "/link"))
    end
    assert(core.fs_symlink("file", folder .. "/link"))
    assert.equal(5, core.fs_stat(folder .. "/link", true).size)
    assert.is_nil(core.fs_stat(folder .. "/link", true).target)
    local none, message, errno = core.fs_stat(folder .. "/none")
    assert.is_nil(none)
    assert.equal("cannot read '" .. folder .. "/none': No such file or directory", message)
    assert.equal(ENOENT, errno)
  end)

  it("make, touch and remove, and never touch what a link points to", function()
    assert.is_true(core.fs_mkdir(folder .. "/d", tonumber("700", 8)))
    assert.equal(tonumber("700", 8), mode_of(folder .. "/d"))
    local ok, message, errno = core.fs_mkdir(folder .. "/d")
    assert.is_nil(ok)
    assert.equal("cannot make directory '" .. folder .. "/d': File exists", message)
    assert.equal(EEXIST, errno)
    assert.is_true(core.fs_symlink("d", folder .. "/link"))
    local there = core.fs_stat(folder .. "/d")
    assert.is_true(core.fs_touch(folder .. "/link", tonumber("777", 8), 1))
    assert.same(there, core.fs_stat(folder .. "/d"))
    assert.equal(1, core.fs_stat(folder .. "/link").mtime)
    put(folder .. "/d/file", "x")
    ok, message = core.fs_remove(folder .. "/d")
    assert.is_nil(ok)
    has(message, "cannot remove '" .. folder .. "/d': ")
    assert.is_true(core.fs_remove(folder .. "/link"))
    assert.is_true(core.fs_remove(folder .. "/d/file"))
    assert.is_true(core.fs_remove(folder .. "/d"))
    assert.equal("", names())
    for _, name in ipairs({ "fs_mkdir", "fs_remove", "fs_touch", "fs_stat", "fs_list" }) do
      ok, message, errno = core[name](folder .. "/a\0b")
      assert.is_nil(ok)
      has(message, "a path cannot hold a NUL byte")
      assert.equal(EINVAL, errno)
    end
    assert.is_nil(core.fs_symlink("a\0", folder .. "/x"))
    assert.is_nil(core.fs_symlink("a", folder .. "/x\0"))
    assert.has_error(function() core.fs_touch(folder, nil, 0 / 0) end)
    assert.has_error(function() core.fs_touch(folder, nil, 1e300) end)
    assert.has_error(function() core.fs_mkdir(folder .. "/x", 1e10) end)
    assert.equal("", names())
  end)
end)
