-- The journal and reap: what a dead process left is ended, and nothing else.
local cutter = require("spec.support.cutter")
local platform = require("spec.support.platform")
local support = require("spec.support.support")
local local_server = require("e2b.server")
local e2b = require("e2b")
local core = require("e2b.core")
local journals = require("e2b.journal")

local quote = support.quote
local unpack = table.unpack or unpack -- luacheck: ignore 113 143

describe("a journal", function()
  local server, between, folder, path, client, Sandbox

  local function client_of(key, options)
    local all = { journal = path, sandbox_url = server.url }
    for name, value in pairs(options or {}) do all[name] = value end
    return platform.client_of({ url = between.url, api_key = key or server.api_key }, all)
  end

  setup(function() server = local_server.start({ api_keys = { "e2b_first5ec4e7", "e2b_other5ec4e7" } }) end)
  teardown(function()
    e2b.close()
    server:stop()
    support.cleanup()
  end)
  before_each(function()
    folder = support.tmpdir()
    path = folder .. "/journal"
    between = cutter.start(server)
    client = client_of()
    Sandbox = client.Sandbox
  end)
  after_each(function()
    between:stop()
    local direct = platform.client_of(server)
    for _, sandbox in ipairs(assert(direct.Sandbox.list():all())) do assert(sandbox:kill()) end
    support.cleanup(folder)
  end)

  -- A program with a client of the same journal, `Sandbox`, and `die()`, which is a SIGKILL.
  local function program(source)
    return ([[
      local e2b = require("e2b")
      local client = e2b.client({ api_url = %q, api_key = %q, journal = %q, getenv = function() end })
      local Sandbox = client.Sandbox
      local function die() io.stdout:flush() os.execute("kill -KILL $PPID") while true do end end
    ]]):format(between.url, server.api_key, path) .. source
  end

  -- Runs it to its end; what it printed.
  local function run(source)
    local result = support.run(program(source))
    assert.equal("", (result.err:gsub("^Killed\n$", ""))) -- the shell's word
    return (result.out:gsub("%s+$", ""))
  end

  -- Starts it; it goes on when the pipe is closed.
  local function start(source)
    support.write_file(folder .. "/program.lua", program(source .. " io.stdout:flush() io.read('*a')"))
    local pipe = assert(io.popen("exec " .. support.lua_command() .. " " .. folder .. "/program.lua >" .. folder
      .. "/out", "w"))
    return pipe, support.wait_for(function()
      return (support.read_file(folder .. "/out") or ""):match("^(%S+)\n")
    end, 10, "a program's first line")
  end

  local function text() return support.read_file(path) or "" end
  local function entries() return (journals.parse(text())) end

  local function alive(id)
    local found, message, err = platform.client_of(server).Sandbox.get_info(id)
    if not found and err.kind ~= "not_found" then error(message, 2) end
    return found ~= nil
  end

  local function reasons(left)
    local list = {}
    for i, entry in ipairs(left) do list[i] = entry.reason end
    table.sort(list)
    return list
  end

  local CREATE = "local s = assert(Sandbox.create()) print(s.sandbox_id) "

  describe("as it is written", function()
    it("has each create before it is sent, and what became of it", function()
      local calls = require("e2b.call")
      local real, before = calls.call_either, nil
      calls.call_either = function(...)
        before = before or text()
        return real(...)
      end
      local sandbox = assert(Sandbox.create("base", { metadata = { a = "b" } }))
      calls.call_either = real
      local entry = journals.parse(before)[1]
      assert.equal(core.getpid(), entry.pid)
      assert.equal(between.url, entry.url)
      platform.near(os.time(), entry.time)
      platform.near(os.time() + 70, entry.expires, 2)
      assert.is_nil(entry.sandbox_id)
      assert.equal(sandbox.sandbox_id, entries()[1].sandbox_id)
      assert.same({ a = "b" }, sandbox.metadata)
      local raw = assert(platform.client_of(server):request("GET", "/sandboxes/" .. sandbox.sandbox_id))
      assert.equal(entry.token, raw.metadata.e2b_lua_token)
      assert.is_nil(entries()[1].settled)
      assert(sandbox:kill())
      assert.is_true(entries()[1].settled)
      assert.is_nil((Sandbox.create("no-such-template")))
      assert.is_true(entries()[2].settled)
      assert.is_nil(entries()[3])
    end)

    it("is its owner's alone, and has no key in it", function()
      assert(Sandbox.create())
      assert.matches("^%-rw%-%-%-%-%-%-%- ", (support.shell("ls -l " .. quote(path))))
      support.assert_no_secret({ server.api_key, "5ec4e7" }, text())
      assert.equal(8, #entries()[1].mark)
      assert.not_equal(client_of("e2b_other5ec4e7").key_mark, client.key_mark)
    end)

    it("gives a create in doubt its token", function()
      local _, message, err = Sandbox.create("base", { metadata = { case = "respond-0" } })
      assert.equal("maybe", err.sent)
      assert.equal(entries()[1].token, err.token)
      assert.truthy(message:find("e2b.reap(err.token) ends it", 1, true), message)
      local killed, failed, left = client:reap(err.token)
      assert.same({ 1, {}, {} }, { #killed, failed, left })
      assert.equal("", text())
    end)

    it("stays where it is when the working directory changes", function()
      local lfs = require("lfs")
      local here = lfs.currentdir()
      assert(lfs.chdir(folder))
      local own = client_of(nil, { journal = "here" })
      assert(lfs.chdir(here))
      assert(own.Sandbox.create()):kill()
      assert.equal(folder .. "/here", own.journal.path)
      assert.matches(" gone ", support.read_file(folder .. "/here"))
    end)

    it("is the environment's with E2B_JOURNAL, and none otherwise", function()
      local own = platform.client_of(server, {
        getenv = function(name) return name == "E2B_JOURNAL" and path or nil end,
      })
      assert.equal(path, own.journal.path)
      assert.is_nil(platform.client_of(server).journal)
    end)

    it("has nothing of a create without a key", function()
      local sandbox, _, err = client_of(function() error("no") end).Sandbox.create()
      assert.is_nil(sandbox)
      assert.same({ "authentication", "no" }, { err.kind, err.sent })
      assert.equal("", text())
    end)

    it("is needed: what can't be noted is not made", function()
      between:forget()
      local function fails(about, why)
        local sandbox, message, err = client_of(nil, { journal = about }).Sandbox.create()
        assert.is_nil(sandbox)
        assert.equal("no", err.sent)
        assert.equal("invalid_argument", err.kind)
        assert.equal("local_file", err.resource)
        assert.truthy(message:find("cannot use journal '" .. about .. "'", 1, true), message)
        assert.matches(why, message)
      end
      fails(folder, "directory")
      fails(folder .. "/none/journal", "No such file")
      support.write_file(path, "")
      support.shell("chmod 620 " .. quote(path))
      fails(path, "others may write to it")
      support.shell("chmod 600 " .. quote(path) .. "; ln -s journal " .. quote(folder) .. "/link")
      fails(folder .. "/link", "it is a link")
      support.shell("mkfifo -m 600 " .. quote(folder) .. "/pipe")
      fails(folder .. "/pipe", "not a regular file")
      assert.equal(0, between:count("create"))
    end)

    it("loses no line when many write and others drop lines meanwhile", function()
      local writers, lines = 6, 30
      local source = ([[
        local journals = require("e2b.journal")
        local n = ...
        local journal = journals.new(%q)
        journal.large = 2000
        journals.LARGE = 2000
        local client = { base_url = "http://x", key_mark = "12345678" }
        for i = 1, %d do
          local token = ("%%s-%%03d"):format(n, i)
          assert(journal:create(token, client, 60))
          if i %% 3 == 0 then assert(journal:none(token)) else assert(journal:made(token, "i" .. token, client)) end
        end
      ]]):format(path, lines)
      support.write_file(folder .. "/writer.lua", source)
      local command = support.lua_command() .. " " .. quote(folder .. "/writer.lua")
      local words = {}
      for n = 1, writers do words[n] = command .. " w" .. n .. " & pids=\"$pids $!\"" end
      local pipe = io.popen("{ pids=; " .. table.concat(words, "\n")
        .. "\nfor p in $pids; do wait $p || echo bad; done; } 2>&1", "r")
      for _ = 1, 200 do assert(journals.compact(path, {})) end
      local said = pipe:read("*a")
      pipe:close()
      assert.equal("", said)
      assert(journals.compact(path, {}))
      local made = 0
      for _, entry in ipairs(entries()) do
        assert.equal("i" .. entry.token, entry.sandbox_id)
        assert.equal("http://x", entry.url)
        made = made + 1
      end
      assert.equal(writers * lines * 2 / 3, made)
      local _, whole = journals.parse(text())
      assert.equal(made * 2, #whole)
      assert.equal("", (support.shell("ls -A " .. quote(folder) .. " | grep -v -e journal$ -e lua$ -e out$")))
    end)

    it("drops what is settled when it has grown", function()
      local own = client.journal
      own.large = 3000
      local size = 0
      for i = 1, 60 do
        local token = ("%032d"):format(i)
        assert(own:create(token, client, 60))
        if i > 1 then assert(own:none(token)) end
        size = math.max(size, #text())
      end
      assert.is_true(size < journals.LARGE)
      own.large = 100
      assert(own:none(("%032d"):format(0)))
      assert.equal(1, #entries())
      assert.equal(("%032d"):format(1), entries()[1].token)
      assert.matches("^%-rw%-%-%-%-%-%-%- ", (support.shell("ls -l " .. quote(path))))
    end)

    it("waits for whoever has it, and not for ever", function()
      local held = assert(core.journal_open(path, true))
      local seconds, file, message = support.timed(core.journal_open, path)
      held:close()
      assert.is_nil(file)
      assert.matches("another process has it locked", message)
      assert.is_true(seconds > 4.9 and seconds < 5 + 5 * support.tolerance)
      assert.is_true(assert(core.journal_open(path)):close())
    end)
  end)

  it("is not left locked by a Ctrl-C, whenever that comes", function()
    -- In a program of its own, which has little to collect.
    local result = support.run(([[
      local core, journals = require("e2b.core"), require("e2b.journal")
      if rawget(_G, "jit") then jit.off() end -- compiled code asks no hook
      local path, own = %q, journals.new(%q)
      assert(own:create(("0"):rep(32), { base_url = "http://x" }, 60))
      local interrupted = 0
      for _, fn in ipairs({ -- without what waits for the disk
        function() return journals.read(path) end,
        function() return journals.compact(path, {}) end,
        function() return own:none(("1"):rep(32)) end,
      }) do
        for n = 1, 5000 do
          collectgarbage("stop")
          local ok = pcall(function()
            local left = n
            debug.sethook(function() -- as lua's own: raises at a call or a return
              left = left - 1
              if left > 0 then return end
              debug.sethook()
              error("interrupted!", 0)
            end, "cr")
            fn()
            debug.sethook()
          end)
          local file, message = core.journal_open(path)
          if not file then error(n .. ": " .. message) end
          file:close()
          collectgarbage("restart")
          if ok then break end
          interrupted = interrupted + 1
        end
      end
      print(interrupted > 30 and "done" or interrupted)
    ]]):format(path, path))
    assert.equal("done\n", result.out, result.err)
  end)

  describe("and reap", function()
    it("ends what a process left that was killed after its create", function()
      local id = run(CREATE .. "die()")
      assert.is_true(alive(id))
      local killed, failed, left = client:reap()
      assert.same({ { id }, {}, {} }, { killed, failed, left })
      assert.is_false(alive(id))
      assert.equal("", text())
      assert.same({ {}, {}, {} }, { client:reap() })
    end)

    it("ends what a process left that went away by itself", function()
      local id = run(CREATE)
      assert.same({ id }, (client:reap()))
      assert.is_false(alive(id))
    end)

    it("ends what a process left that was killed before it knew the answer", function()
      run([[
        e2b.spawn(function() e2b.sleep(0.5) die() end)
        e2b.spawn(function() Sandbox.create("base", { metadata = { case = "hang-1" } }) end)
        e2b.run()
      ]])
      run([[Sandbox.create("base", { metadata = { case = "respond-30" } }) die()]])
      assert.is_nil(entries()[1].sandbox_id or entries()[2].sandbox_id)
      support.wait_for(function() return #assert(Sandbox.list():all()) == 2 end)
      local killed, failed, left = client:reap()
      assert.same({ 2, {}, {} }, { #killed, failed, left })
      assert.same({}, { unpack(assert(Sandbox.list():all())) })
      assert.equal("", text())
    end)

    it("keeps a create in mind that may come yet", function()
      run([[Sandbox.create("base", { request_timeout = 0.4, metadata = { case = "late-2000" } }) die()]])
      local before = text()
      local killed, failed, left = client:reap()
      assert.same({ {}, {} }, { killed, failed })
      assert.same({ "late" }, reasons(left))
      assert.equal(before, text())
      between:wait_event("late")
      killed, failed, left = client:reap()
      assert.same({ 1, {}, {} }, { #killed, failed, left })
      assert.equal("", text())
    end)

    it("forgets a create that was never sent when nothing can come of it any more", function()
      run([[
        require("e2b.call").call_either = function() die() end
        Sandbox.create("base", { request_timeout = 0.1 })
      ]])
      assert.equal(0, between:count("create"))
      assert.same({ "late" }, reasons((select(3, client:reap()))))
      local time = os.time
      os.time = function(...) return ... and time(...) or time() + 20 end -- luacheck: ignore 122
      local ok, killed, failed, left = pcall(client.reap, client)
      os.time = time -- luacheck: ignore 122
      assert.is_true(ok, killed)
      assert.same({ {}, {}, {} }, { killed, failed, left })
      assert.equal("", text())
    end)

    it("leaves what a living process has, this one and another", function()
      local mine = assert(Sandbox.create())
      local pipe, id = start(CREATE)
      local dead = run(CREATE)
      local killed, failed, left = client:reap()
      assert.same({ { dead }, {} }, { killed, failed })
      assert.same({ "alive", "alive" }, reasons(left))
      assert.is_true(alive(id) and alive(mine.sandbox_id))
      pipe:close()
      assert.same({ id }, (client:reap()))
      assert.is_true(alive(mine.sandbox_id))
      assert.equal(1, #entries())
    end)

    it("knows a process that nobody has waited for", function()
      local pipe, id = start(CREATE .. "die()")
      support.wait_for(function() return core.process_start(entries()[1].pid) == nil end, 5, "its end")
      assert.same({ id }, (client:reap()))
      pipe:close()
    end)

    it("knows when a process id is another process's", function()
      local real = core.process_start
      core.process_start = function() return "1" end
      local sandbox = assert(Sandbox.create())
      core.process_start = real
      assert.equal(core.getpid(), entries()[1].pid)
      assert.same({ sandbox.sandbox_id }, (client:reap()))
    end)

    it("knows a process of before the system was started, and none of elsewhere", function()
      local boot, host, space = core.process_place()
      local real = core.process_place
      local function made_at(...)
        local place = { ... }
        core.process_place = function() return unpack(place) end
        local sandbox = assert(Sandbox.create())
        core.process_place = real
        return sandbox.sandbox_id
      end
      local earlier = made_at("earlier", host, space)
      local other = made_at("earlier", "other-host", space)
      local contained = made_at(boot, host, "1.2")
      local killed, failed, left = client:reap()
      assert.same({ { earlier }, {} }, { killed, failed })
      assert.same({ "elsewhere", "elsewhere" }, reasons(left))
      assert.is_true(alive(other) and alive(contained))
      -- By name it can be done all the same.
      assert.same({ other }, (client:reap(left[1].token)))
      assert.equal(1, #entries())
    end)

    it("tells gone from not its own", function()
      local id = run(CREATE)
      local before = text()
      local killed, failed, left = client_of("e2b_other5ec4e7"):reap()
      assert.same({ {}, {} }, { killed, failed })
      assert.same({ { token = entries()[1].token, sandbox_id = id, reason = "key" } }, left)
      assert.equal(before, text())
      assert.is_true(alive(id))
      assert.is_true(assert(platform.client_of(server).Sandbox.kill(id)))
      assert.same({ {}, {}, {} }, { client:reap() })
      assert.equal("", text())
    end)

    it("leaves what was made at another service", function()
      local id = run(CREATE)
      local direct = platform.client_of(server, { journal = path })
      local killed, failed, left = direct:reap()
      assert.same({ {}, {} }, { killed, failed })
      assert.same({ "service" }, reasons(left))
      assert.is_true(alive(id))
      assert.same({ id }, (client:reap()))
    end)

    it("says nothing of an answer whose create was settled before", function()
      assert(client.journal:made(("0a"):rep(16), "i123", client))
      assert.same({ {}, {}, {} }, { client:reap() })
      assert.equal("", text())
    end)

    it("believes no other service that what a token names is gone", function()
      local id = run(CREATE)
      local before, token = text(), entries()[1].token
      local elsewhere = local_server.start({ api_keys = { server.api_key } })
      local killed, failed, left = platform.client_of(elsewhere, { journal = path }):reap(token)
      elsewhere:stop()
      assert.same({ {}, {} }, { killed, failed })
      assert.same({ { token = token, sandbox_id = id, reason = "service" } }, left)
      assert.equal(before, text())
      assert.same({ id }, (client:reap(token)))
      assert.equal("", text())
    end)

    it("knows whose the first create was, also where a function gives the key", function()
      run(([[
        local client = e2b.client({
          api_url = %q, api_key = function() return %q end, journal = %q, getenv = function() end,
        })
        require("e2b.call").call_either = function() die() end
        client.Sandbox.create("base", { request_timeout = 0.1 })
      ]]):format(between.url, server.api_key, path))
      assert.equal(client.key_mark, entries()[1].mark)
    end)

    it("keeps everything while the service can't be reached", function()
      local first, second = run(CREATE), run(CREATE)
      run([[Sandbox.create("base", { metadata = { case = "respond-0" } })]])
      local before = text()
      local port = between.port
      between:stop()
      local killed, failed, left = client:reap(nil, { retries = 0 })
      assert.same({ {}, 3, {} }, { killed, #failed, left })
      for _, failure in ipairs(failed) do
        assert.equal("network", failure.err.kind)
        assert.is_string(failure.message)
        assert.equal(32, #failure.token)
      end
      assert.equal(before, text())
      between = cutter.start(server, port)
      killed, failed, left = client:reap()
      assert.same({ 3, {}, {} }, { #killed, failed, left })
      assert.is_false(alive(first) or alive(second))
      assert.equal("", text())
    end)

    it("keeps what the service refused to end", function()
      local id = run(CREATE)
      server:set({ fail_next = { status = 500, method = "DELETE", path = "/sandboxes/" } })
      local killed, failed, left = client:reap()
      assert.same({ {}, {} }, { killed, left })
      assert.equal(id, failed[1].sandbox_id)
      assert.equal(500, failed[1].err.status)
      assert.same({ id }, (client:reap()))
    end)

    it("isn't disturbed by half a line, nor by what a power cut leaves", function()
      local first = run(CREATE)
      local whole = text()
      local made = whole:match("\n(%x+ made [^\n]+)\n$")
      -- Cut off in the middle of an answer: the id would be another's.
      for cut = 1, #made do
        support.write_file(path, whole:sub(1, #whole - 1 - cut))
        local entry = journals.parse(text())[1]
        assert.is_nil(entry.sandbox_id, cut)
      end
      support.write_file(path, whole .. ("\0"):rep(100) .. "\n\n12345678 gone " .. entries()[1].token .. "\n"
        .. made:sub(1, #made - 5))
      local second = run(CREATE)
      local killed = client:reap()
      table.sort(killed)
      local both = { first, second }
      table.sort(both)
      assert.same(both, killed)
      assert.equal("", text())
    end)

    it("is no failure where there is no journal, and says so when it can't be read", function()
      assert.same({ {}, {}, {} }, { client:reap() })
      local killed, message, err = client_of(nil, { journal = folder }):reap()
      assert.is_nil(killed)
      assert.matches("^e2b.reap: cannot use journal", message)
      assert.equal("invalid_argument", err.kind)
    end)

    it("leaves sandboxes alone that no journal knows", function()
      local stranger = assert(platform.client_of(server).Sandbox.create())
      local id = run(CREATE)
      assert.same({ id }, (client:reap()))
      assert.is_true(alive(stranger.sandbox_id))
    end)
  end)

  describe("and the program", function()
    local function reap(args, env)
      local all = { E2B_API_URL = between.url, E2B_API_KEY = server.api_key, E2B_JOURNAL = path }
      for name, value in pairs(env or {}) do all[name] = value end
      return support.run([[os.exit(require("e2b.program.reap").main(arg))]], { args = args, env = all })
    end

    it("ends what is left and says so", function()
      local id = run(CREATE)
      local pipe = start(CREATE)
      local result = reap({})
      assert.equal("killed " .. id .. "\n1 killed, 0 failed; left alone: 1 of processes that run\n", result.out)
      assert.equal("", result.err)
      assert.equal(0, result.code)
      pipe:close()
      result = reap({ "--journal", path }, { E2B_JOURNAL = false })
      assert.matches("\n1 killed, 0 failed\n$", result.out)
      assert.equal("0 killed, 0 failed\n", reap({}).out)
    end)

    it("says when there is no such journal: its name may be wrong", function()
      local result = reap({ "--journal", path .. "l" })
      assert.same({ "0 killed, 0 failed; there is no file " .. path .. "l\n", "", 0 },
        { result.out, result.err, result.code })
    end)

    it("ends what tokens name", function()
      local _, _, err = platform.client_of(between, { api_key = server.api_key }).Sandbox.create("base",
        { exactly_once = true, metadata = { case = "pass" } })
      assert.is_nil(err)
      local raw = assert(platform.client_of(server):request("GET", "/sandboxes"))[1]
      local result = reap({ raw.metadata.e2b_lua_token }, { E2B_JOURNAL = false })
      assert.equal("killed " .. raw.sandboxID .. "\n1 killed, 0 failed\n", result.out)
      assert.equal(0, result.code)
    end)

    it("fails when something could not be ended", function()
      run(CREATE)
      server:set({ fail_next = { status = 500, method = "DELETE", path = "/sandboxes/" } })
      local result = reap({})
      assert.equal("0 killed, 1 failed\n", result.out)
      assert.matches("^Sandbox.kill: ", result.err)
      assert.equal(1, result.code)
      result = reap({ "--journal=" .. folder })
      assert.equal(1, result.code)
      assert.matches("^e2b.reap: cannot use journal", result.err)
    end)

    it("says how it is used", function()
      local result = reap({ "--help" })
      assert.equal(0, result.code)
      assert.matches("^Usage: e2b reap", result.out)
      for what, args in pairs({
        ["no option %-%-all"] = { "--all" }, ["is no token"] = { "i123" }, ["needs a file"] = { "--journal" },
      }) do
        result = reap(args)
        assert.equal(2, result.code)
        assert.matches(what, result.err)
      end
      result = reap({}, { E2B_JOURNAL = false })
      assert.equal(2, result.code)
      assert.matches("there is no journal", result.err)
    end)
  end)
end)
