-- The loop of luv scripts. Debian has luv for every Lua there is a spec for.
local hosts = require("spec.hosts.init")
local support = require("spec.support.support")
local cases = require("spec.support.uv_cases")
local peer = require("spec.support.peer")

local function run(source, options)
  return support.run(source, { env = options.env, timeout = options.timeout })
end

describe("in a luv script", function()
  cases.define({ it = it, setup = setup, teardown = teardown }, run, "")
end)

for _, way in ipairs({ "the main program", "a task" }) do
  describe("luv, " .. way .. ":", function()
    hosts.declare(function(env, wrap)
      env.UV_TASK = way == "a task" and "1" or "0"
      local result = support.run(nil, { file = "spec/hosts/uv.lua", env = env, wrap = wrap })
      return result.out .. result.err
    end)
  end)
end

describe("in a luv script", function()
  local slow

  setup(function() slow = peer.answers({ { status = 200, body = "[]", delay = 0.3 } }) end)
  teardown(function()
    slow:stop()
    support.cleanup()
  end)

  local function fine(source, env)
    local all = { URL = slow.url, E2B_SPEC_SLACK = tostring(support.slack) }
    for name, value in pairs(env or {}) do all[name] = value end
    local result = run(cases.PRELUDE .. source, { env = all })
    assert.equal(0, result.code, result.out .. result.err)
    assert.equal("", result.err)
    return result.out
  end

  it("is no loop of its own accord: a program that only has luv waits as every script does", function()
    assert.equal("0\t0\n", fine([[
      e2b.use_loop(nil)
      check(client(URL):request("GET", "/x"))
      io.write(#handles, "\t")
      e2b.use_loop("uv")
      check(client(URL, { loop = "blocking" }):request("GET", "/x"))
      print(#handles)
    ]]))
  end)

  it("hands Ctrl-C on to whoever waits, and cancels", function()
    assert.matches("interrupted!\t0\tgoes on\t0\n$", fine([[
      local c = client(URL)
      local function interrupt()
        os.execute("(sleep 0.1; kill -INT " .. core.getpid() .. ") &")
      end
      interrupt()
      local began = core.now()
      local ok, raised = pcall(e2b.sleep, 10)
      check(not ok and core.now() - began < 1 + 1 * SLACK)
      local left = core.stats().in_flight
      check(c:request("GET", "/x"))
      print(raised, left, "goes on", alive())
    ]]))
    assert.equal("interrupted\n", fine([[
      os.execute("(sleep 0.1; kill -INT " .. core.getpid() .. ") &")
      print(pcall(e2b.sleep, 10) and "slept" or "interrupted") -- the program ends right after it
    ]]))
  end)

  it("ends the program at Ctrl-C when nobody waits for calls", function()
    local result = run(cases.PRELUDE .. [[
      e2b.spawn(function() e2b.sleep(20) end)
      os.execute("(sleep 0.1; kill -INT " .. core.getpid() .. ") &")
      uv.run()
      print("not reached")
    ]], { env = {} })
    assert.equal("", result.out)
    assert.not_equal(0, result.code)
    assert.is_true(result.seconds < 10 * support.slack)
  end)

  it("lets a forked child call by itself, and disturbs nothing of the parent", function()
    assert.equal("child\t[]\t0\nparent\t2\t0\n", fine([[
      local posix = require("spec.support.posix")
      local c = client(URL)
      local got = 0
      for _ = 1, 2 do
        e2b.spawn(function() return c:request("GET", "/x") end, function(value)
          if value then got = got + 1 end -- in the child it is cancelled
        end)
      end
      check(try(function() return core.stats().in_flight == 2 end))
      io.stdout:flush()
      local pid = posix.fork()
      if pid == 0 then
        local before = #handles
        local value, message = c:request("GET", "/x")
        print("child", value and #value == 0 and "[]" or message, #handles - before)
        io.stdout:flush()
        posix.exit(0)
      end
      check(posix.wait(pid) == 0)
      check(e2b.run(5))
      print("parent", got, alive())
    ]]))
  end)

  it("runs the tasks of a forked child while something waits there", function()
    assert.equal("child\t10,20\tspawned\n", fine([[
      local posix = require("spec.support.posix")
      check(e2b.sleep(0.01))
      io.stdout:flush()
      local pid = posix.fork()
      if pid == 0 then
        local ok, results = pcall(e2b.map, { 1, 2 }, function(i)
          check(e2b.sleep(0.05))
          return i * 10
        end)
        local task = ok and e2b.spawn(function()
          check(e2b.sleep(0.05))
          return "spawned"
        end)
        print("child", ok and results[1].value .. "," .. results[2].value or results, task and task:wait(5))
        io.stdout:flush()
        posix.exit(0)
      end
      check(posix.wait(pid) == 0)
    ]]))
  end)

  it("gives a client with an await of the program's own what it waits for", function()
    assert.equal("3\t0\n", fine([[
      local function await(start)
        local co = assert(coroutine.running())
        local values
        start(function(...)
          values = { ... }
          check(coroutine.resume(co))
        end)
        coroutine.yield()
        return (table.unpack or unpack)(values)
      end
      local c = client(URL, { await = await })
      local answers = 0
      local ticks = ticking(function()
        for _ = 1, 3 do
          coroutine.wrap(function()
            check(c:request("GET", "/x"))
            answers = answers + 1
          end)()
        end
        check(try(function() return answers == 3 end))
      end)
      check(ticks.took < 0.3 + 0.15 * SLACK, ticks.took)
      print(answers, alive())
    ]]))
  end)
end)
