-- sandbox:shell() at a terminal: a child of this spec's sits there, the sandbox is a local one or a peer.
local envd_peer = require("spec.support.envd_peer")
local platform = require("spec.support.platform")
local posix = require("spec.support.posix")
local support = require("spec.support.support")
local terminal = require("spec.support.terminal")
local keys = require("e2b.shell_keys")
local screen = require("e2b.shell_screen")
local core = require("e2b.core")
local e2b = require("e2b")

local unpack = table.unpack or unpack -- luacheck: ignore 113 143

local HEAD = [[
  local e2b = require("e2b")
  local core = require("e2b.core")
  io.stdout:setvbuf("no")
  local client = e2b.client({ api_url = arg[1], sandbox_url = arg[1], api_key = arg[2], getenv = function() end })
  local sandbox = assert(client.Sandbox.connect(arg[3]))
  local function show(...)
    local list = { ... }
    local err = list[3]
    for i = 1, select("#", ...) do list[i] = tostring(list[i]) end
    if err then list[3] = "kind " .. err.kind end
    print("result", table.concat(list, " "))
  end
]]

describe("sandbox:shell", function()
  local fixture, sandbox

  setup(function()
    fixture = platform.start()
    sandbox = assert(fixture.Sandbox.create({ timeout = 3600 }))
  end)

  teardown(function()
    if fixture then fixture:stop() end
  end)

  after_each(terminal.close_all)

  local function sit(source, options)
    options = options or {}
    options.args = { fixture.server.url, fixture.server.api_key, options.id or sandbox.sandbox_id }
    options.env = options.env or { TERM = "xterm-256color" }
    return terminal.run(HEAD .. source, options)
  end

  -- Terminals that run in the sandbox.
  local function running()
    local pids = {}
    for _, process in ipairs(assert(sandbox.commands:list())) do pids[#pids + 1] = process.pid end
    return pids
  end

  local function nothing_runs()
    support.wait_for(function() return #running() == 0 end, 5, "the end of what ran in the sandbox")
  end

  local function is_as_before(one)
    support.wait_for(function() return one:settings() == one.before end, 5, "the settings as they were")
  end

  it("attaches this terminal until the shell ends, and answers its exit code", function()
    local one = sit("show(sandbox:shell())", { cols = 91, rows = 31, env = { TERM = "screen" } })
    one:expect("$ ")
    assert.is_true(one:is_raw())
    one:type("echo $TERM; stty size; ec")
    one:type("ho he''llo\r")
    one:expect("screen")
    one:expect("31 91")
    one:expect("hello")
    one:type("exit 5\r")
    one:expect("result\t5\r\n")
    assert.equal(0, one:wait())
    assert.equal(one.before, one:settings())
    support.wait_for(function() return #one:processes() == 0 end, 5, "the end of the guard")
    nothing_runs()
  end)

  it("calls terminals that a sandbox doesn't know by a name that it knows", function()
    local one = sit("show(sandbox:shell({ cmd = 'echo $TERM-$A-$PWD', envs = { A = 'b' }, cwd = '/tmp' }))", {
      env = { TERM = "xterm-kitty" },
    })
    one:expect("xterm-256color-b-/tmp\r\n")
    one:expect("result\t0")
    assert.equal(0, one:wait())
  end)

  it("works in a task, beside other tasks", function()
    local one = sit([[
      local ticks = 0
      local task = e2b.spawn(function() show(sandbox:shell()) end)
      e2b.spawn(function() while task.state == "running" do e2b.sleep(0.01) ticks = ticks + 1 end end)
      e2b.run()
      print(ticks > 3 and "they went on" or "they were held up")
    ]])
    one:expect("$ ")
    one:type("sleep 0.2; exit 7\r")
    one:expect("result\t7")
    one:expect("they went on")
    assert.equal(0, one:wait())
    assert.equal(one.before, one:settings())
  end)

  it("works in a coroutine of the program's own", function()
    local one = sit("coroutine.wrap(function() show(sandbox:shell({ cmd = 'exit 9' })) end)()")
    one:expect("result\t9")
    assert.equal(0, one:wait())
    assert.equal(one.before, one:settings())
  end)

  it("hands every key over, in order, whatever it is", function()
    local one = sit("show(sandbox:shell({ cmd = 'stty raw -echo; echo go; head -c 60000 | sha256sum' }))")
    one:expect("go")
    local all = {}
    for i = 0, 255 do all[#all + 1] = string.char(i) end
    local bytes = (table.concat(all)):rep(300):sub(1, 60000)
    one:type((bytes:gsub("([\r\n])~", "%1-")))
    bytes = bytes:gsub("([\r\n])~", "%1-")
    local sum = core.sha256(bytes):gsub(".", function(c) return ("%02x"):format(c:byte()) end)
    one:expect(sum)
    one:expect("result\t0")
  end)

  it("shows every byte as it comes", function()
    local one = sit("show(sandbox:shell({ cmd = \"stty raw; printf '\\\\000\\\\001\\\\377\\\\033[31m\\\\r\\\\n'\" }))")
    one:expect("\0\1\255\27[31m\r\n")
    one:expect("result\t0")
  end)

  it("forwards changes of the window's size", function()
    local one = sit("show(sandbox:shell())", { cols = 80, rows = 24 })
    one:expect("$ ")
    one:resize(66, 22)
    one:type("until stty size | grep -q '22 66'; do sleep 0.05; done; echo se''en; exit\r")
    one:expect("seen", 5)
    one:expect("result\t0")
  end)

  it("is raw again when the process was stopped and goes on", function()
    local one = sit("show(sandbox:shell())")
    one:expect("$ ")
    posix.kill(one.pid, 19) -- SIGSTOP
    support.shell("stty sane <" .. one.path)
    assert.is_false(one:is_raw())
    posix.kill(one.pid, 18) -- SIGCONT
    support.wait_for(function() return one:is_raw() end, 5, "a raw terminal")
    one:type("exit 6\r")
    one:expect("result\t6")
    assert.equal(0, one:wait())
    assert.equal(one.before, one:settings())
  end)

  it("gets keys through a flood of output", function()
    local one = sit("show(sandbox:shell({ cmd = 'yes' }))")
    one:expect("y\r\ny\r\n")
    local began = support.now()
    one:type("\3")
    one:expect("result\t")
    assert.is_true(support.now() - began < 5 * support.slack)
    nothing_runs()
  end)

  it("detaches with ~. and comes back", function()
    local one = sit([[
      local code, pid = sandbox:shell()
      print("first", code)
      io.read()
      show(sandbox:shell({ pid = pid }))
    ]])
    one:expect("$ ")
    one:type("A=st''ill\r~.")
    one:expect("[detached; sandbox:shell({ pid = ")
    one:expect("first\tfalse")
    is_as_before(one)
    assert.equal(1, #running())
    one:type("\n")
    support.wait_for(function() return one:is_raw() end)
    one:type("echo $A\r")
    one:expect("still")
    one:type("exit 3\r")
    one:expect("result\t3")
    assert.equal(0, one:wait())
    nothing_runs()
  end)

  it("lists its keys with ~?", function()
    local one = sit("show(sandbox:shell({ escape = '%' }))")
    one:expect("$ ")
    one:type("\r%?")
    one:expect("%.  detaches")
    one:type("%%~.\b\b\b\rexit\r")
    one:expect("result\t")
  end)

  it("is refused where there is no terminal", function()
    local result = support.run(HEAD .. "show(sandbox:shell())", {
      args = { fixture.server.url, fixture.server.api_key, sandbox.sandbox_id },
    })
    assert.truthy(result.out:find("result\tnil sandbox:shell: the input is not a terminal", 1, true), result.out
      .. result.err)
    assert.truthy(result.out:find("kind unsupported", 1, true))
    nothing_runs()
  end)

  it("is refused in a loop that can't wait for a terminal", function()
    local one = sit([[
      local blocking = require("e2b.loop.blocking")
      local own = e2b.client({ api_url = arg[1], sandbox_url = arg[1], api_key = arg[2], getenv = function() end,
        loop = { may_wait = blocking.may_wait, await = blocking.await } })
      show(assert(own.Sandbox.connect(arg[3])):shell())
    ]])
    one:expect("result\tnil sandbox:shell: this loop can't wait for a terminal")
    one:expect("kind unsupported")
    assert.equal(0, one:wait())
  end)

  it("leaves the terminal alone when there is no such program or folder", function()
    local one = sit("show(sandbox:shell({ cwd = '/none' })) show(sandbox:shell({ pid = 999999 }))")
    one:expect("kind invalid_argument")
    one:expect("kind not_found")
    assert.equal(0, one:wait())
    assert.equal(one.before, one:settings())
  end)

  it("raises on what can't be meant", function()
    platform.raises("'escape'", function() return sandbox:shell({ escape = "ab" }) end)
    platform.raises("'escape'", function() return sandbox:shell({ escape = "." }) end)
    platform.raises("with pid", function() return sandbox:shell({ pid = 1, cwd = "/" }) end)
    platform.raises("unknown option", function() return sandbox:shell({ colour = true }) end)
  end)

  -- However it ends, the terminal is as it was, and what nobody can reach any more is ended.

  it("restores the terminal when the sandbox is killed", function()
    local other = assert(fixture.Sandbox.create())
    local one = sit("show(sandbox:shell())", { id = other.sandbox_id })
    one:expect("$ ")
    assert(other:kill())
    -- The word that the shell has ended may still come through before the sandbox is gone.
    one:expect("result\t")
    assert.equal(0, one:wait())
    local shown = one:look()
    assert.truthy(shown:find("kind sandbox_gone", 1, true) or shown:find("result\t-1", 1, true), shown)
    assert.equal(one.before, one:settings())
  end)

  it("restores the terminal and ends the program when its task is cancelled", function()
    local one = sit([[
      local task = e2b.spawn(function() return sandbox:shell() end)
      e2b.sleep(0.5)
      print("cancelling")
      task:cancel()
      show(task:wait())
    ]])
    one:expect("$ ")
    one:expect("result\tnil sandbox:shell: cancelled kind cancelled")
    assert.equal(0, one:wait())
    assert.equal(one.before, one:settings())
    nothing_runs()
  end)

  it("restores the terminal and ends the program at SIGINT", function()
    local one = sit("print(pcall(sandbox.shell, sandbox)) print(#e2b.all()) os.exit(4, true)")
    one:expect("$ ")
    support.sleep(0.1)
    assert.is_true(posix.kill(one.pid, 2))
    one:expect("interrupted!")
    assert.equal(4, one:wait())
    assert.equal(one.before, one:settings())
    nothing_runs()
  end)

  it("restores the terminal when the process gets SIGTERM, SIGHUP or SIGKILL", function()
    for _, signal in ipairs({ 15, 1, 9 }) do
      local one = sit("show(sandbox:shell())")
      one:expect("$ ")
      assert.is_true(one:is_raw())
      assert.is_true(posix.kill(one.pid, signal))
      assert.equal(128 + signal, one:wait())
      is_as_before(one)
      one:close()
    end
    for _, pid in ipairs(running()) do sandbox.pty:kill(pid) end
    nothing_runs()
  end)

  it("ends the program when the terminal goes away", function()
    local one = sit("show(sandbox:shell())", { shell = "trap '' HUP; exec %s" })
    one:expect("$ ")
    posix.close(one.other)
    posix.close(one.fd)
    one.other, one.fd = posix.pipe()
    nothing_runs()
    posix.kill(one.pid, 9)
  end)

  it("survives SIGINT at every moment", function()
    for step = 1, 25 do
      local one = sit("print('begin') pcall(sandbox.shell, sandbox) print('end')")
      one:expect("begin")
      support.sleep(step * 0.004)
      posix.kill(one.pid, 2)
      support.wait_for(function()
        one:look()
        return one.code or posix.ended(one.pid)
      end, 15, "the end")
      one.code = 0
      is_as_before(one)
      one:close()
    end
    for _, pid in ipairs(running()) do sandbox.pty:kill(pid) end
  end)

  it("switches off what a program left behind has switched on", function()
    local one = sit([[
      show(sandbox:shell({ cmd = "printf '\\033[?1049h\\033[?25l\\033[?1000;1006h\\033='; sleep 60" }))
    ]])
    one:expect("\27=")
    one:type("\r~.")
    one:expect("\27[?1000l\27[?1006l\27[?1049l\27[?25h\27>\27[0m")
    one:expect("result\tfalse")
    for _, pid in ipairs(running()) do sandbox.pty:kill(pid) end
  end)

  it("leaves nothing behind", function()
    local one = sit([[
      local support = require("spec.support.support")
      sandbox:shell({ cmd = "true" })
      local before = support.snapshot()
      for _ = 1, 5 do assert(sandbox:shell({ cmd = "echo x" }) == 0) end
      support.assert_no_leak(before)
      print("nothing left")
    ]])
    one:expect("nothing left")
    assert.equal(0, one:wait())
  end)
end)

describe("the requests of sandbox:shell", function()
  local server

  after_each(function()
    terminal.close_all()
    e2b.close()
    server:stop()
  end)

  local function sit(source)
    return terminal.run(HEAD .. source, { args = { server.url, "key", "i1" }, env = { TERM = "xterm-256color" } })
  end

  it("follow one another, with all that was typed meanwhile in one", function()
    server = envd_peer.start([[
      on.connect = function() return conn:respond(200, '{"sandboxID":"i1","templateID":"b","envdVersion":"0.6.13"}') end
      on.Start = function()
        begin() event('{"start":{"pid":7}}') output("pty", "ready")
        shared.stream = { ended = ended, finish = finish }
      end
      on.SendInput = function()
        shared.busy = (shared.busy or 0) + 1
        shared.most = math.max(shared.most or 0, shared.busy)
        conn:sleep(0.2)
        shared.busy = shared.busy - 1
        conn:note({ what = "most", n = shared.most })
        return answer(200)
      end
      on.SendSignal = function() answer(200) end
    ]])
    local one = sit("show(sandbox:shell())")
    one:expect("ready")
    local typed = ""
    for i = 1, 30 do
      one:type(tostring(i % 10))
      typed = typed .. i % 10
      support.sleep(0.01)
    end
    support.wait_for(function()
      local got = {}
      for _, sent in ipairs(envd_peer.messages(server, "SendInput")) do got[#got + 1] = sent.message.input.pty end
      for i, text in ipairs(got) do got[i] = core.base64_decode(text) end
      return table.concat(got) == typed
    end, 10, "all that was typed")
    assert.is_true(server:count("most") <= 5)
    for _, event in ipairs(server:events("most")) do assert.equal(1, event.n) end
    one:type("\r~.")
    one:expect("result\tfalse 7")
  end)

  it("can be left when nothing gets through any more", function()
    server = envd_peer.start([[
      on.connect = function() return conn:respond(200, '{"sandboxID":"i1","templateID":"b","envdVersion":"0.6.13"}') end
      on.Start = function() begin() event('{"start":{"pid":7}}') output("pty", "ready") end
      on.SendInput = function() conn:wait_closed() end
      on.Update = function() conn:wait_closed() end
    ]])
    local one = sit("show(sandbox:shell())")
    one:expect("ready")
    one:type("lost\r")
    support.sleep(0.1)
    one:resize(10, 10)
    support.sleep(0.4)
    one:type("~.")
    one:expect("result\tfalse 7", 5)
    assert.equal(0, one:wait())
    assert.equal(one.before, one:settings())
  end)

  it("tell of a stream that broke, and of what still may run", function()
    server = envd_peer.start([[
      on.connect = function() return conn:respond(200, '{"sandboxID":"i1","templateID":"b","envdVersion":"0.6.13"}') end
      on.Start = function()
        begin() event('{"start":{"pid":7}}') output("pty", "\27[?1049hready")
        conn:sleep(0.2)
        conn:reset()
      end
    ]])
    local one = sit("local a, b, c = sandbox:shell() show(a, b, c) print('pid', c.pid)")
    one:expect("ready")
    one:expect("\27[?1049l")
    one:expect("kind network")
    one:expect("pid\t7")
    assert.equal(one.before, one:settings())
    assert.equal(0, #envd_peer.messages(server, "SendSignal"))
  end)
end)

describe("the keys of a shell", function()
  local function feed(...)
    local filter = keys.new()
    local typed, action = "", nil
    for _, bytes in ipairs({ ... }) do
      local text
      text, action = keys.feed(filter, bytes)
      typed = typed .. text
    end
    return typed, action
  end

  it("end it only after the return key", function()
    assert.same({ "", "detach" }, { feed("~.") })
    assert.same({ "ls\r", "detach" }, { feed("ls\r~.and more") })
    assert.same({ "ls\n", "detach" }, { feed("ls\n", "~", ".") })
    assert.same({ "a~.b" }, { feed("a~.b") })
    assert.same({ "~" }, { feed("~~") })
    assert.same({ "~." }, { feed("~~.") })
    assert.same({ "~x~." }, { feed("~x~.") })
    assert.same({ "~\r", "detach" }, { feed("~\r~.") })
    assert.same({ "", "help" }, { feed("~?") })
    assert.same({ "", "detach" }, { feed("~?~.") })
    assert.same({ "" }, { feed("~") })
    assert.same({ "", nil }, { feed("") })
  end)

  it("can be another one, or none", function()
    assert.same({ "", "detach" }, { keys.feed(keys.new("]"), "].") })
    assert.same({ "~." }, { keys.feed(keys.new("]"), "~.") })
    assert.same({ "~." }, { keys.feed(keys.new(false), "~.") })
  end)
end)

describe("what a shell leaves switched on", function()
  local function reset(...)
    local one = screen.new()
    for _, bytes in ipairs({ ... }) do screen.feed(one, bytes) end
    return screen.reset(one)
  end

  it("is switched off again, however it came", function()
    assert.equal("", reset("plain", "\27[31mred\27[0m"))
    assert.equal("\27[?1049l\27[0m", reset("\27[?1049h"))
    assert.equal("", reset("\27[?1049h", "x\27[?1049l"))
    assert.equal("\27[?1000l\27[?1006l\27[0m", reset("\27[?1000;1006h"))
    assert.equal("\27[?25h\27[0m", reset("\27[?25l"))
    assert.equal("", reset("\27[?25l\27[?25h"))
    assert.equal("\27>\27[0m", reset("\27="))
    assert.equal("", reset("\27[?1049h\27=\27c"))
    local text, parts = "a\27[?1049hb\27[?2004h", {}
    for i = 1, #text do parts[i] = text:sub(i, i) end
    assert.equal("\27[?2004l\27[?1049l\27[0m", reset(unpack(parts)))
    assert.equal("", reset("\27[?" .. ("1"):rep(100)))
  end)
end)
