-- Workers of a real nginx with Debian's Lua module as a host. It has a LuaJIT of its own, so one Lua is enough to drive
-- it with.
local e2b = require("e2b")
local guards = require("spec.support.guards")
local hosts = require("spec.hosts.init")
local nginx = require("spec.support.nginx")
local support = require("spec.support.support")

if not rawget(_G, "jit") then
  describe("nginx", function()
    it("is looked at by the specs on LuaJIT", function() end)
  end)
  return
end

local EXTRA = 1.5 -- seconds that a busy machine may take for more than what is waited for

local server, front

setup(function() server = require("e2b.server").start() end)
teardown(function()
  server:stop()
  support.cleanup()
end)

-- Starts nginx; without a complaint in its log unless it is expected, and ended for sure.
local function with(options, fn, expected)
  local env = { E2B_SPEC_PEER = options.peer }
  for name, value in pairs(server.env) do env[name] = value end
  for name, value in pairs(options.env or {}) do env[name] = value end
  options.env = env
  front = nginx.start(options)
  local ok, raised = xpcall(fn, debug.traceback, front)
  local complaints = front:complaints(expected)
  local log = front:log()
  front:stop()
  if not ok then error(tostring(raised) .. "\n" .. log:sub(-3000), 0) end
  assert.equal("", complaints)
  support.assert_no_secret(server.api_key, log)
end

local function page(path, source) return ("location = %s { content_by_lua_block { %s } }\n"):format(path, source) end

local LIST = page("/list", [[
  local e2b = require("e2b")
  local list, message, err = e2b.Sandbox.list():all()
  if not list then
    ngx.status = 502
    return ngx.say(err.kind, ": ", message)
  end
  ngx.say(#list)
]])
local TRIVIAL = page("/trivial", "ngx.say('trivial')")
local WAY = page("/way", [[ngx.say(tostring((require("e2b.loop.nginx").woken_by())))]])

local FLYING = page("/flying", [[ngx.say(require("e2b.core").stats().in_flight)]])

local function flying(n)
  support.wait_for(function() return n:get("/flying") == "1\n" end, 5, "a call of the worker's")
end

local function on_server()
  local client = e2b.client({ getenv = function(name) return server.env[name] end })
  return #assert(client.Sandbox.list():all())
end

local function threads(pid)
  return tonumber((support.shell("ls /proc/" .. pid .. "/task | wc -l")))
end

local function idle_worker(pid)
  support.wait_for(function() return threads(pid) == 1 end, 5, "the end of the driver's thread")
end

describe("nginx:", function()
  hosts.declare(function(env, wrap)
    local output
    local options = { server = nginx.RUN, env = env, wrap = wrap }
    front = nginx.start(options)
    output = front:run(support.read_file("spec/hosts/nginx.lua"))
    local complaints = front:complaints()
    front:stop()
    return output .. "\n" .. complaints
  end)
end)

describe("a worker of nginx", function()
  after_each(function()
    server:set({ latency = false })
    server:clear()
    if front then front:stop() end
    front = nil
  end)

  it("goes on serving while 50 calls wait, and learns of their answers without polling", function()
    with({ server = LIST .. TRIVIAL .. WAY .. nginx.RUN }, function(n)
      n:get("/list")
      server:set({ latency = 0.5 })
      local paths = {}
      for i = 1, 50 do paths[i] = "/list" end
      paths[51] = "/trivial"
      local bodies, seconds = n:burst(paths)
      for i = 1, 50 do assert.equal("0\n", bodies[i]) end
      assert.equal("trivial\n", bodies[51])
      assert.is_true(seconds >= 0.5 and seconds < 0.5 + EXTRA * support.slack, "took " .. seconds .. " s")
      assert.equal("bridge\n", (n:get("/way")))
      server:set({ latency = false })
      local took = n:run([[
        local e2b, now = require("e2b"), require("e2b.core").now
        local began = now()
        for _ = 1, 20 do assert(e2b.Sandbox.list():all()) end
        ngx.print(now() - began)
      ]])
      assert.is_true(tonumber(took) < EXTRA * support.slack, "20 calls, one after the other, took " .. took .. " s")
    end)
  end)

  it("uses no CPU while calls wait, and none when they are over", function()
    with({ server = LIST .. FLYING }, function(n)
      local pid = n:workers()[1]
      local function ticks()
        local stat = support.read_file("/proc/" .. pid .. "/stat")
        local user, system = stat:match("%) %S" .. (" %S+"):rep(10) .. " (%d+) (%d+)")
        return tonumber(user) + tonumber(system)
      end
      n:get("/list")
      local function switches()
        return tonumber(support.read_file("/proc/" .. pid .. "/status"):match("\nvoluntary_ctxt_switches:%s*(%d+)"))
      end
      server:clear()
      server:set({ fail_next = { method = "GET", path = "/v2/sandboxes", delay = 1.5 * support.slack, count = 5 } })
      local pipe = io.popen(("for i in 1 2 3 4 5; do curl -s %s/list & done; wait"):format(n.url))
      support.wait_for(function() return n:get("/flying") == "5\n" end, 5, "the calls of the worker's")
      support.sleep(0.1) -- what they begin with
      local waiting = switches()
      support.sleep(0.6)
      local wakes = switches() - waiting
      assert.equal("5\n", (n:get("/flying")))
      pipe:close()
      assert.is_true(wakes <= 15, "woken " .. wakes .. " times in 0.6 s of waiting")
      idle_worker(pid)
      local ticks_before, switches_before = ticks(), switches()
      support.sleep(0.3)
      assert.is_true(ticks() - ticks_before <= 1)
      assert.is_true(switches() - switches_before <= 5)
    end)
  end)

  it("goes on serving while output pours in", function()
    local pour = page("/pour", [[
      local e2b = require("e2b")
      e2b.with({}, function(sandbox)
        ngx.say("begun")
        ngx.flush()
        e2b.map({ 1, 2, 3 }, function()
          return sandbox.commands:run("yes", { timeout = 3, max_output = 1000 })
        end)
      end)
    ]])
    with({ server = pour .. TRIVIAL }, function(n)
      local pipe = io.popen("curl -sN " .. n.url .. "/pour")
      assert.equal("begun", pipe:read("*l"))
      local began, longest, served = support.now(), 0, 0
      while support.now() - began < 2.5 do
        local seconds, body = support.timed(n.get, n, "/trivial")
        assert.equal("trivial\n", body)
        longest, served = math.max(longest, seconds), served + 1
      end
      pipe:close()
      assert.is_true(longest < 0.5 * support.slack, ("one of %d took %.2f s"):format(served, longest))
    end)
  end)

  it("falls to short steps where a bridge can't be had, says so once, and answers all the same", function()
    with({
      http = [[init_by_lua_block { require("e2b.loop.nginx").folders = { "/nowhere" } }]],
      server = LIST .. nginx.RUN,
    }, function(n)
      assert.equal("0\n", (n:get("/list")))
      assert.equal("steps, /nowhere: No such file or directory\n",
        (n:run([[local way, why = require("e2b.loop.nginx").woken_by() ngx.say(way, ", ", why)]])))
      server:set({ latency = 0.5 })
      local paths = {}
      for i = 1, 20 do paths[i] = "/list" end
      local bodies, seconds = n:burst(paths)
      for i = 1, 20 do assert.equal("0\n", bodies[i]) end
      assert.is_true(seconds < 0.5 + EXTRA * support.slack, "took " .. seconds .. " s")
      local _, said = n:log():gsub("no bridge to the engine", "")
      assert.equal(1, said)
    end, { "no bridge to the engine" })
  end)

  it("leaves nothing of a driver behind: no thread, descriptor, timer or file", function()
    local folder = support.tmpdir()
    with({ server = LIST .. WAY .. nginx.RUN, env = { TMPDIR = folder } }, function(n)
      local pid = n:workers()[1]
      local function fds() return (support.shell("ls /proc/" .. pid .. "/fd | wc -l")) end
      local function timers() return n:run("ngx.say(ngx.timer.running_count(), ' ', ngx.timer.pending_count())") end
      n:get("/list")
      assert.equal("bridge\n", (n:get("/way")))
      idle_worker(pid)
      support.wait_for(function() return timers() == "0 0\n" end)
      local before = fds()
      for _ = 1, 5 do
        n:get("/list")
        idle_worker(pid)
      end
      support.wait_for(function() return timers() == "0 0\n" end, 5, "the end of its timer")
      assert.equal(before, fds())
      assert.equal("", (support.shell("ls -A " .. folder)))
    end)
    support.cleanup(folder)
  end)

  it("works as another user, without rights on anything but /tmp", function()
    if support.shell("id -u") ~= "0\n" then return end
    local here = support.shell("pwd"):match("[^\n]+")
    local _, unreadable = support.shell("setpriv --reuid 65534 --clear-groups test -r " .. here .. "/lua/e2b/init.lua")
    if unreadable ~= 0 then return end
    with({ server = LIST .. WAY, user = "nobody nogroup" }, function(n)
      assert.equal("0\n", (n:get("/list")))
      assert.equal("bridge\n", (n:get("/way")))
    end)
  end)

  it("suspends in the phases that may, and refuses in the others with the way out", function()
    local say = [[
      local e2b = require("e2b")
      local list, message, err = e2b.Sandbox.list():all()
      ngx.log(ngx.NOTICE, "AT ", ngx.get_phase(), ": ", list and "answered" or err.kind .. ": " .. message)
    ]]
    with({
      http = ([[
        init_by_lua_block { SAY }
        init_worker_by_lua_block { SAY ngx.timer.at(0, function() SAY end) }
        exit_worker_by_lua_block { SAY }
        upstream back { server 127.0.0.1:1; balancer_by_lua_block { SAY ngx.exit(444) } }
      ]]):gsub("SAY", function() return say end),
      server = ([[
        location = /phases {
          set_by_lua_block $x { SAY return 1 }
          rewrite_by_lua_block { SAY }
          access_by_lua_block { SAY }
          content_by_lua_block { SAY ngx.say("said") }
          header_filter_by_lua_block { SAY }
          body_filter_by_lua_block { SAY }
          log_by_lua_block { SAY }
        }
        location = /balancer { proxy_pass http://back; }
      ]]):gsub("SAY", function() return say end),
    }, function(n)
      assert.equal("said\n", (n:get("/phases")))
      n:get("/balancer")
      n:quit()
      local at = {}
      for phase, what in n:log():gmatch("AT ([%w_]+): ([^\n]*)") do at[phase] = what end
      for _, phase in ipairs({ "init", "timer", "rewrite", "access", "content", "exit_worker" }) do
        assert.equal("answered", (at[phase] or "nothing"):match("^%w+"), phase)
      end
      for _, phase in ipairs({ "init_worker", "set", "header_filter", "body_filter", "log", "balancer" }) do
        local said = at[phase] or "nothing"
        assert.equal("unsupported", said:match("^%w+"), phase .. ": " .. said)
        assert.truthy(said:find("nginx can't wait in the phase " .. phase .. ": make this call in a timer, "
          .. "ngx.timer.at(0, function()", 1, true), said)
      end
    end, { "while connecting to upstream", "balancer" })
  end)

  it("may have been preceded by calls of the master, and there may be several", function()
    with({
      workers = 2,
      http = [[init_by_lua_block {
        e2b = require("e2b")
        AT_START = assert(e2b.Sandbox.create({ metadata = { by = "master" } })).sandbox_id
      }]],
      server = page("/info", [[
        local sandbox = assert(e2b.Sandbox.get_info(AT_START))
        ngx.say(ngx.worker.pid(), " ", sandbox.metadata.by)
      ]]) .. page("/kill", "ngx.say(tostring(e2b.Sandbox.kill(AT_START)))"),
    }, function(n)
      local seen, count = {}, 0
      support.wait_for(function()
        local paths = {}
        for i = 1, 20 do paths[i] = "/info" end
        for _, body in ipairs((n:burst(paths))) do
          local pid, by = body:match("^(%d+) (%w+)\n$")
          assert.equal("master", by, body)
          if not seen[pid] then seen[pid], count = true, count + 1 end
        end
        return count == 2
      end, 20, "an answer of each worker")
      assert.equal("true\n", (n:get("/kill")))
    end)
  end)

  it("finishes what waits before it exits, and exits at once when nothing does", function()
    with({ server = LIST }, function(n)
      n:get("/list")
      local idle = n:quit()
      assert.is_true(idle < 1 * support.slack, "took " .. idle .. " s")
    end)
    with({ server = LIST .. FLYING }, function(n)
      n:get("/list")
      server:clear()
      server:set({ fail_next = { method = "GET", path = "/v2/sandboxes", delay = 1 } })
      local pipe = io.popen("curl -sS " .. n.url .. "/list")
      flying(n)
      local seconds = n:quit()
      assert.equal("0\n", pipe:read("*a"))
      pipe:close()
      assert.is_true(seconds > 0.5 and seconds < 1 + EXTRA * support.slack, "took " .. seconds .. " s")
    end)
  end)

  it("is replaced by a reload while calls wait", function()
    with({ server = LIST .. FLYING .. page("/version", "ngx.say('old')") }, function(n)
      n:get("/list")
      local old = n:workers()[1]
      server:clear()
      server:set({ fail_next = { method = "GET", path = "/v2/sandboxes", delay = 1 } })
      local pipe = io.popen("curl -sS " .. n.url .. "/list")
      flying(n)
      n:configure({ server = LIST .. page("/version", "ngx.say('new')") })
      n:reload()
      assert.equal("0\n", pipe:read("*a"))
      pipe:close()
      server:set({ latency = false })
      support.wait_for(function() return n:get("/version") == "new\n" end)
      assert.equal("0\n", (n:get("/list")))
      support.wait_for(function()
        return select(2, support.shell("kill -0 " .. old)) ~= 0
      end, 5, "the old worker's end")
    end)
  end)

  it("has a guard of its own: what it created with kill_on_exit goes when it does, however that is", function()
    local create = page("/create", [[
      ngx.say(assert(require("e2b").Sandbox.create({ kill_on_exit = true, timeout = 300 })).sandbox_id)
    ]])
    with({ server = create }, function(n)
      for _, how in ipairs({ "KILL", "QUIT" }) do
        local pid = n:workers()[1]
        assert.matches("^i%w+\n$", (n:get("/create")))
        assert.matches("^i%w+\n$", (n:get("/create")))
        assert.equal(2, on_server())
        support.shell("kill -" .. how .. " " .. pid) -- the master starts another one
        support.wait_for(function() return on_server() == 0 end, 10, "the guard's kills after SIG" .. how)
        support.wait_for(function()
          local now = n:workers()
          return #now == 1 and now[1] ~= pid
        end, 10, "the next worker")
      end
    end, { "exited on signal 9" })
  end)

  it("ends at once when it is told to, whatever waits", function()
    with({
      server = LIST .. FLYING,
      http = [[exit_worker_by_lua_block {
        local list, message = require("e2b").Sandbox.list({ request_timeout = 5 }):all()
        ngx.log(ngx.NOTICE, "AT THE END: ", list and "answered" or message)
      }]],
    }, function(n)
      n:get("/list")
      server:set({ fail_next = { method = "GET", path = "/v2/sandboxes", delay = 20 } })
      local pipe = io.popen("curl -s " .. n.url .. "/list; echo ended")
      flying(n)
      n:signal("TERM")
      support.wait_for(function() return not n:alive() end, 5, "the end")
      pipe:close()
      assert.truthy(n:log():find("AT THE END: answered", 1, true))
    end)
  end)

  it("makes up for timers that can't be had", function()
    for _, limit in ipairs({ "lua_max_running_timers 1;", "lua_max_pending_timers 1;" }) do
      with({
        http = limit .. [[ init_worker_by_lua_block {
          ngx.timer.at(]] .. (limit:find("running") and "0" or "3") .. [[, function() ngx.sleep(3) end)
        }]],
        server = LIST,
      }, function(n)
        server:set({ latency = 0.3 })
        local paths = {}
        for i = 1, 10 do paths[i] = "/list" end
        local bodies, seconds = n:burst(paths)
        for i = 1, 10 do assert.equal("0\n", bodies[i]) end
        assert.is_true(seconds < 0.3 + EXTRA * support.slack, limit .. " took " .. seconds .. " s")
        server:set({ latency = false })
      end, { "lua_max_running_timers are not enough" })
    end
  end)

  it("has another driver when one has ended by an error, for those who wait already", function()
    with({ server = nginx.RUN }, function(n)
      server:set({ latency = 0.3 })
      local took = n:run([[
        local e2b, now = require("e2b"), require("e2b.core").now
        assert(e2b.Sandbox.list():all()) -- now there is a driver, and it stays for a moment
        local semaphore = require("ngx.semaphore")
        local wait, left = semaphore.wait, 1
        function semaphore.wait(self, seconds)
          if left > 0 and ngx.get_phase() == "timer" then
            left = 0
            error("broken")
          end
          return wait(self, seconds)
        end
        local began = now()
        assert(e2b.Sandbox.list():all())
        assert(left == 0)
        ngx.say(now() - began)
      ]])
      assert.is_true(tonumber(took) < 0.3 + 0.25 + EXTRA * support.slack, took)
    end, { "the driver ended" })
  end)

  it("has one guard, which kills what it left, however it ended", function()
    local mark = support.tmpdir()
    local create = page("/create", [[
      ngx.say(assert(require("e2b").Sandbox.create({ kill_on_exit = true })).sandbox_id)
    ]])
    with({ server = create, workers = 1, env = { TMPDIR = mark } }, function(n)
      local function made()
        for _ = 1, 2 do assert.matches("^i%w+\n$", (n:get("/create"))) end
        assert.equal(2, on_server())
        assert.equal(1, #guards(mark))
      end
      local function cleaned(how)
        support.wait_for(function() return on_server() == 0 end, 10, "the kills after " .. how)
        support.wait_for(function() return #guards(mark) == 0 end, 10, "the end of the guard after " .. how)
      end
      made()
      support.shell("kill -KILL " .. n:workers()[1])
      cleaned("a SIGKILL")
      made()
      n:reload()
      cleaned("a reload")
      made()
      n:quit()
      cleaned("the end")
    end, { "exited on signal 9" })
  end)

  it("has one driver, also when a handler holds it up before that is there", function()
    with({ server = nginx.RUN }, function(n)
      server:set({ latency = 0.3 })
      assert.equal("2 answers, 1 timer\n", (n:run([[
        local e2b, core = require("e2b"), require("e2b.core")
        local function list() return assert(e2b.Sandbox.list():all()) end
        local first = ngx.thread.spawn(list)
        local until_then = core.now() + 0.15
        while core.now() < until_then do end
        local second = ngx.thread.spawn(list)
        local answers = 0
        while ngx.timer.pending_count() > 0 do ngx.sleep(0.01) end
        ngx.sleep(0.05)
        local timers = ngx.timer.running_count()
        for _, thread in ipairs({ first, second }) do answers = answers + (ngx.thread.wait(thread) and 1 or 0) end
        ngx.say(answers, " answers, ", timers, " timer")
      ]])))
    end)
  end)

  it("has a driver for each request when lua_code_cache is off", function()
    with({ http = "lua_code_cache off;", server = LIST .. WAY }, function(n)
      local pid = n:workers()[1]
      server:set({ latency = 0.2 })
      local bodies = n:burst({ "/list", "/list", "/list" })
      for i = 1, 3 do assert.equal("0\n", bodies[i]) end
      idle_worker(pid)
      assert.equal("0\n", (n:get("/list")))
    end, { "lua_code_cache is off" })
  end)
end)

describe("a request of nginx that dies", function()
  before_each(function() server:clear() end)
  after_each(function()
    if front then front:stop() end
    front = nil
    -- Of a spec that failed half way.
    local client = e2b.client({ getenv = function(name) return server.env[name] end })
    for _, sandbox in ipairs(assert(client.Sandbox.list():all())) do sandbox:kill() end
  end)

  local CREATE = [[
    local e2b = require("e2b")
    local sandbox = assert(e2b.Sandbox.create())
    ngx.say(sandbox.sandbox_id)
  ]]

  -- Waits until the server has answered a create and then a kill.
  local function wait_for_kill()
    support.wait_for(function()
      local created, killed
      for _, request in ipairs((server:requests())) do
        if request.method == "POST" and request.status == 201 then created = true end
        if request.method == "DELETE" and request.status == 204 then killed = true end
      end
      return created and killed
    end, 10, "the kill of the sandbox")
  end

  local function killed_again()
    wait_for_kill()
    assert.equal(0, on_server())
  end

  local function slow_create()
    server:set({ fail_next = { method = "POST", path = "/v2/sandboxes", delay = 0.6 * support.slack } })
  end

  it("because its client went away: what a create brought back is killed", function()
    with({ server = "lua_check_client_abort on;\n" .. page("/create", CREATE) .. LIST }, function(n)
      n:get("/list")
      slow_create()
      assert.equal("000", select(2, n:get("/create", "--max-time " .. 0.3 * support.slack)))
      killed_again()
    end, { "client prematurely closed connection" })
  end)

  it("because another thread of it exits, or ends the one that waits", function()
    with({ server = nginx.RUN .. LIST }, function(n)
      n:get("/list")
      slow_create()
      assert.equal("over\n", (n:run([[
        ngx.thread.spawn(function() ]] .. CREATE .. [[ end)
        ngx.sleep(0.2)
        ngx.say("over")
        ngx.exit(200)
      ]])))
      killed_again()
      server:clear()
      slow_create()
      assert.equal("1\n", (n:run([[
        local thread = ngx.thread.spawn(function() ]] .. CREATE .. [[ end)
        ngx.sleep(0.2)
        ngx.say(tostring(ngx.thread.kill(thread)))
      ]])))
      killed_again()
    end)
  end)

  it("under guard: when what it made was killed, the guard has nothing to look for", function()
    local GUARDED = CREATE:gsub("create%(%)", "create({ kill_on_exit = true })")
    local mark = support.tmpdir()
    local env, text = { TMPDIR = mark }, "lua_check_client_abort on;\n" .. page("/create", GUARDED)
    with({ server = text .. FLYING, env = env }, function(n)
      assert.matches("^i%w+\n$", (n:get("/create"))) -- the guard is there from now on
      server:clear()
      slow_create()
      assert.equal("000", select(2, n:get("/create", "--max-time " .. 0.3 * support.slack)))
      wait_for_kill()
      support.wait_for(function() return n:get("/flying") == "0\n" end, 5, "the answer to that")
      server:clear()
      support.shell("kill -KILL " .. n:workers()[1])
      support.wait_for(function() return on_server() == 0 end, 10, "the guard's kill of the first")
      support.wait_for(function() return #guards(mark) == 0 end, 10, "the end of the guard")
      local kills, looks = 0, 0
      for _, request in ipairs((server:requests())) do
        if request.method == "DELETE" then kills = kills + 1 end
        if request.query:find("e2b_lua_token", 1, true) then looks = looks + 1 end
      end
      assert.equal(1, kills)
      assert.equal(0, looks)
    end, { "client prematurely closed connection", "exited on signal 9" })
  end)

  it("with tasks: what each of them had created is killed", function()
    with({ server = nginx.RUN .. LIST }, function(n)
      n:get("/list")
      server:clear()
      server:set({ fail_next = { method = "POST", path = "/v2/sandboxes", delay = 0.6 * support.slack, count = 3 } })
      assert.equal("over\n", (n:run([[
        local e2b = require("e2b")
        ngx.thread.spawn(function() e2b.map({ 1, 2 }, function() e2b.Sandbox.create() end) end)
        e2b.spawn(function() e2b.Sandbox.create() end)
        repeat ngx.sleep(0.02) until require("e2b.core").stats().in_flight == 3
        ngx.say("over")
        ngx.exit(200)
      ]])))
      local function kills(count)
        support.wait_for(function()
          local killed = 0
          for _, request in ipairs((server:requests())) do
            if request.method == "DELETE" and request.status == 204 then killed = killed + 1 end
          end
          return killed == count
        end, 10, count .. " kills")
        assert.equal(0, on_server())
      end
      kills(3)
      -- And what it waits for itself, beside them.
      server:clear()
      server:set({ fail_next = { method = "POST", path = "/v2/sandboxes", delay = 0.6 * support.slack, count = 2 } })
      assert.equal("over\n", (n:run([[
        local e2b = require("e2b")
        ngx.thread.spawn(function()
          repeat ngx.sleep(0.02) until require("e2b.core").stats().in_flight == 2
          ngx.say("over")
          ngx.exit(200)
        end)
        e2b.spawn(function() e2b.Sandbox.create() end)
        e2b.Sandbox.create()
      ]])))
      kills(2)
    end)
  end)

  it("does not leave the others before a gate that nobody opens", function()
    with({ server = "lua_check_client_abort on;\n" .. page("/create", CREATE) .. LIST }, function(n)
      n:get("/list")
      local refused = { method = "POST", path = "/v2/sandboxes", status = 429, headers = { ["Retry-After"] = "1" } }
      -- Refused, it waits behind the gate and goes through; then its client goes.
      server:set({ fail_next = refused })
      server:set({ fail_next = { method = "POST", path = "/v2/sandboxes", delay = 1 } })
      n:get("/create", "--max-time 1.5")
      local seconds, body = support.timed(n.get, n, "/create")
      assert.truthy(body:find("^i%w+\n$"), body)
      assert.is_true(seconds < 2 + EXTRA * support.slack, "took " .. seconds .. " s")
      -- And one that dies in the queue.
      server:set({ fail_next = refused })
      n:get("/create", "--max-time 0.4")
      seconds, body = support.timed(n.get, n, "/create")
      assert.truthy(body:find("^i%w+\n$"), body)
      assert.is_true(seconds < 2 + EXTRA * support.slack, "took " .. seconds .. " s")
    end, { "client prematurely closed connection" })
  end)

  it("and was driving for want of timers: the next one carries on", function()
    with({
      http = [[lua_max_running_timers 1; init_worker_by_lua_block { ngx.timer.at(0, function() ngx.sleep(2) end) }]],
      server = "lua_check_client_abort on;\n" .. page("/create", CREATE) .. LIST,
    }, function(n)
      slow_create()
      assert.equal("000", select(2, n:get("/create", "--max-time 0.3")))
      support.sleep(2.2)
      n:get("/list")
      killed_again()
    end, { "client prematurely closed connection", "lua_max_running_timers are not enough" })
  end)

  it("lets go of the output that it was reading, in tasks as well", function()
    local function stream(how)
      return page("/" .. how, [[
        local e2b = require("e2b")
        local sandbox = assert(e2b.Sandbox.create())
        ngx.say(sandbox.sandbox_id)
        ngx.flush()
        local function read() assert(sandbox.commands:start("yes", { timeout = 0 })):wait() end
        ]] .. (how == "tasks" and "e2b.map({ 1, 2 }, read)" or "read()"))
    end
    with({ server = "lua_check_client_abort on;\n" .. FLYING .. stream("itself") .. stream("tasks") }, function(n)
      -- Coroutines of nginx hold what they held until they are used again.
      for _, path in ipairs({ "/itself", "/itself", "/itself", "/tasks", "/tasks" }) do
        assert.matches("i%w+\n", (n:get(path, "--max-time " .. 1 * support.slack)))
      end
      support.wait_for(function() return n:get("/flying") == "0\n" end, 10, "the end of what nobody reads")
    end, { "client prematurely closed connection" })
  end)

  it("leaves alone what is not a create: the transfer ends, and nothing is said", function()
    with({ server = "lua_check_client_abort on;\n" .. LIST .. nginx.RUN }, function(n)
      n:get("/list")
      server:set({ fail_next = { method = "GET", path = "/v2/sandboxes", delay = 0.5 } })
      n:get("/list", "--max-time 0.2")
      support.wait_for(function()
        return n:run([[ngx.say(require("e2b.core").stats().in_flight)]]) == "0\n"
      end)
      assert.equal("0\n", (n:get("/list")))
    end, { "client prematurely closed connection" })
  end)
end)

-- A configuration as people have it, in the parts that nginx.start() puts together.
local function parts_of(text)
  text = text:gsub("#[^\n]*", "")
  local main, http = text:match("^(.-)http (%b{})")
  local before, server_block = http:sub(2, -2):match("^(.-)server (%b{})")
  assert(main:find("env E2B_API_KEY;", 1, true))
  -- Which server, port and log it is, is the spec's.
  before = before:gsub("access_log off;", ""):gsub("lua_package_path[^\n]*", "")
  return before, (server_block:sub(2, -2):gsub("listen 8080;", ""))
end

describe("what people are shown of nginx", function()
  after_each(function()
    server:clear()
    if front then front:stop() end
    front = nil
  end)

  it("works: the snippet of the README", function()
    local section = support.read_file("README.md"):match("\n### OpenResty and nginx\n(.-)\n### ")
    local http, inside = parts_of(section:match("```nginx\n(.-)\n```"))
    with({ http = http, server = inside }, function(n)
      assert.equal("done\n\n", (n:get("/run")))
      assert.equal(0, on_server())
    end)
  end)

  describe("works: the example,", function()
    local http, inside = parts_of(support.read_file("examples/nginx/nginx.conf"))
    local files = { ["api.lua"] = support.read_file("examples/nginx/api.lua") }

    it("a JSON API: create, run, kill", function()
      with({ http = http, server = inside, files = files }, function(n)
        local body, status = n:get("/sandboxes", [[-X POST -d '{"timeout": 60}']])
        assert.equal("201", status, body)
        local id = body:match('^{"sandbox_id":"(%w+)"}\n$')
        local path = "/sandboxes/" .. id
        body, status = n:get(path .. "/run", [[-d '{"command": "echo out; echo err >&2; exit 3"}']])
        assert.equal("200", status, body)
        for _, part in ipairs({ '"exit_code":3', '"stdout":"out\\n"', '"stderr":"err\\n"' }) do
          assert.truthy(body:find(part, 1, true), body)
        end
        assert.equal("405", select(2, n:get(path)))
        assert.equal("400", select(2, n:get("/sandboxes", "-d nonsense")))
        assert.equal("400", select(2, n:get(path .. "/run", "-d '{}'")))
        support.write_file(n.prefix .. "/large", '{"command": "' .. (" "):rep(100000) .. '"}')
        assert.equal("413", select(2, n:get(path .. "/run", "--data-binary @" .. n.prefix .. "/large")))
        assert.same({ '{"killed":true}\n', "200" }, { n:get(path, "-X DELETE") })
        assert.same({ '{"killed":false}\n', "200" }, { n:get(path, "-X DELETE") })
        body, status = n:get(path .. "/run", [[-d '{"command": "true"}']])
        assert.equal("404", status)
        assert.truthy(body:find('"kind":"not_found"', 1, true), body)
        assert.equal(0, on_server())
      end, { "is buffered to a temporary file" })
    end)

    it("with a cap on what a worker does at a time, also when clients go away", function()
      files["api.lua"] = files["api.lua"]:gsub("MOST = 50", "MOST = 2")
      with({ http = http, server = inside .. LIST, files = files }, function(n)
        for _ = 1, 2 do
          server:set({ fail_next = { method = "POST", path = "/v2/sandboxes", delay = 1, count = 2 } })
          local command = "curl -s -o /dev/null --max-time 0.6 -d '{}' " .. n.url .. "/sandboxes"
          local _, status = nil, nil
          local pipe = io.popen(command .. " & " .. command .. " & wait")
          support.wait_for(function()
            _, status = n:get("/sandboxes") -- 405, were there room
            return status == "503"
          end)
          pipe:close()
          support.wait_for(function() return on_server() == 0 end)
        end
        local _, status = n:get("/sandboxes", "-d '{}'")
        assert.equal("201", status)
        local client = e2b.client({ getenv = function(name) return server.env[name] end })
        for sandbox in client.Sandbox.list() do sandbox:kill() end
      end, { "client prematurely closed connection" })
    end)
  end)
end)
