-- sandbox.pty with real terminals in a local sandbox, and with a peer for what only that can do.
local envd_peer = require("spec.support.envd_peer")
local platform = require("spec.support.platform")
local support = require("spec.support.support")
local core = require("e2b.core")
local e2b = require("e2b")

local raises = platform.raises

describe("sandbox.pty", function()
  local fixture, sandbox

  setup(function()
    fixture = platform.start()
    sandbox = assert(fixture.Sandbox.create())
  end)

  teardown(function()
    if fixture then fixture:stop() end
  end)

  -- One that ends, whatever becomes of the spec.
  local function create(opts)
    opts = opts or {}
    opts.timeout = opts.timeout or 30 * support.slack
    return assert(sandbox.pty:create(opts))
  end

  -- Reads until a text has come.
  local function expect(handle, text)
    local got = ""
    while true do
      local kind, data, err = handle:read()
      assert(kind, err and data or ("ended after " .. got))
      assert.equal("pty", kind)
      got = got .. data
      if got:find(text, 1, true) then return got end
    end
  end

  -- What comes until the end.
  local function rest(handle)
    local got = ""
    while true do
      local kind, data, err = handle:read()
      assert(kind or not err, data)
      if not kind then return got end
      got = got .. data
    end
  end

  for _, mode in ipairs(envd_peer.MODES) do
    local function it_(name, fn)
      it(name .. ", in " .. mode.name, function() mode.run(fn) end)
    end

    it_("is a shell with the variables it is given", function()
      local handle = create({ cols = 80, rows = 24, envs = { ABC = "v a l" }, cwd = "/tmp" })
      assert.equal("number", type(handle.pid))
      assert(sandbox.pty:send_stdin(handle.pid, "echo \"<$ABC>\" $TERM $LANG $LC_ALL; pwd; id -un\r"))
      assert(handle:send_stdin("exit 3\r"))
      local got = rest(handle)
      assert.truthy(got:find("<v a l> xterm-256color C.UTF-8 C.UTF-8", 1, true), got)
      assert.truthy(got:find("\n/tmp\r\n", 1, true), got)
      assert.equal(3, handle.exit_code)
      assert.equal(3, assert(handle:wait()).exit_code)
      assert.truthy(tostring(handle):find("^Terminal%(pid %d+, exit code 3%)$"))
    end)

    it_("lets the caller's variables win, and its user", function()
      local handle = create({
        envs = { TERM = "vt100", LC_ALL = "POSIX" }, user = "root", cmd = "echo $TERM $LANG $LC_ALL; whoami; stty size",
      })
      local got = rest(handle)
      assert.equal("vt100 C.UTF-8 POSIX\r\nroot\r\n24 80\r\n", got)
      assert.equal(0, handle.exit_code)
    end)

    it_("runs another program than the shell", function()
      local words = { "sh", "-c", "tty -s && echo \"$1\"; exit 7", "x", "a 'b' $c" }
      local handle = create({ cmd = words })
      assert.equal("a 'b' $c\r\n", rest(handle))
      assert.equal(7, handle.exit_code)
    end)

    it_("has a size that can be changed", function()
      local handle = create({ cols = 80, rows = 24 })
      assert(handle:send_stdin("tput cols\r"))
      expect(handle, "\r80\r\n")
      assert(handle:resize(100, 40))
      assert(handle:send_stdin("tput cols; stty size\r"))
      expect(handle, "\r100\r\n40 100\r\n")
      assert(sandbox.pty:resize(handle.pid, { cols = 33, rows = 44 }))
      assert(handle:send_stdin("stty size\r"))
      expect(handle, "\r44 33\r\n")
      assert.same({ true, true }, { handle:kill() })
      rest(handle)
      assert.equal(-1, handle.exit_code)
    end)

    it_("is left and found again", function()
      local handle = create()
      assert(handle:send_stdin("A=still; echo he''re\r"))
      expect(handle, "here")
      handle:disconnect()
      local again = assert(sandbox.pty:connect(handle.pid))
      assert.equal(handle.pid, again.pid)
      assert(again:send_stdin("echo $A; exit 4\r"))
      assert.truthy(rest(again):find("still", 1, true))
      assert.equal(4, again.exit_code)
      raises("disconnected", function() handle:read() end)
    end)

    it_("is killed", function()
      local handle = create()
      assert.same({ true, true }, { sandbox.pty:kill(handle.pid) })
      rest(handle)
      assert.equal(-1, handle.exit_code)
      assert.equal("signal: killed", handle.error)
      assert.same({ true, false }, { sandbox.pty:kill(999999) })
      local ok, _, err = sandbox.pty:connect(999999)
      assert.is_nil(ok)
      assert.equal("not_found", err.kind)
      assert.equal("process", err.resource)
      assert.equal("sandbox.pty:connect", err.operation)
      ok, _, err = sandbox.pty:send_stdin(999999, "x")
      assert.is_nil(ok)
      assert.equal("not_found", err.kind)
      ok, _, err = sandbox.pty:resize(999999, { cols = 1, rows = 1 })
      assert.is_nil(ok)
      assert.equal("not_found", err.kind)
    end)

    it_("hands its bytes to on_data, whatever they are", function()
      local parts = {}
      local handle = create({
        cmd = "stty raw; printf '\\000\\377\\303'; printf '\\244\\r\\n'", on_data = function(data)
          parts[#parts + 1] = data
        end,
      })
      local result = assert(handle:wait())
      assert.equal("\0\255\195\164\r\n", table.concat(parts))
      assert.equal("", result.stdout)
      assert.is_true(result.ok)
    end)

    it_("takes input of any bytes and any length", function()
      local handle = create({ cmd = "stty raw -echo; echo go; head -c 200000 | sha256sum" })
      expect(handle, "go")
      local all = {}
      for i = 0, 255 do all[#all + 1] = string.char(i) end
      local bytes = (table.concat(all)):rep(800):sub(1, 200000)
      assert(handle:send_stdin(bytes))
      local sum = core.sha256(bytes):gsub(".", function(c) return ("%02x"):format(c:byte()) end)
      assert.truthy(rest(handle):find(sum, 1, true))
    end)

    it_("ends with its timeout, and with none but that", function()
      local began = core.now()
      local handle = create({ timeout = 0.5 })
      local kind, message, err
      repeat kind, message, err = handle:read() until not kind
      assert.equal("timeout", err.kind, message)
      assert.equal("timeout", err.deadline)
      assert.is_true(core.now() - began < 3 * support.slack)
    end)

    it_("says what is wrong with a folder and a user", function()
      local ok, message, err = sandbox.pty:create({ cwd = "/none" })
      assert.is_nil(ok)
      assert.equal("invalid_argument", err.kind, message)
      assert.truthy(message:find("^sandbox%.pty:create: "), message)
      ok, _, err = sandbox.pty:create({ user = "nobody-here" })
      assert.is_nil(ok)
      assert.equal("authentication", err.kind)
    end)
  end

  it("has lines, and closes when it leaves its scope", function()
    local handle = create({ cmd = "printf 'one\\ntwo\\nthree'" })
    local lines = {}
    for line, stream in handle:lines() do
      assert.equal("pty", stream)
      lines[#lines + 1] = line
    end
    assert.equal("one|two|three", (table.concat(lines, "|"):gsub("\r", "")))
  end)

  it("leaves nothing behind", function()
    sandbox.pty:create({ cmd = "true" }):wait()
    local before = support.snapshot()
    for _ = 1, 3 do
      local handle = create()
      expect(handle, "$")
      handle:kill()
      handle = create()
      expect(handle, "$")
      handle:disconnect()
    end
    support.assert_no_leak(before)
  end)

  it("raises on what can't be meant, and names what was", function()
    local pty = sandbox.pty
    raises("there is no 'sendInput': write send_stdin", function() return pty.sendInput end)
    raises("there is no 'sendStdin': write send_stdin", function() return pty.sendStdin end)
    assert.is_nil(pty.other)
    raises("sandbox.pty.create needs the colon", function() return pty.create({}) end)
    raises("'cols'", function() return pty:create({ cols = 0 }) end)
    raises("'rows'", function() return pty:create({ rows = "24" }) end)
    raises("'rows'", function() return pty:create({ rows = 65536 }) end)
    raises("did you mean 'on_data'", function() return pty:create({ onData = print }) end)
    raises("did you mean 'timeout'", function() return pty:create({ timeoutMs = 1 }) end)
    raises("tostring()", function() return pty:create({ envs = { A = 1 } }) end)
    raises("'cmd'", function() return pty:create({ cmd = {} }) end)
    raises("'user'", function() return pty:create({ user = 1 }) end)
    raises("pid", function() return pty:connect() end)
    raises("pid", function() return pty:send_stdin({}, "data") end)
    raises("bad options", function() return pty:send_stdin(1, "data", 1) end)
    raises("needs a string", function() return pty:send_stdin(1, 2) end)
    raises("'size'", function() return pty:resize(1, 80) end)
    raises("bad options", function() return pty:resize(1, 80, 24, 1) end)
    raises("rows must be", function() return pty:resize(1, { cols = 80 }) end)
    raises("unknown option 'columns'", function() return pty:resize(1, { columns = 80, cols = 80, rows = 1 }) end)
    local handle = assert(pty:create({ cmd = "true" }))
    raises("Ctrl-D", function() return handle:close_stdin() end)
    handle:wait()
    local plain = assert(sandbox.commands:start("true"))
    raises("only a terminal", function() return plain:resize(1, 1) end)
    plain:wait()
    assert.equal(("Pty(%s…)"):format(sandbox.sandbox_id:sub(1, 6)), tostring(pty))
  end)
end)

describe("a terminal's requests", function()
  it("are what the daemon expects", function()
    local server = envd_peer.start([[
      on.Start = function() begin() event('{"start":{"pid":7}}') output("pty", "x") ended(0) finish() end
      on.SendInput = function() return answer(200) end
      on.Update = function() return answer(200) end
    ]])
    local sandbox = server.sandbox()
    local handle = assert(sandbox.pty:create({ cols = 100, rows = 30, envs = { A = "b" }, cwd = "/w" }))
    assert(handle:send_stdin("ls\r"))
    assert(handle:resize(10, 20))
    assert(handle:resize({ cols = 11, rows = 21 }, { request_timeout = 5 }))
    assert(sandbox.pty:resize(7, { cols = 12, rows = 22 }, { request_timeout = 5 }))
    assert(sandbox.pty:resize(7, 13, 23, { request_timeout = 5 }))
    handle:wait()
    for i, update in ipairs(envd_peer.messages(server, "Update")) do
      assert.same({ cols = 9 + i, rows = 19 + i }, update.message.pty.size)
    end
    assert.equal(4, #envd_peer.messages(server, "Update"))
    local requests = {}
    for _, name in ipairs({ "Start", "SendInput", "Update" }) do
      requests[name] = envd_peer.messages(server, name)[1]
    end
    assert.same({
      process = {
        cmd = "/bin/bash", args = { "-i", "-l" }, cwd = "/w",
        envs = { A = "b", TERM = "xterm-256color", LANG = "C.UTF-8", LC_ALL = "C.UTF-8" },
      },
      pty = { size = { cols = 100, rows = 30 } }, tag = requests.Start.message.tag,
    }, requests.Start.message)
    assert.is_nil(requests.Start.headers["connect-timeout-ms"])
    assert.same({ process = { pid = 7 }, input = { pty = "bHMN" } }, requests.SendInput.message)
    assert.same({ process = { pid = 7 }, pty = { size = { cols = 10, rows = 20 } } }, requests.Update.message)
    e2b.close()
    server:stop()
  end)
end)
