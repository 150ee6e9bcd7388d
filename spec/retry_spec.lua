local client_module = require("e2b.client")
local core = require("e2b.core")
local retry = require("e2b.retry")
local tasks = require("e2b.tasks")
local support = require("spec.support.support")
local peer = require("spec.support.peer")

local OK = { status = 200, body = '{"sandboxID":"i1","templateID":"base"}' }
local CREATED = { status = 201, body = '{"sandboxID":"i1","templateID":"base"}' }

local function answer(status, headers, body)
  return { status = status, headers = headers, body = body or ('{"code":%d,"message":"told so"}'):format(status) }
end

local function client_of(server, opts)
  opts = opts or {}
  opts.api_url, opts.api_key, opts.getenv = opts.api_url or server.url, "e2b_hidden", function() end
  return client_module.new(opts)
end

local function create(client, opts)
  return client:call("sandbox_create", { body = { template = "base" } }, opts, { operation = "Sandbox.create" })
end

local function get(client, opts)
  return client:call("sandbox_get", { sandbox_id = "i1" }, opts, { operation = "Sandbox.get_info" })
end

local function kill(client, opts)
  return client:call("sandbox_kill", { sandbox_id = "i1" }, opts, { operation = "Sandbox.kill", resource = "sandbox" })
end

describe("retries", function()
  local server, before

  local function serve(answers, options)
    server = peer.answers(answers, options)
    return server
  end

  before_each(function() before = support.snapshot() end)
  after_each(function()
    if server then
      server:stop()
      server = nil
    end
    support.assert_no_leak({ transfers = before.transfers, in_flight = before.in_flight })
  end)

  describe("after a rate limit", function()
    it("repeat any call after exactly the seconds that were asked for", function()
      serve({ answer(429, { ["Retry-After"] = "1" }), CREATED })
      local took, value, meta = support.timed(create, client_of(server))
      assert.equal("i1", value.sandbox_id)
      assert.equal(2, meta.attempts)
      assert.equal(2, server:count())
      assert.is_true(took >= 1 and took < 1 + support.tolerance, took)
      local requests = server:requests()
      assert.equal(requests[1].body, requests[2].body)
      assert.equal(requests[1].path, requests[2].path)
    end)

    it("repeat at once after 0, four attempts in all", function()
      serve({ answer(429, { ["Retry-After"] = "0" }) })
      local took, value, message, err = support.timed(create, client_of(server))
      assert.is_nil(value)
      assert.equal(4, server:count())
      assert.equal(4, err.attempts)
      assert.equal("rate_limit", err.kind)
      assert.equal(0, err.retry_after)
      assert.is_true(err.retryable)
      assert.equal("yes", err.sent)
      assert.matches("told so", message, 1, true)
      assert.matches("4 attempts", message, 1, true)
      assert.is_true(took < support.tolerance, took)
    end)

    it("keep to the option, of the call before that of the client", function()
      serve({ answer(429, { ["Retry-After"] = "0" }) })
      local client = client_of(server, { retries = 1 })
      create(client)
      assert.equal(2, server:count())
      create(client, { retries = 0 })
      assert.equal(3, server:count())
      create(client, { retries = 2 })
      assert.equal(6, server:count())
      create(client_of(server, { retries = 0 }))
      assert.equal(7, server:count())
    end)

    it("do not happen without a Retry-After that can be obeyed", function()
      local list = { "1.5", "+1", "-1", "1, 2", "soon", "2147484", "Wed, 21 Oct 2015 07:28:00 GMT" }
      local answers = { answer(429) }
      for i, text in ipairs(list) do answers[i + 1] = answer(429, { ["Retry-After"] = text }) end
      serve(answers)
      local client = client_of(server)
      local _, _, err = create(client)
      assert.equal("quota", err.kind)
      assert.is_false(err.retryable)
      for i, text in ipairs(list) do
        _, _, err = create(client)
        assert.equal(1, err.attempts, text)
        assert.is_nil(err.retry_after, text)
        assert.equal(i + 1, server:count())
      end
    end)

    it("do not wait beyond the deadline: the answer is final at once", function()
      serve({
        answer(429, { ["Retry-After"] = "60" }), answer(429, { ["Retry-After"] = "1" }),
        answer(429, { ["Retry-After"] = "60" }), OK,
      })
      local client = client_of(server)
      local took, _, _, err = support.timed(get, client)
      assert.equal("rate_limit", err.kind)
      assert.equal(60, err.retry_after)
      assert.equal(1, err.attempts)
      assert.is_true(took < support.tolerance, took)
      took, _, _, err = support.timed(get, client, { request_timeout = 0.9 })
      assert.equal(1, err.attempts)
      assert.is_true(took < support.tolerance, took)
      -- with the deadline off, 60 s
      took, _, _, err = support.timed(get, client, { request_timeout = 0 })
      assert.equal(1, err.attempts)
      assert.is_true(took < support.tolerance, took)
      assert.equal(3, server:count())
      -- and nobody has to wait for a wait that did not take place
      took = support.timed(get, client)
      assert.equal(4, server:count())
      assert.is_true(took < support.tolerance, took)
    end)

    it("have one deadline for all attempts and waits", function()
      serve({ answer(429, { ["Retry-After"] = "1" }), { status = 200, body = "{}", delay = 10 } })
      local took, _, _, err = support.timed(create, client_of(server, { request_timeout = 1.3 }))
      assert.equal("timeout", err.kind)
      assert.equal("request_timeout", err.deadline)
      assert.equal(2, err.attempts)
      assert.is_true(took >= 1.3 and took < 1.3 + support.tolerance, took)
    end)

    it("do not happen for what runs inside a sandbox", function()
      serve({ answer(429, { ["Retry-After"] = "0" }), answer(502), { status = 204 } })
      local client = client_of(server, { sandbox_url = server.url })
      local target = assert(client:sandbox_target(nil, "i1"))
      for i = 1, 2 do
        local _, _, err = client:call("envd_health", {}, nil, { operation = "Sandbox.is_running", target = target })
        assert.equal(1, err.attempts)
        assert.equal(i, server:count())
      end
    end)

    it("end when the task is cancelled during the wait", function()
      serve({ answer(429, { ["Retry-After"] = "30" }) })
      local client = client_of(server)
      local task = tasks.spawn(function() return create(client) end)
      tasks.sleep(0.2)
      assert.equal(1, server:count())
      task:cancel()
      local took, _, _, err = support.timed(task.wait, task)
      assert.equal("cancelled", err.kind)
      assert.equal(1, err.attempts)
      assert.is_true(took < support.tolerance)
      -- the gate has gone with it
      took, _, _, err = support.timed(create, client, { request_timeout = 5 })
      assert.equal("rate_limit", err.kind)
      assert.equal(2, server:count())
      assert.is_true(took < support.tolerance)
    end)
  end)

  describe("and the gate", function()
    -- A limiter: `free` requests pass in each window of one second, the others get 429 with the seconds to wait.
    local LIMITER = [[
      local free, window = %d, %g
      conn:serve(function()
        local now = require("cqueues").monotime()
        if not shared.start or now >= shared.start + window then shared.start, shared.used = now, 0 end
        if shared.used < free then
          shared.used = shared.used + 1
          conn:respond(201, '{"sandboxID":"i1","templateID":"base"}')
        else
          conn:respond(429, '{"code":429,"message":"Rate limit exceeded"}', { ["Retry-After"] = "1" })
        end
      end)
    ]]

    it("lets one through when the wait is over, and the others after its success", function()
      server = peer.start([[
        conn:serve(function(request)
          if request.number == 1 then
            conn:respond(429, "{}", { ["Retry-After"] = "1" })
          else
            conn.sleep(conn, 0.15)
            conn:respond(201, '{"sandboxID":"i1","templateID":"base"}')
          end
        end)
      ]])
      local client = client_of(server)
      local first = tasks.spawn(function() return create(client) end)
      tasks.sleep(0.1)
      assert.equal(1, server:count())
      -- These come while the gate is closed: none of them is sent before the first has got through.
      local results, failed = tasks.map({ 1, 2, 3, 4 }, function() return create(client) end)
      assert.equal(0, failed, results[1].message)
      assert.is_truthy((first:wait()))
      local requests = server:requests()
      assert.equal(6, #requests)
      local function after(i) return requests[i].time - requests[1].time end
      assert.is_true(after(2) >= 1 and after(2) < 1 + support.tolerance, after(2))
      -- the third is sent when the answer of the second is there
      for i = 3, 6 do assert.is_true(after(i) >= after(2) + 0.15, i .. ": " .. after(i)) end
      assert.is_true(after(6) < after(2) + 2 * 0.15 + 2 * support.tolerance)
    end)

    it("closes again on another 429", function()
      serve({
        answer(429, { ["Retry-After"] = "1" }), answer(429, { ["Retry-After"] = "1" }), CREATED, CREATED,
      })
      local client = client_of(server)
      local first = tasks.spawn(function() return create(client) end)
      tasks.sleep(0.05)
      local value, meta = create(client)
      assert.is_truthy(value, meta)
      assert.equal(1, meta.attempts) -- it never met the limiter itself
      value, meta = first:wait()
      assert.is_truthy(value)
      assert.equal(3, meta.attempts)
      local requests = server:requests()
      assert.equal(4, #requests)
      assert.is_true(requests[2].time - requests[1].time >= 1)
      assert.is_true(requests[3].time - requests[2].time >= 1)
    end)

    it("gets a burst past a limiter without spending the attempts", function()
      server = peer.start(LIMITER:format(5, 1))
      local client = client_of(server)
      local list = {}
      for i = 1, 20 do list[i] = i end
      local took, results, failed = support.timed(tasks.map, list, function() return create(client) end)
      assert.equal(0, failed, (function()
        for _, entry in ipairs(results) do
          if not entry.ok then return entry.message end
        end
      end)())
      assert.is_true(took < 5 * support.slack, took)
    end)

    it("is one operation's, and one client's", function()
      serve({ answer(429, { ["Retry-After"] = "2" }), OK })
      local client = client_of(server)
      local waiting = tasks.spawn(function() return create(client) end)
      tasks.sleep(0.1)
      local took = support.timed(function()
        assert.is_truthy((get(client)))
        assert.is_truthy((create(client_of(server))))
        assert.is_truthy((create(client, { retries = 0 }))) -- retries off: no waiting either
      end)
      assert.is_true(took < support.tolerance, took)
      assert.equal(4, server:count())
      waiting:cancel()
      waiting:wait()
    end)

    it("turns a call away at once whose time is too short for the wait", function()
      serve({ answer(429, { ["Retry-After"] = "2" }), CREATED })
      local client = client_of(server)
      local waiting = tasks.spawn(function() return create(client) end)
      tasks.sleep(0.1)
      local took, value, message, err = support.timed(create, client, { request_timeout = 1 })
      assert.is_nil(value)
      assert.equal("rate_limit", err.kind)
      assert.same({ "no", 0, true }, { err.sent, err.attempts, err.retryable })
      assert.is_true(err.retry_after >= 1 and err.retry_after <= 2)
      assert.matches("^Sandbox.create: too many requests", message)
      assert.is_true(took < support.tolerance, took)
      assert.equal(1, server:count())
      assert.is_truthy((waiting:wait()))
      assert.equal(2, server:count())
    end)

    it("is left by a call that is cancelled; the next takes its place", function()
      serve({ answer(429, { ["Retry-After"] = "1" }), CREATED })
      local client = client_of(server)
      local first = tasks.spawn(function() return create(client) end)
      tasks.sleep(0.05)
      local second = tasks.spawn(function() return create(client) end)
      local third = tasks.spawn(function() return create(client) end)
      tasks.sleep(0.05)
      first:cancel()
      third:cancel()
      local value, meta = second:wait()
      assert.is_truthy(value)
      assert.equal(1, meta.attempts)
      assert.equal(2, server:count())
      local requests = server:requests()
      local gap = requests[2].time - requests[1].time
      assert.is_true(gap >= 1 and gap < 1 + support.tolerance, gap)
      tasks.run()
    end)

    it("lets the next one try when the one that went through breaks", function()
      server = peer.start([[
        conn:serve(function(request)
          if request.number == 1 then
            conn:respond(429, "{}", { ["Retry-After"] = "1" })
          elseif request.number == 2 then
            conn:reset()
          else
            conn:respond(201, '{"sandboxID":"i1","templateID":"base"}')
          end
        end)
      ]])
      local client = client_of(server)
      local results = tasks.map({ 1, 2 }, function(i)
        tasks.sleep(0.05 * i)
        return create(client)
      end)
      assert.equal("network", results[1].err.kind)
      assert.equal("maybe", results[1].err.sent)
      assert.is_true(results[2].ok, results[2].message)
      assert.equal(3, server:count())
    end)

    it("does not hold up later calls when Ctrl-C breaks a wait off", function()
      serve({ answer(429, { ["Retry-After"] = "30" }), CREATED })
      local result = support.run(([[
        local core = require("e2b.core")
        local client = require("e2b.client").new({ api_url = %q, api_key = "k" })
        local function create() return client:call("sandbox_create", { body = { template = "base" } }) end
        os.execute("(sleep 0.4; kill -INT " .. core.getpid() .. ") &")
        print(pcall(create))
        local begin = core.now()
        print((create()).sandbox_id, core.now() - begin < 1)
      ]]):format(server.url), { timeout = 20 })
      assert.matches("^false%s+.-interrupted!\ni1%s+true", result.out, result.err)
    end)
  end)

  describe("after a connection that was not made", function()
    it("repeat any call, with growing waits", function()
      local port = peer.free_port()
      local client = client_of(nil, { api_url = "http://127.0.0.1:" .. port })
      local took, value, message, err = support.timed(create, client)
      assert.is_nil(value)
      assert.equal("network", err.kind)
      assert.equal("no", err.sent)
      assert.is_true(err.retryable)
      assert.equal(4, err.attempts)
      assert.is_nil(message:find("may have been made", 1, true))
      -- 0.5, 0.75 and 1.125 s, each ± 50 %
      assert.is_true(took >= 1.18 and took < 3.57 + support.tolerance, took)
    end)

    it("go through as soon as somebody listens", function()
      local port = peer.free_port()
      local client = client_of(nil, { api_url = "http://127.0.0.1:" .. port })
      local task = tasks.spawn(function() return create(client) end)
      tasks.sleep(0.05)
      server = peer.answers({ CREATED }, { port = port })
      local value, meta = task:wait()
      assert.equal("i1", value.sandbox_id)
      assert.equal(2, meta.attempts)
      assert.equal(1, server:count())
    end)

    it("do not happen with retries = 0", function()
      local client = client_of(nil, { api_url = "http://127.0.0.1:" .. peer.free_port(), retries = 0 })
      local took, _, _, err = support.timed(create, client)
      assert.equal(1, err.attempts)
      assert.is_true(took < support.tolerance)
    end)

    it("end with the deadline", function()
      local client = client_of(nil, { api_url = "http://127.0.0.1:" .. peer.free_port() })
      local took, _, _, err = support.timed(create, client, { request_timeout = 0.4 })
      assert.equal("network", err.kind)
      assert.is_true(took < 0.4 + support.tolerance)
    end)

    it("end when the task is cancelled", function()
      local client = client_of(nil, { api_url = "http://127.0.0.1:" .. peer.free_port() })
      local task = tasks.spawn(function() return create(client) end)
      tasks.sleep(0.05)
      task:cancel()
      local took, _, _, err = support.timed(task.wait, task)
      assert.equal("cancelled", err.kind)
      assert.equal("no", err.sent)
      assert.is_true(took < support.tolerance)
    end)
  end)

  describe("after a cut connection", function()
    it("repeat GET and DELETE", function()
      for _, cut in ipairs({ "before", "headers", "body" }) do
        for _, call in ipairs({ get, kill }) do
          serve({ { status = 200, body = OK.body, cut = cut }, OK })
          local value, meta = call(client_of(server))
          assert.is_truthy(value, cut .. ": " .. tostring(meta))
          assert.equal(2, meta.attempts)
          assert.equal(2, server:count())
          server:stop()
        end
      end
      server = nil
    end)

    it("never repeat a create: one request, and a warning", function()
      for _, cut in ipairs({ "before", "headers", "body" }) do
        serve({ { status = 201, body = OK.body, cut = cut }, CREATED })
        local value, message, err = create(client_of(server))
        assert.is_nil(value, cut)
        assert.equal("network", err.kind, cut)
        assert.equal(1, err.attempts)
        assert.is_true(err.sent == "maybe" or err.sent == "yes", cut)
        assert.is_false(err.retryable)
        assert.matches("may have been made", message, 1, true)
        support.sleep(0.05)
        assert.equal(1, server:count())
        server:stop()
      end
      server = nil
    end)
  end)

  describe("by status", function()
    it("repeat 502 and 504 for GET and DELETE only", function()
      for _, status in ipairs({ 502, 504 }) do
        serve({ answer(status, nil, "<html>bad gateway</html>"), OK })
        local value, meta = get(client_of(server))
        assert.is_truthy(value, tostring(meta))
        assert.equal(2, meta.attempts)
        server:stop()
        serve({ answer(status), CREATED })
        local _, _, err = create(client_of(server))
        assert.equal("server", err.kind)
        assert.is_false(err.retryable)
        assert.equal(1, server:count())
        server:stop()
      end
      server = nil
    end)

    it("never repeat anything else", function()
      for _, status in ipairs({ 400, 401, 403, 404, 409, 500, 501, 503, 302 }) do
        serve({ answer(status, { ["Retry-After"] = "0", Location = "http://127.0.0.1:1/" }), OK })
        local value, _, err = get(client_of(server))
        assert.is_nil(value)
        assert.equal(1, err.attempts, tostring(status))
        assert.equal(1, server:count())
        server:stop()
      end
      server = nil
    end)
  end)

  it("decide by the facts alone", function()
    local function half() return 0.5 end
    local function decide(facts, attempts, idempotent, api)
      return retry.decide(facts, attempts or 1, 3, idempotent or false, api ~= false, half)
    end
    local function curl(code, sent) return { cause = "curl", curl = code, sent = sent } end
    assert.same({ "backoff", 0.5 }, { decide(curl(7, "no")) })
    assert.same({ "backoff", 0.75 }, { decide(curl(7, "no"), 2) })
    assert.same({ "backoff", 1.125 }, { decide(curl(7, "no"), 3) })
    assert.is_nil((decide(curl(7, "no"), 4)))
    assert.same({ "backoff", 0.5 }, { decide(curl(6, "no")) })
    assert.same({ "backoff", 0.5 }, { decide(curl(35, "no")) })
    assert.same({ "backoff", 0.5 }, { decide({ cause = "deadline", deadline = "connect_timeout", sent = "no" }) })
    assert.is_nil((decide({ cause = "deadline", deadline = "request_timeout", sent = "no" }, 1, true)))
    assert.is_nil((decide({ cause = "deadline", deadline = "idle_timeout", sent = "maybe" }, 1, true)))
    for _, code in ipairs({ 51, 58, 60, 77, 83, 90, 91 }) do assert.is_nil((decide(curl(code, "no"), 1, true))) end
    for _, code in ipairs({ 16, 18, 52, 55, 56, 92 }) do
      assert.is_nil((decide(curl(code, "maybe"))))
      assert.equal("backoff", (decide(curl(code, "maybe"), 1, true)))
    end
    local replay = { cause = "curl", curl = 42, sent = "maybe", replay = true }
    assert.is_nil((decide(replay)))
    assert.equal("backoff", (decide(replay, 1, true)))
    for _, cause in ipairs({ "json", "shape", "too_large", "cancelled" }) do
      assert.is_nil((decide({ cause = cause, sent = "yes" }, 1, true)))
    end
    assert.same({ "rate_limit", 3 }, { decide({ cause = "http", status = 429, retry_after = "3" }) })
    assert.is_nil((decide({ cause = "http", status = 429, retry_after = "3" }, 1, true, false)))
    assert.is_nil((decide({ cause = "http", status = 502 }, 1, true, false)))
  end)

  it("spread their waits over half to one and a half of it", function()
    local least, most = math.huge, 0
    for _ = 1, 1000 do
      local wait = retry.backoff(1)
      least, most = math.min(least, wait), math.max(most, wait)
    end
    assert.is_true(least >= 0.25 and least < 0.3, least)
    assert.is_true(most <= 0.75 and most > 0.7, most)
  end)

  it("don't touch the host's random numbers", function()
    math.randomseed(42)
    local first = math.random()
    math.randomseed(42)
    retry.backoff(1)
    assert.equal(first, math.random())
    assert.is_number(core.now())
  end)
end)
