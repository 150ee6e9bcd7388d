-- The native functions behind the daemon's files, against a real filesystem.
local native = require("e2b.server.native")
local support = require("spec.support.support")

local errno = native.fs_errno

describe("the native filesystem functions", function()
  local dir

  before_each(function()
    dir = support.tmpdir()
  end)

  after_each(function()
    support.cleanup(dir)
  end)

  local function fails(expected, ...)
    local value, message, number = ...
    assert.is_nil(value)
    assert.is_string(message)
    assert.matches("^%l", message)
    assert.equal(expected, number)
  end

  local function write(name, text)
    support.write_file(dir .. "/" .. name, text)
    return dir .. "/" .. name
  end

  describe("stat", function()
    it("tells type, size, mode and times to the nanosecond", function()
      local path = write("a", "hello")
      assert(native.fs_chmod(path, 420))
      assert(native.fs_utime(path, 1767225600, 123456789))
      local stat = native.fs_stat(path)
      assert.equal("file", stat.type)
      assert.equal(5, stat.size)
      assert.equal(420, stat.mode)
      assert.equal(1767225600, stat.mtime)
      assert.equal(123456789, stat.mtime_nsec)
      assert.equal(1, stat.links)
      assert.equal("dir", native.fs_stat(dir).type)
      assert.equal("char", native.fs_stat("/dev/null").type)
    end)

    it("follows links or does not", function()
      write("a", "hello")
      assert(native.fs_symlink("a", dir .. "/link"))
      assert.equal("file", native.fs_stat(dir .. "/link").type)
      assert.equal("symlink", native.fs_lstat(dir .. "/link").type)
      assert.equal(1, native.fs_lstat(dir .. "/link").size)
      assert.equal("a", native.fs_readlink(dir .. "/link"))
      assert.equal(native.fs_realpath(dir) .. "/a", native.fs_realpath(dir .. "/link"))
    end)

    it("says why not", function()
      fails(errno.ENOENT, native.fs_stat(dir .. "/none"))
      local path = write("a", "")
      fails(errno.ENOTDIR, native.fs_lstat(path .. "/b"))
      assert(native.fs_symlink("loop", dir .. "/loop"))
      fails(errno.ELOOP, native.fs_realpath(dir .. "/loop"))
      fails(errno.EINVAL, native.fs_stat(dir .. "\0x"))
      fails(errno.EEXIST, native.fs_mkdir(dir))
      fails(errno.ENOENT, native.fs_rename(dir .. "/none", dir .. "/b"))
      fails(errno.EISDIR, native.fs_open(dir, "w"))
      fails(errno.ENOENT, native.fs_readdir(dir .. "/none"))
      fails(errno.ENOENT, native.fs_unlink(dir .. "/none"))
      assert.has_error(function()
        native.fs_stat({})
      end)
    end)
  end)

  it("lists names by their bytes", function()
    for _, name in ipairs({ "b", "B", "a b", "\195\164", "_", "10", "9" }) do
      write(name, "")
    end
    assert.same({ "10", "9", "B", "_", "a b", "b", "\195\164" }, native.fs_readdir(dir))
    assert.same({}, native.fs_readdir((native.fs_mkdir(dir .. "/e") and dir .. "/e")))
  end)

  it("lists thousands of names", function()
    support.shell("cd " .. dir .. " && seq -f 'f%04g' 1 2000 | xargs touch")
    local names = native.fs_readdir(dir)
    assert.equal(2000, #names)
    assert.equal("f2000", names[2000])
  end)

  it("knows who is who", function()
    assert.equal("root", native.fs_username(0))
    assert.equal("root", native.fs_groupname(0))
    assert.is_nil(native.fs_username(54321))
    local fs = native.fs_statfs(dir)
    assert.is_true(fs.total > 0 and fs.available <= fs.total)
  end)

  describe("a file", function()
    it("is written, wound and read", function()
      local file = assert(native.fs_open(dir .. "/f", "w", 384))
      assert.equal(5, file:write("hello"))
      assert.equal(2, file:write("abc", 2))
      assert.equal(7, file:stat().size)
      assert.is_true(file:truncate(6))
      assert.is_true(file:close())
      assert.equal(384, native.fs_stat(dir .. "/f").mode)
      file = assert(native.fs_open(dir .. "/f", "r"))
      assert.equal(6, file:seek("end"))
      assert.equal(1, file:seek("set", 1))
      assert.equal("ello", file:read(4))
      assert.equal("b", file:read(100))
      assert.is_nil((file:read(100)))
      fails(9, file:write("x"))
      file:close()
      assert.equal("file (closed)", tostring(file))
      assert.has_error(function()
        file:read(1)
      end, "attempt to use a closed file")
    end)

    it("is not made when it must be new and is not", function()
      write("f", "old")
      fails(errno.EEXIST, native.fs_open(dir .. "/f", "wx"))
      assert.equal("old", support.read_file(dir .. "/f"))
    end)

    it("copies from another", function()
      local text = ("0123456789"):rep(100000)
      local source = assert(native.fs_open(write("s", text), "r"))
      local target = assert(native.fs_open(dir .. "/t", "w"))
      local total = 0
      repeat
        local count = assert(target:copy(source, 300000))
        assert.is_true(count <= 300000)
        total = total + count
      until count == 0
      assert.equal(#text, total)
      source:close()
      target:close()
      assert.equal(text, support.read_file(dir .. "/t"))
    end)

    it("copies what has no size", function()
      local source = assert(native.fs_open("/proc/self/status", "r"))
      local target = assert(native.fs_open(dir .. "/t", "w"))
      assert.is_true(assert(target:copy(source, 65536)) > 0)
      source:close()
      target:close()
    end)

    it("never blocks, pipes included", function()
      support.shell("mkfifo " .. dir .. "/pipe")
      local reader = assert(native.fs_open(dir .. "/pipe", "r"))
      local writer = assert(native.fs_open(dir .. "/pipe", "w"))
      assert.is_false(reader:read(10))
      local taken = writer:write(("x"):rep(1024 * 1024))
      assert.is_true(taken > 0 and taken < 1024 * 1024)
      assert.is_string(reader:read(10))
      writer:close()
      reader:close()
    end)

    it("leaves no descriptor when it is dropped", function()
      support.collect()
      local before = support.fd_count()
      for i = 1, 20 do
        native.fs_open(dir .. "/f" .. i, "w")
        native.fs_open(dir .. "/none", "r")
        native.inotify()
      end
      support.collect()
      assert.equal(before, support.fd_count())
    end)
  end)

  describe("removing a tree", function()
    local function remove(path, step, force)
      local remover = assert(native.fs_remover(path, force))
      local steps = 0
      while true do
        local done, message = remover:step(step or 1000)
        steps = steps + 1
        if done == nil then
          return nil, message
        elseif done then
          return steps
        end
      end
    end

    it("takes files, links, folders and what is not there", function()
      assert.equal(1, remove(write("f", "x")))
      assert.equal(1, remove(dir .. "/none"))
      assert.equal(1, remove(dir .. "/none/below"))
      native.fs_symlink("/nowhere", dir .. "/link")
      assert.equal(1, remove(dir .. "/link"))
      native.fs_mkdir(dir .. "/empty")
      assert.equal(1, remove(dir .. "/empty"))
      assert.same({}, native.fs_readdir(dir))
    end)

    it("works in steps", function()
      support.shell("cd " .. dir .. " && mkdir -p t/a/b t/c && touch t/a/1 t/a/b/2 t/c/3")
      local steps = remove(dir .. "/t", 1)
      assert.is_true(steps > 5)
      fails(errno.ENOENT, native.fs_lstat(dir .. "/t"))
    end)

    it("follows no link", function()
      native.fs_mkdir(dir .. "/t")
      native.fs_mkdir(dir .. "/kept")
      write("kept/file", "x")
      native.fs_symlink(dir .. "/kept", dir .. "/t/link")
      native.fs_symlink(dir .. "/kept", dir .. "/outer")
      assert(remove(dir .. "/t"))
      assert(remove(dir .. "/outer"))
      assert.equal("x", support.read_file(dir .. "/kept/file"))
      assert.same({ "kept" }, native.fs_readdir(dir))
    end)

    it("goes deeper than any path, with few descriptors", function()
      -- 100 levels of long names: no path to the last one is short enough for the system.
      local output, code = support.shell("cd " .. dir .. " && mkdir deep && cd deep && i=0 && d=" .. ("n"):rep(200)
        .. " && while [ $i -lt 50 ]; do mkdir -p $d/$d && cd -P $d/$d && i=$((i+1)); done; touch last")
      assert.equal(0, code, output)
      local before = support.fd_count()
      local remover = assert(native.fs_remover(dir .. "/deep"))
      for _ = 1, 50 do
        assert.is_false(remover:step(1))
        assert.is_true(support.fd_count() <= before + 2)
      end
      repeat
        local done, message = remover:step(5)
        assert.is_true(done ~= nil, message)
      until done
      assert.same({}, native.fs_readdir(dir))
      assert.equal(before, support.fd_count())
    end)

    it("opens what was closed to its owner only when forced", function()
      support.shell("cd " .. dir .. " && mkdir -p t/shut && touch t/shut/f && chmod 0 t/shut && chmod 500 t")
      if native.fs_euid() ~= 0 then
        assert.is_nil((remove(dir .. "/t")))
      end
      assert(remove(dir .. "/t", 10, true))
      assert.same({}, native.fs_readdir(dir))
    end)
  end)

  describe("extended attributes", function()
    it("are set, listed by prefix and removed", function()
      local path = write("f", "")
      assert.is_nil((native.fs_xattrs(path, "user.e2b.")))
      local ok, _, number = native.fs_setxattr(path, "user.e2b.a", "1")
      if not ok and number == errno.ENOTSUP then
        return -- a filesystem without
      end
      assert.is_true(ok)
      assert(native.fs_setxattr(path, "user.e2b.b", ""))
      assert(native.fs_setxattr(path, "user.other", "x"))
      assert(native.fs_setxattr(path, "user.e2b.c", "\0\255"))
      assert.same({ a = "1", b = "", c = "\0\255" }, native.fs_xattrs(path, "user.e2b."))
      assert(native.fs_removexattr(path, "user.e2b.a"))
      assert.same({ b = "", c = "\0\255" }, native.fs_xattrs(path, "user.e2b."))
      fails(errno.ENOENT, native.fs_xattrs(dir .. "/none", "user."))
    end)
  end)

  describe("inotify", function()
    it("tells what happened where", function()
      local inotify = assert(native.inotify())
      local wd = assert(inotify:add(dir))
      assert.is_false(inotify:read())
      write("f", "x")
      native.fs_chmod(dir .. "/f", 384)
      native.fs_mkdir(dir .. "/d")
      native.fs_rename(dir .. "/f", dir .. "/g")
      native.fs_unlink(dir .. "/g")
      local seen = {}
      for i, event in ipairs(inotify:read()) do
        assert.equal(wd, event.wd)
        local words = { event.name }
        for _, word in ipairs({ "create", "modify", "attrib", "moved_from", "moved_to", "delete", "is_dir" }) do
          words[#words + 1] = event[word] and word or nil
        end
        seen[i] = table.concat(words, " ")
      end
      assert.same({ "f create", "f modify", "f attrib", "d create is_dir", "f moved_from", "g moved_to", "g delete" },
        seen)
      assert.is_true(inotify:remove(wd))
      assert.same({ wd = wd, ignored = true }, inotify:read()[1])
      fails(errno.ENOTDIR, inotify:add("/dev/null"))
      inotify:close()
      assert.has_error(function()
        inotify:read()
      end, "attempt to use a closed watcher")
    end)
  end)

  describe("gzip", function()
    local function pack(text)
      local deflate = native.deflate()
      return deflate:write(text) .. deflate:write("", true)
    end

    -- Unpacks in small pieces of input and output.
    local function unpack_all(packed, input, output)
      local inflate, out, at = native.inflate(), {}, 1
      while true do
        local piece, message = inflate:pull(output or 1000)
        if piece == nil then
          return nil, message
        elseif piece then
          assert.is_true(#piece <= (output or 1000))
          out[#out + 1] = piece
        elseif at > #packed then
          return table.concat(out), inflate:at_end()
        else
          inflate:push(packed:sub(at, at + (input or 100) - 1))
          at = at + (input or 100)
        end
      end
    end

    it("comes back as it was", function()
      for _, text in ipairs({ "", "x", ("some text "):rep(20000), ("\0\255\n"):rep(1000) }) do
        local packed = pack(text)
        assert.equal("\31\139", packed:sub(1, 2))
        for _, size in ipairs({ 1, 7, 100000 }) do
          local back, whole = unpack_all(packed, size)
          assert.equal(text, back)
          assert.is_true(whole)
        end
      end
    end)

    it("is what gzip writes and reads, one member after another too", function()
      support.write_file(dir .. "/a.gz", pack("first ") .. pack("second"))
      assert.equal("first second", (support.shell("gzip -dc " .. dir .. "/a.gz")))
      assert.equal("first second", (unpack_all(support.read_file(dir .. "/a.gz"), 3)))
    end)

    it("knows what is cut, wrong or no gzip at all", function()
      local packed = pack(("some text "):rep(1000))
      for _, length in ipairs({ 1, 5, 15, #packed - 1 }) do
        local text, whole = unpack_all(packed:sub(1, length))
        assert.is_string(text)
        assert.is_false(whole)
      end
      assert.same({ nil, "gzip: invalid header" }, { unpack_all("this is plain text") })
      assert.same({ nil, "gzip: invalid header" }, { unpack_all(packed .. "trailing garbage") })
      assert.same({ nil, "gzip: invalid checksum" }, { unpack_all(packed:sub(1, -9) .. "XXXX" .. packed:sub(-4)) })
      local _, message = unpack_all(packed:sub(1, 20) .. ("\255"):rep(50))
      assert.matches("^flate: ", message)
    end)

    it("gives out no more than was asked for, whatever was sent", function()
      -- 16 MiB of nothing in 16 KiB.
      local bomb = pack(("\0"):rep(16 * 1024 * 1024))
      local inflate, total = native.inflate(), 0
      inflate:push(bomb)
      while true do
        local piece = inflate:pull(4096)
        if not piece then
          break
        end
        assert.is_true(#piece <= 4096)
        total = total + #piece
      end
      assert.equal(16 * 1024 * 1024, total)
    end)

    it("cannot be used after its end", function()
      local deflate = native.deflate()
      deflate:write("x", true)
      assert.has_error(function()
        deflate:write("y")
      end)
      local inflate = native.inflate()
      inflate:close()
      assert.has_error(function()
        inflate:pull(1)
      end, "attempt to use a closed decompressor")
    end)
  end)
end)
