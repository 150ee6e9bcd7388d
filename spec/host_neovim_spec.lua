-- Neovim: its loop, its terminal, what comes with the library for it.
local hosts = require("spec.hosts.init")
local neovim = require("spec.support.neovim")
local peer = require("spec.support.peer")
local platform = require("spec.support.platform")
local support = require("spec.support.support")
local tmux = require("spec.support.tmux")
local cases = require("spec.support.uv_cases")

if neovim.here then
  for _, way in ipairs({ "the main coroutine", "a task" }) do
    describe("Neovim, " .. way .. ":", function()
      hosts.declare(function(env, wrap)
        env.UV_TASK = way == "a task" and "1" or "0"
        local result = neovim.run(nil, { file = "spec/hosts/uv.lua", env = env, wrap = wrap })
        return result.out .. result.err
      end)
    end)
  end

  describe("in Neovim", function()
    cases.define({ it = it, setup = setup, teardown = teardown }, neovim.run, "vim.cmd('qall!')")
  end)

  describe("Neovim with the library as a plugin", function()
    -- On its runtimepath and nowhere else, as a plugin manager leaves it after `make neovim`.
    it("has a guard that finds what it needs there: a sandbox with kill_on_exit goes with the editor", function()
      local here, folder = platform.start(), support.tmpdir()
      local build = os.getenv("E2B_BUILD") or "build/luajit"
      support.shell("cp -R lua " .. folder .. "/lua && cp " .. build .. "/e2b/core.so " .. folder .. "/lua/e2b/")
      support.write_file(folder .. "/script.lua", [[
        local sandbox, message = require("e2b").Sandbox.create({ kill_on_exit = true })
        io.stdout:write(sandbox and sandbox.sandbox_id or message, "\n")
        vim.cmd("cquit 3")
      ]])
      local env = { LUA_PATH = false, LUA_CPATH = false }
      for name, value in pairs(here.server.env) do env[name] = value end
      local output, code = support.shell(neovim.command({
        bare = true, env = env, args = { "--cmd", "set runtimepath^=" .. folder, "-S", folder .. "/script.lua" },
      }))
      assert.matches("i%w+", output)
      assert.is_nil(output:find(" ", 1, true), output)
      assert.equal(3, code)
      support.wait_for(function() return #assert(here.Sandbox.list():all()) == 0 end, 10, "the guard's kill")
      here:stop()
    end)
  end)

  describe("Neovim in a terminal", function()
    local server, folder, one

    -- :Call makes a call that is answered when the spec says so; a timer counts on the screen.
    local INIT = [[
      local e2b = require("e2b")
      local client = e2b.client({ api_url = os.getenv("URL"), api_key = "key", retries = 0 })
      vim.api.nvim_buf_set_lines(0, 0, -1, false, { "count 0", "state idle", "" })
      vim.api.nvim_win_set_cursor(0, { 3, 0 })
      vim.api.nvim_create_user_command("Call", function()
        vim.api.nvim_buf_set_lines(0, 1, 2, false, { "state waiting" })
        local value, _, err = client:request("GET", "/held")
        vim.api.nvim_buf_set_lines(0, 1, 2, false, { "state " .. (value and "answered" or err.kind) })
      end, {})
      local count = 0
      vim.loop.new_timer():start(20, 20, vim.schedule_wrap(function()
        count = count + 1
        vim.api.nvim_buf_set_lines(0, 0, 1, false, { "count " .. count })
      end))
    ]]

    before_each(function()
      folder = support.tmpdir()
      server = peer.start([[
        local request = conn:read_request()
        conn:wait_signal("go")
        conn:respond(200, "[]")
      ]])
      support.write_file(folder .. "/init.lua", INIT)
      one = tmux.run(neovim.command({
        headless = false, env = { URL = server.url }, args = { "-S", folder .. "/init.lua" },
      }))
      one:expect("state idle")
    end)
    after_each(function()
      one:stop()
      if server.pipe then server:signal("go") end
      server:stop()
      support.cleanup()
    end)

    local function counted(screen) return tonumber(screen:match("count (%d+)")) end

    it("is drawn while a call waits, and what is typed meanwhile comes after it", function()
      one:keys(":Call", "Enter")
      server:wait_event("request")
      local first = counted(one:expect("state waiting"))
      one:expect(function(screen) return counted(screen) >= first + 20 end)
      one:keys("i", "typed meanwhile", "Escape")
      local next_one = counted(one:screen())
      local screen = one:expect(function(now) return counted(now) >= next_one + 20 end)
      assert.truthy(screen:find("state waiting", 1, true), screen)
      assert.is_nil(screen:find("typed meanwhile", 1, true), screen)
      server:signal("go")
      one:expect("state answered")
      one:expect("typed meanwhile")
      one:assert_quiet()
    end)

    it("ends a call at Ctrl-C, and goes on", function()
      one:keys(":Call", "Enter")
      server:wait_event("request")
      one:expect("state waiting")
      one:keys("C-c")
      one:expect("state cancelled")
      one:keys("i", "typed after", "Escape")
      one:expect("typed after")
      one:assert_quiet()
    end)

    it("goes on when its network is gone", function()
      server:signal("go")
      server:stop()
      one:keys(":Call", "Enter")
      one:expect("state network")
      one:keys("i", "typed after", "Escape")
      one:expect("typed after")
    end)
  end)

  describe("Neovim", function()
    local server

    setup(function() server = require("e2b.server").start() end)
    teardown(function()
      server:stop()
      support.cleanup()
    end)

    local function fine(source, options)
      options = options or {}
      options.env = options.env or server.env
      local result = neovim.run(source, options)
      assert.equal(0, result.code, result.out .. result.err)
      return result.out, result.err
    end

    it("waits wherever it runs Lua, locked text and the command-line window included", function()
      local out, err = fine([[
        local e2b = require("e2b")
        local seen = {}
        function _G.Call(where)
          local ok, _, _, e = pcall(e2b.Sandbox.get_info, "i00000000000000000000")
          seen[#seen + 1] = where .. (ok and e and e.kind == "not_found" and "" or " FAILED")
          return ""
        end
        local map = function(mode, rhs)
          vim.api.nvim_set_keymap(mode, "zx", rhs, { expr = true, noremap = true })
        end
        map("n", "v:lua.Call('expr mapping')")
        map("i", "v:lua.Call('insert mapping')")
        vim.api.nvim_feedkeys("zx", "x", false)
        vim.api.nvim_feedkeys("izx\27", "x", false)
        vim.api.nvim_create_autocmd("CmdwinEnter", { callback = function() Call("cmdwin") end })
        vim.cmd([=[execute "normal! q:\<C-c>"]=])
        vim.api.nvim_buf_set_lines(0, 0, -1, false, { "abc" })
        vim.cmd("silent substitute/b/\\=v:lua.Call('sub-expression')/")
        vim.fn.timer_start(1, function() Call("timer") end)
        vim.wait(1000, function() return seen[#seen] == "timer" end, 5)
        vim.schedule(function() Call("inside another") end)
        Call("main")
        vim.api.nvim_create_autocmd("VimLeave", { callback = function()
          Call("leaving")
          print(table.concat(seen, ", "))
        end })
      ]])
      assert.is_nil(err:find("E%d"), err) -- the command-line window shows its colons
      assert.equal(
        "expr mapping, insert mapping, cmdwin, sub-expression, timer, inside another, main, leaving\n", out)
    end)

    it("ends whatever waits at Ctrl-C, and cleans up", function()
      local out, err = fine([[
        local e2b = require("e2b")
        local core = require("e2b.core")
        local function press_when(condition)
          local timer = vim.loop.new_timer()
          timer:start(10, 10, function()
            if not condition() then return end
            timer:close()
            vim.api.nvim_input("<C-c>")
          end)
        end
        local function soon()
          local at = core.now() + 0.1
          press_when(function() return core.now() > at end)
        end
        local function left() return #assert(e2b.Sandbox.list():all()) end

        soon()
        print("sleep", (select(3, e2b.sleep(20)).kind))

        local running = 0
        local function work(sandbox)
          local handle = assert(sandbox.commands:start("sleep 20"))
          running = running + 1
          local _, message, e = handle:wait()
          return nil, message, e
        end
        press_when(function() return running == 1 end)
        print("with", select(3, e2b.with({ timeout = 60 }, work)).kind, left())

        press_when(function() return running == 4 end)
        local results, failed = e2b.map({ 1, 2, 3 }, function() return e2b.with({ timeout = 60 }, work) end)
        print("map", failed, results[1].err.kind, results[3].err.kind, left())

        local task = e2b.spawn(function()
          assert(e2b.sleep(0.5))
          return "goes on"
        end)
        soon()
        print("task:wait", (select(3, task:wait()).kind))
        print(task:wait())

        local told
        e2b.spawn(function() return e2b.sleep(20) end, function(_, _, e) told = e.kind end)
        soon()
        print("run", (select(3, e2b.run()).kind), told, core.stats().in_flight)
      ]])
      assert.equal("", err)
      assert.equal(table.concat({
        "sleep\tcancelled", "with\tcancelled\t0", "map\t3\tcancelled\tcancelled\t0", "task:wait\tcancelled", "goes on",
        "run\tcancelled\tcancelled\t0", "",
      }, "\n"), out)
    end)

    it("kills a sandbox although Ctrl-C comes while it is killed", function()
      local slow = require("e2b.server").start({ latency = 0.3 })
      local out, err = fine([[
        local e2b = require("e2b")
        e2b.with({ timeout = 60 }, function()
          local timer = vim.loop.new_timer()
          timer:start(100, 0, function()
            timer:close()
            vim.api.nvim_input("<C-c>")
          end)
        end)
        print(#assert(e2b.Sandbox.list():all()))
      ]], { env = slow.env })
      slow:stop()
      assert.equal("", err)
      assert.equal("0\n", out)
    end)

    it("shows an error in a task as a message, and writes nothing to the terminal", function()
      local out, err = fine([[
        local e2b = require("e2b")
        local shown = {}
        vim.notify = function(text, level) shown[#shown + 1] = level == vim.log.levels.ERROR and text or "?" end
        e2b.spawn(function() error("broken here") end)
        vim.wait(5000, function() return #shown > 0 end, 5)
        print(#shown, shown[1])
      ]])
      assert.equal("", err)
      assert.matches("^1\te2b: task 1 .*broken here.*stack traceback:", out)
    end)

    it("keeps lua-cjson apart from the one in Neovim", function()
      assert.equal("{\"a\":\"\\/\"}\tnil\n", (fine([[
        local core = require("e2b.core")
        print(core.json_encode({ a = "/" }), package.loaded.cjson) -- require would mix them up
      ]])))
    end)

    it("has its help, and a check of its health", function()
      local folder = support.tmpdir()
      support.shell("cp -R doc " .. folder)
      local out = fine([[
        vim.cmd("helptags " .. os.getenv("FOLDER") .. "/doc")
        for _, tag in ipairs({ "e2b", "e2b-tasks", "e2b-fast-events", ":E2B", "e2b.spawn" }) do
          vim.cmd("help " .. tag)
          print(vim.fn.expand("%:t"), vim.fn.getline("."):match("%*" .. vim.pesc(tag) .. "%*"))
        end
        vim.cmd("checkhealth e2b")
        print(table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), "\n"))
      ]], { env = (function()
        local env = { FOLDER = folder }
        for name, value in pairs(server.env) do env[name] = value end
        return env
      end)(), rtp = { folder } })
      for _, tag in ipairs({ "e2b", "e2b-tasks", "e2b-fast-events", ":E2B", "e2b.spawn" }) do
        assert.matches("e2b.txt\t*" .. tag .. "*", out, 1, true)
      end
      for _, text in ipairs({
        "OK:? e2b 0.1.0 on LuaJIT", "OK:? libcurl ", "OK:? lua%-cjson 2", "there is a key",
        "answers, and knows the key", "the clock of this machine is right",
      }) do
        assert.matches(text, out)
      end
      assert.is_nil(out:find("ERROR", 1, true), out)
      support.assert_no_secret(server.api_key, out)
    end)

    it("is a plugin by itself after make neovim, without any search path", function()
      local folder = support.tmpdir()
      local place = folder .. "/nvim/site/pack/e2b/start/e2b"
      local output, code = support.shell("mkdir -p " .. place .. " && cp -a Makefile bin csrc lua doc " .. place
        .. " && mkdir -p " .. place .. "/build && cp -a build/luajit " .. place .. "/build/ && cd " .. place
        .. " && unset MAKEFLAGS MAKELEVEL MFLAGS MAKE BUILD && make --no-print-directory neovim")
      assert.equal(0, code, output)
      local env = { XDG_DATA_HOME = folder, LUA_PATH = false, LUA_CPATH = false }
      for name, value in pairs(server.env) do env[name] = value end
      local words = neovim.command({ env = env, bare = true, args = {
        "--cmd", "cd /", "-c",
        "lua io.write(tostring(require('e2b').check()), ' ', package.loaded['e2b.loop.uv'] and 'uv')", "-c", "qall!",
      } })
      assert.equal("true uv", (support.shell(words .. " </dev/null")))
    end)

    it("has a help whose example works", function()
      local snippet = support.read_file("doc/e2b.txt"):match("\n(\te2b%.spawn%(.-)\n<\n")
      local out, err = fine("local e2b = require('e2b')\nvim.notify = print\n" .. snippet .. "\nassert(e2b.run(20))")
      assert.equal("", err)
      assert.matches("Linux", out, 1, true)
    end)
  end)

  describe("the example plugin", function()
    local here, one

    setup(function() here = platform.start() end)
    teardown(function()
      here:stop()
      support.cleanup()
    end)
    after_each(function()
      if one then one:stop() end
      one = nil
      here:cleanup()
    end)

    it("streams what the range prints into a split, lists, kills, and leaves nothing behind", function()
      local folder = support.tmpdir()
      support.write_file(folder .. "/script.sh", "echo not in the range\n"
        .. "for i in 1 2 3; do echo round $i; sleep 1; done\nexit 4\n")
      one = tmux.run(neovim.command({
        headless = false, env = here.server.env,
        args = { "-S", "examples/neovim/plugin/e2b.lua", folder .. "/script.sh" },
      }), { cols = 100 })
      one:expect("not in the range")
      one:keys("jVG", ":", "E2B run", "Enter")
      local screen = one:expect("round 1", 20)
      assert.is_nil(screen:find("round 3", 1, true), screen)
      one:keys("ggO", "typed beside it", "Escape")
      one:expect("typed beside it")
      screen = one:expect("[exit code 4]")
      assert.matches("round 1\nround 2\nround 3\n", screen)
      assert.equal(1, select(2, screen:gsub("not in the range", "")))
      one:keys(":E2B list", "Enter")
      one:expect("running")
      one:keys("Enter", ":E2B nonsense", "Enter")
      one:expect("kill, list, run")
      one:keys(":E2B kill", "Enter")
      one:expect("was killed")
      assert.same({}, assert(here.Sandbox.list():all()))
      one:keys(":1E2B run", "Enter")
      support.wait_for(function() return #assert(here.Sandbox.list():all()) == 1 end, 10, "the second sandbox")
      one:expect("[exit code")
      one:keys(":qall!", "Enter")
      one:wait()
      assert.same({}, assert(here.Sandbox.list():all()))
      one:assert_quiet()
    end)

    it("makes no second sandbox when it can't tell what became of the first", function()
      here.server:set({ fail_next = { status = 500, method = "POST", path = "/sandboxes/" } })
      local result = neovim.run([[
        local shown = {}
        vim.notify = function(text) shown[#shown + 1] = text end
        vim.cmd("source examples/neovim/plugin/e2b.lua")
        local function output()
          local buffer = vim.fn.bufnr("E2B output")
          return buffer < 0 and "" or table.concat(vim.api.nvim_buf_get_lines(buffer, 0, -1, false), " ")
        end
        vim.cmd("E2B run")
        vim.wait(10000, function() return output():find("exit code") ~= nil end, 5)
        vim.cmd("E2B run")
        vim.wait(10000, function() return #shown > 0 or output():find("exit code") ~= nil end, 5)
        print(#assert(require("e2b").Sandbox.list():all()), #shown, shown[1])
      ]], { env = here.server.env })
      assert.equal("", result.err)
      assert.matches("^1\t1\tE2B: .*500", result.out)
      assert.same({}, assert(here.Sandbox.list():all()))
    end)

    it("notifies when something is wrong", function()
      local result = neovim.run([[
        local shown = {}
        vim.notify = function(text, level) shown[#shown + 1] = level == vim.log.levels.ERROR and text or "?" end
        vim.cmd("source examples/neovim/plugin/e2b.lua")
        vim.cmd("E2B run")
        vim.wait(5000, function() return #shown > 0 end, 5)
        vim.cmd("E2B list")
        vim.wait(5000, function() return #shown > 1 end, 5)
        print(#shown, shown[1], shown[2])
      ]], { env = { E2B_API_KEY = "e2b_wrong", E2B_API_URL = here.server.url } })
      assert.equal("", result.err)
      assert.matches("^2\tE2B: .*401.*\tE2B: .*401", result.out)
    end)
  end)
end

describe("the health check", function()
  local health = require("e2b.health")
  local server

  setup(function() server = require("e2b.server").start() end)
  teardown(function() server:stop() end)

  -- In a process of its own: it looks at the environment.
  local function report(env)
    local result = support.run([[
      local report = {}
      for _, kind in ipairs({ "start", "ok", "info", "warn", "error" }) do
        report[kind] = function(text, advice)
          print(kind .. ": " .. text .. (advice and " | " .. table.concat(advice, " | ") or ""))
        end
      end
      require("e2b.health").check(report)
    ]], { env = env })
    assert.equal(0, result.code, result.err)
    return result.out
  end

  it("is fine when all is", function()
    local out = report(server.env)
    assert.matches("^start: e2b\nok: e2b 0", out)
    assert.matches("ok: libcurl", out, 1, true)
    assert.matches("ok: there is a key", out, 1, true)
    assert.matches("knows the key", out, 1, true)
    assert.matches("ok: the clock", out, 1, true)
    assert.is_nil(out:find("error:", 1, true), out)
    support.assert_no_secret(server.api_key, out)
  end)

  it("says what is missing: a key, a right one, the service", function()
    assert.matches("error: there is no key | set E2B_API_KEY", report({ E2B_API_URL = server.url }), 1, true)
    local out = report({ E2B_API_URL = server.url, E2B_API_KEY = "abcdef" })
    assert.matches("warn: there is a key", out, 1, true)
    assert.matches("error: .*401", out)
    assert.is_nil(out:find("abcdef", 1, true), out)
    out = report({ E2B_API_URL = "http://127.0.0.1:1", E2B_API_KEY = "e2b_" .. ("0"):rep(40) })
    assert.matches("error: [^\n]*127%.0%.0%.1:1", out)
    assert.matches("error: ", report({ E2B_API_URL = "nonsense", E2B_API_KEY = "k" }), 1, true)
  end)

  it("compares the clocks", function()
    local slow = peer.answers({ { status = 200, body = "[]", headers = { Date = "Sun, 06 Nov 2044 08:49:37 GMT" } } })
    local out = report({ E2B_API_URL = slow.url, E2B_API_KEY = "k" })
    assert.matches("warn: the clock of this machine is %d+ s slow", out)
    slow:stop()
  end)

  it("is for Neovim", function()
    assert.has_error(function() health.check() end)
  end)
end)
