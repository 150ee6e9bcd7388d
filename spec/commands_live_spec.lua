-- sandbox.commands with real processes, in sandboxes of the local server.
local envd_peer = require("spec.support.envd_peer")
local platform = require("spec.support.platform")
local support = require("spec.support.support")
local core = require("e2b.core")
local e2b = require("e2b")

local MB = 1024 * 1024
-- How much goes through the big ones; 1 GB takes the server a while.
local BYTES = math.floor(tonumber(os.getenv("E2B_SPEC_OUTPUT_BYTES") or "") or 32 * MB)

describe("commands in a real sandbox", function()
  local fixture, sandbox

  setup(function()
    fixture = platform.start()
    sandbox = fixture:create("base", { envs = { FROM_CREATE = "yes" } })
  end)

  teardown(function()
    sandbox = nil
    fixture:cleanup()
    fixture:stop()
  end)

  local function gone(pid)
    return not assert(sandbox.commands:run({ "kill", "-0", tostring(pid) })).ok
  end

  for _, mode in ipairs(envd_peer.MODES) do
    local function it_(name, fn)
      it(name .. " (" .. mode.name .. ")", function() mode.run(fn) end)
    end

    it_("run, and say what came of it", function()
      local result = assert(sandbox.commands:run("echo \"Hello,\nWorld!\"; echo '!@#$%^&*()_+' >&2; exit 5"))
      assert.are.equal("Hello,\nWorld!\n", result.stdout)
      assert.are.equal("!@#$%^&*()_+\n", result.stderr)
      assert.are.equal(5, result.exit_code)
      assert.are.equal("exit status 5", result.error)
      assert.are.equal("", assert(sandbox.commands:run({ "true" })).stdout)
    end)

    it_("are given words as they are", function()
      local words = { "a b", "", "'\"$HOME`x`\\", "*", "line\nline", "\195\188\240\159\152\128", "-n" }
      local result = assert(sandbox.commands:run({ "printf", "%s|", (table.unpack or unpack)(words) })) -- luacheck: ignore
      assert.are.equal(table.concat(words, "|") .. "|", result.stdout)
    end)

    it_("have every byte in their output", function()
      local all = {}
      for i = 0, 255 do all[i + 1] = string.char(i) end
      local text = table.concat(all)
      local result = assert(sandbox.commands:run("cat; cat /dev/null", { stdin = text }))
      assert.is_true(result.stdout == text)
      result = assert(sandbox.commands:run("head -c 8191 /dev/zero | tr '\\0' a; printf '\\342'"))
      assert.is_true(result.stdout == ("a"):rep(8191) .. "\226")
    end)

    it_("run where, as whom and with what they are told", function()
      local function out(cmd, opts) return (assert(sandbox.commands:run(cmd, opts)).stdout:gsub("%s+$", "")) end
      assert.are.equal("/home/user", out("pwd"))
      assert.are.equal("/tmp", out("pwd", { cwd = "/tmp" }))
      assert.are.equal("user", out("id -un"))
      assert.are.equal("root", out("id -un", { user = "root" }))
      assert.are.equal("yes 1 a b", out("echo $FROM_CREATE $X \"$Y\"", { envs = { X = "1", Y = "a b" } }))
      assert.are.equal("yes", out("echo $FROM_CREATE $X"))
    end)

    it_("have no input unless asked for", function()
      assert.are.equal(1, assert(sandbox.commands:run("read line")).exit_code)
      local handle = assert(sandbox.commands:start("cat", { stdin = true }))
      assert(handle:send_stdin("one\n"))
      assert(sandbox.commands:send_stdin(handle.pid, ""))
      assert(sandbox.commands:send_stdin(handle.pid, "two"))
      assert(handle:close_stdin())
      local result = assert(handle:wait())
      assert.are.equal("one\ntwo", result.stdout)
      assert.is_true(result.ok)
    end)

    it_("take large input while they write", function()
      local text = ("0123456789abcdef"):rep(200000)
      local result = assert(sandbox.commands:run("cat", { stdin = text }))
      assert.is_true(result.stdout == text)
      result = assert(sandbox.commands:run("head -c 5", { stdin = text }))
      assert.are.equal("01234", result.stdout)
    end)

    it_("are killed when their time is over", function()
      local began = core.now()
      local _, message, err = sandbox.commands:run("echo $$; exec sleep 100", { timeout = 0.5 })
      local took = core.now() - began
      assert.are.equal("timeout timeout", err.kind .. " " .. err.deadline)
      assert.are.equal("sandbox.commands:run: not over within 0.5 s (timeout)", message)
      assert.is_true(took < 0.5 + support.tolerance, "took " .. took)
      platform.wait_for(function() return gone(err.pid) end, "the process to be gone")
    end)

    it_("tell when there is no such folder, user or program", function()
      local _, message, err = sandbox.commands:run("true", { cwd = "/nope" })
      assert.are.equal("invalid_argument", err.kind)
      assert.is_truthy(message:find("/nope", 1, true), message)
      _, message, err = sandbox.commands:run("true", { user = "nobodyhere" })
      assert.are.equal("authentication", err.kind)
      assert.is_truthy(message:find("invalid username: 'nobodyhere'", 1, true), message)
      local result = assert(sandbox.commands:run({ "nosuchprogram" }))
      assert.are.equal(127, result.exit_code)
      _, message, err = sandbox.commands:run({ "nosuchprogram" }, { check = true })
      assert.are.equal("exit", err.kind)
      assert.is_truthy(message:find("nosuchprogram ended with exit code 127: ", 1, true), message)
    end)

    it_("are listed, found again, killed, and then gone", function()
      local handle = assert(sandbox.commands:start("sleep 100", { tag = "live-" .. mode.name, envs = { A = "b" } }))
      local row
      for _, process in ipairs(assert(sandbox.commands:list())) do
        if process.pid == handle.pid then row = process end
      end
      assert.are.same({
        pid = handle.pid, tag = "live-" .. mode.name, cmd = "/bin/bash", args = { "-l", "-c", "sleep 100" },
        envs = { A = "b" },
      }, row)
      local again = assert(sandbox.commands:connect("live-" .. mode.name))
      assert.are.equal(handle.pid, again.pid)
      handle:disconnect()
      assert.are.same({ true, true }, { sandbox.commands:kill(again.pid) })
      local result = assert(again:wait())
      assert.are.equal(-1, result.exit_code)
      assert.are.equal("signal: killed", result.error)
      assert.is_true(gone(again.pid))
      assert.are.same({ true, false }, { sandbox.commands:kill(999999) })
      local _, _, err = sandbox.commands:connect(999999)
      assert.are.equal("not_found process", err.kind .. " " .. err.resource)
      assert.are.equal(-1, assert(assert(sandbox.commands:connect(again.pid)):wait()).exit_code)
    end)

    it_("are read line by line as they write", function()
      local handle = assert(sandbox.commands:start("for i in 1 2 3; do echo out $i; echo err $i >&2; sleep 0.05; done"))
      local out, err = {}, {}
      for line, stream in handle:lines() do
        local list = stream == "stdout" and out or err
        list[#list + 1] = line
      end
      assert.are.equal("out 1,out 2,out 3", table.concat(out, ","))
      assert.are.equal("err 1,err 2,err 3", table.concat(err, ","))
      assert.are.equal(0, handle.exit_code)
    end)

    it_("write a lot into a bounded buffer", function()
      collectgarbage()
      local before = collectgarbage("count")
      local handle = assert(sandbox.commands:start("yes 0123456789abcde | head -c " .. BYTES, { max_output = MB }))
      local size, most, count = 0, 0, 0
      while true do
        local stream, data = handle:read()
        if not stream then break end
        assert.are.equal("stdout", stream)
        size = size + #data
        count = count + 1
        if count % 50 == 0 then
          collectgarbage()
          most = math.max(most, collectgarbage("count"))
        end
      end
      assert.are.equal(BYTES, size)
      assert.are.equal(MB, #handle.stdout)
      assert.are.equal(BYTES - MB, handle.stdout_dropped)
      assert.are.equal(("0123456789abcde\n"):rep(MB / 16), handle.stdout)
      assert.is_true(most > 0 and most - before < 3 * 1024, (most - before) .. " KB more")
    end)

    it_("wait for a slow reader, and lose nothing", function()
      local handle = assert(sandbox.commands:start("seq 1 300000"))
      e2b.sleep(0.3)
      local n = 0
      while true do
        local line = handle:read_line()
        if not line then break end
        n = n + 1
        if n % 50000 == 0 then e2b.sleep(0.05) end
        assert(line == tostring(n))
      end
      assert.are.equal(300000, n)
      assert.are.equal(0, handle.exit_code)
    end)

    it_("leave nothing behind when their handles are dropped", function()
      sandbox.commands:list()
      support.collect()
      local sockets, pids = core.stats().in_flight, {}
      local function drop()
        for i = 1, 5 do
          local handle = assert(sandbox.commands:start("sleep 30"))
          pids[i] = handle.pid
        end
      end
      drop()
      support.collect()
      assert.are.equal(sockets, core.stats().in_flight)
      for _, pid in ipairs(pids) do
        assert.is_false(gone(pid))
        assert.are.same({ true, true }, { sandbox.commands:kill(pid) })
      end
    end)
  end

  it("are killed by a cancel, and nothing else is", function()
    local other = assert(sandbox.commands:start("sleep 30"))
    local pid
    local task = e2b.spawn(function()
      return sandbox.commands:run("echo $$; exec sleep 100", { on_stdout = function(text) pid = tonumber(text) end })
    end)
    platform.wait_for(function() return pid end, "the command")
    local began = core.now()
    task:cancel()
    local _, _, err = task:wait()
    assert.are.equal("cancelled", err.kind)
    assert.is_true(core.now() - began < 1)
    platform.wait_for(function() return gone(pid) end, "the process to be gone")
    assert.is_false(gone(other.pid))
    assert.are.same({ true, true }, { other:kill() })
    assert(other:wait())
  end)

  it("run 200 at once", function()
    local list = {}
    for i = 1, 200 do list[i] = i end
    local results, failed = e2b.map(list, function(i)
      return sandbox.commands:run({ "sh", "-c", "echo " .. i })
    end, { limit = 200 })
    assert.are.equal(0, failed)
    for i, entry in ipairs(results) do assert.are.equal(i .. "\n", entry.value.stdout) end
  end)

  for _, mode in ipairs(envd_peer.MODES) do
    it("say so when their sandbox is killed (" .. mode.name .. ")", function()
      mode.run(function()
        local own = fixture:create()
        local handle = assert(own.commands:start("echo on; sleep 100"))
        assert.are.equal("stdout", (handle:read()))
        assert(own:kill())
        local began = core.now()
        local kind, message, err = handle:read()
        assert.is_nil(kind)
        assert.are.equal("sandbox_gone", err.kind)
        assert.is_truthy(message:find("sandbox was killed or reached its end of life", 1, true), message)
        assert.is_true(core.now() - began < 2)
        local _, _, run_err = own.commands:run("true")
        assert.are.equal("sandbox_gone", run_err.kind)
      end)
    end)

    it("stop while it is paused and go on after (" .. mode.name .. ")", function()
      mode.run(function()
        local own = fixture:create()
        local handle = assert(own.commands:start("for i in $(seq 1 100); do echo $i; sleep 0.05; done; echo done"))
        assert.are.equal("stdout", (handle:read()))
        assert(own:pause())
        local _, _, err = own.commands:run("true")
        assert.are.equal("sandbox_gone", err.kind)
        assert(own:resume())
        local again = assert(own.commands:connect(handle.pid))
        local stream, data = again:read()
        assert.are.equal("stdout", stream)
        assert.is_truthy(tonumber((data:match("%d+"))))
        again:kill()
        assert(again:wait())
      end)
    end)
  end
end)
