-- sandbox.commands against a sandbox that does what the spec tells it to.
local exchange = require("spec.support.exchange")
local envd_peer = require("spec.support.envd_peer")
local platform = require("spec.support.platform")
local support = require("spec.support.support")
local core = require("e2b.core")
local e2b = require("e2b")

local raises = platform.raises
local watched = exchange.watch()

local function serve(source, options)
  options = options or {}
  options.watched = watched
  return envd_peer.start(source, options)
end

local ECHO = [[
  on.Start = function(message)
    run(0, json.encode(message))
  end
]]

local HANGS = [[
  on.Start = function()
    begin()
    event('{"start":{"pid":7}}')
    output("stdout", "so far\n")
    conn:wait_closed()
    conn:close()
  end
]]

for _, mode in ipairs(envd_peer.MODES) do
  local function it_(name, fn)
    it(name, function() mode.run(fn) end)
  end

  describe("commands:run, in " .. mode.name .. ",", function()
    it_("sends a string to a login shell and returns how it ended", function()
      local server = serve("on.Start = function() run(0, 'hello\\n', 'and more') end")
      local result = assert(server.sandbox().commands:run("echo hello | cat"))
      assert.are.equal(0, result.exit_code)
      assert.is_true(result.ok)
      assert.are.equal("hello\n", result.stdout)
      assert.are.equal("and more", result.stderr)
      assert.is_nil(result.error)
      assert.are.equal(0, result.stdout_dropped)
      assert.are.equal('CommandResult(exit code 0, stdout "hello\\n", stderr "and more")', tostring(result))
      local sent = envd_peer.messages(server, "Start")[1]
      assert.is_truthy(sent.message.tag:find("^e2b%-%x+$")) -- ours: how it is found when its pid never comes
      assert.are.same({
        process = { cmd = "/bin/bash", args = { "-l", "-c", "echo hello | cat" } }, stdin = false,
        tag = sent.message.tag,
      }, sent.message)
      assert.are.equal("60000", sent.headers["connect-timeout-ms"])
      assert.are.equal("50", sent.headers["keepalive-ping-interval"])
      assert.is_nil(sent.headers.authorization)
    end)

    it_("sends the words of a list as they are", function()
      local server = serve(ECHO)
      local words = { "printf", "%s|", "a b", "", "'\"$HOME`", "\n", "ünï", "*", 7 }
      assert(server.sandbox().commands:run(words))
      local process = envd_peer.messages(server, "Start")[1].message.process
      assert.are.equal("printf", process.cmd)
      assert.are.same({ "%s|", "a b", "", "'\"$HOME`", "\n", "ünï", "*", "7" }, process.args)
      assert.are.equal(9, #words)
    end)

    it_("sends what the options say", function()
      local server = serve(ECHO)
      assert(server.sandbox().commands:run("x", {
        cwd = "/tmp", envs = { A = "1", B = "" }, user = "root", timeout = 2.5, tag = "job",
      }))
      local sent = envd_peer.messages(server, "Start")[1]
      assert.are.same({ A = "1", B = "" }, sent.message.process.envs)
      assert.are.equal("/tmp", sent.message.process.cwd)
      assert.are.equal("job", sent.message.tag)
      assert.are.equal("2500", sent.headers["connect-timeout-ms"])
      assert.are.equal("Basic cm9vdDo=", sent.headers.authorization)
      assert(server.sandbox().commands:run("x", { timeout = 0 }))
      assert.is_nil(envd_peer.messages(server, "Start")[2].headers["connect-timeout-ms"])
    end)

    it_("takes another code for a result, and for a failure with check", function()
      local server = serve("on.Start = function() run(3, 'out', 'one\\ntwo\\n') end")
      local commands = server.sandbox().commands
      local result = assert(commands:run("SECRET=hunter2 make test"))
      assert.are.equal(3, result.exit_code)
      assert.is_false(result.ok)
      assert.are.equal("exit status 3", result.error)
      local none, message, err = commands:run("SECRET=hunter2 make test", { check = true, envs = { KEY = "sesame" } })
      assert.is_nil(none)
      assert.are.equal("sandbox.commands:run: make ended with exit code 3: one two", message)
      assert.are.equal("exit", err.kind)
      assert.are.equal("3 out one\ntwo\n i1 7", ("%d %s %s %s %d"):format(err.exit_code, err.stdout, err.stderr,
        err.sandbox_id, err.pid))
      assert.are.equal(3, err.result.exit_code)
      assert.is_false(err.retryable)
      support.assert_no_secret({ "hunter2", "sesame" }, message, err)
      _, message = commands:run({ "/usr/bin/git", "push" }, { check = true })
      assert.is_truthy(message:find("/usr/bin/git ended with exit code 3", 1, true), message)
      _, message = commands:run("K='a b' deploy", { check = true })
      assert.is_truthy(message:find("the command ended with", 1, true), message)
    end)

    it_("knows what a signal ended", function()
      local server = serve("on.Start = function() begin() event('{\"start\":{\"pid\":7}}') "
        .. "ended(-1, 'signal: killed') finish() end")
      local commands = server.sandbox().commands
      local result = assert(commands:run("x"))
      assert.are.equal(-1, result.exit_code)
      assert.are.equal("CommandResult(signal: killed)", tostring(result))
      local _, message = commands:run("x", { check = true })
      assert.are.equal("sandbox.commands:run: x ended with signal: killed", message)
    end)

    it_("calls on_stdout and on_stderr as output comes", function()
      local server = serve([[
        on.Start = function()
          begin()
          event('{"start":{"pid":7}}')
          output("stdout", "a", "stderr", "b", "stdout", "c\226")
          conn:wait_signal("seen")
          output("stdout", "\130\172\0")
          ended(0)
          finish()
        end
      ]])
      local heard = {}
      local result = assert(server.sandbox().commands:run("x", {
        on_stdout = function(data)
          heard[#heard + 1] = "out " .. data
          if data:find("c") then server:signal("seen") end
          e2b.sleep(0.001)
        end,
        on_stderr = function(data) heard[#heard + 1] = "err " .. data end,
      }))
      assert.are.equal("out a,err b,out c\226", table.concat(heard, ",", 1, 3))
      assert.are.equal("ac\226\130\172\0", result.stdout)
      assert.are.equal("b", result.stderr)
    end)

    it_("keeps the newest output and counts the rest", function()
      local server = serve([[
        on.Start = function()
          begin()
          event('{"start":{"pid":7}}')
          for i = 1, 40 do output("stdout", ("%02d"):format(i):rep(16384)) end
          output("stderr", "0123456789")
          ended(0)
          finish()
        end
      ]])
      local commands = server.sandbox().commands
      local result = assert(commands:run("x", { max_output = 100000 }))
      assert.are.equal(100000, #result.stdout)
      assert.are.equal(40 * 32768 - 100000, result.stdout_dropped)
      assert.are.equal(("40"):rep(16384), result.stdout:sub(-32768))
      assert.are.equal("0123456789", result.stderr)
      assert.are.equal(0, result.stderr_dropped)
      result = assert(commands:run("x", { max_output = 4 }))
      assert.are.equal("4040 6789", result.stdout .. " " .. result.stderr)
      assert.are.equal(6, result.stderr_dropped)
      result = assert(commands:run("x", { max_output = 0 }))
      assert.are.equal("", result.stdout)
      assert.are.equal(40 * 32768, result.stdout_dropped)
      assert.is_truthy(tostring(result):find("1310720 bytes of stdout dropped", 1, true), tostring(result))
    end)

    it_("is over after its time", function()
      local server = serve(HANGS)
      local began = core.now()
      local result, message, err = server.sandbox().commands:run("x", { timeout = 0.3 })
      local took = core.now() - began
      assert.is_nil(result)
      assert.are.equal("sandbox.commands:run: not over within 0.3 s (timeout)", message)
      assert.are.equal("timeout timeout 7", err.kind .. " " .. err.deadline .. " " .. err.pid)
      assert.is_true(took < 0.3 + support.tolerance, "took " .. took)
    end)

    it_("takes the server's word that the time is over", function()
      local server = serve([[
        on.Start = function()
          begin()
          event('{"start":{"pid":7}}')
          finish('{"error":{"code":"deadline_exceeded","message":"context deadline exceeded"}}')
        end
      ]])
      local _, message, err = server.sandbox().commands:run("x", { timeout = 20 })
      assert.are.equal("timeout timeout", err.kind .. " " .. err.deadline)
      assert.are.equal("sandbox.commands:run: not over within 20 s (timeout)", message)
    end)

    it_("that breaks names the process, which may go on", function()
      local server = serve([[
        on.Start = function()
          begin()
          event('{"start":{"pid":7}}')
          conn:reset()
        end
      ]])
      local result, message, err = server.sandbox().commands:run("x")
      assert.is_nil(result)
      assert.are.equal("network", err.kind)
      assert.are.equal(7, err.pid)
      assert.is_truthy(message:find("the sandbox itself answers; connect(7) finds the process again", 1, true), message)
      assert.are.equal(message, err.message)
      assert.are.equal(0, #envd_peer.messages(server, "SendSignal"))
    end)

    it_("that the sandbox doesn't survive says so", function()
      local server = serve([[
        on.Start = function()
          begin()
          event('{"start":{"pid":7}}')
          conn:close()
        end
        on.health = function() answer(502, '{"message":"The sandbox was not found"}') end
      ]])
      local _, message, err = server.sandbox().commands:run("x")
      assert.are.equal("sandbox_gone", err.kind)
      assert.is_truthy(message:find("killed or reached its end of life", 1, true), message)
      assert.is_falsy(message:find("connect(", 1, true))
    end)

    it_("says what is wrong with a stream that isn't one of a process", function()
      local streams = {
        ["doesn't begin with the start"] = "output('stdout', 'x')",
        ["ended before the process began"] = "finish()",
        ["didn't say how the process did"] = "event('{\"start\":{\"pid\":7}}') finish()",
      }
      for text, source in pairs(streams) do
        local server = serve("on.Start = function() begin() " .. source .. " conn:wait_closed() conn:close() end")
        local result, message, err = server.sandbox().commands:run("x")
        assert.is_nil(result)
        assert.are.equal("protocol", err.kind)
        assert.is_truthy(message:find(text, 1, true), message)
      end
    end)

    it_("is content with an end whose stream doesn't end", function()
      local server = serve([[
        on.Start = function()
          begin()
          event('{"start":{"pid":7}}')
          ended(0)
          if request.headers["x-cut"] then return conn:close() end
          conn:wait_closed()
          conn:close()
        end
      ]])
      local began = core.now()
      local result = assert(server.sandbox().commands:run("x"))
      assert.is_true(result.ok)
      assert.is_true(core.now() - began < 1 + support.tolerance)
    end)

    it_("tells what the sandbox refuses", function()
      local server = serve([[
        on.Start = function()
          begin()
          finish('{"error":{"code":"invalid_argument","message":"cwd \'/nope\' does not exist"}}')
        end
      ]])
      local _, message, err = server.sandbox().commands:run("x", { cwd = "/nope" })
      assert.are.equal("invalid_argument", err.kind)
      assert.is_truthy(message:find("cwd '/nope' does not exist", 1, true), message)
      assert.is_falsy(message:find("200", 1, true), message)
    end)

    it_("sends a string as the input and ends it", function()
      local server = serve([[
        on.Start = function()
          shared.input = {}
          begin()
          event('{"start":{"pid":7}}')
          while not shared.closed do conn:sleep(0.002) end
          output("stdout", table.concat(shared.input, ","))
          ended(0)
          finish()
        end
        on.SendInput = function(message)
          shared.input[#shared.input + 1] = message.input.stdin
          answer(200)
        end
        on.CloseStdin = function() shared.closed = true answer(200) end
      ]])
      local result = assert(server.sandbox().commands:run("cat", { stdin = "hello" }))
      assert.are.equal("aGVsbG8=", result.stdout)
      assert.is_true(envd_peer.messages(server, "Start")[1].message.stdin)
      assert.are.same({ process = { pid = 7 } }, envd_peer.messages(server, "CloseStdin")[1].message)
    end)

    it_("sends large input beside the reading of output", function()
      -- This process doesn't take input before its output was read, as `cat` with full pipes.
      local server = serve([[
        on.Start = function()
          shared.size = 0
          begin()
          event('{"start":{"pid":7}}')
          for _ = 1, 40 do output("stdout", ("x"):rep(32768)) end
          shared.drained = true
          while not shared.closed do conn:sleep(0.002) end
          output("stderr", tostring(shared.size))
          ended(0)
          finish()
        end
        on.SendInput = function(message)
          while not shared.drained do conn:sleep(0.002) end
          local text = message.input.stdin
          shared.size = shared.size + #text / 4 * 3 - #text:match("=*$")
          answer(200)
        end
        on.CloseStdin = function() shared.closed = true answer(200) end
      ]])
      local result = assert(server.sandbox().commands:run("cat", { stdin = ("y"):rep(2500000), timeout = 20 }))
      assert.are.equal(40 * 32768, #result.stdout)
      assert.are.equal(2500000, tonumber(result.stderr))
      assert.are.equal(3, #envd_peer.messages(server, "SendInput"))
    end)

    it_("doesn't mind a process that reads no more", function()
      local server = serve([[
        on.Start = function()
          begin()
          event('{"start":{"pid":7}}')
          conn:sleep(0.05)
          output("stdout", "first line")
          ended(0)
          finish()
        end
        on.SendInput = function() fail(500, "internal", "error writing to stdin: broken pipe") end
        on.CloseStdin = function() answer(200) end
      ]])
      for _, size in ipairs({ 10, 100000 }) do
        local result = assert(server.sandbox().commands:run("head -1", { stdin = ("y"):rep(size) }))
        assert.are.equal("first line", result.stdout)
      end
    end)

    it_("kills the process when its input can't be sent", function()
      for _, size in ipairs({ 10, 100000 }) do
        local server = serve([[
          on.Start = function()
            begin()
            event('{"start":{"pid":7}}')
            while not shared.killed do conn:sleep(0.002) end
            ended(-1, "signal: killed")
            finish()
          end
          on.SendInput = function() answer(429, '{"code":429,"message":"too many"}') end
          on.SendSignal = function() shared.killed = true answer(200) end
        ]])
        local result, message, err = server.sandbox().commands:run("x", { stdin = ("y"):rep(size) })
        assert.is_nil(result)
        assert.are.equal("rate_limit", err.kind)
        assert.is_truthy(message:find("too many", 1, true), message)
        assert.are.same({ process = { pid = 7 }, signal = "SIGNAL_SIGKILL" },
          envd_peer.messages(server, "SendSignal")[1].message)
      end
    end)

    it_("kills the process when a function of the caller's raises", function()
      local server = serve(HANGS)
      local ok, raised = e2b.pcall(function()
        server.sandbox().commands:run("x", { on_stdout = function() error({ "mine" }) end })
      end)
      assert.is_false(ok)
      assert.are.same({ "mine" }, raised)
      assert.are.equal(7, envd_peer.messages(server, "SendSignal")[1].message.process.pid)
      server:wait_event("closed")
    end)
  end)

  describe("other commands, in " .. mode.name .. ",", function()
    it_("list what runs", function()
      local server = serve([[
        on.List = function()
          if shared.second then return answer(200) end
          shared.second = true
          answer(200, '{"processes":[{"config":{"cmd":"/bin/bash","args":["-l","-c","x"],"envs":{"A":"1"},'
            .. '"cwd":"/tmp"},"pid":12,"tag":"t"},{"config":{"cmd":"top"},"pid":13}]}')
        end
      ]])
      local commands = server.sandbox().commands
      assert.are.same({
        { pid = 12, tag = "t", cmd = "/bin/bash", args = { "-l", "-c", "x" }, envs = { A = "1" }, cwd = "/tmp" },
        { pid = 13, cmd = "top", args = {}, envs = {} },
      }, assert(commands:list()))
      assert.are.same({}, assert(commands:list()))
    end)

    it_("kill, by pid and by tag", function()
      local server = serve([[
        on.SendSignal = function(message)
          if message.process.tag then return answer(200) end
          if message.process.pid == 7 then return answer(200) end
          if message.process.pid == 8 then return fail(404, "not_found", "process with pid 8 not found") end
          if message.process.pid == 9 then
            return fail(500, "internal", "error sending signal: os: process already finished")
          end
          fail(500, "internal", "oh")
        end
      ]])
      local commands = server.sandbox().commands
      local function kill(...)
        local ok, existed, err = commands:kill(...)
        return tostring(ok) .. " " .. tostring(err and err.kind or existed)
      end
      assert.are.equal("true true", kill(7))
      assert.are.equal("true true", kill("job"))
      assert.are.equal("true false", kill(8))
      assert.are.equal("true false", kill(9))
      assert.are.equal("nil server", kill(10))
    end)

    it_("send input and end it", function()
      local server = serve([[
        on.SendInput = function(message)
          if message.process.pid ~= 7 then return fail(404, "not_found", "process with pid 8 not found") end
          answer(200)
        end
        on.CloseStdin = function() answer(200) end
      ]])
      local commands = server.sandbox().commands
      assert.is_true(commands:send_stdin(7, "a\0b"))
      assert.is_true(commands:send_stdin(7, ""))
      assert.is_true(commands:close_stdin(7))
      local sent = envd_peer.messages(server, "SendInput")
      assert.are.equal("YQBi", sent[1].message.input.stdin)
      assert.are.equal("", sent[2].message.input.stdin)
      local _, message, err = commands:send_stdin(8, "x")
      assert.are.equal("not_found process", err.kind .. " " .. err.resource)
      assert.is_truthy(message:find("process with pid 8 not found", 1, true), message)
    end)

    it_("connect to a process by pid or tag", function()
      local server = serve([[
        on.Connect = function(message)
          if message.process.pid == 9 then
            begin()
            return finish('{"error":{"code":"not_found","message":"process with pid 9 not found"}}')
          end
          run(0, "late")
        end
      ]])
      local commands = server.sandbox().commands
      local handle = assert(commands:connect("job", { timeout = 3 }))
      assert.are.equal(7, handle.pid)
      assert.are.equal("late", assert(handle:wait()).stdout)
      local sent = envd_peer.messages(server, "Connect")[1]
      assert.are.same({ process = { tag = "job" } }, sent.message)
      assert.are.equal("3000", sent.headers["connect-timeout-ms"])
      local none, _, err = commands:connect(9)
      assert.is_nil(none)
      assert.are.equal("not_found process", err.kind .. " " .. err.resource)
      assert.is_nil(envd_peer.messages(server, "Connect")[2].headers["connect-timeout-ms"])
    end)

    it_("start with no limit of time", function()
      local server = serve("on.Start = function() run(5) end")
      local handle = assert(server.sandbox().commands:start("x"))
      assert.are.equal(7, handle.pid)
      assert.are.equal(5, assert(handle:wait()).exit_code)
      assert.is_nil(envd_peer.messages(server, "Start")[1].headers["connect-timeout-ms"])
    end)
  end)
end

describe("a cancelled run", function()
  local function cancel_after(server, seconds, opts)
    local result
    local sandbox = server.sandbox()
    local task = e2b.spawn(function()
      result = { sandbox.commands:run("x", opts) }
    end)
    e2b.sleep(seconds)
    local began = core.now()
    task:cancel()
    task:wait()
    return result, core.now() - began
  end

  it("kills its process and nothing else", function()
    local server = serve(HANGS)
    local result = cancel_after(server, 0.1)
    assert.is_nil(result[1])
    assert.are.equal("cancelled", result[3].kind)
    local signals = envd_peer.messages(server, "SendSignal")
    assert.are.equal(1, #signals)
    assert.are.same({ process = { pid = 7 }, signal = "SIGNAL_SIGKILL" }, signals[1].message)
    server:wait_event("closed")
  end)

  it("kills a process that is just beginning", function()
    local server = serve([[
      on.Start = function()
        begin()
        conn:sleep(0.3)
        event('{"start":{"pid":7}}')
        conn:wait_closed()
        conn:close()
      end
    ]])
    cancel_after(server, 0.05)
    assert.are.equal(7, envd_peer.messages(server, "SendSignal")[1].message.process.pid)
  end)

  it("ends within a bounded time when nothing answers, and says what may go on", function()
    local server = serve(HANGS .. "on.SendSignal = function() conn:wait_closed() conn:close() end")
    local result, took = cancel_after(server, 0.1)
    assert.are.equal("cancelled", result[3].kind)
    assert.is_truthy(result[2]:find("its process (pid 7) may go on", 1, true), result[2])
    assert.is_true(took < 5 + support.tolerance, "took " .. took)
  end)

  it("is what a raise out of the wait is to its process", function()
    local server = serve(HANGS)
    local sandbox = server.sandbox()
    -- As Ctrl-C does it: a hook raises while the call waits.
    local original = debug.gethook()
    assert.is_nil(original)
    local began = core.now()
    debug.sethook(function()
      if core.now() - began > 0.2 then
        debug.sethook()
        error("interrupted!", 0)
      end
    end, "", 1000)
    local ok, raised = pcall(function()
      return sandbox.commands:run("x", {
        on_stdout = function()
          while core.now() - began < 1 do end -- luacheck: ignore 542
        end,
      })
    end)
    debug.sethook()
    assert.is_false(ok)
    assert.are.equal("interrupted!", raised)
    assert.are.equal(7, envd_peer.messages(server, "SendSignal")[1].message.process.pid)
  end)
end)

describe("the caller's mistakes", function()
  it("raise at the caller's line", function()
    local server = serve("on.Start = function() run(0) end")
    local commands = server.sandbox().commands
    raises("commands.run needs the colon, got string first: write sandbox.commands:run(…)", function()
      commands.run("x")
    end)
    raises("needs a command, a string or a list of words, got nil", function() commands:run() end)
    raises("the command has a NUL in it", function() commands:run("a\0b") end)
    raises("word 2 of the list has a NUL in it", function() commands:run({ "a", "b\0" }) end)
    raises("word 2 of the list must be a string, got table", function() commands:run({ "a", {} }) end)
    raises("the list is empty", function() commands:run({}) end)
    raises("the program is an empty string", function() commands:run({ "" }) end)
    raises("has no names, got 'cwd' (options are the second argument", function() commands:run({ "a", cwd = "/" }) end)
    local background = "write sandbox.commands:start, which returns a handle"
    raises(background, function() commands:run({ "a", background = true }) end)
    raises(background, function() commands:run("a", { background = true }) end)
    raises("did you mean 'timeout'? It is in seconds.", function() commands:run("a", { timeoutMs = 1000 }) end)
    raises("did you mean 'on_stdout'?", function() commands:run("a", { onStdout = print }) end)
    raises("bad option 'timeout' for sandbox.commands:run", function() commands:run("a", { timeout = "1" }) end)
    raises("bad option 'on_stdout'", function() commands:start("a", { on_stdout = "x" }) end)
    raises("bad option 'stdin'", function() commands:run("a", { stdin = 5 }) end)
    raises("bad option 'user'", function() commands:run("a", { user = "a:b" }) end)
    raises("bad option 'user'", function() commands:run("a", { user = "" }) end)
    raises("envs.A must be a string, got a number: write", function() commands:run("a", { envs = { A = 1 } }) end)
    raises("which no variable can have", function() commands:run("a", { envs = { ["A=B"] = "1" } }) end)
    raises("has a NUL in it", function() commands:run("a", { envs = { A = "\0" } }) end)
    raises("has a NUL in it", function() commands:run("a", { cwd = "/\0" }) end)
    raises("a table { name = value } expected", function() commands:run("a", "b") end)
    raises("a pid is a whole number from 1 on, got 0", function() commands:kill(0) end)
    raises("a pid is a whole number from 1 on, got 1.5", function() commands:kill(1.5) end)
    raises("a pid is a whole number", function() commands:connect(-1) end)
    raises("a pid is a number: write 12, without quotes", function() commands:kill("12") end)
    raises("needs a pid or a tag, got nil", function() commands:send_stdin(nil, "x") end)
    raises("needs a string to send, got nil", function() commands:send_stdin(7) end)
    raises("there is no 'sendStdin': write send_stdin", function() commands:sendStdin(7, "x") end)
    raises("there is no 'closeStdin': write close_stdin", function() commands:closeStdin(7) end)
    assert.is_nil(commands.whatever)
    assert.are.equal(0, #envd_peer.messages(server, "Start"))
  end)

  it("about what an old daemon can't do are no mistakes, but said before anything is sent", function()
    local server = serve("on.Start = function() run(0) end", { version = "0.2.9" })
    local commands = server.sandbox().commands
    local _, message, err = commands:run("x", { stdin = false })
    assert.are.equal("unsupported", err.kind)
    assert.is_truthy(message:find("stdin = false needs envd 0.3.0, and the sandbox has 0.2.9", 1, true), message)
    _, _, err = commands:run("x", { stdin = "text" })
    assert.are.equal("unsupported", err.kind)
    _, message, err = commands:close_stdin(7)
    assert.are.equal("unsupported", err.kind)
    assert.is_truthy(message:find("closing the standard input needs envd 0.5.2", 1, true), message)
    assert.are.equal(0, #envd_peer.messages(server, "Start"))
    assert(commands:run("x"))
    assert.are.equal("Basic dXNlcjo=", envd_peer.messages(server, "Start")[1].headers.authorization)
  end)
end)

describe("a command whose process was not heard of", function()
  local LATE = [[
    on.Start = function()
      begin()
      conn:wait_closed()
      conn:close()
    end
  ]]

  local function signalled(server)
    local started, sent = envd_peer.messages(server, "Start"), envd_peer.messages(server, "SendSignal")
    assert.are.equal(1, #started)
    assert.are.equal(1, #sent)
    assert.are.same({ tag = started[1].message.tag }, sent[1].message.process)
  end

  for _, name in ipairs({ "run", "start" }) do
    it("is ended by its tag when the wait is given up: " .. name, function()
      local server = serve(LATE)
      local commands = server.sandbox().commands
      local task = e2b.spawn(function() return commands[name](commands, "x") end)
      e2b.sleep(0.1)
      task:cancel()
      local _, message, err = task:wait(5)
      assert.are.equal("cancelled", err.kind, message)
      assert.is_nil(message:find("may go on", 1, true))
      signalled(server)
    end)

    it("is ended by its tag when its time is over: " .. name, function()
      local server = serve(LATE)
      local commands = server.sandbox().commands
      local took, _, message, err = support.timed(function()
        return commands[name](commands, "x", { request_timeout = 0.2 })
      end)
      assert.are.same({ "timeout", "request_timeout" }, { err.kind, err.deadline })
      assert.is_truthy(message:find("a process may have been started", 1, true), message)
      assert.are.equal(message, err.message)
      assert.is_true(took < 0.2 + support.tolerance, "took " .. took)
      e2b.sleep(0.2 * support.slack)
      signalled(server)
    end)
  end

  it("may go on when the daemon knows nothing of it yet, and that is said", function()
    local server = serve(LATE .. "on.SendSignal = function() fail(404, 'not_found', 'no such process') end")
    local commands = server.sandbox().commands
    local task = e2b.spawn(function() return commands:start("x") end)
    e2b.sleep(0.1)
    task:cancel()
    local _, message = task:wait(5)
    assert.is_truthy(message:find("its process may go on", 1, true), message)
  end)

  it("is left alone when the sandbox refused it", function()
    local server = serve([[
      on.Start = function() begin() finish('{"error":{"code":"invalid_argument","message":"cwd"}}') end
    ]])
    local _, _, err = server.sandbox().commands:start("x")
    assert.are.equal("invalid_argument", err.kind)
    e2b.sleep(0.05)
    assert.are.equal(0, #envd_peer.messages(server, "SendSignal"))
  end)
end)

describe("a command that went quiet", function()
  it("and was given up for that is ended", function()
    local server = serve(HANGS)
    local _, message, err = server.sandbox().commands:run("x", { idle_timeout = 0.2 })
    assert.are.same({ "timeout", "idle_timeout", 7 }, { err.kind, err.deadline, err.pid })
    assert.is_nil(message:find("connect(7)", 1, true), message)
    assert.are.same({ pid = 7 }, envd_peer.messages(server, "SendSignal")[1].message.process)
  end)

  it("goes on when it has a handle", function()
    local server = serve(HANGS)
    local handle = assert(server.sandbox().commands:start("x", { idle_timeout = 0.2 }))
    local _, message = handle:wait()
    assert.is_truthy(message:find("connect(7)", 1, true), message)
    assert.are.equal(0, #envd_peer.messages(server, "SendSignal"))
  end)
end)

describe("input that could not be sent", function()
  for _, size in ipairs({ 5, 100000 }) do
    it("does not pass for all of it: " .. size .. " bytes", function()
      local server = serve([[
        on.Start = function()
          begin()
          event('{"start":{"pid":7}}')
          conn:sleep(0.3)
          ended(0)
          finish()
        end
        on.SendInput = function()
          conn:respond(500, "<html>upstream connect error</html>", { ["Content-Type"] = "text/html" })
        end
      ]])
      local result, message, err = server.sandbox().commands:run("wc -c", { stdin = ("x"):rep(size) })
      assert.is_nil(result)
      assert.are.equal("server", err.kind, message)
      assert.are.equal(1, #envd_peer.messages(server, "SendSignal"))
    end)
  end

  it("because the process wants no more is nothing", function()
    local server = serve([[
      on.Start = function() begin() event('{"start":{"pid":7}}') conn:sleep(0.2) ended(3) finish() end
      on.SendInput = function() fail(500, "internal", "error writing to stdin: broken pipe") end
    ]])
    assert.are.equal(3, assert(server.sandbox().commands:run("x", { stdin = "y" })).exit_code)
  end)
end)

describe("the name of a command in messages", function()
  it("is a program or nothing", function()
    local server = serve("on.Start = function() run(1) end")
    local commands = server.sandbox().commands
    for cmd, name in pairs({
      ["ls -l"] = "ls", ["TOKEN=abc ./x"] = "./x", ["(TOKEN=abc ./x)"] = "the command", ["'sec ret' x"] = "the command",
      ["mysql://u:p@h/x"] = "the command",
    }) do
      local _, message = commands:run(cmd, { check = true })
      assert.are.equal("sandbox.commands:run: " .. name .. " ended with exit code 1", message)
    end
    local _, message = commands:run({ "TOKEN=abc", "x" }, { check = true })
    assert.are.equal("sandbox.commands:run: the command ended with exit code 1", message)
  end)
end)

describe("what commands return", function()
  it("is one value, and no nils after it", function()
    local server = serve([[
      on.Start = function() run(0, "a\n") end
      on.Connect = on.Start
      on.List = function() answer(200) end
      on.SendInput = on.List
      on.CloseStdin = on.List
    ]])
    local commands = server.sandbox().commands
    local function one(...) assert.are.equal(1, select("#", ...)) return ... end
    one(commands:run("x"))
    one(commands:run("x", { check = true, timeout = 3 }))
    one(commands:list())
    one(commands:send_stdin(7, "x"))
    one(commands:close_stdin(7))
    local handle = one(commands:start("x"))
    one(handle:send_stdin("x"))
    one(handle:close_stdin())
    one(handle:wait())
    one(handle:wait({ timeout = 1 }))
    one(handle:disconnect())
    one(commands:connect(7)):disconnect()
    assert.are.equal(2, select("#", commands:kill(7)))
  end)

  it("of a list is a table to be read, without the tags that are ours", function()
    local server = serve([[
      on.Start = function(message) shared.tag = message.tag run(0) end
      on.List = function()
        answer(200, ('{"processes":[{"pid":7,"tag":"%s","config":{"cmd":"/bin/bash","args":["-l","-c","sleep 5"]}},'
          .. '{"pid":"12","tag":"job","config":{"cmd":"ls","args":["-l"],"cwd":"/tmp"}},{"pid":13,'
          .. '"config":{"cmd":"top"}}]}'):format(shared.tag))
      end
    ]])
    local commands = server.sandbox().commands
    assert(commands:run("x"))
    local list = assert(commands:list())
    assert.is_nil(list[1].tag)
    assert.are.equal("job", list[2].tag)
    assert.are.equal("PID  TAG  COMMAND  CWD\n  7       sleep 5\n 12  job  ls -l    /tmp\n 13       top",
      tostring(list))
  end)
end)
