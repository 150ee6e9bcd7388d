-- The daemon's life: pausing, what becomes of its processes when it ends, however it ends; also as the first process of
-- a namespace of its own.
local daemon = require("spec.support.sandbox_daemon")
local json = require("e2b.server.json")
local native = require("e2b.server.native")
local support = require("spec.support.support")

local P = "/process.Process/"

local serial = 0

-- A duration nobody else sleeps: what is still there can be found by it.
local function marker()
  serial = serial + 1
  return string.format("3%d.%d", tonumber(support.shell("echo $$"):match("%d+")), serial)
end

-- How many processes have this among their arguments.
local function count(mark)
  local output = support.shell("grep -lazF -- " .. support.quote(mark) .. " /proc/[0-9]*/cmdline 2>/dev/null")
  local number = 0
  for pid in output:gmatch("/proc/(%d+)/cmdline") do
    local text = support.read_file("/proc/" .. pid .. "/cmdline")
    if text and text:find("sleep", 1, true) and text:find(mark, 1, true) and not text:find("grep", 1, true) then
      number = number + 1
    end
  end
  return number
end

local BWRAP = "bwrap --die-with-parent --as-pid-1 --unshare-pid --bind / / --dev /dev --proc /proc "
local has_bwrap = select(2, support.shell(BWRAP .. "true")) == 0

for _, mode in ipairs({ "plain", has_bwrap and "isolated" or nil }) do
  describe("the daemon of a local sandbox, " .. mode .. ":", function()
    local one

    before_each(function()
      one = daemon.start({ wrap = mode == "isolated" and BWRAP or nil })
    end)

    after_each(function()
      daemon.stop_all()
    end)

    -- A family that is hard to get rid of: background children, sessions of their own, orphans, a stopped one, one that
    -- heeds no signal, and one that starts others all the time.
    local function family(mark)
      local command = ([[
        sleep MARK & sleep MARK &
        setsid sleep MARK &
        (setsid sh -c 'sleep MARK & sleep MARK & exit' &)
        sh -c 'kill -STOP $$; exec sleep MARK' &
        sh -c 'trap "" TERM HUP INT QUIT; sleep MARK; sleep MARK' &
        setsid sh -c 'while :; do (sleep MARK &); sleep 0.02; done' &
        echo up
        exec sleep MARK]]):gsub("MARK", mark)
      local stream = one:start(command)
      stream:event()
      assert.equal("up\n", native.base64_decode(stream:event().data.stdout))
      support.wait_for(function() return count(mark) > 12 end)
      return stream
    end

    it("takes everything along when its input ends", function()
      local mark = marker()
      family(mark)
      local terminal = one:open(P .. "Start", {
        process = { cmd = "/bin/sh", args = json.array({ "-c", "sleep " .. mark .. " & sleep " .. mark }) },
        pty = { size = { cols = 80, rows = 24 } },
      })
      terminal:event()
      local seconds = one:stop()
      assert.is_true(seconds < 3 * support.slack)
      assert.equal(0, count(mark))
    end)

    it("leaves no ended process behind, whoever its parent was", function()
      for _ = 1, 5 do one:shell("(sleep 0.05 &) ; (setsid sh -c '(exit 3) & sleep 0.05' &); true") end
      support.wait_for(function()
        return one:shell("grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | while read f; do "
          .. "grep -q '^PPid:.'" .. (mode == "plain" and one.pid or 1) .. "'$' $f && echo $f; done").stdout == ""
      end)
    end)

    it("pauses and resumes everything", function()
      local stream = one:start("i=0; while :; do i=$((i+1)); echo $i > ~/ticks; sleep 0.01; done & "
        .. "sh -c 'kill -STOP $$; echo went > ~/went; sleep 300' & wait")
      local function ticks() return tonumber(support.read_file(one:path("/home/user/ticks")) or "") end
      support.wait_for(ticks)
      assert.same({ ok = true }, one:command({ command = "pause" }))
      local before = support.wait_for(ticks)
      support.sleep(0.2)
      assert.equal(before, ticks())
      assert.same({ ok = true }, one:command({ command = "pause" }))
      -- The daemon itself goes on.
      assert.equal(204, one:request("GET", "/health").status)
      assert.same({ ok = true }, one:command({ command = "resume" }))
      support.wait_for(function() return (ticks() or 0) > before end)
      assert.same({ ok = true }, one:command({ command = "resume" }))
      -- What had stopped before is not woken.
      assert.is_nil(support.read_file(one:path("/home/user/went")))
      stream:close()
    end)

    it("stops the clocks of its processes while paused", function()
      local began = support.now()
      local stream = one:start("exec sleep 300", nil, { ["Connect-Timeout-Ms"] = "600" })
      local pid = stream:event().start.pid
      one:command({ command = "pause" })
      support.sleep(0.8)
      assert.is_truthy(one:call(P .. "List", {}).json.processes)
      one:command({ command = "resume" })
      assert.equal("deadline_exceeded", stream:rest().ending.error.code)
      local seconds = support.now() - began
      assert.is_true(seconds > 1.3 and seconds < 1.4 + 2 * support.tolerance, seconds)
      support.wait_for(function()
        return one:call(P .. "List", {}).body == "{}"
      end)
      assert.is_true(pid > 0)
    end)

    it("kills a process that is paused", function()
      local stream = one:start("exec sleep 300")
      local pid = stream:event().start.pid
      one:command({ command = "pause" })
      assert.equal(200, one:call(P .. "SendSignal", { process = { pid = pid }, signal = "SIGNAL_SIGKILL" }).status)
      assert.equal("signal: killed", stream:rest().exit.status)
      one:command({ command = "resume" })
      assert.equal("x\n", one:shell("echo x").stdout)
    end)

    it("ends while everything is paused", function()
      local mark = marker()
      family(mark)
      one:command({ command = "pause" })
      assert.is_true(one:stop() < 3 * support.slack)
      assert.equal(0, count(mark))
    end)

    it("says when it does not understand", function()
      assert.is_string(one:command({ command = "dance" }).error)
      assert.is_string(one:command({}).error)
      assert.is_string(one:command("pause").error)
    end)
  end)
end

describe("the daemon of a local sandbox", function()
  after_each(function()
    daemon.stop_all()
  end)

  for name, number in pairs({ SIGTERM = 15, SIGINT = 2, SIGHUP = 1 }) do
    it("takes everything along at " .. name, function()
      local one = daemon.start()
      local mark = marker()
      local stream = one:start("setsid sleep " .. mark .. " & exec sleep " .. mark)
      stream:event()
      support.wait_for(function() return count(mark) == 2 end)
      native.kill(one.pid, number)
      support.wait_for(function() return not daemon.is_alive(one.pid) end)
      assert.equal(0, count(mark))
      assert.is_nil(io.open(one.socket))
    end)
  end

  it("is out of reach of its parent's terminal", function()
    local one = daemon.start()
    local fields = {}
    for field in support.read_file("/proc/" .. one.pid .. "/stat"):match("%) (.*)$"):gmatch("%S+") do
      fields[#fields + 1] = field
    end
    assert.equal(one.pid, tonumber(fields[4])) -- its session
  end)

  it("when it is killed, what it started itself dies with it", function()
    local one = daemon.start()
    local mark = marker()
    local stream = one:start("exec sleep " .. mark)
    stream:event()
    support.wait_for(function() return count(mark) == 1 end)
    native.kill(one.pid, 9)
    support.wait_for(function() return count(mark) == 0 end)
  end)

  it("does not start without its options or without its socket", function()
    for _, line in ipairs({ "", "nonsense", '{"socket":"/no/such/folder/s"}', "{}", "[]" }) do
      local ended = support.run("os.exit(require('e2b.server.envd.main').main())", { stdin = line .. "\n" })
      assert.equal(1, ended.code, line)
      assert.equal("", ended.out)
      assert.matches("^e2b%-server: [^\n]+\n$", ended.err)
    end
  end)
end)
