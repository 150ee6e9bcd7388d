local compat = require("e2b.compat")
local core = require("e2b.core")
local tasks = require("e2b.tasks")
local timers = require("e2b.loop.timers")
local support = require("spec.support.support")
local peer = require("spec.support.peer")

local now = core.now

local function never(server)
  return require("e2b.client").new({ api_url = server.url, api_key = "k", getenv = function() end })
end

-- The peer takes a request and never answers.
local SILENT = [[conn:read_request() conn:wait_closed()]]

describe("tasks", function()
  local before
  before_each(function() before = support.snapshot() end)
  after_each(function()
    assert(tasks.run(5), "tasks were left behind")
    support.assert_no_leak({ transfers = before.transfers, in_flight = before.in_flight })
  end)

  describe("all and map", function()
    it("give one entry a member, in order", function()
      local results, failed = tasks.all(function()
        tasks.sleep(0.03)
        return "slow", "second value"
      end, function() return nil, "it did not work", { kind = "busy" } end, function() end, function() return false end)
      assert.equal(1, failed)
      assert.same({
        { ok = true, value = "slow" }, { ok = false, message = "it did not work", err = { kind = "busy" } },
        { ok = true }, { ok = true, value = false },
      }, results)
    end)

    it("run side by side", function()
      local took, results, failed = support.timed(tasks.map, { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, function(item, index)
        assert.equal(item, index)
        assert(tasks.sleep(0.2))
        return item * 2
      end)
      assert.equal(0, failed)
      assert.equal(20, results[10].value)
      assert.is_true(took >= 0.2 and took < 0.2 + support.tolerance, took)
    end)

    it("turn a raise into an entry with its traceback", function()
      local function deep() error("broken here") end
      local results, failed = tasks.all(function()
        tasks.sleep(0)
        deep()
      end, function() return 1 end)
      assert.equal(1, failed)
      assert.is_false(results[1].ok)
      assert.matches("tasks_spec%.lua:%d+: broken here$", results[1].message)
      assert.equal(results[1].message, results[1].err.message)
      assert.matches("stack traceback:", results[1].err.traceback, 1, true)
      assert.matches("deep", results[1].err.traceback, 1, true)
      assert.equal("raised", results[1].err.kind)
      assert.equal(1, results[2].value)
    end)

    it("take any error value", function()
      local odd = setmetatable({}, { __tostring = function() error("not printable") end })
      local thrown = { code = 5 }
      local results, failed = tasks.all(function() error(nil) end, function() error(thrown) end,
        function() error(odd) end, function() error(true) end)
      assert.equal(4, failed)
      for _, entry in ipairs(results) do assert.is_string(entry.message) end
      assert.equal(thrown, results[2].err.value)
    end)

    it("pass an error of the library on as it is", function()
      local _, _, mine = require("e2b.errors").new("busy", { message = "busy" })
      local results = tasks.all(function() error(mine) end)
      assert.equal(mine, results[1].err)
    end)

    it("keep to a limit", function()
      local at_once, most, order = 0, 0, {}
      local list = {}
      for i = 1, 20 do list[i] = i end
      local _, failed = tasks.map(list, function(item)
        at_once = at_once + 1
        most = math.max(most, at_once)
        order[#order + 1] = item
        tasks.sleep(0.005)
        at_once = at_once - 1
      end, { limit = 3 })
      assert.equal(0, failed)
      assert.equal(3, most)
      assert.same(list, order)
    end)

    it("end when the time is over: those that run are cancelled, the rest never begins", function()
      local begun = {}
      local took, results, failed = support.timed(tasks.map, { 1, 2, 3, 4 }, function(item)
        begun[#begun + 1] = item
        if item == 1 then return "quick" end
        return tasks.sleep(5)
      end, { limit = 2, timeout = 0.2 })
      assert.is_true(took >= 0.2 and took < 0.2 + support.tolerance, took)
      assert.equal(3, failed)
      assert.same({ 1, 2, 3 }, begun)
      assert.equal("quick", results[1].value)
      for i = 2, 4 do
        assert.equal("cancelled", results[i].err.kind)
        assert.equal("timeout", results[i].err.deadline)
        assert.matches("cancelled, the 0.2 s given (timeout) were over", results[i].message, 1, true)
        assert.equal(results[i].message, results[i].err.message)
      end
    end)

    it("count a member as failed that was cancelled and returned nothing", function()
      local results, failed = tasks.map({ 1 }, function() tasks.sleep(5) end, { timeout = 0.05 })
      assert.equal(1, failed)
      assert.equal("cancelled", results[1].err.kind)
      results, failed = tasks.map({ 1 }, function()
        tasks.sleep(5)
        return "saved"
      end, { timeout = 0.05 })
      assert.equal(0, failed)
      assert.equal("saved", results[1].value)
    end)

    it("let cancelled members clean up before they return", function()
      local cleaned = 0
      local results = tasks.map({ 1, 2 }, function()
        local _, message, err = tasks.sleep(5)
        tasks.shield(function()
          assert(tasks.sleep(0.05))
          cleaned = cleaned + 1
        end, 1)
        return nil, message, err
      end, { timeout = 0.05 })
      assert.equal(2, cleaned)
      assert.equal("cancelled", results[2].err.kind)
    end)

    it("have nothing to do for nothing", function()
      assert.same({ {}, 0 }, { tasks.all() })
      assert.same({ {}, 0 }, { tasks.map({}, function() end) })
    end)

    it("nest, in tasks and in members", function()
      local took, results = support.timed(tasks.map, { 1, 2, 3 }, function(i)
        local inner, failed = tasks.map({ 1, 2, 3 }, function(j)
          local innermost = tasks.all(function()
            assert(tasks.sleep(0.1))
            return i * j
          end)
          return innermost[1].value
        end)
        assert.equal(0, failed)
        return inner[1].value + inner[2].value + inner[3].value
      end)
      assert.same({ 6, 12, 18 }, { results[1].value, results[2].value, results[3].value })
      assert.is_true(took < 0.1 + support.tolerance, took)
    end)

    it("cancel their members when the task that waits is cancelled", function()
      local seen = {}
      local task = tasks.spawn(function()
        local results, failed = tasks.map({ 1, 2 }, function(i)
          local _, _, err = tasks.sleep(10)
          seen[i] = err.kind
          return nil, "x", err
        end)
        return results[1].err.kind, failed
      end)
      tasks.sleep(0.02)
      task:cancel()
      local took, kind, failed = support.timed(task.wait, task, 5)
      assert.same({ "cancelled", "cancelled" }, seen)
      assert.equal("cancelled", kind)
      assert.equal(2, failed)
      assert.is_true(took < support.tolerance, took)
    end)

    it("raise on what can't be run, at the caller's line", function()
      for _, call in ipairs({
        function() tasks.all(function() end, 5) end, function() tasks.all({}) end, function() tasks.map(5, print) end,
        function() tasks.map({}, 5) end, function() tasks.map({}, print, { limit = 0 }) end,
        function() tasks.map({}, print, { limits = 3 }) end, function() tasks.map({}, print, { timeout = "1" }) end,
        function() tasks.spawn(5) end, function() tasks.spawn(print, 5) end, function() tasks.sleep("1") end,
        function() tasks.sleep(-1) end, function() tasks.sleep(0 / 0) end, function() tasks.sleep() end,
      }) do
        local ok, message = pcall(call)
        assert.is_false(ok)
        assert.matches("^%S*tasks_spec%.lua:%d+: ", message)
      end
    end)
  end)

  describe("spawn", function()
    it("begins when something waits, not before", function()
      local ran = false
      local task = tasks.spawn(function() ran = true end)
      assert.is_false(ran)
      assert.equal("running", task.state)
      tasks.sleep(0)
      assert.is_true(ran)
      assert.equal("done", task.state)
    end)

    it("goes on during any call", function()
      local server = peer.answers({ { status = 200, body = "{}", delay = 0.1 } })
      local client = never(server)
      local count = 0
      local task = tasks.spawn(function()
        for _ = 1, 5 do
          tasks.sleep(0.005)
          count = count + 1
        end
      end)
      assert.is_truthy((client:request("GET", "/")))
      assert.equal(5, count)
      assert.equal("done", task.state)
      server:stop()
    end)

    it("goes on while a coroutine that isn't ours waits, which is never yielded from", function()
      local server = peer.answers({ { status = 200, body = '{"n":1}', delay = 0.05 } })
      local client = never(server)
      local beside = tasks.spawn(function()
        tasks.sleep(0.01)
        return "beside"
      end)
      local generator = coroutine.wrap(function()
        coroutine.yield(client:request("GET", "/").n)
        coroutine.yield("last")
      end)
      assert.equal(1, generator())
      assert.equal("done", beside.state)
      assert.equal("last", generator())
      -- and inside a task
      local results, failed = tasks.all(function()
        local inner = coroutine.wrap(function()
          tasks.sleep(0.02)
          coroutine.yield(client:request("GET", "/").n)
        end)
        return inner()
      end, function()
        tasks.sleep(0.01)
        return "went on"
      end)
      assert.equal(0, failed, results[1].message)
      assert.same({ 1, "went on" }, { results[1].value, results[2].value })
      server:stop()
    end)

    it("returns results by wait, as often as asked", function()
      local task = tasks.spawn(function() return 1, nil, 3 end)
      assert.same({ n = 3, 1, nil, 3 }, compat.pack(task:wait()))
      assert.same({ n = 3, 1, nil, 3 }, compat.pack(task:wait(1)))
      local failed = tasks.spawn(function() return nil, "no", { kind = "busy" } end)
      assert.same({ n = 3, nil, "no", { kind = "busy" } }, compat.pack(failed:wait()))
      assert.equal("failed", failed.state)
    end)

    it("tells a raise by wait", function()
      local task = tasks.spawn(function() error("broken") end)
      local value, message, err = task:wait()
      assert.is_nil(value)
      assert.matches("broken$", message)
      assert.matches("stack traceback", err.traceback, 1, true)
      assert.equal("raised", err.kind)
      assert.equal("failed", task.state)
    end)

    it("waits no longer than told, and the task goes on", function()
      local task = tasks.spawn(function()
        tasks.sleep(0.2)
        return "late"
      end)
      local took, value, _, err = support.timed(task.wait, task, 0.05)
      assert.is_nil(value)
      assert.equal("timeout", err.kind)
      assert.equal("timeout", err.deadline)
      assert.is_true(took >= 0.05 and took < 0.05 + support.tolerance, took)
      assert.equal("running", task.state)
      assert.equal("late", task:wait())
    end)

    it("can be waited for by several, by tasks and by coroutines that aren't ours", function()
      local task = tasks.spawn(function()
        tasks.sleep(0.03)
        return "shared"
      end)
      local generator = coroutine.wrap(function() coroutine.yield(task:wait()) end)
      local results = tasks.all(function() return task:wait() end, function() return generator() end)
      assert.same({ "shared", "shared" }, { results[1].value, results[2].value })
    end)

    it("refuses to wait for itself, and for run in a task", function()
      local task
      task = tasks.spawn(function() return task:wait() end)
      local _, message = task:wait()
      assert.matches("it would wait for ever", message, 1, true)
      local other = tasks.spawn(function() return tasks.run() end)
      _, message = other:wait()
      assert.matches("e2b.run() in a task", message, 1, true)
    end)

    it("raises instead of waiting for ever for one another", function()
      local a, b
      a = tasks.spawn(function() return b:wait() end)
      b = tasks.spawn(function() return a:wait() end)
      local ok, message = pcall(a.wait, a)
      assert.is_false(ok)
      assert.matches("deadlock", message, 1, true)
      a:cancel()
      assert.is_nil((b:wait(1)))
    end)

    it("calls on_done with the results; it may wait", function()
      local got = {}
      local function keep(name)
        return function(...)
          tasks.sleep(0.01)
          got[name] = compat.pack(...)
        end
      end
      tasks.spawn(function() return 1, 2 end, keep("good"))
      tasks.spawn(function() return nil, "no", { kind = "busy" } end, keep("bad"))
      tasks.spawn(function() error("broken") end, keep("raised"))
      tasks.spawn(function() return tasks.sleep(9) end, keep("cancelled")):cancel()
      assert.is_true(tasks.run())
      assert.same({ n = 2, 1, 2 }, got.good)
      assert.same({ n = 3, nil, "no", { kind = "busy" } }, got.bad)
      assert.matches("broken", got.raised[2], 1, true)
      assert.equal("cancelled", got.cancelled[3].kind)
    end)

    it("waits with run for an on_done that nothing else keeps it waiting for", function()
      for name, spawn in pairs({
        ended = function(done) tasks.spawn(function() return 1 end, done) end,
        cancelled = function(done) tasks.spawn(function() return 1 end, done):cancel() end,
        yielded = function(done) tasks.spawn(function() coroutine.yield() end, done) end,
      }) do
        local over = false
        spawn(function()
          tasks.sleep(0.01)
          over = true
        end)
        assert.is_true(tasks.run())
        assert.is_true(over, name)
      end
    end)

    it("says what to write when wait or cancel is called with a dot", function()
      local task = tasks.spawn(function() end)
      for _, name in ipairs({ "wait", "cancel" }) do
        local ok, message = pcall(function() return (task[name]()) end)
        assert.is_false(ok)
        assert.matches("tasks_spec%.lua:%d+: task%." .. name .. " needs a task, got nil: write task:" .. name, message)
      end
      assert.is_false((pcall(function() return (task.wait(5)) end)))
    end)

    it("tells a raised table without a text as lua does", function()
      local _, message, err = tasks.spawn(function() error({ code = 1 }) end):wait()
      assert.equal("(error object is a table value)", message)
      assert.matches("^%(error object is a table value%)\nstack traceback:", err.traceback)
    end)

    it("goes on while a client waits in a loop of its own", function()
      local blocking = require("e2b.loop.blocking")
      local server = peer.answers({ { status = 200, body = "{}", delay = 0.2 } })
      local waited = 0
      local client = require("e2b.client").new({ api_url = server.url, api_key = "k", getenv = function() end, loop = {
        may_wait = blocking.may_wait,
        await = function(...)
          waited = waited + 1
          return blocking.await(...)
        end,
      } })
      local task = tasks.spawn(function() return tasks.sleep(0.01) end)
      assert.is_truthy((client:request("GET", "/")))
      assert.equal("done", task.state)
      assert.is_true(waited > 0)
      server:stop()
    end)

    it("refuses to wait for tasks where that can't be suspended, all too deep", function()
      local function down(n)
        return coroutine.wrap(function()
          coroutine.yield((tasks.spawn(function() return n == 0 and "bottom" or assert(down(n - 1)) end):wait()))
        end)()
      end
      assert.equal("bottom", tasks.spawn(function() return down(5) end):wait())
      local messages = {}
      local function deep(n)
        local ok, message = pcall(coroutine.wrap(function()
          return (tasks.spawn(function() return n == 0 or deep(n - 1) end):wait())
        end))
        if not ok then messages[#messages + 1] = message end
      end
      tasks.spawn(function() deep(60) end):wait()
      assert.equal(1, #messages)
      assert.matches("tasks_spec%.lua:%d+: this wait for tasks is inside of 10 others", messages[1])
    end)

    it("runs what is left with run, no longer than told", function()
      local ended = 0
      for i = 1, 5 do
        tasks.spawn(function()
          tasks.sleep(0.01 * i)
          tasks.spawn(function() ended = ended + 1 end)
        end)
      end
      assert.is_true(tasks.run())
      assert.equal(5, ended)
      assert.is_true(tasks.run())
      local task = tasks.spawn(function() tasks.sleep(5) end)
      local took, ok, _, err = support.timed(tasks.run, 0.05)
      assert.is_nil(ok)
      assert.equal("timeout", err.kind)
      assert.is_true(took < 0.05 + support.tolerance)
      task:cancel()
    end)

    it("prints as where it comes from and how it is", function()
      local task = tasks.spawn(function() end)
      assert.matches("^Task%(task %d+ %(%S*tasks_spec%.lua:%d+%), running%)$", tostring(task))
      task:wait()
      assert.matches("done", tostring(task))
    end)

    it("is collected when it has ended", function()
      local weak = setmetatable({}, { __mode = "k" })
      weak[tasks.spawn(function() tasks.sleep(0.001) end)] = true
      tasks.run()
      support.collect()
      assert.is_nil(next(weak))
    end)

    it("reports a yield that is nobody's wait", function()
      local resumed = false
      local task = tasks.spawn(function()
        tasks.sleep(0)
        coroutine.yield("to whom?")
        resumed = true
      end)
      local value, message, err = task:wait(1)
      assert.is_nil(value)
      assert.matches("coroutine.yield in a task", message, 1, true)
      assert.matches("tasks_spec%.lua", err.traceback)
      assert.is_false(resumed)
      assert.equal("failed", task.state)
    end)

    it("gives others their turn while the caller waits for nothing again and again", function()
      local turns = 0
      local task = tasks.spawn(function()
        for _ = 1, 10 do
          tasks.sleep(0)
          turns = turns + 1
        end
      end)
      for _ = 1, 40 do tasks.sleep(0) end
      assert.equal("done", task.state)
      assert.equal(10, turns)
    end)

    it("passes what `start` raises into the task", function()
      local results = tasks.all(function()
        return tasks.await(function() error("can't be started", 0) end, now() + 1)
      end, function()
        local ok, message = tasks.pcall(tasks.await, function() error("again", 0) end, now() + 1)
        return ok == false and message
      end)
      assert.matches("can't be started", results[1].message, 1, true)
      assert.equal("again", results[2].value)
    end)

    it("completes a wait once, whoever else calls done", function()
      local finish
      local results = tasks.all(function()
        local value = tasks.await(function(done)
          finish = done
          return function() end
        end, now() + 5)
        tasks.sleep(0.02)
        return value
      end, function()
        tasks.sleep(0)
        finish("first")
        finish("second")
        tasks.sleep(0.01)
        finish("third")
      end)
      assert.equal("first", results[1].value)
    end)
  end)

  describe("cancel", function()
    it("ends a pending call at once, releases its transfer, and says so", function()
      local server = peer.start(SILENT)
      local client = never(server)
      local task = tasks.spawn(function()
        return client:call("sandbox_create", { body = { template = "base" } }, nil, { operation = "Sandbox.create" })
      end)
      assert.is_nil((task:wait(0.2)))
      assert.equal(1, server:wait_event("request").number)
      assert.equal(1, core.stats().in_flight)
      assert.is_true(task:cancel())
      assert.equal(0, core.stats().in_flight)
      local took, value, message, err = support.timed(task.wait, task, 5)
      assert.is_nil(value)
      assert.is_true(took < support.tolerance)
      assert.equal("cancelled", err.kind)
      assert.equal("maybe", err.sent)
      assert.is_false(err.retryable)
      assert.equal("Sandbox.create", err.operation)
      assert.matches("may have been made", message, 1, true)
      assert.equal("cancelled", task.state)
      assert.is_false(task:cancel())
      server:stop()
    end)

    it("makes later waits return at once, and nothing is sent any more", function()
      local server = peer.answers({ { status = 200, body = "{}" } })
      local client = never(server)
      local kinds, took = {}, nil
      local task = tasks.spawn(function()
        local _, _, err = tasks.sleep(10)
        kinds[1] = err.kind
        local begin = now()
        _, _, err = tasks.sleep(10)
        kinds[2] = err.kind
        _, _, err = client:request("GET", "/")
        kinds[3], kinds[4] = err.kind, err.sent
        local results = tasks.all(function() return tasks.sleep(10) end)
        kinds[5] = results[1].err.kind
        _, _, err = tasks.spawn(function() end):wait()
        kinds[6] = err.kind
        took = now() - begin
      end)
      tasks.sleep(0.01)
      task:cancel()
      task:wait()
      assert.same({ "cancelled", "cancelled", "cancelled", "no", "cancelled", "cancelled" }, kinds)
      assert.is_true(took < support.tolerance)
      assert.equal(0, server:count())
      assert.equal("cancelled", task.state)
      server:stop()
    end)

    it("keeps a task that has not begun from beginning", function()
      local ran = false
      local task = tasks.spawn(function() ran = true end)
      assert.is_true(task:cancel())
      assert.equal("cancelled", task.state)
      tasks.sleep(0.01)
      assert.is_false(ran)
      local _, _, err = task:wait()
      assert.equal("cancelled", err.kind)
      assert.is_false(task:cancel())
    end)

    it("lets a task that doesn't listen stop nobody else", function()
      local stop, turns = false, 0
      local deaf = tasks.spawn(function()
        while not stop do
          tasks.sleep(1)
          turns = turns + 1
        end
      end)
      tasks.sleep(0)
      deaf:cancel()
      tasks.sleep(0.05)
      assert.is_true(turns > 0)
      stop = true
      deaf:wait()
    end)

    it("can be asked of the task that runs", function()
      local task
      task = tasks.spawn(function()
        task:cancel()
        assert.is_true(tasks.cancelled())
        local _, _, err = tasks.sleep(5)
        return nil, "told", err
      end)
      local took, _, message = support.timed(task.wait, task)
      assert.equal("told", message)
      assert.is_true(took < support.tolerance)
      assert.is_false(tasks.cancelled())
    end)

    it("keeps a task's result when it succeeded all the same", function()
      local task = tasks.spawn(function()
        tasks.sleep(5)
        return "done anyway"
      end)
      tasks.sleep(0)
      task:cancel()
      assert.equal("done anyway", task:wait())
      assert.equal("done", task.state)
    end)
  end)

  describe("shield", function()
    it("hides a cancel while it lasts", function()
      local inside, after, hidden
      local task = tasks.spawn(function()
        inside = tasks.shield(function()
          local slept = tasks.sleep(0.05)
          hidden = tasks.cancelled()
          return slept
        end, 5)
        local _, _, err = tasks.sleep(5)
        after = err.kind
      end)
      tasks.sleep(0.01)
      assert.is_true(task:cancel())
      task:wait()
      assert.is_true(inside)
      assert.is_false(hidden)
      assert.equal("cancelled", after)
    end)

    it("has a deadline of its own, in a task and outside", function()
      local function body()
        local begin = now()
        local ok, _, err = tasks.shield(function() return tasks.sleep(5) end, 0.05)
        assert.is_nil(ok)
        assert.equal("timeout", err.kind)
        return now() - begin
      end
      local results = tasks.all(body)
      assert.is_true(results[1].ok, results[1].message)
      for _, took in ipairs({ body(), results[1].value }) do
        assert.is_true(took >= 0.05 and took < 0.05 + support.tolerance, took)
      end
    end)

    it("bounds calls, also those with a longer time of their own", function()
      local server = peer.start(SILENT)
      local client = never(server)
      local took, value, message, err = support.timed(tasks.shield, function()
        return client:request("GET", "/", { request_timeout = 30 })
      end, 0.1)
      assert.is_nil(value)
      assert.equal("timeout", err.kind)
      assert.matches("within 0%.%d+ s", message)
      assert.is_true(took >= 0.1 and took < 0.1 + support.tolerance, took)
      server:stop()
    end)

    it("ends with a raise, and nests", function()
      assert.is_nil(tasks.limit())
      local ok, message = pcall(tasks.shield, function() error("broken", 0) end, 5)
      assert.is_false(ok)
      assert.equal("broken", message)
      assert.is_nil(tasks.limit())
      tasks.shield(function()
        local outer = tasks.limit()
        tasks.shield(function() assert.is_true(tasks.limit() < outer) end, 1)
        tasks.shield(function() assert.equal(outer, tasks.limit()) end)
        assert.equal(outer, tasks.limit())
      end, 5)
      assert.is_nil(tasks.limit())
      assert.same({ 1, 2 }, { tasks.shield(function(...) return ... end, nil, 1, 2) })
    end)

    it("of one task is not another's", function()
      local results = tasks.all(function()
        return tasks.shield(function() return tasks.sleep(0.1) end, 0.02)
      end, function() return tasks.sleep(0.1) end)
      assert.is_false(results[1].ok)
      assert.is_true(results[2].ok)
    end)
  end)

  describe("pcall", function()
    it("can be suspended in, on every Lua", function()
      local took, results, failed = support.timed(tasks.map, { 1, 2, 3 }, function(i)
        local a = compat.pack(tasks.pcall(function(...)
          assert(tasks.sleep(0.05))
          local b = compat.pack(tasks.pcall(function()
            assert(tasks.sleep(0.05))
            error("inner " .. i, 0)
          end))
          return b[1], b[2], ...
        end, "arg", nil))
        assert.equal(5, a.n)
        assert.same({ true, false, "inner " .. i, "arg" }, { a[1], a[2], a[3], a[4] })
        return true
      end)
      assert.equal(0, failed, results[1].message)
      assert.is_true(took < 0.1 + support.tolerance, took)
    end)

    it("is pcall outside of tasks", function()
      assert.same({ true, 1 }, { tasks.pcall(function() return 1 end) })
      assert.same({ false, "x" }, { tasks.pcall(error, "x", 0) })
      local wrap = coroutine.wrap(function() return tasks.pcall(function() return coroutine.yield("out") end) end)
      if compat.puc51 or not compat.jit then
        assert.equal("out", wrap())
        assert.same({ true, "in" }, { wrap("in") })
      end
    end)

    it("knows its task, and shields in it", function()
      local task
      task = tasks.spawn(function()
        return tasks.pcall(function()
          assert.equal(task, tasks.current())
          return tasks.shield(function() return tasks.sleep(0.02) end, 1)
        end)
      end)
      tasks.sleep(0)
      task:cancel()
      assert.same({ true, true }, { task:wait() })
    end)
  end)

  local compile = loadstring or load
  if compile("local x <close> = nil") then
    it("closes the variables of a task that raises or is cancelled, and their closing may wait", function()
      local log = {}
      local open = compile([[
        local tasks, log, name, body = ...
        local handle <close> = setmetatable({}, { __close = function()
          tasks.shield(function()
            log[#log + 1] = name .. (tasks.sleep(0.02) and " closed" or " not closed")
          end, 1)
        end })
        return body()
      ]])
      local results = tasks.all(function() return open(tasks, log, "raising", function() error("broken") end) end)
      assert.is_false(results[1].ok)
      local task = tasks.spawn(function()
        return open(tasks, log, "cancelled", function() return tasks.sleep(9) end)
      end)
      tasks.sleep(0.01)
      task:cancel()
      task:wait()
      local foreign = tasks.spawn(function()
        return open(tasks, log, "foreign", function() coroutine.yield() end)
      end)
      foreign:wait()
      assert.same({ "raising closed", "cancelled closed", "foreign closed" }, log)
    end)
  end

  it("know which one runs", function()
    assert.is_nil(tasks.current())
    local task
    task = tasks.spawn(function() return tasks.current() == task end)
    assert.is_true(task:wait())
  end)

  it("are a thousand without trouble", function()
    local list = {}
    for i = 1, 1000 do list[i] = i end
    local took, _, failed = support.timed(tasks.map, list, function(i) return tasks.sleep(0.001 * (i % 50)) end,
      { limit = 1000 })
    assert.equal(0, failed)
    assert.is_true(took < 0.05 + 5 * support.tolerance, took)
  end)

  describe("in a process of their own", function()
    local PRELUDE = [[
      local tasks = require("e2b.tasks")
      local core = require("e2b.core")
    ]]

    it("are named on stderr when they are left at the end", function()
      local result = support.run(PRELUDE .. [[
        tasks.spawn(function() tasks.sleep(100) end)
        tasks.spawn(function() end)
        tasks.sleep(0.01)
        tasks.spawn(print)
      ]])
      assert.equal(0, result.code)
      assert.matches("task 1 %(%S*script%.lua:%d+%) was left unfinished: call e2b.run%(%)", result.err)
      assert.is_nil(result.err:find("task 2", 1, true))
      assert.matches("task 3", result.err, 1, true)
      assert.equal("", support.run(PRELUDE .. "tasks.spawn(function() tasks.sleep(0.01) end) tasks.run()").err)
    end)

    it("report a raise that nobody asks for, and an error of on_done", function()
      local result = support.run(PRELUDE .. [[
        tasks.spawn(function() error("nobody listens") end)
        tasks.spawn(function() return 1 end, function() error("in on_done") end)
        tasks.spawn(function() error("asked for") end):wait()
        tasks.spawn(function() assert(tasks.sleep(1)) end):cancel()
        assert(tasks.run())
        print("goes on")
      ]])
      assert.matches("task 1 .- failed: .-nobody listens\nstack traceback:", result.err)
      assert.matches("on_done of task 2 .- failed: .-in on_done\nstack traceback:", result.err)
      assert.is_nil(result.err:find("asked for", 1, true))
      assert.is_nil(result.err:find("task 4", 1, true))
      assert.equal("goes on\n", result.out)
    end)

    it("are cancelled and clean up when Ctrl-C ends the wait for them", function()
      local result = support.run(PRELUDE .. [[
        os.execute("(sleep 0.3; kill -INT " .. core.getpid() .. ") &")
        local ok, message = pcall(tasks.map, { 1, 2 }, function(i)
          local _, _, err = tasks.sleep(20)
          tasks.shield(function() tasks.sleep(0.05) print(i, err.kind) end, 5)
        end)
        print(ok, message)
      ]], { timeout = 15 })
      assert.matches("1%s+cancelled\n2%s+cancelled\nfalse%s+.*interrupted!", result.out)
      assert.equal("", result.err)
      assert.is_true(result.seconds < 5 * support.slack)
    end)

    it("are cancelled and clean up when Ctrl-C ends run", function()
      local result = support.run(PRELUDE .. [[
        os.execute("(sleep 0.3; kill -INT " .. core.getpid() .. ") &")
        tasks.spawn(function()
          local _, _, err = tasks.sleep(20)
          tasks.shield(function() tasks.sleep(0.05) print(err.kind) end, 5)
        end)
        print(pcall(tasks.run))
      ]], { timeout = 30 })
      assert.matches("^cancelled\nfalse%s+.*interrupted!", result.out)
      assert.equal("", result.err)
      assert.is_true(result.seconds < 5 * support.slack)
    end)

    it("don't speak for the parent after a fork", function()
      -- The name at the end is for the process that spawned: seen through the pid that is kept with each task.
      local result = support.run(PRELUDE .. [[
        local real = core.getpid
        local pid = real()
        core.getpid = function() return pid end
        tasks.spawn(function() tasks.sleep(100) end)
        pid = pid + 1
      ]])
      assert.equal("", result.err)
    end)
  end)

  it("keep their timers in order, whatever comes and goes", function()
    local heap, all = timers.new(), {}
    local state = 12345
    local function random(n)
      state = state * 16807 % 2147483647
      return state % n + 1
    end
    for step = 1, 3000 do
      if random(3) > 1 or #all == 0 then
        local wait = { deadline = random(200) }
        heap:push(wait)
        all[#all + 1] = wait
      else
        local at = random(#all)
        heap:remove(all[at])
        heap:remove(all[at])
        table.remove(all, at)
      end
      if step % 50 == 0 then
        local least = math.huge
        for _, wait in ipairs(all) do least = math.min(least, wait.deadline) end
        assert.equal(least, heap:first() and heap:first().deadline or math.huge)
        assert.equal(#all, heap.n)
      end
    end
    local last, seq = 0, 0
    while heap:first() do
      local wait = heap:first()
      assert.is_true(wait.deadline > last or wait.deadline == last and wait.seq > seq)
      last, seq = wait.deadline, wait.seq
      heap:remove(wait)
    end
    assert.equal(0, heap.n)
  end)
end)
