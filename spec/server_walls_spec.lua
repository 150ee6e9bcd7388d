-- What a sandbox of the local server can do to the machine that it runs on: nothing.
local unix = require("socket.unix")
local local_server = require("e2b.server")
local native = require("e2b.server.native")
local sandboxes = require("spec.support.sandboxes")
local support = require("spec.support.support")

local ROOT = { Authorization = "Basic cm9vdDo=" }

describe("the walls of a sandbox", function()
  local folder, server, one

  setup(function()
    folder = support.tmpdir()
    server = local_server.start({ directory = folder })
  end)

  teardown(function()
    server:stop()
    support.cleanup(folder)
  end)

  before_each(function()
    if not sandboxes.can_isolate() then return pending("bubblewrap does not work here") end
    one = sandboxes.create(server)
  end)

  after_each(function()
    if not one then return end
    one.client:delete("/sandboxes/" .. one.id)
    sandboxes.wait_for_end(one.id)
  end)

  local function restart()
    assert.equal(204, one.client:post("/sandboxes/" .. one.id .. "/pause", { memory = false }).status)
    assert.equal(201, one.client:post("/v2/sandboxes/" .. one.id .. "/connect", { timeout = 60 }).status)
  end

  -- Asks the daemon for something, but not for long.
  local function ask()
    return (support.shell(("curl -sm 3 -H 'E2b-Sandbox-Id: %s' -H 'E2b-Sandbox-Port: 49983' -H 'X-Access-Token: %s' "
      .. "%s/envs"):format(one.id, one.token, server.url)))
  end

  it("do not let it lead the server to another socket", function()
    local path = folder .. "/private"
    local listener = unix()
    assert(listener:bind(path))
    assert(listener:listen(5))
    listener:settimeout(0)
    local swap = "rm -rf /run/e2b/envd.sock; ln -s %s /run/e2b/envd.sock; readlink /run/e2b/envd.sock"
    assert.equal(path .. "\n", one:shell(swap:format(path), nil, ROOT).stdout)
    assert.matches("^{", ask())
    restart()
    assert.equal("mine\n", one:shell("echo mine").stdout)
    assert.is_nil((listener:accept()))
    listener:close()
    -- Nor does it keep a successor of its daemon from starting.
    one:shell("rm -rf /run/e2b/*; mkdir -p /run/e2b/envd.sock/x; ln -s /nowhere /run/e2b/lua", nil, ROOT)
    restart()
    assert.equal("mine\n", one:shell("echo mine").stdout)
  end)

  it("do not follow what it puts in place of folders of the system", function()
    local victim = support.tmpdir()
    local function names() return native.fs_readdir(victim) end
    for _, name in ipairs({ "etc", "run", "usr", "dev", "proc" }) do
      -- Mount points themselves cannot be moved: those are replaced in the tree, as a sandbox without them could.
      one:shell(("mv /%s /%s.old && ln -s /oldroot%s /%s"):format(name, name, victim, name), nil, ROOT)
      local tree = sandboxes.tree(folder, one.id) .. "/root/"
      if name == "usr" or name == "dev" or name == "proc" then
        assert.equal(204, one.client:post("/sandboxes/" .. one.id .. "/pause", { memory = false }).status)
        local swap = ("rm -rf %s && ln -s /oldroot%s %s"):format(tree .. name, victim, tree .. name)
        assert.equal(0, select(2, support.shell(swap)))
        assert.equal(201, one.client:post("/v2/sandboxes/" .. one.id .. "/connect", { timeout = 60 }).status)
      else
        assert.equal("symlink", native.fs_lstat(tree .. name).type, name)
        restart()
      end
      assert.equal("mine\n", one:shell("echo mine").stdout, name)
      assert.same({}, names(), name)
    end
    -- Deeper down, and with a file where a folder belongs.
    one:shell(("mv /etc /gone; mkdir /etc && cp -a /gone/passwd /gone/group /etc && ln -s /oldroot%s /etc/ssl && "
      .. "echo x > /etc/alternatives && mkdir /etc/ld.so.cache && ln -s /oldroot%s/made /etc/nsswitch.conf")
      :format(victim, victim), nil, ROOT)
    restart()
    assert.equal("mine\n", one:shell("echo mine").stdout)
    assert.same({}, names())
    support.cleanup(victim)
  end)

  it("keep it from the standard error of the server", function()
    local its = one:shell("readlink /proc/1/fd/2", nil, ROOT).stdout
    assert.matches("^pipe:", its)
    assert.not_equal(support.shell("readlink /proc/" .. server.pid .. "/fd/2"), its)
  end)

  it("hold what it has to know: which one it is, and no users but its own", function()
    local said = one:shell("cd /run/e2b && cat .E2B_SANDBOX .E2B_SANDBOX_ID .E2B_TEMPLATE_ID; grep passwd "
      .. "/etc/nsswitch.conf").stdout
    assert.equal("true" .. one.id .. one.answer.templateID .. "passwd: files\n", said)
  end)

  it("keep users from root's home", function()
    local function shell(user) return one:shell("cd /root && echo in", nil, user).stdout end
    assert.equal("in\n", shell(ROOT))
    if native.ids() ~= 0 then return end
    assert.equal("", shell(nil))
    local message = { process = { cmd = "pwd", cwd = "/root" } }
    local ok, raised = pcall(function() return one:open("/process.Process/Start", message):rest() end)
    assert.is_true(not ok or raised.exit == nil)
  end)

  it("keep other users of the machine from its files", function()
    one:shell("echo x > file")
    local root = sandboxes.roots(folder)[1]
    for _, path in ipairs({ root, root .. "/" .. one.id }) do assert.equal(448, native.fs_stat(path).mode) end
  end)
end)

describe("what a daemon says on standard error", function()
  it("is shown line by line, bounded, and without what a terminal would obey", function()
    if not sandboxes.can_isolate() then return pending("bubblewrap does not work here") end
    local folder = support.tmpdir()
    local began = support.now()
    local result = support.run(([[
      local server = require("e2b.server").start({ directory = %q })
      local sandboxes = require("spec.support.sandboxes")
      local one = sandboxes.create(server)
      local root = { Authorization = "Basic cm9vdDo=" }
      one:shell("printf '\\033[2Jhello\\nbye' > /proc/1/fd/2", nil, root)
      local other = sandboxes.create(server)
      local stream = other:start("echo; yes | head -c 20000000 > /proc/1/fd/2", nil, root)
      stream:event()
      stream:event()
      for _ = 1, 20 do one:shell("true") end
      other.client:delete("/sandboxes/" .. other.id)
      one.client:delete("/sandboxes/" .. one.id)
      sandboxes.wait_for_end(one.id)
      server:stop()
      io.write(one.id, " ", other.id)
    ]]):format(folder))
    assert.equal(0, result.code, result.err)
    local one, other = result.out:match("(%w+) (%w+)")
    assert.matches("e2b-server: " .. one .. ": ?[2Jhello\n", result.err, 1, true)
    assert.matches("e2b-server: " .. one .. ": bye\n", result.err, 1, true)
    assert.matches("e2b-server: " .. other .. ": y\n", result.err, 1, true)
    assert.is_true(#result.err < 8 * 1024 * 1024, #result.err)
    assert.is_nil(result.err:find("\27", 1, true))
    assert.is_true(support.now() - began < 25)
    support.cleanup(folder)
  end)
end)

describe("descriptors", function()
  it("are as many as the server may have, and as many as it had in its sandboxes", function()
    local folder = support.tmpdir()
    support.write_file(folder .. "/few", "#!/bin/sh\nulimit -Sn 80\nexec " .. support.lua() .. ' "$@"\n')
    assert(support.shell("chmod +x " .. folder .. "/few"))
    for _, isolation in ipairs({ true, false }) do
      local server = local_server.start({ directory = folder, isolation = isolation, lua = folder .. "/few" })
      local one = sandboxes.create(server)
      assert.equal("80\n", one:shell("ulimit -Sn").stdout)
      local streams = {}
      for i = 1, 90 do streams[i] = one:start("echo x; read line") end
      for i = 1, 90 do
        streams[i]:event()
        assert.is_table(streams[i]:event().data)
      end
      for i = 1, 90 do streams[i]:close() end
      server:stop()
    end
    support.cleanup(folder)
  end)
end)

describe("a daemon without walls that is killed", function()
  it("takes along what hid from it", function()
    local folder = support.tmpdir()
    local server = local_server.start({ directory = folder, isolation = false })
    local one, other = sandboxes.create(server), sandboxes.create(server)
    local function hide(some)
      return tonumber(some:shell("env -i setsid sh -c 'echo $$; exec sleep 1000 >/dev/null 2>&1' & sleep 0.2").stdout)
    end
    local hidden, bystander = hide(one), hide(other)
    assert.equal(0, select(2, support.shell("kill -0 " .. hidden)))
    local daemon = tonumber(one:shell("echo $PPID").stdout)
    os.execute("kill -KILL " .. daemon)
    support.wait_for(function() return select(2, support.shell("kill -0 " .. hidden)) ~= 0 end, 5, "its end")
    assert.equal("x\n", one:shell("echo x").stdout)
    assert.equal(0, select(2, support.shell("kill -0 " .. bystander)))
    server:stop()
    support.wait_for(function() return select(2, support.shell("kill -0 " .. bystander)) ~= 0 end, 5, "the other's end")
    support.cleanup(folder)
  end)
end)

describe("a bubblewrap that hangs", function()
  it("is given up", function()
    local folder = support.tmpdir()
    support.write_file(folder .. "/bwrap", "#!/bin/sh\nexec sleep 300\n")
    support.write_file(folder .. "/timeout", "#!/bin/sh\nshift 3\nexec /usr/bin/timeout -k 1 1 \"$@\"\n")
    assert(support.shell("chmod +x " .. folder .. "/bwrap " .. folder .. "/timeout"))
    local result = support.run(nil, { file = "bin/e2b-server", args = { "--port", "0", "--until-eof" }, stdin = "",
      env = { PATH = folder .. ":" .. os.getenv("PATH") } })
    assert.equal(0, result.code)
    assert.matches("sandboxes are not isolated: bubblewrap (bwrap) does nothing", result.out, 1, true)
    support.cleanup(folder)
  end)
end)

-- What e2b-server says when it cannot keep sandboxes.
describe("e2b-server", function()
  local function run(args, env)
    return support.run(nil, { file = "bin/e2b-server", args = args, env = env, stdin = "" })
  end

  it("refuses a folder in which it cannot make any", function()
    local folder = support.tmpdir()
    support.write_file(folder .. "/file", "")
    for _, path in ipairs({ folder .. "/none", folder .. "/file", "relative", "/tmp/" .. ("l"):rep(60), "/proc" }) do
      local result = run({ "--port", "0", "--directory", path, "--until-eof" })
      assert.equal(1, result.code, path)
      assert.equal("", result.out)
      assert.matches("^e2b%-server: [^\n]*folder[^\n]*\n$", result.err)
    end
    assert.equal(0, run({ "--port", "0", "--directory", folder, "--until-eof" }).code)
    assert.same({ "file" }, native.fs_readdir(folder))
    support.cleanup(folder)
  end)

  it("does without a folder for temporary files that is not there", function()
    local result = run({ "--port", "0", "--until-eof" }, { TMPDIR = "/nowhere/at/all" })
    assert.equal(0, result.code, result.err)
    assert.is_nil(result.out:find("cannot make", 1, true))
  end)

  it("says at once when it can have no sandboxes at all", function()
    local result = support.run([[
      package.preload["e2b.server.native"] = function() error("no such library", 0) end
      os.exit(require("e2b.server.main").main({ "--port", "0", "--quiet", "--until-eof" }))
    ]], { stdin = "" })
    assert.equal(0, result.code)
    assert.matches("^e2b%-server: the local server cannot run sandboxes: [^\n]*no such library[^\n]*\n$", result.err)
  end)
end)
