-- The daemon's processes: what the service process.Process does, on real ones.
local daemon = require("spec.support.sandbox_daemon")
local json = require("e2b.server.json")
local native = require("e2b.server.native")
local support = require("spec.support.support")

local P = "/process.Process/"

describe("the daemon of a local sandbox, its processes:", function()
  local one

  setup(function()
    one = daemon.start()
  end)

  teardown(function()
    daemon.stop_all()
  end)

  local function list()
    local answer = one:call(P .. "List", {})
    assert.equal(200, answer.status)
    local by_pid, count = {}, 0
    for _, process in ipairs(answer.json.processes or {}) do
      by_pid[process.pid] = process
      count = count + 1
    end
    return by_pid, count
  end

  local function signal(pid, name)
    return one:call(P .. "SendSignal", { process = { pid = pid }, signal = name or "SIGNAL_SIGKILL" })
  end

  local function started(command, fields, headers)
    local stream = one:start(command, fields, headers)
    return stream, assert(stream:event()).start.pid
  end

  local function input(pid, bytes, kind, headers)
    return one:call(P .. "SendInput", {
      process = { pid = pid }, input = { [kind or "stdin"] = native.base64_encode(bytes) },
    }, headers)
  end

  -- Nothing of one case is there in the next.
  after_each(function()
    for pid in pairs(list()) do signal(pid) end
    support.wait_for(function() return select(2, list()) == 0 end, 5, "an empty list")
  end)

  describe("Start", function()
    it("gives start, data, one end and the end of the stream", function()
      local stream = one:start("echo out; echo err >&2")
      assert.equal("application/connect+json", stream:head().headers["content-type"])
      local all = stream:rest()
      assert.is_true(all.pid > 0)
      assert.equal("out\n", all.stdout)
      assert.equal("err\n", all.stderr)
      assert.same({ exited = true, status = "exit status 0" }, all.exit)
      assert.same({}, all.ending)
    end)

    it("says how it ended", function()
      assert.same({ exitCode = 3, exited = true, status = "exit status 3", error = "exit status 3" },
        one:shell("exit 3").exit)
      assert.same({ exitCode = -1, status = "signal: killed", error = "signal: killed" }, one:shell("kill -9 $$").exit)
      assert.equal("signal: terminated", one:shell("kill $$").exit.status)
      assert.equal("signal: hangup", one:shell("kill -HUP $$").exit.error)
      assert.matches("^signal: bad system call", one:shell("kill -SYS $$").exit.status)
      assert.matches("^signal: CPU time limit exceeded", one:shell("kill -XCPU $$").exit.status)
      assert.equal("signal: profiling timer expired", one:shell("kill -PROF $$").exit.status)
      assert.equal("signal: signal 40", one:shell("kill -40 $$").exit.status)
    end)

    it("runs in the home of the user, as that user, with nothing inherited", function()
      local all = one:shell("pwd; env | sort")
      local lines = {}
      for line in all.stdout:gmatch("[^\n]+") do lines[#lines + 1] = line end
      assert.equal(one:path("/home/user"), table.remove(lines, 1))
      local names = {}
      for i, line in ipairs(lines) do names[i] = line:match("^[^=]+") end
      assert.same({ "E2B_SANDBOX", "E2B_SANDBOX_ID", "E2B_TEMPLATE_ID", "HOME", "LOGNAME", "PATH", "PWD", "TMPDIR",
        "USER" }, names)
      assert.matches("\nUSER=user\n", all.stdout)
      assert.matches("\nE2B_SANDBOX_ID=isandbox\n", all.stdout)
      all = one:shell("pwd; echo $USER", nil, { Authorization = "Basic cm9vdDo=" })
      assert.equal(one:path("/root") .. "\nroot\n", all.stdout)
      all = one:shell("pwd; echo $USER", nil, { Authorization = "Basic cm9vdDpwYXNz" })
      assert.equal(one:path("/root") .. "\nroot\n", all.stdout)
    end)

    it("refuses unknown users in the stream", function()
      local all = one:shell("true", nil, { Authorization = "Basic " .. native.base64_encode("nobody:") })
      assert.is_nil(all.pid)
      assert.same({ error = { code = "unauthenticated", message = "invalid username: 'nobody'" } }, all.ending)
    end)

    it("takes cwd from the home, absolute or with a tilde", function()
      support.shell("mkdir -p " .. one:path("/home/user/work/deep") .. " " .. one:path("/srv"))
      local function pwd(cwd)
        local process = { cmd = "pwd", cwd = cwd }
        return one:open(P .. "Start", { process = process }):rest().stdout:gsub("\n$", "")
      end
      assert.equal(one:path("/home/user/work/deep"), pwd("work/./x/../deep"))
      assert.equal(one:path("/home/user/work"), pwd("~/work"))
      assert.equal(one:path("/home/user"), pwd("~"))
      assert.equal(one:path("/home/user"), pwd(""))
      assert.equal(one:path("/srv"), pwd("/srv"))
      assert.equal(one:path("/home/user"), pwd(json.null))
    end)

    it("refuses a cwd that is none", function()
      local function failure(cwd)
        local process = { cmd = "/bin/sh", args = json.array({ "-c", "x" }), cwd = cwd }
        local all = one:open(P .. "Start", { process = process }):rest()
        assert.is_nil(all.pid)
        return all.ending.error
      end
      assert.same({ code = "invalid_argument", message = "cwd '/no/where' does not exist" }, failure("/no/where"))
      assert.same({ code = "invalid_argument", message = "cwd '/home/user/gone' does not exist" }, failure("gone"))
      assert.same({ code = "invalid_argument", message = "cannot expand user-specific home dir" }, failure("~root/x"))
      support.write_file(one:path("/home/user/file"), "")
      local found = failure("/home/user/file")
      assert.equal("invalid_argument", found.code)
      assert.equal("error starting process '/bin/sh -c x': fork/exec /bin/sh: not a directory", found.message)
    end)

    it("gives envs of the request the last word, for this process only", function()
      local process = { cmd = "/bin/sh", args = json.array({ "-c", 'echo "$A|$HOME|$E2B_SANDBOX"' }),
        envs = { A = "=\n'\"$x", HOME = "/h", E2B_SANDBOX = "mine" } }
      assert.equal("=\n'\"$x|/h|mine\n", one:open(P .. "Start", { process = process }):rest().stdout)
      assert.equal("||\n", one:shell('echo "$A||"').stdout)
    end)

    it("finds programs by the PATH it gives them, and says so when there is none", function()
      local all = one:open(P .. "Start", { process = { cmd = "no-such-thing" } }):rest()
      assert.equal(127, all.exit.exitCode)
      assert.is_true(all.exit.exited)
      assert.matches("no%-such%-thing: not found", all.stderr)
      all = one:open(P .. "Start", { process = { cmd = "/etc/passwd" } }):rest()
      assert.equal(126, all.exit.exitCode)
    end)

    it("has a pipe as standard input unless told otherwise", function()
      local stream, pid = started("cat", { stdin = json.null })
      assert.equal(200, input(pid, "one\0\255").status)
      assert.equal(200, input(pid, "").status)
      assert.equal(200, input(pid, "two").status)
      assert.equal(200, one:call(P .. "CloseStdin", { process = { pid = pid } }).status)
      -- Again is no mistake.
      local again = one:call(P .. "CloseStdin", { process = { pid = pid } })
      assert.is_true(again.status == 200 or again.json.code == "not_found")
      local all = stream:rest()
      assert.equal("one\0\255two", all.stdout)
      assert.same({ exited = true, status = "exit status 0" }, all.exit)
      assert.equal(1, one:shell("read x").exit.exitCode)
    end)

    it("passes bytes on as they are, in chunks of at most 32 KiB", function()
      local all = one:shell("head -c 8191 /dev/zero | tr '\\0' a; printf '\\342'")
      assert.equal(("a"):rep(8191) .. "\226", all.stdout)
      all = one:shell("head -c 1000000 /dev/zero; head -c 300000 /dev/zero | tr '\\0' '\\377' >&2")
      assert.equal(("\0"):rep(1000000), all.stdout)
      assert.equal(("\255"):rep(300000), all.stderr)
      assert.is_true(all.largest <= 32768)
    end)

    it("holds the end back while somebody has the pipe", function()
      local seconds = support.timed(function()
        local all = one:shell("(sleep 0.4; echo late) & echo early")
        assert.equal("early\nlate\n", all.stdout)
        assert.equal("exit status 0", all.exit.status)
      end)
      assert.is_true(seconds > 0.35)
    end)

    it("does not wait for pipes any more once a signal was sent", function()
      local stream, pid = started("sleep 300 & echo $!; wait")
      local child = tonumber(native.base64_decode(stream:event().data.stdout))
      local seconds = support.timed(function()
        assert.equal(200, signal(pid).status)
        assert.equal("signal: killed", stream:rest().exit.status)
      end)
      assert.is_true(seconds < 2 * support.slack)
      -- The signal was for the process alone.
      assert.is_true(daemon.is_alive(child))
      native.kill(child, 9)
    end)

    it("and what was printed before the signal still comes", function()
      local stream, pid = started("echo first; head -c 40000 /dev/zero; kill -STOP $$; sleep 1 & sleep 300")
      support.wait_for(function() return (support.read_file("/proc/" .. pid .. "/stat") or ""):find("%) T") end)
      assert.equal(200, signal(pid, "SIGNAL_SIGKILL").status)
      assert.equal(#"first\n" + 40000, #stream:rest().stdout)
    end)

    it("kills the process, and it alone, when its time is over", function()
      local stream, pid = started("sleep 300 & echo $!; exec sleep 301", nil, { ["Connect-Timeout-Ms"] = "300" })
      local child
      local seconds = support.timed(function()
        child = tonumber(native.base64_decode(stream:event().data.stdout))
        local all = stream:rest()
        assert.is_nil(all.exit)
        assert.same({ error = { code = "deadline_exceeded", message = "context deadline exceeded" } }, all.ending)
      end)
      assert.is_true(seconds > 0.2 and seconds < 0.3 + support.tolerance)
      support.wait_for(function() return not daemon.is_alive(pid) end)
      assert.is_true(daemon.is_alive(child))
      native.kill(child, 9)
    end)

    it("and does so when the client has left long before", function()
      local stream, pid = started("exec sleep 301", nil, { ["Connect-Timeout-Ms"] = "400" })
      stream:close()
      assert.is_true(daemon.is_alive(pid))
      support.wait_for(function() return not daemon.is_alive(pid) end)
    end)

    it("goes on when its client leaves", function()
      local stream, pid = started("yes | head -c 3000000; echo done > ~/left; exec sleep 301")
      stream:close()
      support.wait_for(function() return support.read_file(one:path("/home/user/left")) == "done\n" end)
      assert.is_true(daemon.is_alive(pid))
      assert.is_truthy(list()[pid])
    end)

    it("sends keepalives when nothing else comes", function()
      local stream = one:start("sleep 2.5; echo x; sleep 0.5", nil, { ["Keepalive-Ping-Interval"] = "1" })
      local all = stream:rest()
      assert.equal(2, all.keepalives)
      assert.equal("x\n", all.stdout)
      -- What is no interval is the default.
      for _, wrong in ipairs({ "0", "-1", "x", "1.5" }) do
        assert.equal(0, one:shell("true", nil, { ["Keepalive-Ping-Interval"] = wrong }).keepalives)
      end
    end)

    it("refuses bytes that no argument can hold", function()
      local all = one:open(P .. "Start", { process = { cmd = "echo", args = json.array({ "a\0b" }) } }):rest()
      assert.equal("invalid_argument", all.ending.error.code)
    end)

    it("runs two hundred at once", function()
      local streams = {}
      for i = 1, 200 do streams[i] = one:start("read x < /dev/null; echo " .. i) end
      for i = 1, 200 do
        local all = streams[i]:rest()
        assert.equal(i .. "\n", all.stdout)
        assert.equal("exit status 0", all.exit.status)
      end
    end)
  end)

  describe("a terminal", function()
    local function terminal(command, size)
      local stream = one:start(command, { pty = { size = size or { cols = 80, rows = 24 } }, stdin = json.null })
      return stream, stream:event().start.pid
    end

    -- Reads until the text is there.
    local function expect(stream, pattern)
      local text = ""
      while not text:find(pattern) do
        local event = stream:event()
        assert(event and not event["end"], "the end came before " .. pattern .. ": " .. text)
        text = text .. native.base64_decode(event.data.pty)
      end
      return text
    end

    it("has a size, which changes", function()
      local stream, pid = terminal("stty size; read x; stty size; echo [$x]")
      expect(stream, "24 80\r\n")
      assert.equal(200, one:call(P .. "Update", {
        process = { pid = pid }, pty = { size = { cols = 100, rows = 30 } },
      }).status)
      assert.equal(200, one:call(P .. "Update", { process = { pid = pid } }).status)
      assert.equal(200, input(pid, "hello\n", "pty").status)
      local all = stream:rest()
      assert.matches("30 100\r\n%[hello%]\r\n$", all.pty)
      assert.equal("", all.stdout .. all.stderr)
      assert.equal("exit status 0", all.exit.status)
    end)

    it("runs a shell that is interactive, and ends with byte 4", function()
      local stream = one:open(P .. "Start", {
        process = { cmd = "/bin/sh", args = json.array({ "-i" }), envs = { PS1 = "> ", TERM = "dumb" } },
        pty = { size = { cols = 80, rows = 24 } },
      })
      local pid = stream:event().start.pid
      expect(stream, "> ")
      input(pid, "echo $((6*7))\n", "pty")
      expect(stream, "\r\n42\r\n")
      local answer = one:call(P .. "CloseStdin", { process = { pid = pid } })
      assert.equal(500, answer.status)
      assert.equal("unknown", answer.json.code)
      assert.matches("^error closing stdin: cannot close stdin for PTY process", answer.json.message)
      input(pid, "\4", "pty")
      assert.equal("exit status 0", stream:rest().exit.status)
    end)

    it("comes in chunks of at most 16 KiB", function()
      local stream = terminal("stty -onlcr; head -c 200000 /dev/zero | tr '\\0' x")
      local all = stream:rest()
      assert.equal(("x"):rep(200000), all.pty)
      assert.is_true(all.largest <= 16384)
    end)

    it("is killed, and says so", function()
      local stream, pid = terminal("echo up; exec sleep 300")
      expect(stream, "up")
      assert.equal(200, signal(pid).status)
      assert.is_false(daemon.is_alive(pid))
      assert.equal("signal: killed", stream:rest().exit.status)
    end)

    it("and pipes are not mixed up", function()
      local stream, pid = terminal("read x")
      local answer = input(pid, "x")
      assert.equal(500, answer.status)
      assert.equal("internal", answer.json.code)
      input(pid, "\n", "pty")
      stream:rest()
      stream, pid = started("cat", { stdin = true })
      assert.equal("internal", input(pid, "x", "pty").json.code)
      answer = one:call(P .. "Update", { process = { pid = pid }, pty = { size = { cols = 1, rows = 1 } } })
      assert.equal("internal", answer.json.code)
      assert.matches("^error resizing tty: ", answer.json.message)
      one:call(P .. "CloseStdin", { process = { pid = pid } })
      stream:rest()
    end)
  end)

  describe("Connect", function()
    it("joins by pid or tag, from now on", function()
      local first, pid = started("echo before; read x; echo after", { stdin = true, tag = "joined" })
      assert.equal("before\n", native.base64_decode(first:event().data.stdout))
      local second = one:open(P .. "Connect", { process = { pid = pid } })
      local third = one:open(P .. "Connect", { process = { tag = "joined" } })
      assert.same({ start = { pid = pid } }, second:event())
      assert.same({ start = { pid = pid } }, third:event())
      input(pid, "\n")
      for _, stream in ipairs({ first, second, third }) do
        local all = stream:rest()
        assert.equal("after\n", all.stdout)
        assert.equal("exit status 0", all.exit.status)
      end
    end)

    it("does not find what is not there", function()
      assert.same({ error = { code = "not_found", message = "process with pid 999999 not found" } },
        one:open(P .. "Connect", { process = { pid = 999999 } }):rest().ending)
      assert.same({ error = { code = "not_found", message = "process with tag no not found" } },
        one:open(P .. "Connect", { process = { tag = "no" } }):rest().ending)
      assert.equal("unimplemented", one:open(P .. "Connect", { process = {} }):rest().ending.error.code)
      assert.equal("unimplemented", one:open(P .. "Connect", {}):rest().ending.error.code)
      assert.equal("invalid_argument", one:open(P .. "Connect", { process = { pid = 1, tag = "x" } }):rest().ending
        .error.code)
    end)

    it("tells the end of one that has ended", function()
      local all = one:shell("exit 9", { tag = "late" })
      for _, selector in ipairs({ { pid = all.pid }, { tag = "late" } }) do
        local late = one:open(P .. "Connect", { process = selector }):rest()
        assert.equal(all.pid, late.pid)
        assert.same(all.exit, late.exit)
        assert.same({}, late.ending)
        assert.equal(0, late.chunks)
      end
      -- The tag is another's now.
      local stream, pid = started("exec sleep 300", { tag = "late" })
      local joined = one:open(P .. "Connect", { process = { tag = "late" } })
      assert.same({ start = { pid = pid } }, joined:event())
      assert.equal(all.pid, one:open(P .. "Connect", { process = { pid = all.pid } }):rest().pid)
      signal(pid)
      stream:rest()
      assert.equal("signal: killed", joined:rest().exit.status)
    end)

    it("ends when its own time is over, and the process lives", function()
      local stream, pid = started("exec sleep 300")
      local joined = one:open(P .. "Connect", { process = { pid = pid } }, { ["Connect-Timeout-Ms"] = "200" })
      assert.equal("deadline_exceeded", joined:rest().ending.error.code)
      assert.is_true(daemon.is_alive(pid))
      stream:close()
    end)
  end)

  describe("List", function()
    it("shows what was started, as it was sent", function()
      local stream, pid = started("exec sleep 300", { tag = "listed" })
      local process = { cmd = "sleep", args = json.array({ "301" }), envs = { A = "1" }, cwd = "~" }
      local other = one:open(P .. "Start", { process = process })
      local other_pid = other:event().start.pid
      local now = list()
      local config = { cmd = "/bin/sh", args = { "-c", "exec sleep 300" } }
      assert.same({ config = config, pid = pid, tag = "listed" }, now[pid])
      assert.same({ config = { cmd = "sleep", args = { "301" }, envs = { A = "1" }, cwd = "~" }, pid = other_pid },
        now[other_pid])
      signal(pid)
      stream:rest()
      assert.is_nil(list()[pid])
      signal(other_pid)
      other:rest()
      assert.equal("{}", one:call(P .. "List", {}).body)
    end)
  end)

  describe("SendInput", function()
    it("waits while the pipe is full, and nobody else does", function()
      local stream, pid = started("kill -STOP $$; cat", { stdin = true })
      support.wait_for(function() return (support.read_file("/proc/" .. pid .. "/stat") or ""):find("%) T") end)
      local bytes = ("0123456789abcdef"):rep(65536) -- 1 MiB
      local connections = {}
      for i = 1, 2 do
        local body = json.encode({ process = { pid = pid }, input = { stdin = native.base64_encode(bytes) } })
        connections[i] = one:connect()
        connections[i]:send("POST " .. P .. "SendInput HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
          .. "Content-Length: " .. #body .. "\r\n\r\n" .. body)
      end
      -- Neither is answered, and the daemon works on.
      assert.equal("x\n", one:shell("echo x").stdout)
      connections[1]:settimeout(0.1)
      assert.is_nil((connections[1]:receive("*l")))
      local late = input(pid, "late", nil, { ["Connect-Timeout-Ms"] = "100" })
      assert.equal(504, late.status)
      assert.equal("deadline_exceeded", late.json.code)
      native.kill(pid, 18)
      local total, parts = 0, {}
      while total < 2 * #bytes do
        local chunk = native.base64_decode(stream:event().data.stdout)
        total = total + #chunk
        parts[#parts + 1] = chunk
      end
      assert.is_true(table.concat(parts) == bytes .. bytes)
      for i = 1, 2 do
        connections[i]:settimeout(5)
        assert.equal("HTTP/1.1 200 OK", connections[i]:receive("*l"))
        connections[i]:close()
      end
      one:call(P .. "CloseStdin", { process = { pid = pid } })
      assert.equal("exit status 0", stream:rest().exit.status)
    end)

    it("is given up when its client is gone", function()
      local stream, pid = started("exec sleep 300", { stdin = true })
      local function open() return tonumber((support.shell("ls /proc/" .. one.pid .. "/fd | wc -l"))) end
      local before = open()
      local bytes = native.base64_encode(("x"):rep(1048576))
      local body = json.encode({ process = { pid = pid }, input = { stdin = bytes } })
      for _ = 1, 3 do
        local connection = one:connect()
        connection:send("POST " .. P .. "SendInput HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
          .. "Content-Length: " .. #body .. "\r\n\r\n" .. body)
        connection:settimeout(0.2)
        assert.is_nil((connection:receive("*l")))
        connection:close()
      end
      support.wait_for(function() return open() <= before end, 5, "the end of the connections")
      signal(pid)
      stream:rest()
    end)

    it("fails when nobody reads", function()
      local stream, pid = started("exec 0<&-; echo closed; exec sleep 300", { stdin = true })
      stream:event()
      local answer = input(pid, "x")
      assert.equal(500, answer.status)
      assert.equal("internal", answer.json.code)
      assert.equal("error writing to stdin: broken pipe", answer.json.message)
      signal(pid)
      stream:rest()
      answer = input(pid, "x")
      assert.equal(404, answer.status)
      assert.same({ code = "not_found", message = "process with pid " .. pid .. " not found" }, answer.json)
      stream, pid = started("exec sleep 300")
      answer = input(pid, "x")
      assert.equal("internal", answer.json.code)
      assert.equal("error writing to stdin: stdin not enabled or closed", answer.json.message)
      assert.equal("unimplemented", one:call(P .. "SendInput", { process = { pid = pid } }).json.code)
      assert.equal("unimplemented", one:call(P .. "SendInput", { process = { pid = pid }, input = {} }).json.code)
      signal(pid)
      stream:rest()
    end)

    it("ends with the process it waits for", function()
      local stream, pid = started("kill -STOP $$; cat", { stdin = true })
      local body = json.encode({ process = { pid = pid }, input = { stdin = native.base64_encode(("x"):rep(200000)) } })
      local connection = one:connect()
      connection:send("POST " .. P .. "SendInput HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        .. "Content-Length: " .. #body .. "\r\n\r\n" .. body)
      assert.equal("x\n", one:shell("echo x").stdout)
      signal(pid)
      stream:rest()
      assert.equal("HTTP/1.1 500 Internal Server Error", connection:receive("*l"))
      connection:close()
    end)
  end)

  describe("StreamInput", function()
    it("feeds the processes it names, in order", function()
      local stream, pid = started("cat", { stdin = true, tag = "fed" })
      local feed = one:open_input(P .. "StreamInput")
      feed:send({ start = { process = { tag = "fed" } } })
      local all = {}
      for i = 1, 300 do
        feed:send({ data = { input = { stdin = native.base64_encode(i .. "\n") } } })
        feed:send({ keepalive = {} })
        all[i] = i .. "\n"
      end
      feed:finish()
      assert.same({}, feed:event())
      assert.same({}, select(2, feed:event()))
      one:call(P .. "CloseStdin", { process = { pid = pid } })
      assert.equal(table.concat(all), stream:rest().stdout)
    end)

    it("fails as SendInput does", function()
      local function failure(...)
        local feed = one:open_input(P .. "StreamInput")
        for _, message in ipairs({ ... }) do feed:send(message) end
        feed:finish()
        return select(2, feed:event()).error.code
      end
      assert.equal("not_found", failure({ start = { process = { pid = 999999 } } }))
      assert.equal("invalid_argument", failure({ data = { input = { stdin = "" } } }))
      assert.equal("unimplemented", failure({}))
    end)
  end)

  describe("SendSignal", function()
    it("has reaped the process when a kill was answered", function()
      for _ = 1, 5 do
        local stream, pid = started("exec sleep 300")
        assert.equal("{}", signal(pid).body)
        assert.is_nil(support.read_file("/proc/" .. pid .. "/stat"))
        assert.equal("signal: killed", stream:rest().exit.status)
      end
    end)

    it("terminates, and leaves alone what does not want to", function()
      local stream, pid = started("trap 'echo no' TERM; echo ready; while :; do sleep 0.05; done")
      stream:event()
      assert.equal(200, signal(pid, "SIGNAL_SIGTERM").status)
      assert.equal("no\n", native.base64_decode(stream:event().data.stdout))
      assert.is_truthy(list()[pid])
      assert.equal(200, signal(pid, 9).status) -- enums may be numbers
      stream:rest()
    end)

    it("refuses the rest", function()
      assert.same({ code = "not_found", message = "process with pid 999999 not found" }, signal(999999).json)
      local stream, pid = started("exec sleep 300")
      assert.same({ code = "unimplemented", message = "invalid signal: SIGNAL_UNSPECIFIED" },
        signal(pid, "SIGNAL_UNSPECIFIED").json)
      assert.equal("unimplemented", one:call(P .. "SendSignal", { process = { pid = pid } }).json.code)
      assert.equal(501, signal(pid, 2).status)
      assert.equal("invalid_argument", signal(pid, "SIGNAL_SIGHUP").json.code)
      signal(pid)
      stream:rest()
    end)
  end)

  describe("somebody who does not read", function()
    local function memory()
      return tonumber(support.read_file("/proc/" .. one.pid .. "/status"):match("VmRSS:%s+(%d+)")) * 1024
    end

    -- Bytes a process has written so far.
    local function written(pid)
      return tonumber((support.read_file("/proc/" .. pid .. "/io") or ""):match("wchar: (%d+)") or 0)
    end

    it("holds up the process, not the daemon, and costs little memory", function()
      local stream, pid = started("exec cat /dev/zero")
      local last
      support.wait_for(function()
        support.sleep(0.05)
        local now = written(pid)
        local same = now == last
        last = now
        return same and now > 100000
      end, 5, "the process to be held up")
      local before = memory()
      assert.is_true(last < 8 * 1024 * 1024)
      -- Another one joins and gets no more than there is room for.
      local joined = one:open(P .. "Connect", { process = { pid = pid } })
      assert.same({ start = { pid = pid } }, joined:event())
      assert.equal("x\n", one:shell("echo x").stdout)
      assert.is_true(memory() - before < 8 * 1024 * 1024)
      -- When the one that held it up has gone, it goes on for the other.
      stream:close()
      local total = 0
      while total < 3000000 do total = total + #native.base64_decode(joined:event().data.stdout) end
      joined:close()
      signal(pid)
    end)

    it("does not keep a killed process in the list", function()
      local stream, pid = started("exec cat /dev/zero")
      support.wait_for(function() return written(pid) > 100000 end)
      signal(pid)
      support.wait_for(function() return not list()[pid] end)
      assert.equal("signal: killed", stream:rest().exit.status)
    end)
  end)

  it("a lot of output with nobody listening is thrown away", function()
    local stream, pid = started("sleep 0.2; head -c 100000000 /dev/zero; echo over > ~/over; exec sleep 300")
    stream:close()
    support.wait_for(function() return support.read_file(one:path("/home/user/over")) end, 20)
    signal(pid)
  end)
end)
