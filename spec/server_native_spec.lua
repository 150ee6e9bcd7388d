-- The native module of the local server: processes, pipes, terminals, base64.
local native = require("e2b.server.native")
local posix = require("spec.support.posix")
local support = require("spec.support.support")

-- Valgrind keeps limits and the failures of exec to itself.
local emulated = (os.getenv("LD_PRELOAD") or ""):find("vgpreload")

local ENV = { "PATH=/usr/bin:/bin", "A=1" }

-- Reads a descriptor to its end.
local function read_all(fd)
  local parts = {}
  support.wait_for(function()
    while true do
      local bytes, problem = native.read(fd, 65536)
      if bytes == nil then
        assert.is_nil(problem)
        return true
      end
      if bytes == false then return false end
      parts[#parts + 1] = bytes
    end
  end, 10, "the end of a pipe")
  native.close(fd)
  return table.concat(parts)
end

-- The end of one child.
local function wait(pid)
  local exited, code, core
  support.wait_for(function()
    local found
    found, exited, code, core = native.wait()
    return found == pid
  end, 10, "the end of a process")
  return exited, code, core
end

local function run(options)
  options.env = options.env or ENV
  local one = assert(native.spawn(options))
  if one.stdin then native.close(one.stdin) end
  local out, err = read_all(one.stdout), read_all(one.stderr)
  local exited, code = wait(one.pid)
  return out, err, code, exited
end

local function shell(command, options)
  options = options or {}
  options.argv = { "sh", "-c", command }
  return run(options)
end

describe("the native module of the local server", function()
  local fds

  before_each(function()
    fds = support.fd_count()
  end)

  after_each(function()
    assert.equal(fds, support.fd_count())
    assert.is_nil(native.wait())
  end)

  describe("spawns", function()
    it("with arguments, environment, folder and three pipes", function()
      local out, err, code, exited = run({
        argv = { "sh", "-c", 'pwd; echo "$1|$A|$HOME"; echo no >&2; exit 7', "x", "a b\n'\"" }, cwd = "/usr",
      })
      assert.equal("/usr\na b\n'\"|1|\n", out)
      assert.equal("no\n", err)
      assert.is_true(exited)
      assert.equal(7, code)
    end)

    it("and says which signal ended it", function()
      local _, _, code, exited = shell("kill -TERM $$")
      assert.is_false(exited)
      assert.equal(15, code)
    end)

    it("and feeds its standard input, which does not block", function()
      local one = assert(native.spawn({ argv = { "cat" }, env = ENV }))
      assert.equal(5, native.write(one.stdin, "hello"))
      assert.equal(3, native.write(one.stdin, "hello", 3))
      native.close(one.stdin)
      assert.equal("hellollo", read_all(one.stdout))
      assert.equal("", read_all(one.stderr))
      assert.is_true(wait(one.pid))
    end)

    it("and a full pipe takes nothing more, a closed one is an error", function()
      require("cqueues.signal").ignore(require("cqueues.signal").SIGPIPE)
      local one = assert(native.spawn({ argv = { "sleep", "60" }, env = ENV }))
      local bytes, total = ("x"):rep(65536), 0
      local count
      repeat
        count = native.write(one.stdin, bytes)
        total = total + (count or 0)
      until not count
      assert.is_false(count)
      assert.is_true(total >= 4096)
      assert.is_true(native.kill(one.pid, 9))
      wait(one.pid)
      local none, message, errno = native.write(one.stdin, "x")
      assert.is_nil(none)
      assert.equal("broken pipe", message)
      assert.equal(32, errno)
      for _, name in ipairs({ "stdin", "stdout", "stderr" }) do native.close(one[name]) end
    end)

    it("with nothing to read when standard input is null", function()
      local out, _, code = shell("read x; echo $?", { stdin = "null" })
      assert.equal("1\n", out)
      assert.equal(0, code)
    end)

    it("a program found by the child's own PATH", function()
      local folder = support.tmpdir()
      support.write_file(folder .. "/tool", "#!/bin/sh\necho found $1\n")
      support.shell("chmod 755 " .. folder .. "/tool")
      local out = run({ argv = { "tool", "it" }, env = { "PATH=/nowhere:" .. folder } })
      assert.equal("found it\n", out)
      support.cleanup(folder)
    end)

    it("a script without a first line by the shell", function()
      local folder = support.tmpdir()
      support.write_file(folder .. "/script", "echo plain $1 $2\n")
      support.shell("chmod 755 " .. folder .. "/script")
      assert.equal("plain a b\n", (run({ argv = { folder .. "/script", "a", "b" } })))
      support.cleanup(folder)
    end)

    it("what is not there or cannot be run ends with 127 or 126 and a word on standard error", function()
      local _, err, code = run({ argv = { "no-such-program", "x" } })
      assert.equal(127, code)
      assert.equal("sh: 1: exec: no-such-program: not found\n", err)
      _, err, code = run({ argv = { "/etc/passwd" } })
      assert.equal(126, code)
      assert.equal("sh: 1: exec: /etc/passwd: Permission denied\n", err)
      _, err, code = run({ argv = { "" } })
      assert.equal(127, code)
      assert.equal("sh: 1: exec: : not found\n", err)
      _, err, code = run({ argv = { ("n"):rep(5000) } })
      assert.is_true(code == 127 or code == 126)
      assert.is_true(#err < 600)
    end)

    it("not in a folder that is none", function()
      local one, message, errno, step = native.spawn({ argv = { "true" }, env = ENV, cwd = "/nowhere" })
      assert.is_nil(one)
      assert.equal("no such file or directory", message)
      assert.equal(2, errno)
      assert.equal("cwd", step)
      one, message, errno, step = native.spawn({ argv = { "true" }, env = ENV, cwd = "/etc/passwd" })
      assert.is_nil(one)
      assert.equal("not a directory", message)
      assert.equal(20, errno)
      assert.equal("cwd", step)
    end)

    it("not as somebody it may not be", function()
      if native.ids() == 0 then
        local out = shell("id -u; id -g; id -G", { uid = 12345, gid = 12346, groups = { 12346, 12347 } })
        assert.equal("12345\n12346\n12346 12347\n", out)
      else
        local one, _, _, step = native.spawn({ argv = { "true" }, env = ENV, uid = 0, gid = 0 })
        assert.is_nil(one)
        assert.equal("user", step)
      end
    end)

    it("with standard descriptors only and with nothing blocked or ignored", function()
      local leak = posix.open("/dev/null") -- not close-on-exec
      require("cqueues.signal").ignore(require("cqueues.signal").SIGPIPE)
      local out = shell("ls /proc/self/fd; grep -E 'SigBlk|SigIgn' /proc/self/status | cut -f2")
      posix.close(leak)
      -- 3 is the listing itself; the C library keeps 32 and 33 to itself and does not let them be reset.
      assert.matches("^0\n1\n2\n3\n0000000000000000\n0000000[01][08]0000000\n$", out)
    end)

    it("and its own ends are close-on-exec", function()
      local one = assert(native.spawn({ argv = { "cat" }, env = ENV }))
      local tty = assert(native.spawn({ argv = { "cat" }, env = ENV, pty = { cols = 80, rows = 24 } }))
      for _, fd in ipairs({ one.stdin, one.stdout, one.stderr, tty.pty }) do assert.is_true(posix.is_cloexec(fd)) end
      for _, name in ipairs({ "stdin", "stdout", "stderr" }) do native.close(one[name]) end
      assert.is_nil(tty.stdin)
      native.close(tty.pty)
      native.kill(tty.pid, 9)
      local ended = {}
      support.wait_for(function()
        local pid = native.wait()
        if pid then ended[pid] = true end
        return ended[one.pid] and ended[tty.pid]
      end)
    end)

    it("with a terminal of a size, which leads a session", function()
      local one = assert(native.spawn({
        argv = { "sh", "-c", "stty size; tty; ps -o sid= -p $$; echo $$; read x; stty size; echo got $x" },
        env = { "PATH=/usr/bin:/bin", "TERM=dumb" }, pty = { cols = 81, rows = 23 },
      }))
      local text = ""
      local function read()
        local bytes = native.read(one.pty, 100)
        if bytes then text = text .. bytes end
        return bytes
      end
      support.wait_for(function()
        read()
        return text:find("23 81\r\n/dev/pts/%d+\r\n *(%d+)\r\n%1\r\n")
      end, 5, "the size in " .. text)
      assert.is_true(native.resize(one.pty, 65536 + 100, 40))
      native.write(one.pty, "hey\n")
      support.wait_for(function() return read() == nil end)
      assert.matches("40 100\r\ngot hey\r\n$", text)
      assert.is_true(wait(one.pid))
      native.close(one.pty)
    end)

    it("with as many descriptors as it is to have", function()
      if emulated then return end
      local before = native.raise_descriptors()
      assert.equal(before > 0, true)
      assert.equal("50\n", (shell("ulimit -Sn", { descriptors = 50 })))
      assert.is_true(native.raise_descriptors() >= before)
    end)

    it("nothing with more arguments than the system takes", function()
      if emulated then return end
      local argv = { "true" }
      for i = 1, 100 do argv[i + 1] = ("x"):rep(100000) end
      local one, message, errno, step = native.spawn({ argv = argv, env = ENV })
      assert.is_nil(one)
      assert.equal("argument list too long", message)
      assert.equal(7, errno)
      assert.equal("setup", step)
    end)

    it("only what can be spawned", function()
      assert.has_error(function() native.spawn({ env = ENV }) end)
      assert.has_error(function() native.spawn({ argv = {}, env = ENV }) end)
      assert.has_error(function() native.spawn({ argv = { "true", 1 }, env = ENV }) end)
      assert.has_error(function() native.spawn({ argv = { "true" }, env = { "A=\0" } }) end)
      assert.has_error(function() native.spawn({ argv = { "true" } }) end)
      assert.has_error(function() native.spawn({ argv = { "true" }, env = ENV, stdin = "file" }) end)
      assert.has_error(function() native.spawn({ argv = { "true" }, env = ENV, pty = true }) end)
      assert.has_error(function() native.spawn({ argv = { "true" }, env = ENV, uid = 5 }) end)
    end)

    it("nothing when there are no descriptors left, and leaks none", function()
      local result = support.run([[
        local native = require("e2b.server.native")
        local posix = require("spec.support.posix")
        local held = {}
        while true do
          local fd = posix.open("/dev/null")
          if fd < 0 then break end
          held[#held + 1] = fd
        end
        local failed, made = 0, 0
        for round = 1, 16 do
          for _, pty in ipairs({ false, { cols = 1, rows = 1 } }) do
            local one, message, errno, step = native.spawn({ argv = { "true" }, env = {}, pty = pty or nil })
            if one then
              made = made + 1
              for _, name in ipairs({ "stdin", "stdout", "stderr", "pty" }) do
                if one[name] then native.close(one[name]) end
              end
              while not native.wait() do end
            else
              failed = failed + 1
              assert(errno == 24 and step == "setup", message)
            end
            -- Exactly as many are free as before.
            local free = {}
            while true do
              local fd = posix.open("/dev/null")
              if fd < 0 then break end
              free[#free + 1] = fd
            end
            assert(#free == round - 1, #free .. " free in round " .. round)
            for _, fd in ipairs(free) do posix.close(fd) end
          end
          posix.close(table.remove(held))
        end
        print(failed, made)
      ]], { wrap = "sh -c 'ulimit -n 64; exec \"$@\"' --" })
      assert.equal("", result.err)
      local failed, made = result.out:match("^(%d+)%s+(%d+)")
      assert.is_true(tonumber(failed) >= 10)
      assert.is_true(tonumber(made) >= 10)
    end)
  end)

  it("knows its descendants, orphans among them, their states and their parents", function()
    assert.is_true(native.subreaper())
    local one = assert(native.spawn({
      argv = { "sh", "-c", "(sleep 60 & exec sleep 61) & echo $!; sleep 62" }, env = ENV,
    }))
    local pids, states, parents
    support.wait_for(function()
      pids, states, parents = native.descendants()
      return #pids == 4
    end)
    assert.equal(#pids, #states)
    assert.equal(#pids, #parents)
    for i, pid in ipairs(pids) do
      assert.equal(tonumber(support.read_file("/proc/" .. pid .. "/stat"):match("%) %a (%d+)")), parents[i])
    end
    assert.is_true(native.kill(one.pid, 9))
    wait(one.pid)
    support.wait_for(function() return #native.descendants() == 3 end)
    pids = native.descendants()
    assert.is_true(native.kill(pids[1], 19))
    support.wait_for(function()
      local now, state = native.descendants()
      return now[1] == pids[1] and state[1] == "T"
    end)
    for _, pid in ipairs(pids) do native.kill(pid, 9) end
    local count = 0
    support.wait_for(function()
      if native.wait() then count = count + 1 end
      return count == 3
    end)
    assert.same({}, (native.descendants()))
    for _, name in ipairs({ "stdin", "stdout", "stderr" }) do native.close(one[name]) end
  end)

  it("fails with the system's words", function()
    local ok, message, errno = native.kill(0x7FFFFFF, 0)
    assert.is_nil(ok)
    assert.equal("no such process", message)
    assert.equal(3, errno)
    assert.is_nil((native.read(9999, 1)))
    assert.equal(9, select(3, native.write(9999, "x")))
    assert.is_nil((native.close(9999)))
    assert.is_nil((native.resize(9999, 1, 1)))
    assert.has_error(function() native.read(0, 0) end)
    assert.has_error(function() native.write(1, "abc", 5) end)
  end)

  describe("base64", function()
    it("goes both ways for every length", function()
      local bytes = {}
      for i = 0, 2000 do bytes[i + 1] = string.char((i * 7 + math.floor(i / 256)) % 256) end
      local all = table.concat(bytes)
      for size = 0, 2000 do
        local piece = all:sub(1, size)
        local text = native.base64_encode(piece)
        assert.equal(math.ceil(size / 3) * 4, #text)
        assert.equal(piece, native.base64_decode(text))
      end
      assert.equal("AAEC/w==", native.base64_encode("\0\1\2\255"))
    end)

    it("reads both alphabets, with padding or without, and nothing else", function()
      assert.equal("\251\255", native.base64_decode("+/8="))
      assert.equal("\251\255", native.base64_decode("-_8"))
      assert.equal("a", native.base64_decode("YQ"))
      assert.equal("a", native.base64_decode("YQ=="))
      local wrong = { "Y", "YQ=", "YQ===", "Y Q=", "YQ\n=", "=", "====", "YQ=a", "YWJjZ", "\255\255\255\255" }
      for _, bad in ipairs(wrong) do
        assert.is_nil(native.base64_decode(bad), bad)
      end
    end)

    it("frames what a process prints", function()
      local reading, writing = posix.pipe()
      assert.is_false(native.read_event(reading, 32768, "stdout"))
      native.write(writing, "hi\n")
      local text = '{"event":{"data":{"stdout":"aGkK"}}}'
      assert.equal("\0\0\0\0" .. string.char(#text) .. text, native.read_event(reading, 32768, "stdout"))
      native.write(writing, ("x"):rep(40000))
      local event = native.read_event(reading, 32768, "stderr")
      assert.equal(5 + #'{"event":{"data":{"stderr":""}}}' + math.ceil(32768 / 3) * 4, #event)
      assert.equal(("x"):rep(32768), native.base64_decode(event:match('"stderr":"([^"]*)"')))
      assert.is_true(native.read_event(reading, 32768))
      native.close(writing)
      assert.is_nil(native.read_event(reading, 32768, "stdout"))
      assert.has_error(function() native.read_event(reading, 32769, "stdout") end)
      assert.has_error(function() native.read_event(reading, 10, ("k"):rep(40)) end)
      native.close(reading)
    end)
  end)
end)
