-- kill_on_exit: sandboxes that don't outlive the process that made them, whichever way it ends. The processes are real,
-- and so are their guards; what is counted is the sandboxes on the server.
local support = require("spec.support.support")
local guards = require("spec.support.guards")
local platform = require("spec.support.platform")
local local_server = require("e2b.server")
local e2b = require("e2b")

local slack = support.slack

-- Every script has a TMPDIR of its own: a guard is known by that.
local marks = 0

local function new_mark()
  marks = marks + 1
  return support.tmpdir()
end

local PRELUDE = [[
local e2b = require("e2b")
local core = require("e2b.core")
local client = e2b.client({ retries = 1 })
local Sandbox = client.Sandbox
local function create(opts)
  opts = opts or {}
  opts.kill_on_exit = true
  local sandbox = assert(Sandbox.create(opts))
  io.stdout:write("made ", sandbox.sandbox_id, "\n")
  io.stdout:flush()
  return sandbox
end
-- The guard's id. (The shell that is asked has that name in its own command line, but not so.)
local function guard_of_mine()
  local pipe = io.popen("for p in $(grep -las 'TMPDIR=" .. os.getenv("TMPDIR") .. "' /proc/[0-9]*/environ "
    .. "| cut -d/ -f3); do grep -qas 'e2b[.]program[.]guard' /proc/$p/cmdline && echo $p; done")
  local pid = pipe:read("*l")
  pipe:close()
  return pid
end
local function signal(name, whom)
  local pipe = io.popen("kill -" .. name .. " " .. (whom or core.getpid()))
  pipe:read("*a")
  pipe:close()
  while true do e2b.sleep(1) end
end
]]

describe("kill_on_exit", function()
  local server, client, Sandbox

  setup(function()
    server = local_server.start()
    client = platform.client_of(server)
    Sandbox = client.Sandbox
  end)
  teardown(function()
    e2b.close()
    server:stop()
    support.cleanup()
  end)
  before_each(function() server:clear() end)
  after_each(function()
    server:set({ fail_next = false, latency = false, ignore_filters = false })
    for sandbox in Sandbox.list() do sandbox:kill() end
  end)

  local function run(source, options)
    options = options or {}
    local mark = options.mark or new_mark()
    local env = { TMPDIR = mark }
    for name, value in pairs(server.env) do env[name] = value end
    for name, value in pairs(options.env or {}) do env[name] = value end
    local result = support.run(PRELUDE .. source, { env = env, wrap = options.wrap, timeout = options.timeout })
    result.mark, result.made = mark, {}
    for id in result.out:gmatch("made (%S+)") do result.made[#result.made + 1] = id end
    return result
  end

  local function alive()
    local ids = {}
    for sandbox in Sandbox.list() do ids[sandbox.sandbox_id] = true end
    return ids
  end

  local function count(method, path)
    local n = 0
    for _, request in ipairs((server:requests())) do
      if request.method == method and request.path:find(path or "", 1, true) then n = n + 1 end
    end
    return n
  end

  local function wait_for_guards(mark, seconds)
    support.wait_for(function() return #guards(mark) == 0 end, seconds or 10, "the end of the guard")
  end

  -- The guard has done its work, and these sandboxes are gone.
  local function assert_cleaned(result, n, seconds)
    assert.equal(n or 2, #result.made, result.out .. result.err)
    wait_for_guards(result.mark, seconds)
    assert.same({}, alive())
    for _, id in ipairs(result.made) do assert.equal(1, count("DELETE", "/sandboxes/" .. id), "kills of " .. id) end
  end

  local ENDINGS = {
    { "returns", "return", 0 },
    { "calls os.exit", "os.exit(0)", 0 },
    { "closes the state with os.exit", "os.exit(0, true)", 0 },
    { "raises", "error('raised by the script')", 1 },
    { "is sent SIGTERM", "signal('TERM')", 143 },
    { "is sent SIGINT", "signal('INT')" },
    { "is sent SIGHUP", "signal('HUP')", 129 },
    { "is killed", "signal('KILL')", 137 },
    { "aborts", "signal('ABRT')", 134 },
    { "crashes", "signal('SEGV')" },
  }

  for _, ending in ipairs(ENDINGS) do
    it("kills what a process left that " .. ending[1], function()
      local result = run("create() create() " .. ending[2])
      if ending[3] then assert.equal(ending[3], result.code, result.err) end
      assert_cleaned(result)
    end)
  end

  it("kills what a process left whose whole group is killed", function()
    local result = run("create() create() signal('KILL', 0)", { wrap = "setsid -w" })
    assert.equal(137, result.code, result.err)
    assert_cleaned(result)
  end)

  it("kills what a process left that became another program, while that runs", function()
    local result = run(("create() create() require('spec.support.posix').exec('sleep', '%g')"):format(2 * slack))
    assert.equal(0, result.code, result.err)
    assert_cleaned(result)
    local requests = server:requests()
    for _, request in ipairs(requests) do
      if request.method == "DELETE" then assert.is_true(request.at - requests[1].at < 1.5 * slack) end
    end
  end)

  it("kills what a process left when all of its service is sent SIGTERM", function()
    local result = run([[
      create() create()
      for name in ("TERM INT HUP QUIT PIPE USR1"):gmatch("%S+") do
        assert(os.execute("kill -" .. name .. " " .. guard_of_mine()))
      end
      signal("TERM")
    ]])
    assert.equal(143, result.code, result.err)
    assert.is_nil(result.err:find("guard process", 1, true), result.err)
    assert_cleaned(result)
  end)

  it("says nothing, and holds nobody's output", function()
    server:set({ fail_next = { delay = 3 * slack, method = "DELETE" } })
    local mark = new_mark()
    local script = mark .. "/script.lua"
    support.write_file(script, PRELUDE .. "create()")
    local env = { TMPDIR = mark }
    for name, value in pairs(server.env) do env[name] = value end
    local command = support.lua_command(env) .. " " .. script
    local seconds, output = support.timed(support.shell, "echo \"[$(" .. command .. ")]\"")
    assert.matches("^%[made %S+%]\n?$", output)
    assert.is_true(seconds < 2.5 * slack, seconds .. " s")
    wait_for_guards(mark)
    assert.same({}, alive())
  end)

  it("kills once what ended in time, and leaves what was released", function()
    local result = run([[
      local killed, gone, kept, by_id = create(), create(), create(), create()
      assert(killed:kill())
      assert(e2b.with({ kill_on_exit = true }, function() return true end))
      e2b.client().Sandbox.kill(gone.sandbox_id)   -- by another client: the guard asks again, and hears of it
      assert(kept:release() == true)
      assert(kept:release() == false)
      assert(Sandbox.release(by_id.sandbox_id) == true)
      local plain = assert(Sandbox.create())
      assert(plain:release() == false)
      print("plain " .. plain.sandbox_id)
    ]])
    assert.equal(0, result.code, result.err)
    wait_for_guards(result.mark)
    local there = alive()
    assert.same({ [result.made[3]] = true, [result.made[4]] = true, [result.out:match("plain (%S+)")] = true }, there)
    assert.equal(1, count("DELETE", result.made[1]))
    assert.equal(2, count("DELETE", result.made[2]))
    assert.equal(4, count("DELETE"))
  end)

  it("goes on guarding what is paused, and what a connect took charge of", function()
    local other = assert(Sandbox.create())
    local result = run(([[
      local paused = create()
      assert(paused:pause())
      local sandbox = assert(Sandbox.connect(%q, { kill_on_exit = true }))
      print("made " .. sandbox.sandbox_id)
      signal("KILL")
    ]]):format(other.sandbox_id))
    assert_cleaned(result)
    assert.equal(other.sandbox_id, result.made[2])
  end)

  it("is an option of the client as well, which a create can refuse", function()
    local result = run([[
      local careful = e2b.client({ kill_on_exit = true })
      print("made " .. assert(careful.Sandbox.create()).sandbox_id)
      print("kept " .. assert(careful.Sandbox.create({ kill_on_exit = false })).sandbox_id)
    ]])
    wait_for_guards(result.mark)
    assert.same({ [result.out:match("kept (%S+)")] = true }, alive())
    assert.equal(1, count("DELETE", result.made[1]))
  end)

  it("raises when it isn't a boolean", function()
    assert.has_error(function() Sandbox.create({ kill_on_exit = "yes" }) end)
    assert.has_error(function() e2b.client({ kill_on_exit = "yes" }) end)
    assert.has_error(function() Sandbox.release() end)
  end)

  it("has one guard for all clients, of which nothing secret is to be seen and which shares nothing with its process",
    function()
      local key = "e2b_" .. ("0f"):rep(20)
      local other = local_server.start({ api_key = key })
      local mark = new_mark()
      local held = mark .. "/held"
      local result = run(([[
        local file = io.open(%q, "w")
        local second = e2b.client({ api_url = %q, api_key = %q })
        create()
        local sandbox = assert(second.Sandbox.create({ kill_on_exit = true }))
        print("other " .. sandbox.sandbox_id)
        local pipe = io.popen("pid=" .. guard_of_mine() .. "\n" .. [=[
          echo "guard $pid"
          tr '\0' '\n' < /proc/$pid/cmdline | sed 's/^/argv /'
          tr '\0' '\n' < /proc/$pid/environ | sed 's/^/env /'
          for fd in /proc/$pid/fd/*; do echo "fd ${fd##*/} $(readlink $fd)"; done
          echo "cwd $(readlink /proc/$pid/cwd)"
          sed -n 's/^PPid:[^0-9]*/parent /p; s/^NSsid:[^0-9]*/session /p' /proc/$pid/status]=])
        print(pipe:read("*a"))
        pipe:close()
        print("self " .. core.getpid())
      ]]):format(held, other.url, key), { mark = mark, env = { SOME_KEY = key } })
      assert.equal(0, result.code, result.err)
      wait_for_guards(mark)
      local there = {}
      local seen = platform.client_of(other).Sandbox
      for sandbox in seen.list() do there[#there + 1] = sandbox.sandbox_id end
      other:stop()
      assert.same({}, there)
      assert_cleaned(result, 1)

      local _, found = result.out:gsub("guard %d+", "")
      assert.equal(1, found, result.out)
      for _, secret in ipairs({ key, server.api_key, "E2B_API_KEY" }) do
        assert.is_nil(result.out:find(secret, 1, true), result.out)
      end
      local fds = {}
      for number, what in result.out:gmatch("fd (%d+) (%S+)") do fds[tonumber(number)] = what end
      assert.matches("^socket:", fds[0])
      assert.equal(fds[0], fds[1])
      assert.equal("/dev/null", fds[2])
      fds[0], fds[1], fds[2] = nil, nil, nil
      if fds[3] then assert.matches("pidfd", fds[3]) end
      fds[3] = nil
      assert.same({}, fds)
      assert.matches("cwd /\n", result.out, 1, true)
      assert.equal(result.out:match("guard (%d+)"), result.out:match("session (%d+)"))
      assert.not_equal(result.out:match("self (%d+)"), result.out:match("parent (%d+)"))
    end)

  it("leaves the process without a child to wait for, and without a signal it didn't ask for", function()
    local result = run([[
      local posix = require("spec.support.posix")
      create()
      assert(posix.wait(-1) == nil, "there is a child")
    ]])
    assert.equal(0, result.code, result.err)
    assert_cleaned(result, 1)
  end)

  it("looks after a create that was in flight, though the service makes the sandbox later, and kills nobody else's",
    function()
      local stranger = assert(Sandbox.create({ metadata = { e2b_lua_token = "x" } }))
      local first = assert(Sandbox.create())
      server:clear()
      server:set({ ignore_filters = true })
      server:set({ fail_next = { delay = 0.01, method = "POST", path = "/v2/sandboxes" } })      -- the connect
      server:set({ fail_next = { delay = 1.5 * slack, method = "POST", path = "/v2/sandboxes" } }) -- the create
      local result = run(([[
        assert(Sandbox.connect(%q, { kill_on_exit = true }))
        e2b.spawn(create)
        e2b.sleep(%g)
        signal("KILL")
      ]]):format(first.sandbox_id, 0.4 * slack))
      assert.equal(137, result.code, result.err)
      assert.equal("", result.out) -- the answer did not come
      wait_for_guards(result.mark, 20)
      assert.same({ [stranger.sandbox_id] = true }, alive())
      assert.equal(2, count("POST", "/v2/sandboxes")) -- it was made, after all
      assert.equal(2, count("DELETE"))
    end)

  it("forgets a create that failed, and looks for one whose answer was lost", function()
    server:set({ fail_next = { status = 400, method = "POST", path = "/v2/sandboxes" } })
    local result = run([[
      local sandbox, _, err = Sandbox.create({ kill_on_exit = true })
      assert(not sandbox and err.kind == "invalid_argument", err and err.message)
    ]])
    assert.equal(0, result.code, result.err)
    wait_for_guards(result.mark)
    assert.equal(0, count("GET"))

    server:set({ latency = 0.7 * slack })
    result = run(([[
      local sandbox, _, err = Sandbox.create({ kill_on_exit = true, request_timeout = %g })
      assert(not sandbox and err.sent == "maybe", err and err.message)
    ]]):format(0.5 * slack))
    assert.equal(0, result.code, result.err)
    wait_for_guards(result.mark, 20)
    server:set({ latency = false })
    assert.same({}, alive())
    assert.equal(1, count("DELETE"))
  end)

  it("looks again for a create whose time is over when the service could not say", function()
    local token = ("0123456789abcdef"):rep(2)
    server:set({ fail_next = { status = 503, method = "GET", path = "/v2/sandboxes", count = 2 } })
    local result = run(([[
      local target = assert(core.target({ url = os.getenv("E2B_API_URL"),
        headers = { { "X-API-KEY", os.getenv("E2B_API_KEY") } } }))
      local body = { templateID = "base", metadata = { e2b_lua_token = %q } }
      print("made " .. assert(client:request("POST", "/v2/sandboxes", { body = body })).sandboxID)
      local first = 0
      while arg[first - 1] do first = first - 1 end
      local leash = assert(core.leash_program({ arg[first], "-e",
        'package.path, package.cpath = io.read("*l"), io.read("*l") os.exit(require("e2b.program.guard").main())' }))
      leash:send(("%%s\n%%s\n"):format(require("e2b.interpreter").paths()))
      assert(leash:receive(20):find("^ready"))
      leash:send(('{"client":1,"url":"%%s"}\n'):format(os.getenv("E2B_API_URL")), target)
      leash:send('{"expect":"%s","client":1,"seconds":-20}\n')
    ]]):format(token, token))
    assert.equal(0, result.code, result.err)
    assert_cleaned(result, 1, 20)
  end)

  it("goes well with exactly_once and a journal: one token, and what is released is nobody's to kill", function()
    local journal = new_mark() .. "/journal"
    local result = run(([[
      local careful = e2b.client({ journal = %q, kill_on_exit = true })
      local sandbox = assert(careful.Sandbox.create({ exactly_once = true }))
      local kept = assert(careful.Sandbox.create())
      assert(kept:release() == true)
      print("made " .. sandbox.sandbox_id .. " kept " .. kept.sandbox_id)
      signal("KILL")
    ]]):format(journal))
    assert.equal(137, result.code, result.err)
    wait_for_guards(result.mark)
    local kept = { [result.out:match("kept (%S+)")] = true }
    assert.same(kept, alive())
    assert.equal(1, count("DELETE"))
    assert.truthy(platform.client_of(server, { journal = journal }):reap())
    assert.same(kept, alive())
    local posts = 0
    for _, request in ipairs((server:requests())) do
      if request.method == "POST" then
        posts = posts + 1
        local token = request.body:match('"e2b_lua_token":"(%x+)"')
        assert.truthy(support.read_file(journal) == nil or token)
        assert.equal(token, request.headers["idempotency-key"] or token)
      end
    end
    assert.equal(2, posts)
  end)

  it("puts a token into the metadata, and shows it to nobody", function()
    local result = run([[
      local metadata = { job = "42" }
      local sandbox = create({ metadata = metadata })
      assert(sandbox.metadata.job == "42" and sandbox.metadata.e2b_lua_token == nil)
      assert(next(metadata, next(metadata)) == nil, "the caller's table")
    ]])
    assert.equal(0, result.code, result.err)
    assert_cleaned(result, 1)
    local body
    for _, request in ipairs((server:requests())) do body = request.method == "POST" and request.body or body end
    assert.matches('"e2b_lua_token":"' .. ("%x"):rep(32) .. '"', body)
    assert.matches('"job":"42"', body, 1, true)
  end)

  it("is each process's own: a forked child ends without harm, has its own guard, and lives on without harm", function()
    local result = run([[
      local posix = require("spec.support.posix")
      local mine = create()
      local child = posix.fork()
      if child == 0 then
        local ok = pcall(function()
          assert(mine:release() == false)
          create()
        end)
        posix.exit(ok and 0 or 1)
      end
      assert(posix.wait(child) == 0)
      e2b.sleep(0.3)                       -- the child's guard is at work
      assert(mine:get_info().state == "running", "the child's end has killed it")
      create()
      -- this one never calls the library, and outlives its parent
      local bystander = posix.fork()
      if bystander == 0 then posix.exec("sh", "-c", "exec sleep 1 >/dev/null 2>&1 </dev/null") end
      bystander = posix.fork()
      if bystander == 0 then
        for fd = 0, 2 do posix.close(fd) end
        posix.poll(posix.pipe(), 20)
        posix.exit(0)
      end
      io.stdout:write("bystander ", bystander, "\n")
    ]])
    assert.equal(0, result.code, result.err)
    local seconds = support.timed(assert_cleaned, result, 3)
    os.execute("kill -KILL " .. result.out:match("bystander (%d+)") .. " 2>/dev/null")
    assert.is_true(seconds < 5 * slack, "the guard waited for the bystander: " .. seconds .. " s")
  end)

  for _, wrap in ipairs({ false, "sh -c 'trap \"\" PIPE; exec \"$@\"' sh" }) do
    it("makes another guard for one that was killed, and says so" .. (wrap and " (SIGPIPE ignored)" or ""), function()
      local result = run([[
        local function kill()
          local pid = assert(guard_of_mine())
          os.execute("kill -KILL " .. pid)
          while io.open("/proc/" .. pid .. "/cmdline") do e2b.sleep(0.01) end
        end
        local first = create()
        kill()
        local second = create()            -- found by a create
        kill()
        assert(first:kill())               -- found by a kill
        assert(guard_of_mine(), "there is none")
        signal("KILL")
      ]], { wrap = wrap or nil })
      local _, told = result.err:gsub("the guard process %d+ of kill_on_exit has ended before its time", "")
      assert.equal(2, told, result.err)
      assert_cleaned(result)
    end)
  end

  it("fails before anything is sent where no Lua is found", function()
    local result = run([[
      local sandbox, message, err = Sandbox.create({ kill_on_exit = true })
      assert(not sandbox and err.kind == "unsupported" and err.sent == "no", message)
      print(message)
      print(select(2, Sandbox.connect("i1", { kill_on_exit = true })))
      assert(Sandbox.create())
    ]], { env = { E2B_LUA = "/no/such/lua" } })
    assert.equal(0, result.code, result.err)
    assert.matches("^Sandbox.create: kill_on_exit needs a process of its own", result.out)
    assert.matches("E2B_LUA", result.out, 1, true)
    assert.matches("/no/such/lua", result.out, 1, true)
    assert.equal(1, count("POST"))
    -- a program that is no Lua, or one that can't load the library
    result = run([[
      local sandbox, message, err = Sandbox.create({ kill_on_exit = true })
      assert(not sandbox and err.kind == "unsupported", message)
    ]], { env = { E2B_LUA = "true" } })
    assert.equal(0, result.code, result.err)
  end)

  it("says so when a process can't be started", function()
    local result = run([[
      require("e2b.guard_process") require("e2b.kill_on_exit") require("e2b.sandbox_create") require("e2b.interpreter")
      local files = {}
      repeat
        local file = io.open("/dev/null")
        files[#files + 1] = file
      until not file
      for _ = 1, 2 do table.remove(files):close() end -- for /dev/null and for one of a pair
      local sandbox, message, err = Sandbox.create({ kill_on_exit = true })
      assert(not sandbox and err.kind == "unsupported" and err.sent == "no", message)
      print(message)
    ]], { wrap = "sh -c 'ulimit -n 64; exec \"$@\"' sh" })
    assert.equal(0, result.code, result.err)
    assert.matches("none can be started: ", result.out, 1, true)
    assert.equal(0, count("POST"))
  end)

  it("says to whoever starts it by hand that the library does that", function()
    local output, code = support.shell(support.lua_command() .. " bin/e2b guard </dev/null")
    assert.equal(1, code)
    assert.equal("e2b guard: the library starts this by itself, for sandboxes created with kill_on_exit\n", output)
  end)

  it("keeps to the deadline of its create when the guard doesn't come", function()
    local mark = new_mark()
    local lua = mark .. "/sleeper"
    support.write_file(lua, "#!/bin/sh\nexec sleep 5\n")
    os.execute("chmod +x " .. lua)
    local result = run(([[
      local began = core.now()
      local sandbox, message, err = Sandbox.create({ kill_on_exit = true, request_timeout = 0.5 })
      assert(not sandbox and err.kind == "timeout" and err.sent == "no", message)
      assert(core.now() - began < 0.5 + %g, core.now() - began)
    ]]):format(support.tolerance), { env = { E2B_LUA = lua } })
    assert.equal(0, result.code, result.err)
    assert.equal(0, count("POST"))
  end)

  it("fails when the guard is stopped, rather than wait for it for ever", function()
    local result = run([[
      local posix = require("spec.support.posix")
      create()
      local guard = client:guard()
      os.execute("kill -STOP " .. guard_of_mine())
      for i = 1, 4000 do guard:expect(("x"):rep(200) .. i, 0) end   -- more than the socket has room for
      local sandbox, message, err = Sandbox.create({ kill_on_exit = true, request_timeout = 0.5 })
      assert(not sandbox and (err.kind == "timeout" or err.kind == "busy") and err.sent == "no", message)
      for i = 1, 4000 do guard:forget(("x"):rep(200) .. i) end
    ]])
    assert.equal(0, result.code, result.err)
    for _, pid in ipairs(guards(result.mark)) do os.execute("kill -KILL " .. pid) end
    wait_for_guards(result.mark)
  end)
end)
