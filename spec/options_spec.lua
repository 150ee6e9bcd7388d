local options = require("e2b.options")
local suggest = require("e2b.suggest").suggest

-- The line on which `fn` raises must be one of this file: the message is "spec/options_spec.lua:<line>: <text>".
local function raised(fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok)
  assert.is_string(message)
  return message
end

local KNOWN = { "template", "timeout", "metadata", "envs", "allow_internet_access" }

describe("options", function()
  it("names an unknown option, the call and what was meant", function()
    local message = raised(function() options.call({ timout = 3 }, KNOWN, "Sandbox.create") end)
    assert.matches("unknown option 'timout' for Sandbox.create (did you mean 'timeout'?", message, 1, true)
  end)

  it("knows the names of the official SDKs", function()
    for wrong, right in pairs({
      timeoutMs = "timeout", requestTimeoutMs = "request_timeout", requestTimeout = "request_timeout",
      envVars = "envs", env_vars = "envs", allowInternetAccess = "allow_internet_access", templateId = "template",
      meta_data = "metadata", max_retries = "retries", Retries = "retries", connectTimeoutMs = "connect_timeout",
    }) do
      local message = raised(function() options.call({ [wrong] = 1 }, KNOWN, "Sandbox.create") end)
      assert.matches(("unknown option '%s'"):format(wrong), message, 1, true)
      assert.matches(("did you mean '%s'?"):format(right), message, 1, true)
    end
  end)

  it("says that milliseconds are seconds here, and only then", function()
    local function told(name)
      return raised(function() options.call({ [name] = 1 }, KNOWN, "x") end):find("It is in seconds.", 1, true) ~= nil
    end
    assert.is_true(told("timeoutMs"))
    assert.is_true(told("requestTimeoutMs"))
    assert.is_false(told("timout"))
  end)

  it("says where an option of the client belongs", function()
    local message = raised(function() options.call({ apiKey = "e2b_secret" }, KNOWN, "Sandbox.create") end)
    assert.matches("'api_key' is an option of e2b.client", message, 1, true)
    assert.is_nil(message:find("secret", 1, true))
  end)

  it("suggests nothing when nothing is near", function()
    local message = raised(function() options.call({ zzzzzzzz = 1 }, KNOWN, "x") end)
    assert.is_nil(message:find("did you mean", 1, true))
    message = raised(function() options.call({ [("q"):rep(1000)] = 1 }, KNOWN, "x") end)
    assert.is_true(#message < 300)
  end)

  it("refuses a list, and what is no table", function()
    assert.matches("options have names", raised(function() options.call({ "base" }, KNOWN, "x") end), 1, true)
    assert.matches("got string", raised(function() options.call("base", KNOWN, "x") end), 1, true)
  end)

  it("checks the options that every call takes", function()
    for name, values in pairs({
      request_timeout = { "60", -1, 0 / 0, math.huge, true }, connect_timeout = { {} }, idle_timeout = { "x" },
      retries = { -1, 1.5, "3", false, 0 / 0, math.huge },
    }) do
      for _, value in ipairs(values) do
        local message = raised(function() options.call({ [name] = value }, nil, "Sandbox.kill") end)
        assert.matches(("bad option '%s' for Sandbox.kill ("):format(name), message, 1, true)
      end
    end
    local right = { { request_timeout = 0 }, { request_timeout = 0.5 }, { retries = 0 }, { retries = 7 }, {} }
    for _, good in ipairs(right) do
      assert.equal(good, options.call(good, nil, "x"))
    end
  end)

  it("raises at the caller's line, also through a tail call, a static and a coroutine", function()
    local line
    local function here() return debug.getinfo(2, "l").currentline end
    local message = raised(function()
      line = here(); options.call({ timout = 1 }, KNOWN, "x")
    end)
    assert.matches("^%S*options_spec%.lua:" .. line .. ": unknown", message)

    local co = coroutine.create(function()
      line = here(); options.check({ timout = 1 }, KNOWN, "x")
    end)
    local ok, text = coroutine.resume(co)
    assert.is_false(ok)
    assert.matches("options_spec%.lua:" .. line .. ": unknown", text)

    local function tail() return options.call({ timout = 1 }, KNOWN, "x") end
    message = raised(function()
      line = here(); local value = tail(); return value
    end)
    assert.matches("^%S*options_spec%.lua:%d+: unknown", message)

    -- A function of the library in between (client.new -> config.read -> options.read) is not the caller.
    message = raised(function()
      line = here(); require("e2b.client").new({ apikey = "x" })
    end)
    assert.matches("^%S*options_spec%.lua:" .. line .. ": unknown option 'apikey' for e2b.client", message)
    assert.matches("did you mean 'api_key'?", message, 1, true)
  end)

  it("gives no position when no Lua code outside of the library calls", function()
    local ok, message = coroutine.resume(coroutine.create(options.check), { timout = 1 }, KNOWN, "x")
    assert.is_false(ok)
    assert.matches("^unknown option 'timout' for x", message)
  end)

  it("copies and never changes the caller's table", function()
    local spec = { a = options.types.seconds, b = options.types.headers }
    local given = setmetatable({ a = 1 }, { __index = { b = 5 } })
    local copy = options.read(given, spec, "x")
    assert.are_not.equal(given, copy)
    assert.equal(1, copy.a)
    assert.is_nil(rawget(copy, "b"))
    copy.a = 2
    assert.equal(1, given.a)
    assert.same({}, options.read(nil, spec, "x"))
    assert.same({ 1, 2 }, options.copy({ 1, 2 }))
  end)

  it("checks headers without showing their values", function()
    local spec = { headers = options.types.headers }
    assert.matches("table", raised(function() options.read({ headers = "x" }, spec, "x") end))
    assert.matches("names must be strings", raised(function() options.read({ headers = { "a" } }, spec, "x") end))
    local message = raised(function() options.read({ headers = { secret = { "hidden" } } }, spec, "x") end)
    assert.matches('"secret" must be a string', message, 1, true)
    assert.is_nil(message:find("hidden", 1, true))
  end)

  it("finds the nearest name with neighbours swapped, and the first in the alphabet among equals", function()
    assert.equal("limit", (suggest("limti", { limit = 1, template = 1 })))
    assert.is_nil((suggest("lixxt", { limit = 1, template = 1 })))
    for _ = 1, 20 do
      assert.equal("bat", (suggest("cat", { bat = 1, hat = 1, rat = 1 })))
    end
    assert.is_nil((suggest("a", { bbb = 1 })))
  end)
end)
