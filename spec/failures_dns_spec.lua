-- Name resolution, the one part of a call that no socket option bounds: a name server that never answers must not hold
-- up
-- a deadline, a cancel or the end of the process. Each spec is a script in a namespace with a name server of its own.
local dns = require("spec.support.dns")
local support = require("spec.support.support")

local COMMON = [[
local support = require("spec.support.support")
local failing = require("spec.support.failing")
local function client(options)
  local all = { api_key = failing.KEY, api_url = "http://api.example.com", proxy = false, getenv = function() end }
  for name, value in pairs(options or {}) do all[name] = value end
  return require("e2b").client(all)
end
local function check(seconds, want, fn)
  local took, value, message, err = support.timed(fn)
  assert(value == nil, "a value came: " .. tostring(value))
  assert(math.abs(took - seconds) < support.tolerance, "took " .. took .. " s: " .. tostring(message))
  for name, expected in pairs(want) do
    assert(err[name] == expected, name .. " is " .. tostring(err[name]) .. ": " .. message)
  end
  support.assert_no_secret(failing.SECRETS, message, err)
end
]]

local function passes(source, options)
  local result = dns.run(COMMON .. source .. "\nprint('passed')", options)
  assert.equal("passed\n", result.out, result.err .. result.out)
  assert.equal(0, result.code, result.err)
  assert.equal("", result.err)
  return result
end

describe("a name server that never answers", function()
  it("really never answers", function()
    local result = dns.run([[
      local support = require("spec.support.support")
      local output, code = support.shell("timeout 0.5 getent hosts api.example.com")
      io.write(output, code)
    ]])
    assert.equal("124", result.out)
  end)

  it("doesn't hold up the deadline of a call, nor the next call, nor the end of the process", function()
    local result = passes([[
      local c = client()
      check(0.4, { kind = "timeout", deadline = "request_timeout", sent = "no", retryable = true }, function()
        return c.Sandbox.get_info("x", { request_timeout = 0.4 })
      end)
      check(0.4, { kind = "timeout", deadline = "request_timeout", sent = "no", retryable = true }, function()
        return c.Sandbox.create({ request_timeout = 0.4 })
      end)
      check(0.3, { kind = "timeout", deadline = "connect_timeout", sent = "no", retryable = true }, function()
        return client({ connect_timeout = 0.3, retries = 0 }).Sandbox.create()
      end)
      local server = require("spec.support.peer").start("conn:serve(function() conn:respond(200, " ..
        support.serialize(failing.DETAIL) .. ") end)")
      local took, sandbox = support.timed(client({ api_url = server.url }).Sandbox.get_info, "ok")
      assert(sandbox.sandbox_id == "ok" and took < support.tolerance)
      server:stop()
      support.assert_no_leak({ transfers = 0, in_flight = 0 })
    ]])
    -- the resolver would have gone on for 20 s
    assert.is_true(result.seconds < 3 * support.slack, "the process took " .. result.seconds .. " s")
  end)

  it("doesn't hold up a cancel", function()
    passes([[
      local e2b = require("e2b")
      local c = client()
      local task = e2b.spawn(function() return c.Sandbox.create() end)
      e2b.sleep(0.3)
      check(0, { kind = "cancelled", sent = "no" }, function()
        task:cancel()
        return task:wait()
      end)
      support.assert_no_leak({ transfers = 0, in_flight = 0 })
    ]])
  end)

  it("doesn't hold up other calls of the same client", function()
    passes([[
      local e2b = require("e2b")
      local server = require("spec.support.peer").start("conn:serve(function() conn:respond(200, " ..
        support.serialize(failing.DETAIL) .. ") end)")
      local lost, fine = client(), client({ api_url = server.url })
      local begin, seconds = support.now(), nil
      local results = e2b.all(function()
        return lost.Sandbox.get_info("x", { request_timeout = 0.6 })
      end, function()
        local sandbox = assert(fine.Sandbox.get_info("ok"))
        seconds = support.now() - begin
        return sandbox
      end)
      assert(seconds < support.tolerance, seconds)
      assert(results[1].err.deadline == "request_timeout")
      local took = support.now() - begin
      assert(math.abs(took - 0.6) < support.tolerance, took)
      server:stop()
    ]])
  end)
end)

describe("a name that does not resolve", function()
  it("is a network failure, surely not sent", function()
    passes([[
      local c = client({ retries = 0 })
      local want = { kind = "network", sent = "no", retryable = true, attempts = 1 }
      check(0, want, function() return c.Sandbox.get_info("x") end)
      check(0, want, function() return c.Sandbox.create() end)
      local _, message = c.Sandbox.create()
      assert(message:find("api.example.com", 1, true), message)
    ]], { hosts = "files" })
  end)

  it("is tried four times", function()
    passes([[
      local took, value, message, err = support.timed(client().Sandbox.create)
      assert(value == nil and err.attempts == 4 and err.sent == "no", message)
      assert(took > 1.18 and took < 3.7 * support.slack, took)
    ]], { hosts = "files" })
  end)
end)
