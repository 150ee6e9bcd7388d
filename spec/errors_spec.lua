local errors = require("e2b.errors")

local function info(fields)
  local base = {
    operation = "Sandbox.get_info", sandbox_id = "i1", resource = "sandbox", attempts = 1, idempotent = true,
    host = "api.e2b.app", api = true, request_timeout = 60, connect_timeout = 10, idle_timeout = 30, max_bytes = 1024,
  }
  for name, value in pairs(fields or {}) do base[name] = value end
  return base
end

local function fail(facts, more)
  local value, message, err = errors.from_facts(facts, info(more))
  assert.is_nil(value)
  assert.equal(message, err.message)
  assert.equal(message, tostring(err))
  return err, message
end

local function http(status, fields)
  local facts = { cause = "http", status = status, sent = "yes" }
  for name, value in pairs(fields or {}) do facts[name] = value end
  return facts
end

local CREATE = { operation = "Sandbox.create", idempotent = false, creates = true }

describe("errors", function()
  it("are three results: nil, a sentence, a table that prints as the sentence", function()
    local value, message, err = errors.new("conflict", { message = "no", operation = "x" })
    assert.is_nil(value)
    assert.equal("no", message)
    assert.equal("conflict", err.kind)
    assert.equal("no", tostring(err))
    assert.is_true(errors.is(err))
    assert.is_false(errors.is({}))
    assert.is_false(errors.is("no"))
    assert.is_nil(message:find("table", 1, true))
  end)

  it("take their kind from the status", function()
    for status, kind in pairs({
      [400] = "invalid_argument", [401] = "authentication", [402] = "quota", [403] = "forbidden", [404] = "not_found",
      [405] = "unsupported", [409] = "conflict", [410] = "unsupported", [413] = "too_large", [418] = "invalid_argument",
      [422] = "invalid_argument", [429] = "quota", [500] = "server", [501] = "unsupported", [502] = "server",
      [503] = "busy", [504] = "server", [599] = "server", [301] = "protocol", [302] = "protocol", [307] = "protocol",
    }) do
      local err = fail(http(status))
      assert.equal(kind, err.kind, tostring(status))
      assert.equal(status, err.status)
      assert.equal("yes", err.sent)
    end
  end)

  it("take their kind from libcurl's code", function()
    for code, kind in pairs({
      [6] = "network", [7] = "network", [5] = "network", [16] = "network", [18] = "network", [52] = "network",
      [55] = "network", [56] = "network", [92] = "network", [97] = "network", [2] = "network", [28] = "timeout",
      [1] = "protocol", [8] = "protocol", [61] = "protocol", [35] = "tls", [51] = "tls", [58] = "tls", [60] = "tls",
      [77] = "tls", [83] = "tls", [90] = "tls", [91] = "tls",
    }) do
      assert.equal(kind, fail({ cause = "curl", curl = code, text = "x", sent = "no" }).kind, tostring(code))
    end
  end)

  it("take their kind from the core's causes", function()
    for cause, kind in pairs({
      deadline = "timeout", cancelled = "cancelled", too_large = "too_large", json = "protocol", shape = "protocol",
    }) do
      assert.equal(kind, fail({ cause = cause, sent = "maybe", text = "x" }).kind)
    end
  end)

  it("tell a rate limit from a quota by Retry-After", function()
    local err, message = fail(http(429, { retry_after = "7", message = "Rate limit exceeded" }))
    assert.equal("rate_limit", err.kind)
    assert.equal(7, err.retry_after)
    assert.is_true(err.retryable)
    assert.matches("Rate limit exceeded", message, 1, true)
    assert.matches("in 7 s", message, 1, true)
    err, message = fail(http(429, { message = "maximum number of concurrent sandboxes (20)" }), CREATE)
    assert.equal("quota", err.kind)
    assert.is_false(err.retryable)
    assert.is_nil(err.retry_after)
    assert.matches("maximum number of concurrent sandboxes (20)", message, 1, true)
    assert.matches("repeating doesn't help", message, 1, true)
    err = fail(http(429, { retry_after = "Wed, 21 Oct 2015 07:28:00 GMT" }))
    assert.equal("rate_limit", err.kind) -- a time is named, only not one that is obeyed
    assert.is_nil(err.retry_after)
  end)

  it("read Retry-After as the official SDKs do", function()
    for text, seconds in pairs({ ["0"] = 0, ["00"] = 0, [" 5 "] = 5, ["\t12"] = 12, ["2147483"] = 2147483 }) do
      assert.equal(seconds, errors.retry_after(text))
    end
    for _, text in ipairs({ "", " ", "1.5", "+1", "-1", "1, 2", "1e3", "0x10", "2147484", ("9"):rep(400), "soon",
      "Wed, 21 Oct 2015 07:28:00 GMT" }) do
      assert.is_nil(errors.retry_after(text), text)
    end
    assert.is_nil(errors.retry_after(nil))
  end)

  it("say whether the same call may be made again safely", function()
    local function retryable(facts, idempotent) return fail(facts, { idempotent = idempotent }).retryable end
    local refused = { cause = "curl", curl = 7, text = "refused", sent = "no" }
    assert.is_true(retryable(refused, false))
    local cut = { cause = "curl", curl = 52, text = "empty reply", sent = "maybe" }
    assert.is_false(retryable(cut, false))
    assert.is_true(retryable(cut, true))
    for _, status in ipairs({ 400, 401, 403, 404, 405, 409, 422, 302, 501 }) do
      assert.is_false(retryable(http(status), true), tostring(status))
    end
    for _, status in ipairs({ 500, 502, 504 }) do
      assert.is_true(retryable(http(status), true), tostring(status))
      assert.is_false(retryable(http(status), false), tostring(status))
    end
    -- E2B's own 503 says that nothing changed; one of something in between proves nothing about a create.
    assert.is_true(retryable(http(503, { has_body = true }), false))
    assert.is_false(retryable(http(503), false))
    assert.is_true(retryable(http(503), true))
    assert.is_true(retryable(http(429, { retry_after = "1" }), false))
    assert.is_false(retryable({ cause = "json", status = 200, sent = "yes", text = "x" }, false))
  end)

  it("name the operation, what the server said, and a way out", function()
    local _, message = fail(http(401, { message = "invalid key" }))
    assert.matches("^Sandbox.get_info: ", message)
    assert.matches("invalid key", message, 1, true)
    assert.matches("E2B_API_KEY", message, 1, true)
    assert.matches("https://e2b.dev/dashboard", message, 1, true)
    _, message = fail(http(404, { message = "doesn't exist" }))
    assert.matches('"i1"', message, 1, true)
    assert.matches("doesn't exist", message, 1, true)
    _, message = fail(http(302, { location_host = "evil.example" }))
    assert.matches("evil.example", message, 1, true)
    assert.matches("never followed", message, 1, true)
    _, message = fail({ cause = "curl", curl = 60, text = "certificate problem", sent = "no" },
      { ca_file = "/tmp/ca.pem" })
    assert.matches("certificate problem", message, 1, true)
    assert.matches("/tmp/ca.pem", message, 1, true)
    _, message = fail({ cause = "curl", curl = 60, text = "x", sent = "no" })
    assert.matches("ca_file", message, 1, true)
    _, message = fail({ cause = "too_large", status = 200, sent = "yes" })
    assert.matches("1024 bytes", message, 1, true)
    _, message = fail({ cause = "json", status = 200, sent = "yes", text = "empty", content_type = "text/html" })
    assert.matches("text/html", message, 1, true)
    _, message = fail(http(503, { has_body = true }))
    assert.matches("nothing was changed", message, 1, true)
  end)

  it("name the clock that fired and its seconds", function()
    for clock, seconds in pairs({ request_timeout = "60 s", connect_timeout = "10 s", idle_timeout = "30 s" }) do
      local err, message = fail({ cause = "deadline", deadline = clock, sent = "maybe" })
      assert.equal("timeout", err.kind)
      assert.equal(clock, err.deadline)
      assert.matches(seconds .. " (" .. clock .. ")", message, 1, true)
    end
    assert.equal("request_timeout", fail({ cause = "curl", curl = 28, sent = "maybe" }).deadline)
    assert.is_nil(fail(http(500)).deadline)
  end)

  it("warn that a sandbox may exist after a create whose end is not known, and only then", function()
    local function warned(facts, more)
      local _, message = fail(facts, more or CREATE)
      return message:find("may have been made", 1, true) ~= nil
    end
    assert.is_true(warned({ cause = "curl", curl = 52, text = "x", sent = "maybe" }))
    assert.is_true(warned({ cause = "deadline", deadline = "request_timeout", sent = "maybe" }))
    assert.is_true(warned({ cause = "json", status = 201, text = "x", sent = "yes" }))
    assert.is_true(warned({ cause = "shape", status = 201, text = "x", sent = "yes" }))
    assert.is_true(warned({ cause = "too_large", status = 201, sent = "yes" }))
    assert.is_true(warned(http(504)))
    assert.is_true(warned(http(503)))
    assert.is_false(warned(http(503, { has_body = true })))
    assert.is_false(warned(http(400)))
    assert.is_false(warned(http(429, { retry_after = "1" })))
    assert.is_false(warned(http(429)))
    assert.is_false(warned(http(302)))
    assert.is_false(warned({ cause = "curl", curl = 7, text = "x", sent = "no" }))
    assert.is_false(warned({ cause = "curl", curl = 52, text = "x", sent = "maybe" }, {}))
  end)

  it("carry the facts: request id, attempts, code, resource", function()
    local err, message = fail(http(404, { request_id = "t1", error_code = "gone", message = "m" }), { attempts = 4 })
    assert.same({ "t1", 4, "gone", "m", "sandbox", "i1", "Sandbox.get_info" },
      { err.request_id, err.attempts, err.error_code, err.server_message, err.resource, err.sandbox_id, err.operation })
    assert.matches("(4 attempts)", message, 1, true)
    assert.is_nil(fail(http(409)).resource)
  end)

  it("bound what a server says, keep it on one line, and blank out keys in it", function()
    local long = fail(http(400, { message = ("x"):rep(100000) }))
    assert.is_true(#long.message < 2000)
    local err, message = fail(http(401, {
      message = "bad\r\nkey e2b_0123456789abcdef0123456789abcdef01234567 in header",
    }))
    assert.is_nil(message:find("0123456789", 1, true))
    assert.is_nil(err.server_message:find("0123456789", 1, true))
    err = fail(http(400, { error_code = "bad\r\ne2b_0123456789abcdef0123456789abcdef01234567" }))
    assert.equal("bad e2b_…", err.error_code)
    assert.is_nil(message:find("%c"))
    local _, odd = fail(http(404), { sandbox_id = ("a\r\n\0"):rep(1000) })
    assert.is_true(#odd < 500)
    assert.is_nil(odd:find("%c"))
  end)

  it("tell a signal from what else may be raised", function()
    for _, value in ipairs({ "interrupted!", "script.lua:12: interrupted!", "(command line):1: interrupted!" }) do
      assert.is_true(errors.is_interrupt(value), value)
    end
    for _, value in ipairs({ "I was interrupted!", "interrupted", "x: interrupted!\nmore", {}, 1, false }) do
      assert.is_false(errors.is_interrupt(value), tostring(value))
    end
  end)
end)
