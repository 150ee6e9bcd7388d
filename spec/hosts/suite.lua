--- What has to be so on every loop, whichever host it is: the same functions, run inside the host. A host's script
--- makes a table of what only the host can do and calls suite.run with it:
---   together(fns)   runs functions side by side in the host's own way (where it has one, else as tasks), waits for all
---   sleep(seconds)  the host's own sleep, which knows nothing of this library; nil where it has none
---   ticker()        starts a timer of the host every 10 ms; returns a function that stops it: ticks, largest gap (s)
---   leftover()      watchers, timers and coroutines of this library's that the host still has; nil where it has none
--- The environment names a local server (E2B_…), a peer that answers slowly or never (E2B_SPEC_PEER), and
--- E2B_SPEC_SLACK.
local suite = {}

local unpack = table.unpack or unpack -- luacheck: ignore 113 143
local SLOW = 0.3 -- seconds that GET /sandboxes/slow takes at the peer

local e2b, core

local slack = tonumber(os.getenv("E2B_SPEC_SLACK") or "") or 1

local function check(value, ...)
  if not value then error("failed: " .. tostring((...)), 2) end
  return value, ...
end

local function took_between(least, most, began, what)
  local seconds = core.now() - began
  if seconds < least - 0.01 or seconds > most + 0.15 * slack then
    error(("%s took %.3f s, not %.2f to %.2f"):format(what, seconds, least, most), 2)
  end
end

local function slow_client()
  return e2b.client({ api_url = os.getenv("E2B_SPEC_PEER"), api_key = "e2b_0123", retries = 0 })
end

local function slow_call(client)
  local sandbox, message = client.Sandbox.get_info("slow")
  check(sandbox, message)
  check(sandbox.sandbox_id == "slow", sandbox.sandbox_id)
end

local function times(n, value)
  local list = {}
  for i = 1, n do list[i] = value end
  return list
end

-- Each: name, function(host), and `silent = true` for those that run where the name server never answers.
local cases = {}
local function case(name, fn, silent)
  cases[#cases + 1] = { name = name, fn = fn, silent = silent or false }
end

case("five slow calls at once take the time of one", function(host)
  local client = slow_client()
  slow_call(client) -- the connection and the code are there now
  local began = core.now()
  host.together(times(5, function() slow_call(client) end))
  took_between(SLOW, SLOW, began, "five calls")
end)

case("a command's output streams while other calls go on", function(host)
  local client = slow_client()
  local sandbox = check(e2b.Sandbox.create({ timeout = 60 }))
  check(sandbox.commands:run("true"))
  local lines, at = {}, {}
  local began = core.now()
  host.together({
    function()
      local handle = check(sandbox.commands:start("for i in 1 2 3 4 5; do echo line $i; sleep 0.2; done"))
      while true do
        local line = handle:read_line()
        if not line then break end
        lines[#lines + 1], at[#at + 1] = line, core.now() - began
      end
      check(check(handle:wait()).exit_code == 0)
    end,
    function()
      slow_call(client)
      slow_call(client)
    end,
    function() check(sandbox:get_info()) end,
  })
  took_between(1, 1.3, began, "the command beside the calls")
  check(table.concat(lines, ",") == "line 1,line 2,line 3,line 4,line 5", table.concat(lines, ","))
  check(at[1] < 0.5 * slack and at[5] - at[1] > 0.6, ("the lines came at %.2f to %.2f s"):format(at[1], at[5]))
  check(sandbox:kill())
end)

case("tasks work on top", function(host)
  local client = slow_client()
  local began = core.now()
  host.together({
    function()
      local results, failed = e2b.map({ 1, 2, 3, 4, 5 }, function(i)
        slow_call(client)
        return i * 10
      end)
      check(failed == 0, results[1] and results[1].message)
      for i = 1, 5 do check(results[i].value == i * 10) end
    end,
    function()
      local task = e2b.spawn(function()
        check(e2b.sleep(0.1))
        return "slept"
      end)
      check(task:wait() == "slept")
    end,
  })
  took_between(SLOW, SLOW, began, "a map beside a task")
end)

case("a call in a foreign coroutine never yields to its consumer", function()
  local client = slow_client()
  local generator = coroutine.wrap(function()
    for i = 1, 2 do
      slow_call(client)
      coroutine.yield("item " .. i)
    end
    return "end"
  end)
  check(generator() == "item 1")
  check(generator() == "item 2")
  check(generator() == "end")
end)

case("a deadline ends a call on time, and a cancel at once", function()
  local client = slow_client()
  local began = core.now()
  local got, message, err = client.Sandbox.get_info("never", { request_timeout = 0.3 })
  took_between(0.3, 0.4, began, "the call")
  check(got == nil and err.kind == "timeout" and err.deadline == "request_timeout", message)
  local task = e2b.spawn(function() return client.Sandbox.get_info("never") end)
  check(e2b.sleep(0.1))
  began = core.now()
  check(task:cancel())
  got, message, err = task:wait()
  took_between(0, 0.1, began, "the cancel")
  check(got == nil and err.kind == "cancelled", message)
end)

case("a deadline and a cancel are on time while the name server says nothing", function()
  local client = e2b.client({ api_url = "http://api.example.com", api_key = "e2b_0123", proxy = false, retries = 0 })
  local began = core.now()
  local got, message, err = client.Sandbox.get_info("x", { request_timeout = 0.3 })
  took_between(0.3, 0.4, began, "the call")
  check(got == nil and err.kind == "timeout" and err.sent == "no", message)
  local task = e2b.spawn(function() return client.Sandbox.get_info("x") end)
  check(e2b.sleep(0.1))
  began = core.now()
  task:cancel()
  got, message, err = task:wait()
  took_between(0, 0.1, began, "the cancel")
  check(got == nil and err.kind == "cancelled", message)
end, true)

case("an error in user code has its traceback and loses nobody else's result", function(host)
  local client = slow_client()
  local function misguided() return nil + 1 end -- luacheck: ignore
  local results, failed, seen
  host.together({
    function()
      results, failed = e2b.map({ 1, 2, 3 }, function(i)
        slow_call(client)
        if i == 2 then misguided() end
        return i
      end)
    end,
    function()
      slow_call(client)
      seen = true
    end,
  })
  check(seen and failed == 1)
  check(results[1].value == 1 and results[3].value == 3)
  local err = results[2].err
  check(err.kind == "raised" and err.message:find("arithmetic", 1, true), err.message)
  check(err.traceback:find("suite.lua", 1, true), err.traceback)
end)

case("a call can be made while another is being answered", function(host)
  local inner = slow_client()
  local told, said = 0, nil
  local client = e2b.client({
    api_url = os.getenv("E2B_SPEC_PEER"), api_key = "e2b_0123", retries = 0,
    logger = function()
      told = told + 1
      slow_call(inner)
    end,
  })
  host.together({
    function() slow_call(client) end,
    function()
      local task = e2b.spawn(function() return client.Sandbox.get_info("slow") end, function(sandbox)
        slow_call(inner)
        said = sandbox.sandbox_id
      end)
      check(task:wait())
      for _ = 1, 100 do
        if said then break end
        check(e2b.sleep(0.02))
      end
    end,
  })
  check(told == 2, told)
  check(said == "slow", said)
end)

case("the host's own timers keep ticking", function(host)
  if not host.ticker then return end
  local client = slow_client()
  local stop = host.ticker()
  local began = core.now()
  slow_call(client)
  host.together(times(5, function() slow_call(client) end))
  local seconds = core.now() - began
  local ticks, gap = stop()
  check(ticks >= seconds * 100 / (4 * slack), ("%d ticks in %.2f s"):format(ticks, seconds))
  check(gap < 0.1 * slack, ("no tick for %.3f s"):format(gap))
end)

case("a spawned task goes on while the host goes on", function(host)
  if not host.sleep then return end
  local client, steps, told = slow_client(), {}, nil
  e2b.spawn(function()
    steps[#steps + 1] = "begun"
    slow_call(client)
    steps[#steps + 1] = "called"
    check(e2b.sleep(0.1))
    steps[#steps + 1] = "slept"
    return "result"
  end, function(...) told = { ... } end)
  for _ = 1, 100 do
    if told then break end
    host.sleep(0.02 * slack)
  end
  check(told and told[1] == "result", told and told[2] or "never told: " .. table.concat(steps, ", "))
  check(table.concat(steps, ",") == "begun,called,slept")
end)

case("nothing remains after the last answer, and a close drops the connections", function(host)
  local client = slow_client()
  host.together(times(3, function() slow_call(client) end))
  collectgarbage()
  collectgarbage()
  local stats = core.stats()
  check(stats.in_flight == 0, ("%d in flight"):format(stats.in_flight))
  check(stats.sockets > 0, "no connection was kept")
  if host.leftover then
    for _ = 1, 50 do
      if host.leftover() == 0 then break end
      host.sleep(0.02)
    end
    check(host.leftover() == 0, ("%d left in the host"):format(host.leftover()))
  end
  e2b.close()
  check(core.stats().sockets == 0, ("%d sockets"):format(core.stats().sockets))
  slow_call(client)
end)

suite.cases = cases

--- Runs what belongs here (all but the silent ones, or only those) and writes a line for each: "ok: name", or
--- "failed: name: why" with newlines as " | ".
---@param host table
---@param write fun(line: string)
---@param silent boolean?
function suite.run(host, write, silent)
  e2b, core = require("e2b"), require("e2b.core")
  for _, entry in ipairs(cases) do
    if entry.silent == (silent or false) then
      local results = { e2b.pcall(entry.fn, host) }
      if results[1] then
        write("ok: " .. entry.name)
      else
        write("failed: " .. entry.name .. ": " .. tostring(results[2]):gsub("\n", " | "))
      end
    end
  end
end

--- together() of hosts without coroutines of their own, and in tasks.
---@param fns function[]
function suite.as_tasks(fns)
  local results, failed = require("e2b").all(unpack(fns))
  for _, entry in ipairs(results) do
    if not entry.ok then error(entry.message, 0) end
  end
  return failed
end

return suite
