-- The sandboxes of the local server: what one costs, what it sees, what keeps it apart, what is left of it.
local json = require("e2b.server.json")
local local_server = require("e2b.server")
local native = require("e2b.server.native")
local sandboxes = require("spec.support.sandboxes")
local support = require("spec.support.support")

local function stat_of(path)
  local text = support.shell("stat -c '%a %U' " .. path)
  return (text:gsub("%s+$", ""))
end

describe("a sandbox of the local server", function()
  local folder, server

  setup(function()
    folder = support.tmpdir()
    server = local_server.start({ directory = folder })
  end)

  teardown(function()
    server:stop()
    assert.same({}, sandboxes.roots(folder))
    support.cleanup(folder)
  end)

  it("costs nothing until something is asked of it", function()
    local one = sandboxes.create(server)
    assert.equal(204, one:request("GET", "/health").status)
    assert.equal(502, sandboxes.port(server, one, 8080):request("GET", "/").status)
    assert.same({}, sandboxes.roots(folder))
    assert.same({}, sandboxes.processes(one.id))
    one.client:delete("/sandboxes/" .. one.id)
  end)

  it("runs commands as its user, in its home, with its variables", function()
    local one = sandboxes.create(server, { envVars = { COLOUR = "blue" } })
    local all = one:shell('id -un; pwd; echo "$HOME $COLOUR $E2B_SANDBOX_ID"; echo oops >&2; exit 3')
    assert.equal(("user\n/home/user\n/home/user blue %s\n"):format(one.id), all.stdout)
    assert.equal("oops\n", all.stderr)
    assert.equal(3, all.exit.exitCode)
    assert.same({ COLOUR = "blue" }, { COLOUR = one:request("GET", "/envs").json.COLOUR })
    one.client:delete("/sandboxes/" .. one.id)
  end)

  it("starts one daemon, however many ask for it at once", function()
    local one = sandboxes.create(server)
    local streams = {}
    for i = 1, 20 do streams[i] = one:start("echo $PPID") end
    local parents = {}
    for i = 1, 20 do parents[streams[i]:rest().stdout] = true end
    assert.is_string(next(parents))
    assert.is_nil(next(parents, (next(parents))))
    one.client:delete("/sandboxes/" .. one.id)
  end)

  it("needs its token, whatever is asked", function()
    local one = sandboxes.create(server)
    one.headers["X-Access-Token"] = nil
    local answer = one:call("/process.Process/List", {})
    assert.equal(401, answer.status)
    assert.equal(401, answer.json.code)
    assert.matches("unauthorized access", answer.json.message, 1, true)
    one.headers["X-Access-Token"] = sandboxes.create(server).token
    assert.equal(401, one:call("/process.Process/List", {}).status)
    one.headers["X-Access-Token"] = one.token
    assert.equal(200, one:call("/process.Process/List", {}).status)
    one.client:delete("/sandboxes/" .. one.id)
  end)

  it("is gone with everything in it when it is killed", function()
    local one = sandboxes.create(server)
    local stream = one:start("sleep 1000 & (setsid sleep 1001 &) ; echo there; trap '' TERM HUP INT; sleep 1002")
    assert.equal("there\n", (function()
      stream:event()
      return native.base64_decode(stream:event().data.stdout)
    end)())
    local tree = assert(sandboxes.tree(folder, one.id))
    assert.is_true(#sandboxes.processes(one.id) >= 4)
    assert.equal(204, one.client:delete("/sandboxes/" .. one.id).status)
    -- The stream is cut, not ended: what ran in there did not come to its end.
    assert.has_error(function() stream:rest() end)
    assert.equal("The sandbox was not found", one:request("GET", "/health").json.message)
    sandboxes.wait_for_end(one.id)
    support.wait_for(function() return select(2, support.shell("test -e " .. tree)) == 1 end, 5, "an empty folder")
  end)

  it("is gone when its time is over", function()
    local one = sandboxes.create(server, { timeout = 2 })
    one:start("sleep 1000"):event()
    local tree = assert(sandboxes.tree(folder, one.id))
    sandboxes.wait_for_end(one.id)
    support.wait_for(function() return select(2, support.shell("test -e " .. tree)) == 1 end, 5, "an empty folder")
    assert.equal(502, one:call("/process.Process/List", {}).status)
  end)

  it("leaves nothing, however hard its files are to remove", function()
    local one = sandboxes.create(server)
    local all = one:shell([[
      mkdir -p deep/closed "new
line" && touch deep/closed/file && chmod 0 deep/closed deep
      ln -s / link; mkfifo pipe; touch -- -rf '*'
      i=0; d=x; while [ $i -lt 60 ]; do d=$d/yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; i=$((i+1)); done; mkdir -p $d
      echo done]])
    assert.equal("done\n", all.stdout)
    local tree = assert(sandboxes.tree(folder, one.id))
    one.client:delete("/sandboxes/" .. one.id)
    support.wait_for(function() return select(2, support.shell("test -e " .. tree)) == 1 end, 5, "an empty folder")
    assert.equal(0, select(2, support.shell("test -d /usr")))
  end)

  it("gets a new daemon after a crash of its own, and a 502 for what the crash cut", function()
    local one = sandboxes.create(server)
    local stream = one:start("echo $PPID; sleep 1000")
    stream:event()
    stream:event()
    one:shell("echo kept > file")
    for _, pid in ipairs(sandboxes.processes(one.id)) do os.execute("kill -KILL " .. pid .. " 2>/dev/null") end
    assert.has_error(function() stream:rest() end)
    sandboxes.wait_for_end(one.id)
    assert.equal("kept\n", one:shell("cat file").stdout)
    one.client:delete("/sandboxes/" .. one.id)
  end)

  describe("with walls", function()
    local one

    setup(function()
      if not sandboxes.can_isolate() then return pending("bubblewrap does not work here") end
      one = sandboxes.create(server)
    end)

    it("sees its own processes only, and its daemon as the first", function()
      assert.equal("1\n", one:shell("echo $PPID").stdout)
      local seen = one:shell("ls -d /proc/[0-9]* | wc -l").stdout
      assert.is_true(tonumber(seen) < 8, seen)
    end)

    it("sees the machine's programs, and none of its other files", function()
      local marker = support.tmpdir()
      assert.equal("no\n", one:shell("test -e " .. marker .. " && echo yes || echo no").stdout)
      assert.equal("root:x:0:0:root:/root:/bin/bash\n", one:shell("head -1 /etc/passwd").stdout)
      local all = one:shell("touch /usr/bin/mine; echo $?; cat /etc/shadow", nil, { Authorization = "Basic cm9vdDo=" })
      assert.matches("^1\n", all.stdout)
      assert.equal("", one:shell("find /tmp -maxdepth 1 -type f").stdout)
      support.cleanup(marker)
    end)

    it("has a root that is one to its own files only", function()
      local root = { Authorization = "Basic cm9vdDo=" }
      local all = one:shell("id -u; echo x > /srv/mine && chown user /srv/mine && stat -c %U /srv/mine; "
        .. "mount -t tmpfs none /mnt 2>/dev/null; echo $?; test -w /proc/sys/kernel/core_pattern; echo $?", nil, root)
      local id, owner, mounted, wrote = all.stdout:match("^(%d+)\n(%w+)\n(%d+)\n(%d+)\n$")
      assert.equal("user", owner, all.stdout .. all.stderr)
      assert.not_equal("0", mounted)
      assert.not_equal("0", wrote)
      assert.is_string(id)
    end)

    it("has a place of its own for everybody's temporary files", function()
      one:shell("echo secret > /tmp/x")
      local other = sandboxes.create(server)
      assert.equal("", other:shell("cat /tmp/x").stdout)
      other.client:delete("/sandboxes/" .. other.id)
    end)

    it("reaches nothing outside when it may not", function()
      local closed = sandboxes.create(server, { allow_internet_access = false })
      local port = server.url:match(":(%d+)$")
      local connect = "exec 3<>/dev/tcp/127.0.0.1/" .. port .. " && echo reached"
      local function reach(some)
        local message = { process = { cmd = "/bin/bash", args = { "-c", connect } } }
        message.process.args = json.array(message.process.args)
        return some:open("/process.Process/Start", message):rest().stdout
      end
      assert.equal("reached\n", reach(one))
      assert.equal("", reach(closed))
      closed.client:delete("/sandboxes/" .. closed.id)
      local denied = sandboxes.create(server, { network = { denyOut = json.array({ "0.0.0.0/0" }) } })
      assert.equal("", reach(denied))
      denied.client:delete("/sandboxes/" .. denied.id)
    end)

    it("keeps its files to itself on the machine", function()
      one:shell("echo x > file")
      assert.matches("^700 ", stat_of(sandboxes.roots(folder)[1]))
    end)
  end)
end)

describe("a local server told to do without walls", function()
  it("says so, and runs commands all the same", function()
    local folder = support.tmpdir()
    local result = support.run(([[
      local server = require("e2b.server").start({ isolation = false, directory = %q })
      local sandboxes = require("spec.support.sandboxes")
      local one = sandboxes.create(server)
      local all = one:shell("echo $HOME; echo x > here; (setsid sleep 1000 >/dev/null 2>&1 &)")
      require("spec.support.support").wait_for(function()
        return #sandboxes.processes(one.id) >= 2
      end, 5, "the daemon and what it started")
      one.client:delete("/sandboxes/" .. one.id)
      sandboxes.wait_for_end(one.id)
      server:stop()
      io.write(all.stdout, #sandboxes.roots(%q))
    ]]):format(folder, folder))
    assert.equal(0, result.code, result.err)
    assert.matches("/root/home/user\n0$", result.out)
    assert.equal("", result.err)
    support.cleanup(folder)
  end)
end)

describe("a local server that cannot have walls", function()
  it("says why, once, and does without", function()
    local folder = support.tmpdir()
    support.write_file(folder .. "/bwrap", "#!/bin/sh\necho 'bwrap: not here' >&2\nexit 1\n")
    assert(support.shell("chmod +x " .. folder .. "/bwrap"))
    local result = support.run(([[
      local server = require("e2b.server").start({ directory = %q })
      local sandboxes = require("spec.support.sandboxes")
      for _ = 1, 2 do io.write(sandboxes.create(server):shell("pwd").stdout) end
      server:stop()
    ]]):format(folder), { env = { PATH = folder .. ":" .. os.getenv("PATH") } })
    assert.equal(0, result.code, result.err)
    assert.matches("/home/user\n.*/home/user\n$", result.out)
    assert.equal("e2b-server: sandboxes are not isolated, what runs in them sees this machine: bwrap: not here\n",
      result.err)
    assert.same({}, sandboxes.roots(folder))
    support.cleanup(folder)
  end)
end)
