-- When a call is made again by itself, counted on the server. The limiter's rules are the service's own.
local failing = require("spec.support.failing")
local support = require("spec.support.support")

local LIMITED = '{"code":429,"message":"rate limit exceeded"}'

local function limited(after)
  return { status = 429, body = LIMITED, headers = { ["Retry-After"] = after } }
end

local GONE = { status = 200, body = failing.DETAIL }

describe("429 with a Retry-After that can be obeyed", function()
  for _, after in ipairs({ "0", "00", "  0 " }) do
    it(string.format("of %q is repeated at once, three times", after), failing.test(function(t)
      local server = t:answers({ limited(after) })
      local client = t:client(server)
      t:takes(0, function()
        t:fails({ kind = "rate_limit", status = 429, sent = "yes", retryable = true, attempts = 4, retry_after = 0,
          server_message = "rate limit exceeded" }, client.Sandbox.get_info("x"))
      end)
      assert.equal(4, t:count(server))
      -- the refused answers were read to their end: one connection served all
      assert.equal(1, server:count("connection"))
      t:works(client)
    end))
  end

  it("of 1 waits one second, no more and no less", failing.test(function(t)
    local server = t:answers({ limited("1"), GONE })
    local client = t:client(server)
    t:takes(1, function()
      assert(client.Sandbox.get_info("x"))
    end)
    local requests = server:requests()
    assert.equal(2, #requests)
    assert.is_true(requests[2].time - requests[1].time >= 0.99)
    t:works(client)
  end))

  local calls = {
    create = function(client) return client.Sandbox.create("base", { metadata = { a = "1", b = "2", c = "3" } }) end,
    connect = function(client) return client.Sandbox.connect("x") end,
    resume = function(client) return client.Sandbox.resume("x") end,
    pause = function(client) return client.Sandbox.pause("x") end,
    set_timeout = function(client) return client.Sandbox.set_timeout("x", 60) end,
    kill = function(client) return client.Sandbox.kill("x") end,
    get_metrics = function(client) return client.Sandbox.get_metrics("x") end,
    list = function(client) return client.Sandbox.list():next_items() end,
    templates = function(client) return client.Template.list():next_items() end,
    request = function(client) return client:request("POST", "/anything", { body = { a = 1 } }) end,
  }
  for name, call in pairs(calls) do
    it("repeats " .. name .. ", byte for byte", failing.test(function(t)
      local server = t:peer(string.format([[
        if n <= 3 then
          conn:respond(429, %s, { ["Retry-After"] = "0" })
        elseif request.path:match("/metrics") or request.path:match("^/v2/[^/]*$") and request.method == "GET" then
          conn:respond(200, "[]")
        elseif request.path:match("sandboxes$") or request.path:match("connect") or request.path:match("resume") then
          conn:respond(201, CREATED)
        elseif request.path == "/anything" then
          conn:respond(200, "{}")
        else
          conn:respond(204)
        end
      ]], support.serialize(LIMITED)))
      local client = t:client(server)
      assert(call(client))
      local requests = server:requests()
      assert.equal(4, #requests)
      for i = 2, 4 do
        assert.equal(requests[1].method, requests[i].method)
        assert.equal(requests[1].path, requests[i].path)
        assert.equal(requests[1].body, requests[i].body)
      end
      t:works(client)
    end))
  end

  it("counts what the client, or the call, allows", failing.test(function(t)
    for _, retries in ipairs({ 0, 1, 5 }) do
      local server = t:answers({ limited("0") })
      t:fails({ kind = "rate_limit", attempts = retries + 1 },
        t:client(server, { retries = retries }).Sandbox.create())
      assert.equal(retries + 1, t:count(server))
      t:fails({ kind = "rate_limit", attempts = retries + 1 },
        t:client(server, { retries = 3 }).Sandbox.create({ retries = retries }))
      assert.equal(2 * (retries + 1), t:count(server))
      server:stop()
    end
  end))

  it("refuses numbers of retries that are none", failing.test(function(t)
    local server = t:peer("conn:respond(200, OK)")
    for _, retries in ipairs({ -1, 1.5, "3", 0 / 0, true }) do
      local ok, message = pcall(t.client, t, server, { retries = retries })
      assert.is_false(ok)
      assert.truthy(tostring(message):find("retries", 1, true), tostring(message))
      local client = t:client(server)
      ok, message = pcall(client.Sandbox.get_info, "x", { retries = retries })
      assert.is_false(ok)
      assert.truthy(tostring(message):find("retries", 1, true), tostring(message))
    end
    assert.equal(0, server:count())
  end))

  it("doesn't wait when the wait goes beyond the deadline", failing.test(function(t)
    for _, row in ipairs({ { "60" }, { "2", 2 }, { "61", 0 }, { "2147483" } }) do
      local server = t:answers({ limited(row[1]) })
      local client = t:client(server)
      t:takes(0, function()
        t:fails({ kind = "rate_limit", attempts = 1, retryable = true, retry_after = tonumber(row[1]) },
          client.Sandbox.create({ request_timeout = row[2] }))
      end)
      assert.equal(1, t:count(server))
      t:works(client)
      server:stop()
    end
  end))

  it("waits without a deadline, too", failing.test(function(t)
    local server = t:answers({ limited("1"), GONE })
    t:takes(1, function()
      assert(t:client(server, { request_timeout = 0 }).Sandbox.get_info("x"))
    end)
    assert.equal(2, t:count(server))
  end))

  it("stops waiting when it is cancelled", failing.test(function(t)
    local e2b = require("e2b")
    local server = t:answers({ limited("30") })
    local client = t:client(server)
    local task = e2b.spawn(function() return client.Sandbox.create() end)
    e2b.sleep(0.2)
    assert.equal(1, t:count(server))
    t:takes(0, function()
      task:cancel()
      t:fails({ kind = "cancelled" }, task:wait())
    end)
    assert.equal(1, t:count(server))
    t:works(client)
  end))

  it("is followed by the failure that comes then", failing.test(function(t)
    local server = t:answers({ limited("0"), { cut = "before" } })
    local client = t:client(server)
    t:fails({ kind = "network", sent = "maybe", retryable = false, attempts = 2 }, client.Sandbox.create())
    assert.equal(2, t:count(server))
    t:works(client)
  end))

  it("tells the logger of every attempt", failing.test(function(t)
    local server = t:answers({ limited("0"), GONE })
    assert(t:client(server).Sandbox.get_info("x"))
    assert.equal(2, #t.log)
    assert.equal(1, t.log[1].attempt)
    assert.equal(429, t.log[1].status)
    assert.equal(2, t.log[2].attempt)
    assert.equal(200, t.log[2].status)
    assert.equal("GET", t.log[2].method)
    assert.equal("/sandboxes/x", t.log[2].path)
  end))
end)

describe("429 with a Retry-After that can't be obeyed", function()
  for _, after in ipairs({
    "Wed, 21 Oct 2026 07:28:00 GMT", "1.5", "+1", "-1", "1, 2", "", "2147484", "99999999999999999999", "0x1", "1e1",
    "soon",
  }) do
    it(string.format("is final: %q", after), failing.test(function(t)
      local server = t:answers({ limited(after) })
      local client = t:client(server)
      t:takes(0, function()
        local err = t:fails({ status = 429, attempts = 1, retry_after = failing.NONE }, client.Sandbox.create())
        assert.truthy(err.kind == "rate_limit" or err.kind == "quota")
      end)
      assert.equal(1, t:count(server))
      t:works(client)
    end))
  end

  it("is final when there is none: a quota", failing.test(function(t)
    local server = t:answers({ limited(nil) })
    local client = t:client(server)
    t:fails({ kind = "quota", attempts = 1, retryable = false }, client.Sandbox.create())
    t:fails({ kind = "quota", attempts = 1 }, client.Sandbox.get_info("x"))
    assert.equal(2, t:count(server))
    t:works(client)
  end))
end)

describe("the gate after a 429", function()
  local gated = [[
    if request.method == "POST" then
      shared.posts = (shared.posts or 0) + 1
      if shared.posts == 1 then
        conn:respond(429, '{"code":429,"message":"slow down"}', { ["Retry-After"] = "1" })
        return
      end
      conn:respond(201, CREATED)
    else
      conn:respond(200, OK)
    end
  ]]

  it("holds the later calls of that operation until one is through", failing.test(function(t)
    local e2b = require("e2b")
    local server = t:peer(gated)
    local client, other = t:client(server), t:client(server)
    local begin = support.now()
    local first = e2b.spawn(function() return assert(client.Sandbox.create()) end)
    support.wait_for(function()
      e2b.sleep(0.01)
      return #t.log > 0
    end)
    local later = {}
    for i = 1, 6 do
      later[i] = e2b.spawn(function() return assert(client.Sandbox.create()) end)
    end
    -- another operation of the client, and the same one of another client, go through at once
    assert(client.Sandbox.get_info("x"))
    assert(other.Sandbox.create())
    assert.is_true(support.now() - begin < 0.5 * support.slack)
    assert(first:wait())
    for i = 1, 6 do
      assert(later[i]:wait())
    end
    assert.is_true(support.now() - begin < 1 + 3 * support.tolerance)
    local posts = {}
    for _, request in ipairs(server:requests()) do
      if request.method == "POST" then
        posts[#posts + 1] = request
      end
    end
    assert.equal(9, #posts)
    for i = 3, 9 do
      assert.is_true(posts[i].time - posts[1].time >= 0.99, "a request came before its time")
    end
  end))

  it("lets one through first, and closes again when that is refused", failing.test(function(t)
    local e2b = require("e2b")
    local server = t:peer([[
      shared.posts = (shared.posts or 0) + 1
      if shared.posts <= 2 then
        conn:respond(429, '{"code":429,"message":"slow down"}', { ["Retry-After"] = "1" })
      else
        conn:respond(201, CREATED)
      end
    ]])
    local client = t:client(server)
    local first = e2b.spawn(function() return assert(client.Sandbox.create()) end)
    support.wait_for(function()
      e2b.sleep(0.01)
      return #t.log > 0
    end)
    local results = e2b.map({ 1, 2, 3, 4, 5 }, function() return assert(client.Sandbox.create()) end)
    assert(first:wait())
    for i = 1, 5 do
      assert.is_true(results[i].ok, results[i].message)
    end
    local times = {}
    for i, request in ipairs(server:requests()) do
      times[i] = request.time - server:requests()[1].time
    end
    -- one refused at 0 s, one alone at 1 s refused again, the rest from 2 s on
    assert.equal(8, #times)
    assert.is_true(times[2] >= 0.99 and times[2] < 1 + 2 * support.tolerance, times[2])
    assert.is_true(times[3] >= 1.98, times[3])
  end))

  it("doesn't keep a call that has less time than that", failing.test(function(t)
    local e2b = require("e2b")
    local server = t:answers({ limited("2") })
    local client = t:client(server)
    local first = e2b.spawn(function() return client.Sandbox.create() end)
    support.wait_for(function()
      e2b.sleep(0.01)
      return #t.log > 0
    end)
    t:takes_between(0, 0.5 + support.tolerance, function()
      local err = t:fails({ sent = "no", retryable = true }, client.Sandbox.create({ request_timeout = 0.5 }))
      assert.truthy(err.kind == "rate_limit" or err.kind == "timeout", err.kind)
    end)
    first:cancel()
    first:wait()
    assert.equal(1, t:count(server))
    t:works(client)
  end))
end)

describe("502 and 504", function()
  for _, status in ipairs({ 502, 504 }) do
    it(status .. " are repeated for GET and DELETE", failing.test(function(t)
      t:fast_retries()
      local server = t:answers({ { status = status, body = "<html>", headers = { ["Content-Type"] = "text/html" } } })
      local client = t:client(server)
      t:fails({ kind = "server", status = status, attempts = 4, retryable = true }, client.Sandbox.get_info("x"))
      assert.equal(4, t:count(server))
      t:fails({ kind = "server", status = status, attempts = 4, retryable = true }, client.Sandbox.kill("x"))
      assert.equal(8, t:count(server))
      t:fails({ kind = "server", attempts = 4 }, client.Sandbox.list():next_items())
      assert.equal(12, t:count(server))
      t:works(client)
    end))

    it(status .. " are never repeated for POST", failing.test(function(t)
      local server = t:answers({ { status = status } })
      local client = t:client(server)
      for i, name in ipairs({ "create", "pause", "resume", "connect" }) do
        t:fails({ kind = "server", status = status, attempts = 1, retryable = false }, client.Sandbox[name]("x"))
        assert.equal(i, t:count(server))
      end
      t:fails({ kind = "server", attempts = 1 }, client.Sandbox.set_timeout("x", 60))
      t:fails({ kind = "server", attempts = 1 }, client:request("POST", "/x", { body = {} }))
      assert.equal(6, t:count(server))
      t:works(client)
    end))
  end

  it("end well when the next answer is good", failing.test(function(t)
    t:fast_retries()
    local server = t:answers({ { status = 502 }, { status = 504 }, GONE })
    assert(t:client(server).Sandbox.get_info("x"))
    assert.equal(3, t:count(server))
  end))

  it("wait 0.5 s × 1.5 in between, give or take the half, within the deadline", failing.test(function(t)
    local server = t:answers({ { status = 502 } })
    local client = t:client(server)
    t:takes_between(0.2, 1.2 + support.tolerance, function()
      t:fails({ attempts = { 2, 3 } }, client.Sandbox.get_info("x", { request_timeout = 1.2 }))
    end)
    local requests = server:requests()
    local first = requests[2].time - requests[1].time
    assert.is_true(first >= 0.24 and first <= 0.75 + support.tolerance, first)
    t:works(client)
  end))

  it("grow by the half and scatter", function()
    local retry = require("e2b.retry")
    for n = 1, 6 do
      local least, most = math.huge, 0
      for _ = 1, 200 do
        local wait = retry.backoff(n)
        least, most = math.min(least, wait), math.max(most, wait)
      end
      local middle = 0.5 * 1.5 ^ (n - 1)
      assert.is_true(least >= middle * 0.5 and most <= middle * 1.5)
      assert.is_true(least < middle * 0.7 and most > middle * 1.3)
    end
  end)

  it("of a sandbox itself are not repeated", failing.test(function(t)
    local server = t:answers({ { status = 502 } })
    local client = t:client(server, { sandbox_url = server.url })
    assert.is_false((client.Sandbox.is_running("x")))
    assert.equal(1, t:count(server))
    assert.is_nil(server:requests()[1].headers["x-api-key"])
  end))
end)

describe("what is never repeated", function()
  for _, answer in ipairs({
    { status = 500 }, { status = 503 }, { status = 503, headers = { ["Retry-After"] = "0" } },
    { status = 503, body = '{"code":503,"message":"busy"}', headers = { ["Retry-After"] = "0" } },
    { status = 401 }, { status = 403 }, { status = 409 }, { status = 400 }, { status = 501 }, { status = 505 },
    { status = 408 }, { status = 425 }, { status = 302, headers = { Location = "http://127.0.0.1:1/" } },
    { status = 200, body = "{" }, { status = 200, body = "" },
  }) do
    local name = answer.status .. (answer.headers and answer.headers["Retry-After"] and " with Retry-After" or "")
      .. (answer.body and " with a body" or "")
    it(name, failing.test(function(t)
      local server = t:answers({ answer })
      local client = t:client(server)
      t:fails({ status = answer.status, attempts = 1 }, client.Sandbox.get_info("x"))
      assert.equal(1, t:count(server))
      t:fails({ status = answer.status, attempts = 1 }, client.Sandbox.create())
      assert.equal(2, t:count(server))
      t:works(client)
    end))
  end

  it("a rate limit of a sandbox itself", failing.test(function(t)
    local server = t:answers({ limited("0") })
    local client = t:client(server, { sandbox_url = server.url })
    t:fails({ kind = "rate_limit", attempts = 1 }, client.Sandbox.is_running("x"))
    assert.equal(1, t:count(server))
  end))

  it("a timeout of the call itself", failing.test(function(t)
    local server = t:peer("conn:wait_closed()")
    t:fails({ kind = "timeout", attempts = 1 }, t:client(server).Sandbox.get_info("x", { request_timeout = 0.2 }))
    assert.equal(1, t:count(server))
  end))
end)
