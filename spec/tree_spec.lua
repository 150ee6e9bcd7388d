-- Trees of files, one archive each way, against a peer that plays the daemon: what is sent, what is unpacked here
-- whatever comes, and that nothing is left over there.
local support = require("spec.support.support")
local e2b = require("e2b")
local core = require("e2b.core")
local envd_peer = require("spec.support.envd_peer")
local tar = require("e2b.tar")

local unpack = table.unpack or unpack -- luacheck: ignore 113 143

-- Keeps what is uploaded in FOLDER/sent, hands out FOLDER/archive. The remote directory's name says what tar does.
local DAEMON = [==[
  local FOLDER = %q
  local function entry(path, kind)
    return answer(200, ('{"entry":{"name":"n","path":"%%s","type":"FILE_TYPE_%%s"}}'):format(path, kind))
  end
  function on.Stat(message)
    if message.path == "missing" then return fail(404, "not_found", "no such file") end
    return entry("/home/user/" .. message.path, message.path == "file" and "FILE" or "DIRECTORY")
  end
  function on.MakeDir(message)
    if message.path == "there" then return fail(409, "already_exists", "it is there") end
    if message.path == "file" then return fail(400, "invalid_argument", "path is a file") end
    return entry("/home/user/" .. message.path, "DIRECTORY")
  end
  function on.Start(message)
    local what = table.concat(message.process.args, " "):match("%%.%%./home/user/(%%S+)")
    if what == "none" then return run(127, nil, "tar: not found\n") end
    if what == "full" then return run(2, nil, "tar: x: Cannot write: No space left on device\n") end
    if what == "broken" then return run(2, nil, "tar: a: Cannot open: Permission denied\n") end
    if what == "changing" then return run(1, nil, "tar: ./log: file changed as we read it\n") end
    if what == "hangs" then
      begin()
      event('{"start":{"pid":7}}')
      return conn:wait_closed()
    end
    return run(0)
  end
  function on.Remove() return answer(200) end
  local function read(name)
    local file = io.open(FOLDER .. "/" .. name, "rb")
    local text = file:read("*a")
    file:close()
    return text
  end
  function on.files(body)
    if request.method == "POST" then
      local file = io.open(FOLDER .. "/sent", "wb")
      file:write(request.body)
      file:close()
      local path = request.path:match("path=([^&]*)"):gsub("%%%%2F", "/")
      return conn:respond(200, '[{"name":"n","path":"' .. path .. '","type":"file"}]')
    end
    local text = read("archive")
    local cut = io.open(FOLDER .. "/cut")
    if cut then
      cut:close()
      conn:send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" .. text)
      return conn:close()
    end
    return conn:respond(200, text, { ["Content-Type"] = "application/x-tar" })
  end
]==]

describe("a tree", function()
  local server, files, folder, here

  setup(function()
    folder = support.tmpdir()
    server = envd_peer.start(DAEMON:format(folder))
  end)

  teardown(function()
    e2b.close()
    server:stop()
    support.cleanup(folder)
  end)

  before_each(function()
    here = support.tmpdir()
    support.shell("rm -f " .. folder .. "/*")
    files = server.sandbox().files
  end)

  after_each(function()
    support.shell("chmod -R u+rwx " .. here)
    support.cleanup(here)
  end)

  local function shell(command)
    local output, code = support.shell("cd " .. here .. " && " .. command)
    assert(code == 0, output)
    return output
  end

  -- The archive is taken away, and nothing else is.
  local function removed()
    local all = envd_peer.messages(server, "Remove")
    local last = all[#all]
    return last and last.message.path
  end

  local function started()
    local all = envd_peer.messages(server, "Start")
    return all[#all].message.process, all[#all].headers
  end

  local function calls_since(before)
    local names = {}
    local requests = server:requests()
    for i = before + 1, #requests do
      names[#names + 1] = requests[i].path:gsub("%?.*$", ""):match("[%w]+$")
    end
    return table.concat(names, " ")
  end

  local PLANT = "mkdir -p in/a/b in/node_modules/x in/empty && cd in && echo one > a/1 && echo two > a/b/2 "
    .. "&& ln -s ../1 a/b/link && ln -s /nowhere broken && chmod 750 a/1 && touch -d @1234567890 a/b/2 a/b "
    .. "&& echo x > node_modules/x/y && echo 'ü' > \"a/ü \\\"x\" && mkfifo pipe && : > nothing"

  for _, mode in ipairs(envd_peer.MODES) do
    it("goes there as one archive, in " .. mode.name, function()
      mode.run(function()
        shell(PLANT)
        local before = #server:requests()
        local result = assert(files:put_tree(here .. "/in", "proj", { ignore = { "node_modules/", "*.o" } }))
        assert.same({ files = 4, dirs = 3, symlinks = 2, bytes = 11, skipped = 1 }, result)
        assert.equal("4 files, 3 directories, 2 links, 11 B", tostring(result))
        assert.equal("MakeDir Stat files Start Remove", calls_since(before))
        local process, headers = started()
        local args = process.args
        assert.same({ "tar", "-x", "-o", "-p", "-f", "-C", "../home/user/proj", "/tmp" },
          { process.cmd, args[1], args[2], args[3], args[4], args[6], args[7], process.cwd })
        assert.is_nil(headers["connect-timeout-ms"]) -- however long it takes
        assert.equal("/tmp/" .. args[5], removed())
        assert.matches("^%.e2b%-%x+%.tar$", args[5])
        shell("mkdir out && tar -x -p -f " .. folder .. "/sent -C out && rm -r in/node_modules in/pipe")
        shell("diff -r --no-dereference in out")
        assert.equal("750", shell("stat -c %a out/a/1"):match("%d+"))
        assert.equal("1234567890 1234567890", shell("echo $(stat -c %Y out/a/b/2 out/a/b)"):match("[%d ]+"))
      end)
    end)

    it("comes here as one archive, in " .. mode.name, function()
      mode.run(function()
        shell(PLANT .. " && rm pipe && mkfifo q && ln a/1 a/hard && mkdir locked && : > locked/f && chmod 555 locked")
        shell("tar -c -C in . > " .. folder .. "/archive")
        local before = #server:requests()
        local result = assert(files:get_tree("proj", here .. "/out", { ignore = { "node_modules/", "/a/b/2" } }))
        assert.same({ files = 5, dirs = 4, symlinks = 2, skipped = 1 },
          { files = result.files, dirs = result.dirs, symlinks = result.symlinks, skipped = result.skipped })
        assert.equal("Stat Start files Remove", calls_since(before))
        local process = started()
        local name = process.args[3]
        assert.same({ "-c", "-f", name, "-C", "../home/user/proj", "--exclude=" .. name, "--exclude=*/node_modules/*",
          "--exclude=./a/b/2/*", "." }, process.args)
        assert.equal("/tmp/" .. name, removed())
        shell("rm -r in/node_modules in/a/b/2 in/q && diff -r --no-dereference in out")
        assert.equal("750 555", shell("echo $(stat -c %a out/a/1 out/locked)"):match("[%d ]+"))
        assert.equal("1234567890", shell("stat -c %Y out/a/b"):match("%d+"))
        assert.equal(shell("stat -c %i out/a/1"), shell("stat -c %i out/a/hard"))
        -- once more, over itself
        assert(files:get_tree("proj", here .. "/out", { ignore = { "node_modules/", "/a/b/2" } }))
        shell("diff -r --no-dereference in out")
      end)
    end)
  end

  it("tells how far it is", function()
    shell("mkdir in && head -c 3000000 /dev/zero > in/big")
    local told = {}
    local function progress(done, total) told[#told + 1] = { done, total } end
    assert(files:put_tree(here .. "/in", "proj", { progress = progress }))
    local size = #support.read_file(folder .. "/sent")
    assert.same({ size, size }, told[#told])
    shell("cp " .. folder .. "/sent " .. folder .. "/archive")
    told = {}
    assert(files:get_tree("proj", here .. "/out", { progress = progress }))
    assert.same({ size, size }, told[#told])
    shell("cmp in/big out/big")
  end)

  it("may be there already", function()
    shell(PLANT)
    assert(files:put_tree(here .. "/in", "there"))
    shell("mkdir out && echo mine > out/mine && tar -c -C in a > " .. folder .. "/archive")
    assert(files:get_tree("proj", here .. "/out"))
    assert.equal("mine", shell("cat out/mine"):match("%a+"))
    assert.equal("one", shell("cat out/a/1"):match("%a+"))
  end)

  it("names the user in every call", function()
    shell(PLANT)
    support.write_file(folder .. "/archive", tar.ENDING)
    for _, call in ipairs({
      function() return files:put_tree(here .. "/in", "proj", { user = "root" }) end,
      function() return files:get_tree("proj", here .. "/out", { user = "root" }) end,
    }) do
      local before = #server:requests()
      assert(call())
      local requests = server:requests()
      for i = before + 1, #requests do
        local request = requests[i]
        assert.is_true(request.headers.authorization == "Basic cm9vdDo=" or request.path:find("username=root") ~= nil,
          request.path)
      end
    end
  end)

  it("says what tar says, and takes the archive away", function()
    shell(PLANT)
    support.write_file(folder .. "/archive", tar.ENDING)
    for remote, kind in pairs({ none = "unsupported", full = "no_space", broken = "exit" }) do
      for _, call in ipairs({
        function() return files:put_tree(here .. "/in", remote) end,
        function() return files:get_tree(remote, here .. "/out") end,
      }) do
        local before = #server:requests()
        local value, text, err = call()
        assert.is_nil(value)
        assert.equal(kind, err.kind, text)
        assert.matches("^sandbox%.files:[pg][ue]t_tree: ", text)
        assert.equal("i1", err.sandbox_id)
        assert.matches("Remove$", calls_since(before))
      end
    end
    local _, text, err = files:put_tree(here .. "/in", "broken")
    assert.matches("tar failed in the sandbox (exit code 2): tar: a: Cannot open: Permission denied", text, nil, true)
    assert.same({ 2, "tar: a: Cannot open: Permission denied\n" }, { err.exit_code, err.stderr })
    -- a file that changed is none
    assert(files:get_tree("changing", here .. "/out"))
  end)

  it("says what is wrong with a directory", function()
    shell("mkdir in; : > file")
    local before = #server:requests()
    for path in pairs({ no = 1, file = 1 }) do
      local value, text, err = files:put_tree(here .. "/" .. path, "proj")
      assert.is_nil(value)
      assert.same({ "invalid_argument", "local_file" }, { err.kind, err.resource }, text)
    end
    for path in pairs({ ["no/out"] = 1, file = 1 }) do
      local value, text, err = files:get_tree("proj", here .. "/" .. path)
      assert.is_nil(value)
      assert.same({ "invalid_argument", "local_file" }, { err.kind, err.resource }, text)
    end
    assert.equal(before, #server:requests())
    local value, _, err = files:get_tree("missing", here .. "/out")
    assert.is_nil(value)
    assert.same({ "not_found", "file" }, { err.kind, err.resource })
    for _, call in ipairs({
      function() return files:get_tree("file", here .. "/out") end,
      function() return files:put_tree(here .. "/in", "file") end,
    }) do
      value, _, err = call()
      assert.is_nil(value)
      assert.equal("invalid_argument", err.kind)
    end
  end)

  it("that can't be read here is not sent in part", function()
    -- who may read everything (root) can't be refused a file: so it is told here that it was
    shell("mkdir in && : > in/a")
    local fs_stat = core.fs_stat
    core.fs_stat = function(path, follow)
      if path:find("/in/a$") then return nil, "cannot read '" .. path .. "': Permission denied", 13 end
      return fs_stat(path, follow)
    end
    local value, text, err = files:put_tree(here .. "/in", "proj")
    core.fs_stat = fs_stat
    assert.is_nil(value)
    assert.same({ "invalid_argument", "local_file", here .. "/in/a" }, { err.kind, err.resource, err.path })
    assert.matches("put_tree: cannot read '" .. here .. "/in/a': Permission denied", text, nil, true)
    assert.is_nil(support.read_file(folder .. "/sent"))
  end)

  -- What an archive may not do ---------------------------------------------------------------------------------------

  local function file(path, data, more)
    local entry = { type = "file", path = path, mode = 420, mtime = 1, size = #data }
    for name, value in pairs(more or {}) do entry[name] = value end
    return tar.header(entry) .. data .. tar.padding(#data)
  end
  local function link(path, target, kind)
    return tar.header({ type = kind or "symlink", path = path, target = target, mode = 511, mtime = 1 })
  end

  local function get(...)
    support.write_file(folder .. "/archive", table.concat({ ... }) .. tar.ENDING)
    shell("rm -rf outside out && mkdir outside out && echo safe > outside/file")
    return files:get_tree("proj", here .. "/out")
  end

  it("is never unpacked outside of its directory", function()
    local outside = here .. "/outside"
    for name, parts in pairs({
      dots = { file("../outside/file", "evil") },
      ["more dots"] = { file("a/../../outside/file", "evil") },
      absolute = { file(outside .. "/file", "evil") },
      ["through a link"] = { link("l", outside), file("l/file", "evil") },
      ["through a relative link"] = { link("l", "../outside"), file("l/new", "evil") },
      ["a directory through a link"] = { link("l", outside),
        tar.header({ type = "dir", path = "l/d", mode = 511, mtime = 1 }) },
      ["a link to a file outside"] = { link("h", "../outside/file", "link"), file("h", "evil") },
      ["an absolute link"] = { link("h", outside .. "/file", "link") },
      ["a link through a link"] = { link("l", outside), link("h", "l/file", "link") },
      ["a link with dots in its name"] = { link("../outside/l", "x") },
      ["a directory with dots in its name"] = { tar.header({ type = "dir", path = "../outside/d", mode = 511,
        mtime = 1 }) },
    }) do
      local value, text, err = get(unpack(parts))
      assert.is_nil(value, name)
      assert.is_true(err.kind == "protocol" or err.kind == "conflict", name .. ": " .. text)
      assert.matches("may be incomplete", text)
      assert.equal("file", shell("ls -A outside"):match("%S+"), name)
      assert.equal("safe", shell("cat outside/file"):match("%S+"), name)
    end
  end)

  it("replaces links instead of following them", function()
    assert(get(file("a", "new")))
    shell("rm out/a && ln -s ../outside/file out/a")
    assert(files:get_tree("proj", here .. "/out"))
    assert.equal("new", shell("cat out/a"):match("%S+"))
    assert.equal("safe", shell("cat outside/file"):match("%S+"))
    -- a link whose mode is set would change what it leads to
    assert(get(link("l", here .. "/outside/file"), file("plain", "x", { mode = 2541 })))
    assert.equal("755", shell("stat -c %a out/plain"):match("%d+")) -- none of its rights are lent
    assert.equal("644", shell("stat -c %a outside/file"):match("%d+"))
  end)

  it("is refused, or made to fit, when no file can be like that", function()
    assert(get(file("late", "x", { mtime = 1e20 }), file("early", "x", { mtime = -1e20 })))
    assert.equal("x", shell("cat out/late"):match("%S+"))
    for _, name in ipairs({ ("a/"):rep(5000) .. "b", ("n"):rep(100000) }) do
      support.write_file(folder .. "/archive", file(name, "x") .. tar.ENDING)
      shell("rm -rf out && mkdir out")
      for _, opts in ipairs({ {}, { ignore = { "*.o" } } }) do
        local value, text, err = files:get_tree("proj", here .. "/out", opts)
        assert.is_nil(value)
        assert.equal("protocol", err.kind, text)
        assert.matches("too long", text)
        assert.equal("", shell("ls -A out"):match("%S*"))
      end
    end
  end)

  it("does not go where something else is", function()
    for name, plant in pairs({
      ["a directory for a file"] = { "mkdir -p out/a/b", file("a", "x") },
      ["a file for a directory"] = { "echo x > out/a", file("a/b", "x") },
      ["a link for a directory"] = { "ln -s ../outside out/a", file("a/b", "x") },
    }) do
      support.write_file(folder .. "/archive", plant[2] .. tar.ENDING)
      shell("rm -rf outside out && mkdir outside out && " .. plant[1])
      local value, text, err = files:get_tree("proj", here .. "/out")
      assert.is_nil(value, name)
      assert.same({ "conflict", "local_file" }, { err.kind, err.resource }, name .. ": " .. text)
      assert.equal("", shell("ls -A outside"):match("%S*"))
    end
  end)

  it("leaves out what is no file, directory or link", function()
    local device = tar.header({ type = "file", path = "dev", mode = 438, mtime = 1, size = 0 })
    device = device:sub(1, 156) .. "3" .. device:sub(158)
    local sum = 0
    local blank = device:sub(1, 148) .. (" "):rep(8) .. device:sub(157)
    for i = 1, 512 do sum = sum + blank:byte(i) end
    device = device:sub(1, 148) .. ("%06o\0 "):format(sum) .. device:sub(157)
    local result = assert(get(device, file("./", ""), file("a", "x")))
    assert.same({ 1, 1 }, { result.skipped, result.files })
    assert.equal("a", shell("ls -A out"):match("%S+"))
  end)

  it("that is cut or no archive is told, and half a file is not left", function()
    support.write_file(folder .. "/cut", "")
    local value, text, err = get(file("a", "x"), file("b", ("x"):rep(100000)))
    assert.is_nil(value)
    assert.equal("network", err.kind, text)
    assert.matches("may be incomplete", text)
    os.remove(folder .. "/cut")
    for _, archive in ipairs({ "", "<html>", file("a", ("x"):rep(5000)):sub(1, 700), ("x"):rep(5000) }) do
      support.write_file(folder .. "/archive", archive)
      shell("rm -rf out && mkdir out")
      local before = #server:requests()
      value, text, err = files:get_tree("proj", here .. "/out")
      assert.is_nil(value)
      assert.equal("protocol", err.kind, text)
      assert.equal("", shell("ls -A out"):match("%S*"))
      assert.matches("Remove$", calls_since(before))
    end
  end)

  it("that is cancelled is taken away all the same", function()
    shell(PLANT)
    for _, call in ipairs({
      function() return files:put_tree(here .. "/in", "hangs") end,
      function() return files:get_tree("hangs", here .. "/out") end,
    }) do
      local before = #server:requests()
      local task = e2b.spawn(call)
      assert(e2b.sleep(0.2))
      task:cancel()
      local value, _, err = task:wait(10)
      assert.is_nil(value)
      assert.equal("cancelled", err.kind)
      assert.matches("Remove$", calls_since(before))
      assert.equal(0, core.stats().in_flight)
    end
  end)

  it("ends at its timeout", function()
    shell(PLANT)
    local seconds, value, text, err = support.timed(function()
      return files:put_tree(here .. "/in", "hangs", { timeout = 0.5 })
    end)
    assert.is_nil(value)
    assert.same({ "timeout", "timeout" }, { err.kind, err.deadline }, text)
    assert.is_true(seconds >= 0.4 and seconds < 0.5 + 5 * support.tolerance, seconds)
  end)

  it("doesn't fit on a full disk", function()
    support.write_file(folder .. "/archive", file("big", ("x"):rep(3000000)) .. tar.ENDING)
    local result = support.run([[
      local e2b = require("e2b")
      local client = e2b.client({ api_url = arg[1], sandbox_url = arg[1], api_key = "key" })
      local files = assert(client.Sandbox.create()).files
      local value, text, err = files:get_tree("proj", arg[2])
      assert(value == nil and err.kind == "no_space" and err.resource == "local_file", text)
      local pipe = io.popen("ls -A " .. arg[2])
      assert(pipe:read("*a") == "")
      pipe:close()
    ]], {
      args = { server.url, here },
      wrap = "unshare -rm sh -c 'mount -t tmpfs -o size=1m none " .. here .. " && exec \"$@\"' sh",
    })
    if result.code ~= 0 and support.shell("unshare -rm true"):find("unshare") then
      return pending("there are no user namespaces here")
    end
    assert.equal(0, result.code, result.out .. result.err)
  end)
end)
