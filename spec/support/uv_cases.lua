-- What is to hold in Neovim as well as in a luv script: each case is a program of its own, run by
-- `run(source, options)`.
local support = require("spec.support.support")
local peer = require("spec.support.peer")
local local_server = require("e2b.server")

-- A spec file has assert from busted; this one has not.
local assert = require("luassert")

local cases = {}

-- Before each program: `uv` is libuv, `try(fn)` runs the host's loop until fn() is true, `alive()` counts the handles
-- that this library has made and not closed (Neovim can't walk its own handles).
cases.PRELUDE = [[
local uv = vim and (vim.uv or vim.loop) or require("luv")
local handles = {}
for _, name in ipairs({ "new_poll", "new_timer" }) do
  local make = uv[name]
  uv[name] = function(...)
    local handle = make(...)
    handles[#handles + 1] = handle
    return handle
  end
  uv["plain_" .. name] = make
end
local e2b = require("e2b")
local core = require("e2b.core")
if not vim then e2b.use_loop("uv") end
local function alive()
  local count = 0
  for _, handle in ipairs(handles) do
    if not handle:is_closing() then count = count + 1 end
  end
  return count
end
local function try(fn)
  if vim then return vim.wait(10000, fn, 5) end
  local bound = uv.plain_new_timer()
  local over = false
  bound:start(10000, 0, function() over = true end)
  local tick = uv.plain_new_timer()
  tick:start(5, 5, function() end)
  while not over and not fn() do uv.run("once") end
  bound:close()
  tick:close()
  uv.run("nowait") -- luv 1.44 crashes at the end of a script that has left something half closed
  return not over
end
-- The largest pause between two ticks of a timer of the host's while fn runs, in seconds.
local function ticking(fn, ...)
  local timer, last, most, count = uv.plain_new_timer(), core.now(), 0, 0
  timer:start(10, 10, function()
    local now = core.now()
    most, last, count = math.max(most, now - last), now, count + 1
  end)
  local began = core.now()
  fn(...)
  local took = core.now() - began
  timer:stop()
  timer:close()
  if not vim then uv.run("nowait") end
  return { most = most, count = count, took = took }
end
local function client(url, more)
  local all = { api_url = url, sandbox_url = url, api_key = "key", getenv = function() end, retries = 0 }
  for name, value in pairs(more or {}) do all[name] = value end
  return e2b.client(all)
end
local function check(value, ...)
  if not value then error((...) and tostring((...)) or "a check failed", 2) end
  return value, ...
end
local SLACK = tonumber(os.getenv("E2B_SPEC_SLACK") or "") or 1
local URL = os.getenv("URL")
]]

--- Defines the specs.
---@param busted { it: function, setup: function, teardown: function } which only a spec file itself is given
---@param run fun(source: string, options: table): { out: string, err: string, code: integer }
---@param quit string Lua source that ends the host from its own loop
function cases.define(busted, run, quit)
  local it, setup, teardown = busted.it, busted.setup, busted.teardown
  local server, slow

  setup(function()
    server = local_server.start()
    slow = peer.answers({ { status = 200, body = "[]", delay = 0.3 } })
  end)
  teardown(function()
    slow:stop()
    server:stop()
    support.cleanup()
  end)

  local function program(source, env, options)
    local all = { E2B_SPEC_SLACK = tostring(support.slack) }
    for name, value in pairs(server.env) do all[name] = value end
    for name, value in pairs(env or {}) do all[name] = value end
    options = options or {}
    options.env = all
    local result = run(cases.PRELUDE .. source, options)
    if result.code ~= 0 then error("ended with " .. result.code .. ":\n" .. result.out .. result.err, 2) end
    return result
  end

  local function fine(source, env, options)
    local result = program(source, env, options)
    assert.equal("", result.err)
    return result.out
  end

  it("makes five calls of 300 ms at once, while its timers tick, and leaves nothing", function()
    assert.equal("5\t0\t0\n", fine([[
      local c = client(URL)
      local results, failed
      local list = {}
      for i = 1, 5 do list[i] = i end
      check(c:request("GET", "/warm")) -- what is loaded once doesn't count
      local ticks = ticking(function()
        results, failed = e2b.map(list, function() return c:request("GET", "/x") end)
      end)
      check(failed == 0, results[1].message)
      check(ticks.took >= 0.3 and ticks.took < 0.3 + 0.15 * SLACK, ticks.took)
      check(ticks.most < 0.1 * SLACK, ticks.most)
      print(#results, alive(), core.stats().in_flight)
    ]], { URL = slow.url }))
  end)

  it("waits in the main program, while its timers tick", function()
    assert.equal("waited\t0\n", fine([[
      local ticks = ticking(function() check(client(URL):request("GET", "/x")) end)
      check(ticks.count >= 10 / SLACK and ticks.most < 0.1 * SLACK, ticks.count)
      ticks = ticking(function() check(e2b.sleep(0.2)) end)
      check(ticks.took >= 0.2 and ticks.took < 0.2 + 0.1 * SLACK, ticks.took)
      print("waited", alive())
    ]], { URL = slow.url }))
  end)

  it("runs spawned tasks by itself, and ends when they have", function()
    assert.equal("spawned\ndone\t0\n", fine([[
      local c = client(URL)
      e2b.spawn(function()
        check(e2b.sleep(0.01))
        return c:request("GET", "/x")
      end, function(value, message)
        check(value, message)
        if vim then vim.api.nvim_buf_set_lines(0, 0, -1, false, { "from a task" }) end
        check(e2b.sleep(0.01)) -- may wait, too
        print("done", alive() > 2 and alive() or 0)
        ]] .. quit .. [[
      end)
      print("spawned")
      if not vim then
        uv.run()
        check(alive() == 0)
        uv.walk(function(handle) error("left: " .. tostring(handle)) end)
      end
    ]], { URL = slow.url }, { stays = true }))
  end)

  it("streams a command's output while other calls go on", function()
    local out = fine([[
      local sandbox = check(e2b.Sandbox.create("base", { timeout = 60 }))
      local seen, calls, done = {}, 0, false
      e2b.spawn(function()
        local handle = check(sandbox.commands:start("for i in 1 2 3 4; do echo $i; sleep 0.3; done"))
        for line in handle:lines() do seen[#seen + 1] = line .. (calls > 0 and "+" or "") end
        return handle:wait()
      end, function(result, message)
        check(result, message)
        done = true
      end)
      e2b.spawn(function()
        repeat
          check(e2b.Sandbox.get_info(sandbox.sandbox_id))
          calls = calls + 1
        until done
      end)
      check(try(function() return done end))
      check(e2b.run(5))
      check(calls > 4, calls)
      check(sandbox:kill())
      print(table.concat(seen, " "), alive())
    ]])
    assert.matches("^1%+? 2%+ 3%+ 4%+\t0\n$", out)
  end)

  it("refuses to wait in a callback, and says what to do; a task made there works", function()
    local out = fine([[
      local c = client(URL)
      local kind, message, value
      local timer = uv.plain_new_timer()
      timer:start(1, 0, function()
        timer:close()
        local _, why, err = c:request("GET", "/x")
        kind, message = err.kind, why
        e2b.spawn(function() return c:request("GET", "/x") end, function(answer) value = answer end)
      end)
      check(try(function() return value end), "no answer")
      print(kind, message)
    ]], { URL = slow.url })
    assert.matches("^unsupported\t.*e2b%.spawn", out)
  end)

  it("tells a task about a dead network, a wrong key and a vanished sandbox, and raises nothing", function()
    local out = fine([[
      local sandbox = check(e2b.Sandbox.create("base", { timeout = 60 }))
      local gone = check(e2b.Sandbox.create("base", { timeout = 60 }))
      local handle
      local seen, open = {}, 4
      local function told(name)
        return function(value, message, err)
          seen[#seen + 1] = name .. "=" .. tostring(not value and err.kind)
          open = open - 1
        end
      end
      e2b.spawn(function() return client("http://127.0.0.1:1"):request("GET", "/x") end, told("offline"))
      e2b.spawn(function()
        return e2b.client({ api_key = "e2b_" .. ("0"):rep(40) }).Sandbox.get_info(sandbox.sandbox_id)
      end, told("key"))
      e2b.spawn(function()
        handle = check(gone.commands:start("sleep 30"))
        return handle:wait()
      end, told("stream"))
      check(try(function() return handle end))
      e2b.spawn(function()
        check(e2b.Sandbox.kill(gone.sandbox_id))
        return gone.commands:run("true")
      end, told("command"))
      check(try(function() return open == 0 end), "not all were told")
      check(sandbox:kill())
      table.sort(seen)
      print(table.concat(seen, " "), alive())
    ]])
    assert.equal("command=sandbox_gone key=authentication offline=network stream=sandbox_gone\t0\n", out)
  end)

  it("reports an error in a task with its traceback, and the others get their results", function()
    local result = program([[
      local c = client(URL)
      local value
      e2b.spawn(function()
        c:request("GET", "/x")
        local function deep() error("broken here") end
        deep()
      end)
      e2b.spawn(function() return c:request("GET", "/x") end, function(answer)
        value = answer
        error("broken at the end")
      end)
      check(try(function() return value end), "no answer")
      check(e2b.run(5))
      if vim then vim.wait(20) end
      print("goes on", alive())
    ]], { URL = slow.url })
    assert.equal("goes on\t0\n", result.out)
    assert.matches("broken here", result.err, 1, true)
    assert.matches("'deep'", result.err, 1, true)
    assert.matches("broken at the end", result.err, 1, true)
    assert.matches("stack traceback:", result.err, 1, true)
  end)

  it("never yields to the consumer of a coroutine that isn't its own", function()
    assert.equal("2\n", fine([[
      local c = client(URL)
      local rows = {}
      for row in coroutine.wrap(function()
        for i = 1, 2 do
          check(c:request("GET", "/x"))
          coroutine.yield(i)
        end
      end) do rows[#rows + 1] = row end
      print(#rows)
    ]], { URL = slow.url }))
  end)

  it("keeps a deadline, and cancels", function()
    assert.equal("request_timeout\tcancelled\t0\t0\n", fine([[
      local c = client(URL, { request_timeout = 0.1 })
      local deadline
      local ticks = ticking(function() deadline = select(3, c:request("GET", "/x")).deadline end)
      check(ticks.took < 0.1 + 0.1 * SLACK, ticks.took)
      local kind
      local task = e2b.spawn(function() return client(URL):request("GET", "/x") end, function(_, _, err)
        kind = err.kind
      end)
      check(try(function() return core.stats().in_flight == 1 end))
      task:cancel()
      check(try(function() return kind end))
      print(deadline, kind, core.stats().in_flight, alive())
    ]], { URL = slow.url }))
  end)

  it("survives e2b.close() beside a call, and works after it", function()
    assert.equal("cancelled\tworks\t0\n", fine([[
      local c = client(URL)
      local kind
      e2b.spawn(function() return c:request("GET", "/x") end, function(_, _, err) kind = err.kind end)
      check(try(function() return core.stats().in_flight == 1 end))
      e2b.close()
      check(try(function() return kind end))
      check(c:request("GET", "/x"))
      e2b.close()
      print(kind, "works", alive())
    ]], { URL = slow.url }))
  end)

  it("ends although calls are under way", function()
    local took = support.timed(program, [[
      e2b.spawn(function() return client(URL):request("GET", "/x") end)
      e2b.sleep(0.05)
      check(core.stats().in_flight == 1)
      if not vim then os.exit(0, true) end
    ]], { URL = slow.url })
    assert.is_true(took < 5 * support.slack)
  end)
end

return cases
