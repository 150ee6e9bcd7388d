-- Files, watching and trees in real sandboxes of the local server.
local support = require("spec.support.support")
local platform = require("spec.support.platform")
local e2b = require("e2b")
local core = require("e2b.core")
local envd_peer = require("spec.support.envd_peer")

-- The big ones are made smaller where everything is slow.
local BIG = math.floor(tonumber(os.getenv("E2B_SPEC_STREAM_BYTES") or "") or 1e9)

describe("the files of a real sandbox", function()
  local here, sandbox, files, folder

  setup(function()
    here = platform.start()
    sandbox = here:create({ timeout = 3600 })
  end)
  teardown(function()
    here:cleanup()
    here:stop()
  end)

  before_each(function()
    files = sandbox.files
    folder = support.tmpdir()
  end)
  after_each(function()
    support.shell("chmod -R u+rwx " .. folder)
    support.cleanup(folder)
  end)

  local function run(command, opts)
    local result = assert(sandbox.commands:run(command, opts))
    assert.equal(0, result.exit_code, result.stderr)
    return result.stdout
  end

  local EVERY_BYTE
  do
    local all = {}
    for i = 0, 255 do all[i + 1] = string.char(i) end
    EVERY_BYTE = table.concat(all)
  end

  for _, mode in ipairs(envd_peer.MODES) do
    describe("in " .. mode.name, function()
      local function row(name, fn)
        it(name, function() mode.run(fn) end)
      end

      before_each(function() assert(files:remove("/home/user/t")) end)

      row("are written, read, asked about and removed", function()
        local info = assert(files:write("t/a.txt", EVERY_BYTE))
        assert.same({ name = "a.txt", path = "/home/user/t/a.txt", type = "file" }, info)
        assert.equal(EVERY_BYTE, files:read("t/a.txt"))
        local entry = assert(files:get_info("t/a.txt"))
        assert.same({ "a.txt", "file", 256, 420, "-rw-r--r--", "user", "user" },
          { entry.name, entry.type, entry.size, entry.mode, entry.permissions, entry.owner, entry.group })
        assert.is_true(math.abs(entry.modified_time - os.time()) < 60)
        assert.is_true(files:exists("t/a.txt"))
        assert.is_true(files:remove("t/a.txt"))
        assert.is_false(files:exists("t/a.txt"))
        assert.is_true(files:remove("t/a.txt"))
        local value, _, err = files:read("t/a.txt")
        assert.is_nil(value)
        assert.same({ "not_found", "file" }, { err.kind, err.resource })
        value, _, err = files:read("t/a.txt", { format = "stream" })
        assert.is_nil(value)
        assert.equal("not_found", err.kind)
        _, _, err = files:get_info("t/a.txt")
        assert.same({ "not_found", "file" }, { err.kind, err.resource })
      end)

      row("may be empty", function()
        assert(files:write("t/empty", ""))
        assert.equal("", files:read("t/empty"))
        assert.equal("", files:read("t/empty", { gzip = true }))
        assert.is_nil((assert(files:read("t/empty", { format = "stream" })):read()))
        assert.equal(0, files:read("t/empty", { to = folder .. "/empty" }))
        assert.equal("", support.read_file(folder .. "/empty"))
      end)

      row("have every name that a file can have", function()
        local names = {}
        for code = 1, 255 do
          local char = string.char(code)
          if char ~= "/" and (code < 128) then names[#names + 1] = "x" .. char .. "y" end
        end
        for _, name in ipairs({ "ü", "文档", "-rf", "a b", "%41", "..x", ("n"):rep(255), "'\"\\$`", "~x" }) do
          names[#names + 1] = name
        end
        local list = {}
        for i, name in ipairs(names) do list[i] = { path = "t/names/" .. name, data = "of " .. i } end
        local infos = assert(files:write_files(list))
        for i, name in ipairs(names) do
          assert.equal("/home/user/t/names/" .. name, infos[i].path)
          assert.equal("of " .. i, files:read("t/names/" .. name))
        end
        local seen = {}
        for _, entry in ipairs(assert(files:list("t/names"))) do seen[entry.name] = true end
        for _, name in ipairs(names) do assert.is_true(seen[name], name) end
        assert(files:rename("t/names/x\ny", "t/names/x\ty2"))
        assert.is_true(files:exists("t/names/x\ty2"))
      end)

      row("are listed", function()
        for _, path in ipairs({ "file1.txt", "subdir1/subdir1_1/f", "subdir1/subdir1_2/f", "subdir2/g" }) do
          assert(files:write("t/" .. path, "x"))
        end
        run("ln -s nowhere t/broken && mkfifo t/pipe")
        local function paths(depth)
          local out = {}
          for i, entry in ipairs(assert(files:list("t", { depth = depth }))) do
            out[i] = entry.path:match("^/home/user/t/(.*)$")
          end
          return out
        end
        assert.same({ "broken", "file1.txt", "pipe", "subdir1", "subdir2" }, paths())
        assert.same({ "broken", "file1.txt", "pipe", "subdir1", "subdir1/subdir1_1", "subdir1/subdir1_2", "subdir2",
          "subdir2/g" }, paths(2))
        assert.same(10, #paths(3))
        assert.same(paths(3), paths(100))
        local list = assert(files:list("t"))
        assert.is_nil(list[1].type) -- leads nowhere
        assert.is_nil(list[3].type)
        assert.same({ "dir", "drwxr-xr-x", 493 }, { list[4].type, list[4].permissions, list[4].mode })
        local value, _, err = files:list("t/none")
        assert.is_nil(value)
        assert.same({ "not_found", "file" }, { err.kind, err.resource })
        _, _, err = files:list("t/file1.txt")
        assert.equal("invalid_argument", err.kind)
      end)

      row("are links, too", function()
        assert(files:write("t/test.txt", "linked"))
        run("cd t && ln -s test.txt link && ln -s loop loop && mkdir d && ln -s d dlink")
        local entry = assert(files:get_info("t/link"))
        assert.same({ "file", "/home/user/t/test.txt", "/home/user/t/link" },
          { entry.type, entry.symlink_target, entry.path })
        assert.equal("linked", files:read("t/link"))
        assert(files:write("t/d/f", "x"))
        assert.equal("/home/user/t/dlink/f", assert(files:list("t/dlink"))[1].path)
        local _, _, err = files:list("t/loop")
        assert.equal("conflict", err.kind)
        assert.is_true(files:exists("t/loop"))
      end)

      row("make, rename and remove directories", function()
        assert.is_true(files:make_dir("t/a/b/c"))
        assert.is_false(files:make_dir("t/a/b/c"))
        assert(files:write("t/file", "x"))
        local _, _, err = files:make_dir("t/file")
        assert.equal("invalid_argument", err.kind)
        local entry = assert(files:rename("t/a", "t/new/a"))
        assert.same({ "a", "dir", "/home/user/t/new/a" }, { entry.name, entry.type, entry.path })
        assert.is_true(files:exists("t/new/a/b/c"))
        _, _, err = files:rename("t/none", "t/x")
        assert.same({ "not_found", "file" }, { err.kind, err.resource })
        assert.is_true(files:remove("t/new"))
        assert.is_false(files:exists("t/new"))
        _, _, err = files:write("t", "x")
        assert.equal("invalid_argument", err.kind)
      end)

      row("belong to the user who is named", function()
        assert.equal("/root/t-file", assert(files:write("t-file", "x", { user = "root" })).path)
        assert.equal("root", assert(files:get_info("t-file", { user = "root" })).owner)
        assert.equal("x", files:read("t-file", { user = "root" }))
        assert(files:remove("t-file", { user = "root" }))
        local _, _, err = files:get_info("x", { user = "nobody-here" })
        assert.equal("authentication", err.kind)
        _, _, err = files:read("x", { user = "nobody-here" })
        assert.equal("authentication", err.kind)
      end)

      row("keep metadata", function()
        local info = assert(files:write("t/m", "x", { metadata = { Author = "me", note = "a b" } }))
        if info.metadata == nil then return end -- a file system without attributes
        local expected = { author = "me", note = "a b" }
        assert.same(expected, info.metadata)
        assert.same(expected, assert(files:get_info("t/m")).metadata)
        assert.same(expected, assert(files:rename("t/m", "t/m2")).metadata)
        assert.same(expected, assert(files:list("t"))[1].metadata)
        assert(files:write("t/m2", "y"))
        assert.is_nil(assert(files:get_info("t/m2")).metadata)
        info = assert(files:write("t/m2", "z", { metadata = { v = "2" }, atomic = true }))
        assert.same({ v = "2" }, info.metadata)
        local infos = assert(files:write_files({ { path = "t/x", data = "" }, { path = "t/y", data = "" } },
          { metadata = { v = "3" } }))
        assert.same({ v = "3" }, infos[2].metadata)
      end)

      row("are packed on the way", function()
        local data = ("line of text\n"):rep(100000)
        assert(files:write("t/z", data, { gzip = true }))
        assert.equal(data, files:read("t/z"))
        assert.equal(data, files:read("t/z", { gzip = true }))
        assert.equal(#data, files:read("t/z", { gzip = true, to = folder .. "/z" }))
        assert.equal(data, support.read_file(folder .. "/z"))
        assert(files:write("t/z2", { path = folder .. "/z" }, { gzip = true }))
        assert.equal(data, files:read("t/z2"))
        assert(files:write_files({ { path = "t/z3", data = data:sub(1, 500000) }, { path = "t/z4", data = "4" } },
          { gzip = true }))
        assert.equal(data:sub(1, 500000), files:read("t/z3"))
        local left = { "a", "b", "c" }
        assert(files:write("t/z5", function() return table.remove(left, 1) end, { gzip = true }))
        assert.equal("abc", files:read("t/z5"))
        local reader = assert(files:read("t/z", { gzip = true, format = "stream" }))
        local n = 0
        repeat
          local line = reader:read_line()
          n = n + (line and 1 or 0)
        until not line
        assert.equal(100000, n)
      end)

      row("are written by forms as well", function()
        local data = EVERY_BYTE:rep(1000)
        assert(files:write("t/form", data, { use_octet_stream = false }))
        assert.equal(data, files:read("t/form"))
        support.write_file(folder .. "/in", data)
        assert(files:write('t/"form', { path = folder .. "/in" }, { use_octet_stream = false }))
        assert.equal(data, files:read('t/"form'))
      end)

      row("are written many at once", function()
        local list = {}
        for i = 1, 1000 do list[i] = { path = ("t/many/%d/%d"):format(i % 7, i), data = ("%d"):format(i) } end
        support.write_file(folder .. "/local", "a local file")
        list[#list + 1] = { path = "t/many/local", data = { path = folder .. "/local" } }
        list[#list + 1] = { path = "t/many/large", data = ("x"):rep(3000000) }
        list[#list + 1] = { path = "/0/multi", data = "elsewhere" }
        local infos = assert(files:write_files(list))
        for i = 1, 1000 do assert.equal("/home/user/" .. list[i].path, infos[i].path) end
        assert.equal("/0/multi", infos[#infos].path)
        assert.equal("elsewhere", files:read("/0/multi"))
        assert.equal("777", files:read("t/many/0/777"))
        assert.equal("a local file", files:read("t/many/local"))
        assert.equal(3000000, assert(files:get_info("t/many/large")).size)
        assert.equal("1002\n", run("find t/many -type f | wc -l"))
      end)

      row("are whole or not there when atomic", function()
        assert(files:write("t/a", "before"))
        run("ln -s a t/l")
        assert(files:write("t/a", "after", { atomic = true }))
        assert.equal("after", files:read("t/a"))
        local value, _, err = files:write("t/a", function() return nil, "torn" end, { atomic = true })
        assert.is_nil(value)
        assert.equal("cancelled", err.kind)
        assert.equal("after", files:read("t/a"))
        assert.equal("a\nl\n", run("ls -A t"))
      end)

      row("are watched", function()
        assert(files:make_dir("t/w/nested"))
        local watcher = assert(files:watch_dir("t/w", { recursive = true, include_entry = true }))
        assert.same({}, watcher:get_new_events())
        assert(files:write("t/w/nested/file", "hello"))
        local seen = {}
        for i = 1, 3 do
          local event = assert(watcher:next(5))
          assert.equal("nested/file", event.name)
          seen[i] = event.type
          assert.equal("/home/user/t/w/nested/file", event.entry.path)
        end
        assert.same({ "create", "chmod", "write" }, seen)
        assert.same({}, watcher:get_new_events())
        assert(files:rename("t/w/nested/file", "t/w/moved"))
        local event = assert(watcher:next(5))
        assert.same({ "rename", "nested/file" }, { event.type, event.name })
        assert.is_nil(event.entry)
        assert.equal("moved", assert(watcher:next(5)).name)
        assert(files:remove("t/w/moved"))
        assert.equal("remove", assert(watcher:next(5)).type)
        watcher:stop()
        local _, _, err = files:watch_dir("t/none")
        assert.same({ "not_found", "file" }, { err.kind, err.resource })
        _, _, err = files:watch_dir("/etc/passwd")
        assert.equal("invalid_argument", err.kind)
      end)

      row("are copied as trees, both ways", function()
        support.shell("cd " .. folder .. " && mkdir -p in/src/deep in/node_modules/x in/.git && cd in "
          .. "&& echo one > src/1 && echo 'ü' > \"src/deep/ü b\" && ln -s ../1 src/deep/link "
          .. "&& ln -s /nowhere broken && chmod 755 src/1 "
          .. "&& touch -d @1234567890 src/deep && echo x > node_modules/x/y && echo g > .git/c "
          .. "&& head -c 3000000 /dev/urandom > big && mkdir locked && echo 1 > locked/f && chmod 555 locked "
          .. "&& n=$(printf '%0200d' 0) && mkdir $n && echo long > $n/$n")
        local sent = assert(files:put_tree(folder .. "/in", "t/proj", { ignore = { "node_modules/", ".git/" } }))
        assert.same({ 5, 4, 2, 0 }, { sent.files, sent.dirs, sent.symlinks, sent.skipped })
        assert.equal("755\n", run("stat -c %a t/proj/src/1"))
        assert.equal("1234567890\n", run("stat -c %Y t/proj/src/deep"))
        assert.equal("../1\n", run("readlink t/proj/src/deep/link"))
        run("mkdir t/proj/node_modules && echo x > t/proj/node_modules/y")
        local got = assert(files:get_tree("t/proj", folder .. "/out", { ignore = { "node_modules/" }, gzip = true }))
        assert.same({ 5, 4, 2, 0 }, { got.files, got.dirs, got.symlinks, got.skipped })
        local output, code = support.shell("cd " .. folder .. " && rm -r in/node_modules in/.git && "
          .. "diff -r --no-dereference in out && stat -c %a:%Y in/src/deep out/src/deep in/locked out/locked")
        assert.equal(0, code, output)
        assert.equal("", run("find /tmp -maxdepth 1 -type f"))
        run("chmod u+w t/proj/locked")
      end)

      row("are fetched and posted by URL", function()
        assert(files:write("t/u v.txt", "by URL"))
        local function curl(url, more)
          local text = support.shell(("curl -s -H 'E2b-Sandbox-Id: %s' -H 'E2b-Sandbox-Port: 49983' %s %s"):format(
            sandbox.sandbox_id, more or "", support.quote(url)))
          return (text:gsub("%s+$", ""))
        end
        assert.equal("by URL", curl(sandbox:download_url("t/u v.txt")))
        assert.equal("by URL", curl(sandbox:download_url("t/u v.txt", { use_signature_expiration = 60 })))
        assert.equal('{"code":401,"message":"signature is already expired"}',
          curl(sandbox:download_url("t/u v.txt", { use_signature_expiration = -60 })))
        assert.equal('[{"name":"up","path":"/home/user/t/up","type":"file"}]',
          curl(sandbox:upload_url("t/up"), "-F file=@/etc/passwd"))
        assert.equal(support.read_file("/etc/passwd"), files:read("t/up"))
        assert.equal('[{"name":"up2","path":"/root/up2","type":"file"}]',
          curl(sandbox:upload_url("up2", { user = "root" }), "-F file=@/etc/passwd"))
        assert.matches("invalid signature", curl((sandbox:download_url("t/up"):gsub("path=t", "path=s"))))
      end)
    end)
  end

  it("are 10,000 in a directory", function()
    run("mkdir -p /tmp/many && cd /tmp/many && seq -f 'f%05.0f' 10000 | xargs touch")
    local list = assert(files:list("/tmp/many"))
    assert.equal(10000, #list)
    for i = 1, 10000 do assert.equal(("f%05d"):format(i), list[i].name) end
    assert(files:remove("/tmp/many"))
    assert.is_false(files:exists("/tmp/many"))
  end)

  it("are written side by side into a directory that isn't there yet", function()
    local results, failed = e2b.map({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, function(i)
      return files:write("t/new/deep/er/" .. i, tostring(i))
    end)
    assert.equal(0, failed, failed > 0 and results[1].message)
    assert.equal(10, #assert(files:list("t/new/deep/er")))
  end)

  it("are the same of any length, with flat memory", function()
    local result = support.run([[
      local e2b = require("e2b")
      local exchange = require("spec.support.exchange")
      local stream = require("spec.support.stream_peer")
      local client = e2b.client({ api_url = arg[1], sandbox_url = arg[1], api_key = arg[2] })
      local sandbox = assert(client.Sandbox.connect(arg[3]))
      local files, folder, size = sandbox.files, arg[4], tonumber(arg[5])
      local function sum(command) return command:match("^%x+") end
      local function locally(path)
        local pipe = io.popen("sha256sum < " .. path)
        local text = pipe:read("*a")
        pipe:close()
        return sum(text)
      end
      stream.write_file(folder .. "/small", 1000000)
      assert(files:write("small", { path = folder .. "/small" }))
      assert(files:read("small", { to = folder .. "/back" }))
      -- What makes the file is the spec's own.
      stream.write_file(folder .. "/big", size)
      local before = exchange.peak_kb()
      local expected = locally(folder .. "/big")
      assert(files:write("big", { path = folder .. "/big" }))
      local result = assert(sandbox.commands:run("sha256sum < big", { timeout = 120 }))
      assert(sum(result.stdout) == expected, "it went up wrong")
      os.remove(folder .. "/big")
      assert(files:read("big", { to = folder .. "/back" }) == size)
      assert(locally(folder .. "/back") == expected, "it came down wrong")
      assert(files:remove("big"))
      local grown = exchange.peak_kb() - before
      assert(grown < 10000, "peak memory grew by " .. grown .. " kB")
    ]], {
      args = { here.server.url, here.server.api_key, sandbox.sandbox_id, folder, ("%.0f"):format(BIG) }, timeout = 300,
      env = { ASAN_OPTIONS = (os.getenv("ASAN_OPTIONS") or "") .. ":quarantine_size_mb=1" },
    })
    assert.equal(0, result.code, result.out .. result.err)
  end)

  it("say when the sandbox was killed under them", function()
    local other = here:create({ timeout = 600 })
    assert(other.files:write("x", ("x"):rep(1000)))
    local watcher = assert(other.files:watch_dir("."))
    local writer = e2b.spawn(function()
      return other.files:write("y", function()
        assert(e2b.sleep(0.05))
        return ("y"):rep(10000)
      end)
    end)
    assert(e2b.sleep(0.3))
    assert(other:kill())
    local event, text, err
    repeat event, text, err = watcher:next(10) until not event
    assert.is_nil(event)
    assert.equal("sandbox_gone", err.kind, text)
    local value
    value, text, err = writer:wait(20)
    assert.is_nil(value)
    assert.equal("sandbox_gone", err.kind, text)
    assert.equal("number", type(err.bytes_sent))
    value, text, err = other.files:read("x")
    assert.is_nil(value)
    assert.equal("sandbox_gone", err.kind, text)
    assert.equal(0, core.stats().in_flight)
  end)

  it("are copied as trees where the sandbox has no walls, too", function()
    local plain = platform.start({ isolation = false })
    local of = plain:create({ timeout = 600 }).files
    support.shell("mkdir -p " .. folder .. "/in/a && echo x > " .. folder .. "/in/a/b")
    assert.equal(1, assert(of:put_tree(folder .. "/in", "proj")).files)
    assert.equal("x\n", of:read("proj/a/b"))
    assert.equal(1, assert(of:get_tree("/home/user/proj", folder .. "/out")).files)
    assert.equal("x\n", support.read_file(folder .. "/out/a/b"))
    plain:cleanup()
    plain.server:stop()
  end)

  it("outlive a pause", function()
    local other = here:create({ timeout = 600 })
    assert(other.files:write("x", "kept"))
    assert(other:pause())
    assert(other:resume())
    assert.equal("kept", other.files:read("x"))
  end)
end)
