-- The thread that watches the engine's descriptor for a host that can't. A plain socket plays that host's end.
local support = require("spec.support.support")
local exchange = require("spec.support.exchange")
local posix = require("spec.support.posix")
local core = support.core()

local watched = exchange.watch()
local WAIT = 5 * support.slack -- for what comes
local QUIET = 0.05             -- for what does not

local function threads()
  local count = 0
  for name in require("lfs").dir("/proc/self/task") do
    if name:find("^%d+$") then count = count + 1 end
  end
  return count
end

local function exists(path) return select(2, support.shell("test -e " .. support.quote(path))) == 0 end

describe("a bridge", function()
  local folder, bridge, fd

  local function connected()
    bridge = assert(core.bridge(folder))
    fd = assert(posix.connect(bridge:path()))
    assert(bridge:start())
    return fd
  end

  -- The byte that says so, within WAIT.
  local function poked() return posix.poll(fd, WAIT) and posix.read(fd) == "!" end

  local function quiet() return not posix.poll(fd, QUIET) end

  local function settle()
    -- The switch to socket mode itself makes the descriptor readable.
    assert(poked())
    core.engine():step()
    posix.write(fd, "a")
    assert(quiet())
  end

  before_each(function() folder = support.tmpdir() end)
  after_each(function()
    if bridge then bridge:close() end
    if fd then posix.close(fd) end
    bridge, fd = nil, nil
    assert.are.equal("", (support.shell("ls -A " .. folder)))
    support.cleanup(folder)
  end)

  it("says a byte when the engine's descriptor is readable, and the next one when it was answered", function()
    local server = watched.peer([[conn:serve(function() conn:respond(200, '{}') end)]])
    connected()
    settle()
    local transfer = exchange.raw(exchange.target(server), "/")
    core.engine():start(transfer)
    assert.is_true(poked())
    assert.is_true(quiet(), "one byte, though the descriptor is readable still")
    posix.write(fd, "a")
    assert.is_true(poked(), "it was answered, and is readable still")
    local limit, turns = core.now() + WAIT, 0
    while not core.engine():finished() do
      core.engine():step()
      posix.write(fd, "a")
      if posix.poll(fd, 0.01) and posix.read(fd) then turns = turns + 1 end
      assert(core.now() < limit)
    end
    assert.is_true((transfer:result()))
    assert.is_true(turns < 20, turns .. " turns")
  end)

  it("costs nothing while nothing happens", function()
    local server = watched.peer("conn:read_request() conn:wait_closed()")
    connected()
    settle()
    local transfer = exchange.raw(exchange.target(server), "/")
    core.engine():start(transfer)
    support.wait_for(function()
      core.engine():step()
      posix.read(fd)
      posix.write(fd, "a")
      return server:count() > 0
    end)
    local turns = 0
    local until_then = core.now() + 0.5
    while core.now() < until_then do
      if posix.poll(fd, 0.05) and posix.read(fd) then
        turns = turns + 1
        core.engine():step()
        posix.write(fd, "a")
      end
    end
    assert.is_true(turns <= 5, turns .. " turns in half a second of silence")
    transfer:cancel()
  end)

  it("lies in a folder of its own that nobody else may enter, under a name that is new", function()
    local one = assert(core.bridge(folder))
    local path = one:path()
    local inside = path:match("^(.*)/[^/]+$")
    assert.are.equal(folder, (inside:match("^(.*)/[^/]+$")))
    assert.are.equal("700\n", (support.shell("stat -c %a " .. inside)))
    assert.is_truthy(path:match("%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x"))
    one:close()
    assert.is_false(exists(inside))
    assert.is_nil(one:path())
    bridge = assert(core.bridge(folder))
    assert.are_not.equal(path, bridge:path())
  end)

  it("keeps that from the umask", function()
    local output, code = support.shell("umask 0; " .. support.lua_command() .. [[ -e '
      local bridge = assert(require("e2b.core").bridge("]] .. folder .. [["))
      os.execute("stat -c %a " .. bridge:path():match("^(.*)/"))
      bridge:close()']])
    assert.are.equal(0, code, output)
    assert.are.equal("700\n", output)
  end)

  it("is gone from the file system as soon as it is connected", function()
    connected()
    assert.are.equal("", (support.shell("ls -A " .. folder)))
    assert.is_nil(bridge:path())
  end)

  it("waits for a connection of this process and takes no other's", function()
    bridge = assert(core.bridge(folder))
    local before = threads()
    local ok, message = bridge:start()
    assert.is_nil(ok)
    assert.are.equal("this process has not connected to the bridge", message)
    local path = bridge:path()
    local pid = posix.fork()
    if pid == 0 then
      local stranger = posix.connect(path)
      posix.exit(stranger and 0 or 1)
    end
    assert.are.equal(0, posix.wait(pid))
    assert.is_nil((bridge:start()))
    assert.are.equal(before, threads())
    fd = assert(posix.connect(path))
    assert.is_true(bridge:start())
    assert.are.equal(before + 1, threads())
    assert.is_true(poked())
  end)

  it("ends its thread and its descriptors when it is closed, as often as one likes", function()
    core.engine():pollfd()
    local before, fds = threads(), support.fd_count()
    for _ = 1, 20 do
      connected()
      assert.are.equal(before + 1, threads())
      bridge:close()
      bridge:close()
      assert.are.equal(before, threads())
      support.wait_for(function() return posix.read(fd) == nil end, 1, "the end of the connection")
      posix.close(fd)
      fd = nil
      assert.are.equal(fds, support.fd_count())
    end
    assert.are.equal("e2b.bridge (closed)", tostring(bridge))
  end)

  it("ends when the other side goes", function()
    local before = threads()
    connected()
    posix.close(fd)
    fd = nil
    support.wait_for(function() return threads() == before end, 5, "the thread's end")
    bridge:close()
  end)

  it("ends when it is collected", function()
    connected()
    local before = threads()
    bridge = nil
    support.collect()
    assert.are.equal(before - 1, threads())
    connected() -- there may be another one now
  end)

  it("outlives the closing of the engine, which leaves the descriptor open", function()
    connected()
    settle()
    local server = watched.peer("conn:read_request() conn:wait_closed()")
    local transfer = exchange.raw(exchange.target(server), "/")
    core.engine():start(transfer)
    assert(poked())
    core.engine():step()
    core.engine():close()
    posix.write(fd, "a")
    assert.is_true(poked(), "there is news")
    assert.are.equal(transfer, (core.engine():finished()))
    assert.are.equal("cancelled", select(2, transfer:result()).cause)
  end)

  it("opens nothing that a program it starts would get", function()
    local before = {}
    for n = 3, 200 do before[n] = posix.is_open(n) end
    local function new_ones()
      local count = 0
      for n = 3, 200 do
        if posix.is_open(n) and not before[n] then
          count = count + 1
          assert.is_true(posix.is_cloexec(n), "descriptor " .. n)
        end
      end
      return count
    end
    bridge = assert(core.bridge(folder))
    assert.is_true(new_ones() >= 1)
    fd = assert(posix.connect(bridge:path()))
    assert(bridge:start())
    assert.is_true(new_ones() >= 2)
  end)

  it("leaves every signal to the program", function()
    local result = support.run([[
      local core, posix = require("e2b.core"), require("spec.support.posix")
      local bridge = assert(core.bridge(arg[1]))
      local fd = assert(posix.connect(bridge:path()))
      assert(bridge:start())
      assert(posix.poll(fd, 10)) -- while a thread is made the C library blocks them by itself
      for name in require("lfs").dir("/proc/self/task") do
        if tonumber(name) and tonumber(name) ~= core.getpid() then
          local blocked = io.open("/proc/self/task/" .. name .. "/status"):read("*a"):match("SigBlk:%s*(%x+)")
          print(blocked)
        end
      end
      print(io.open("/proc/self/status"):read("*a"):match("SigBlk:%s*(%x+)"))
    ]], { args = { folder } })
    local thread, main = result.out:match("^(%x+)\n(%x+)\n$")
    assert.is_truthy(thread, result.out .. result.err)
    -- All but KILL and STOP, and those two of the C library's own.
    for _, signal in ipairs({ 1, 2, 10, 12, 13, 14, 15, 17 }) do
      local digit = tonumber(thread:sub(-math.ceil(signal / 4), -math.ceil(signal / 4)), 16)
      assert.are.equal(1, math.floor(digit / 2 ^ ((signal - 1) % 4)) % 2, "signal " .. signal)
    end
    assert.are.equal(0, tonumber(main, 16))
  end)

  it("is there once for an engine", function()
    bridge = assert(core.bridge(folder))
    assert.has_error(function() core.bridge(folder) end, "this engine has a bridge already")
    bridge:close()
    bridge = assert(core.bridge(folder))
  end)

  it("says why there is none, and leaves nothing behind", function()
    local fds = support.fd_count()
    local none, message = core.bridge(folder .. "/nowhere")
    assert.is_nil(none)
    assert.are.equal(folder .. "/nowhere: No such file or directory", message)
    none, message = core.bridge("/" .. ("x"):rep(120))
    assert.is_nil(none)
    assert.is_truthy(message:find("too long", 1, true), message)
    core.engine():pollfd()
    assert.is_true(support.fd_count() <= fds + 2) -- the poller
    assert.has_error(function() core.bridge("") end)
    assert.has_error(function() core.bridge("a\0b") end)
  end)

  it("refuses what comes after its end, and a second start", function()
    connected()
    assert.has_error(function() bridge:start() end, "this bridge was started already")
    bridge:close()
    assert.has_error(function() bridge:start() end, "attempt to use a closed bridge")
  end)

  it("ends with its Lua state, in whatever order the finalizers run", function()
    for _, order in ipairs({ "core, bridge", "bridge, core" }) do
      local result = support.run([[
        local core, posix = require("e2b.core"), require("spec.support.posix")
        local bridge = assert(core.bridge(arg[1]))
        local fd = assert(posix.connect(bridge:path()))
        assert(bridge:start())
        keep = { ]] .. order .. [[ }
        print(bridge)
      ]], { args = { folder } })
      assert.are.equal(0, result.code, result.err)
      assert.are.equal("e2b.bridge (watching)\n", result.out)
    end
    local result = support.run([[bridge = assert(require("e2b.core").bridge(arg[1]))]], { args = { folder } })
    assert.are.equal(0, result.code, result.err)
  end)

  it("belongs to the process that made it: a forked child forgets it, and may have its own", function()
    local result = support.run([[
      local core, posix = require("e2b.core"), require("spec.support.posix")
      local bridge = assert(core.bridge(arg[1]))
      local fd = assert(posix.connect(bridge:path()))
      assert(bridge:start())
      local function threads()
        local count = 0
        for name in require("lfs").dir("/proc/self/task") do if tonumber(name) then count = count + 1 end end
        return count
      end
      assert(threads() == 2)
      local second = posix.fork()
      if second == 0 then
        assert(tostring(bridge) == "e2b.bridge (closed)")
        posix.close(fd)
        local own = assert(core.bridge(arg[1]))
        local there = assert(posix.connect(own:path()))
        assert(own:start())
        assert(posix.poll(there, 10))
        assert(threads() == 2)
        own:close()
        bridge:close()
        bridge, own = nil, nil
        collectgarbage() collectgarbage()
        os.exit(0)
      end
      assert(posix.wait(second) == 0, "the child")
      assert(threads() == 2 and tostring(bridge) == "e2b.bridge (watching)")
      assert(posix.poll(fd, 10) and posix.read(fd) == "!")
      core.engine():step()
      posix.write(fd, "a")
      assert(not posix.poll(fd, 0.05))
      -- One that isn't connected yet keeps its name, whatever the child does.
      bridge:close()
      bridge = assert(core.bridge(arg[1]))
      local child = posix.fork()
      if child == 0 then
        core.engine():step()
        bridge:close()
        os.exit(bridge:path() == nil and 0 or 1)
      end
      assert(posix.wait(child) == 0, "the second child")
      fd = assert(posix.connect(bridge:path()))
      assert(bridge:start())
      print("fine")
    ]], { args = { folder } })
    assert.are.equal(0, result.code, result.out .. result.err)
    assert.are.equal("fine\n", result.out)
  end)
end)
