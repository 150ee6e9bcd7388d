-- Loops of the user's: a small scheduler of coroutines that waits on e2b.pollable(), with clients that have `await`.
local support = require("spec.support.support")

local COMMON = [[
local e2b, core = require("e2b"), require("e2b.core")
local socket = require("socket")
local pack = function(...) return { n = select("#", ...), ... } end
local unpack = table.unpack or unpack

-- The scheduler: coroutines that are ready, and the engine.
local ready, alive, woken = {}, 0, 0
local pollable = e2b.pollable(function() woken = woken + 1 end)
local function go(fn)
  alive = alive + 1
  ready[#ready + 1] = coroutine.create(function()
    fn()
    alive = alive - 1
  end)
end
local steps = 0
local function run()
  while alive > 0 do
    local list = ready
    ready = {}
    for _, co in ipairs(list) do assert(coroutine.resume(co)) end
    if #ready == 0 and alive > 0 then
      local fd = pollable.pollfd()
      local thing = { getfd = function() return fd end, dirty = function() return false end }
      socket.select({ thing }, nil, pollable.timeout())
      steps = steps + 1
      pollable.step()
    end
  end
end
local function await(start)
  local co, values = coroutine.running(), nil
  start(function(...)
    values = pack(...)
    ready[#ready + 1] = co
  end)
  while not values do coroutine.yield() end
  return unpack(values, 1, values.n)
end
local function client(options)
  local all = { api_url = os.getenv("E2B_SPEC_PEER"), api_key = "e2b_0123", retries = 0, await = await }
  for name, value in pairs(options or {}) do all[name] = value end
  return e2b.client(all)
end
]]

local ANSWER = [[{"templateID":"base","sandboxID":"slow","clientID":"c","envdVersion":"0.2.0",]]
  .. [["startedAt":"2026-01-02T03:04:05Z","endAt":"2036-01-02T03:09:05Z","state":"running"}]]

describe("a client with an await of the user's", function()
  local slow

  setup(function()
    slow = require("spec.support.peer").start("local ANSWER = " .. support.serialize(ANSWER) .. [[

      conn:serve(function(request)
        if request.path == "/sandboxes/slow" then
          conn:sleep(0.3)
          return conn:respond(200, ANSWER)
        end
        conn:wait_closed()
      end)]])
  end)
  teardown(function()
    slow:stop()
    support.cleanup()
  end)

  local function passes(source)
    local result = support.run(COMMON .. source .. "\nprint('passed')", { env = { E2B_SPEC_PEER = slow.url } })
    assert.equal("passed\n", result.out, result.err .. result.out)
    assert.equal("", result.err)
    return result
  end

  it("suspends as that does: five calls at once take the time of one, without polling", function()
    passes([[
      local c, seen = client(), 0
      local began = core.now()
      for _ = 1, 5 do
        go(function()
          assert(assert(c.Sandbox.get_info("slow")).sandbox_id == "slow")
          seen = seen + 1
        end)
      end
      run()
      assert(seen == 5)
      assert(core.now() - began < 0.45 * ]] .. support.slack .. [[, core.now() - began)
      assert(steps < 60, steps .. " steps")
      assert(woken > 0)
      assert(pollable.timeout() == nil and pollable.events() == "r")
      assert(core.stats().in_flight == 0)]])
  end)

  it("keeps deadlines, which the user's function needn't know of, and waits between attempts", function()
    passes([[
      local began, got, message, err = core.now(), nil, nil, nil
      go(function() got, message, err = client().Sandbox.get_info("never", { request_timeout = 0.3 }) end)
      run()
      assert(got == nil and err.kind == "timeout" and err.deadline == "request_timeout", message)
      assert(core.now() - began < 0.3 + 0.15 * ]] .. support.slack .. [[)
      go(function()
        got, message, err = client({ api_url = "http://127.0.0.1:1", retries = 1 }).Sandbox.get_info("x")
      end)
      run()
      assert(got == nil and err.kind == "network" and err.attempts == 2, message)]])
  end)

  it("cancels what is waited for when that returns early", function()
    passes([[
      local impatient = client({ await = function(start)
        start(function() error("never") end)
        return nil
      end })
      local got, message, err = impatient.Sandbox.get_info("never")
      assert(got == nil and err.kind == "cancelled", message)
      assert(core.stats().in_flight == 0 and pollable.timeout() == nil)]])
  end)

  if _VERSION ~= "Lua 5.1" or rawget(_G, "jit") then
    it("cancels what is waited for when that raises", function()
      passes([[
        local broken = client({ await = function(start)
          start(function() error("never") end)
          error("mine", 0)
        end })
        local ok, why = pcall(broken.Sandbox.get_info, "never")
        assert(not ok and why == "mine", why)
        assert(core.stats().in_flight == 0 and pollable.timeout() == nil)]])
    end)
  end

  it("is refused where nobody would take the turns", function()
    passes([[
      local blocking = require("e2b.loop.blocking")
      e2b.use_loop({ may_wait = blocking.may_wait, await = blocking.await, spawn = function(fn) fn() end })
      local got, message, err = client().Sandbox.get_info("slow")
      assert(got == nil and err.kind == "unsupported" and err.sent == "no", message)
      assert(message:find("leave the option out", 1, true), message)]])
  end)

  it("wakes who asked for it, also when somebody else only looks", function()
    passes([[
      assert(e2b.pollable().timeout() == nil)
      go(function() assert(client().Sandbox.get_info("slow")) end)
      run()
      assert(woken > 0)]])
  end)

  it("is one of two ways, not both, and a function", function()
    local e2b = require("e2b")
    assert.has_error(function() e2b.client({ await = function() end, loop = "blocking" }) end)
    assert.has_error(function() e2b.client({ await = "uv" }) end)
    assert.has_error(function() e2b.use_loop("nothing") end)
    assert.has_error(function() e2b.pollable(1) end)
  end)
end)
