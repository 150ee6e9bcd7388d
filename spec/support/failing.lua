-- What every failure spec does around the failure itself: a client with a key that must never show, peers that end with
-- the spec, and afterwards the search for leaks and for secrets.
--
--   it("is refused", failing.test(function(t)
--     local server = t:peer([[ conn:reset() ]])           -- what happens to every request but the one of t:works
--     local client = t:client(server)
--     t:fails({ kind = "network", sent = "maybe" }, client.Sandbox.create())
--     t:works(client)
--   end))
local support = require("spec.support.support")
local peer = require("spec.support.peer")

local failing = {}

local unpack = table.unpack or unpack -- luacheck: ignore 113 143

--- Texts that nobody may see.
failing.KEY = "e2b_5ec4e7c0ffee5ec4e7c0ffee5ec4e7c0ffee1234"
failing.ENVD_TOKEN = "envd-token-5ec4e7"
failing.TRAFFIC_TOKEN = "traffic-token-5ec4e7"
failing.SECRETS = { failing.KEY, failing.ENVD_TOKEN, failing.TRAFFIC_TOKEN }

--- The answer of GET /sandboxes/ok.
failing.DETAIL = [[{"templateID":"base","alias":"base","sandboxID":"ok","clientID":"c","envdVersion":"0.2.0",]]
  .. [["startedAt":"2026-01-02T03:04:05Z","endAt":"2036-01-02T03:09:05Z","envdAccessToken":"]] .. failing.ENVD_TOKEN
  .. [[","cpuCount":2,"memoryMB":512,"diskSizeMB":1024,"state":"running","metadata":{}}]]

--- The answer of POST /v2/sandboxes.
failing.CREATED = [[{"templateID":"base","alias":"base","sandboxID":"made","clientID":"c","envdVersion":"0.2.0",]]
  .. [["envdAccessToken":"]] .. failing.ENVD_TOKEN .. [[","trafficAccessToken":"]] .. failing.TRAFFIC_TOKEN .. [["}]]

local test = {}
test.__index = test

--- A peer that answers GET /sandboxes/ok properly on any connection and runs `source` for every other request.
--- In there: conn, shared, request, n (which of these other requests it is), OK and CREATED (the texts above).
---@param source string
---@param options? table as for peer.start
---@return table server
function test:peer(source, options)
  local copy = {}
  for name, value in pairs(options or {}) do
    copy[name] = value
  end
  copy.handler = string.format("local OK, CREATED = %s, %s\n", support.serialize(failing.DETAIL),
    support.serialize(failing.CREATED)) .. [[
    conn:serve(function(request)
      if request.path == "/sandboxes/ok" then
        conn:respond(200, OK)
        return
      end
      shared.n = (shared.n or 0) + 1
      local n = shared.n
      ]] .. source .. [[

    end)
  ]]
  return self:raw(copy)
end

--- A peer as peer.start makes it, stopped with the spec.
function test:raw(options)
  local server = peer.start(options)
  self.peers[#self.peers + 1] = server
  return server
end

--- The n-th failing request gets the n-th answer (as peer.answers), the last one again and again.
function test:answers(answers, options)
  return self:peer("local answers = " .. support.serialize(answers) .. "\n"
    .. "conn:answer(answers[math.min(n, #answers)])", options)
end

--- A client of a peer (or of a URL), blind to the environment, whose log is kept in t.log.
---@param server table|string
---@param options? table more client options
function test:client(server, options)
  local all = {
    api_key = failing.KEY,
    api_url = type(server) == "string" and server or server.url,
    proxy = false,
    getenv = function() end,
    logger = function(event)
      self.log[#self.log + 1] = event
    end,
  }
  for name, value in pairs(options or {}) do
    all[name] = value
  end
  return require("e2b").client(all)
end

--- How many of the requests that arrived were not those of t:works.
---@param server table
---@return integer
function test.count(_, server)
  local count = 0
  for _, request in ipairs(server:requests()) do
    if request.path ~= "/sandboxes/ok" then
      count = count + 1
    end
  end
  return count
end

local function show(err)
  local parts = {}
  for name, value in pairs(type(err) == "table" and err or {}) do
    parts[#parts + 1] = tostring(name) .. " = " .. tostring(value)
  end
  table.sort(parts)
  return "{ " .. table.concat(parts, ", ") .. " }"
end

--- Checks the three results of a failed call. A field of `want` that is `failing.NONE` has to be absent; one that is a
--- table of the form { least, most } is a range.
failing.NONE = {}

function test:fails(want, value, message, err)
  if value ~= nil then
    error("expected a failure, got " .. tostring(value), 2)
  end
  if type(message) ~= "string" or message == "" then
    error("the second result of a failure must be a sentence, got " .. tostring(message), 2)
  end
  if type(err) ~= "table" then
    error("the third result of a failure must be a table, got " .. tostring(err) .. "; the message: " .. message, 2)
  end
  if tostring(err) ~= message or err.message ~= message then
    error("message, err.message and tostring(err) differ: " .. message .. " / " .. tostring(err), 2)
  end
  if message:find("[%z\1-\8\11-\31\127]") then
    error("control characters in the message: " .. string.format("%q", message), 2)
  end
  if #message > 2048 then
    error("a message of " .. #message .. " bytes is no sentence", 2)
  end
  for name, expected in pairs(want) do
    local got = err[name]
    local right
    if expected == failing.NONE then
      right = got == nil
    elseif type(expected) == "table" then
      right = type(got) == "number" and got >= expected[1] and got <= expected[2]
    else
      right = got == expected
    end
    if not right then
      error(string.format("err.%s is %s, expected %s\n%s\n%s", name, tostring(got),
        expected == failing.NONE and "none" or tostring(expected), message, show(err)), 2)
    end
  end
  self.failures[#self.failures + 1] = { message, err }
  support.assert_no_secret(failing.SECRETS, message, err)
  return err
end

--- The next call on the same client works.
function test.works(_, client)
  local sandbox, message = client.Sandbox.get_info("ok")
  if not sandbox then
    error("the next call on the same client failed: " .. tostring(message), 2)
  end
  if sandbox.sandbox_id ~= "ok" then
    error("the next call on the same client got another answer: " .. tostring(sandbox.sandbox_id), 2)
  end
end

--- From here to the end of the spec, waits between the attempts after a failed connection are 10 ms. The real ones have
--- specs of their own.
function test:fast_retries()
  local retry = require("e2b.retry")
  self.backoff = self.backoff or retry.backoff
  retry.backoff = function()
    return 0.01
  end
end

--- Calls fn and checks that it took `seconds`, within the tolerance that every deadline is kept.
---@param seconds number
---@param fn function
---@return any ... what fn returned
function test.takes(_, seconds, fn)
  local results = { support.timed(fn) }
  if results[1] < seconds - 0.02 or results[1] > seconds + support.tolerance then
    error(string.format("took %.3f s instead of %.3f s; it returned %s, %s", results[1], seconds,
      tostring(results[2]), tostring(results[3])), 2)
  end
  return unpack(results, 2, 5)
end

--- Calls fn and checks that it took between `least` and `most` seconds.
function test.takes_between(_, least, most, fn)
  local results = { support.timed(fn) }
  if results[1] < least or results[1] > most * support.slack then
    error(string.format("took %.3f s, expected %.3f to %.3f s; it returned %s, %s", results[1], least, most,
      tostring(results[2]), tostring(results[3])), 2)
  end
  return unpack(results, 2, 5)
end

-- The first call of a process, and the first after e2b.close(), opens descriptors that the engine keeps; they are no
-- leak of the call under test.
local function warm_up()
  test.client({ log = {} }, "http://127.0.0.1:" .. peer.free_port(), { retries = 0 }).Sandbox.get_info("warm-up")
end

--- Makes the function for busted's `it`. A spec that makes the engine open more descriptors for good says so in
--- t.engine_fds.
---@param fn fun(t: table)
---@return function
function failing.test(fn)
  return function()
    local t = setmetatable({ peers = {}, log = {}, failures = {}, engine_fds = 0 }, test)
    warm_up()
    local before = support.snapshot()
    local ok, why = xpcall(function()
      fn(t)
    end, function(message)
      return type(message) == "string" and debug.traceback(message, 2) or message
    end)
    if t.backoff then
      require("e2b.retry").backoff = t.backoff
    end
    for _, server in ipairs(t.peers) do
      local stopped, complaint = pcall(server.stop, server)
      if ok and not stopped then
        ok, why = false, complaint
      end
    end
    if not ok then
      error(why, 0)
    end
    support.assert_no_secret(failing.SECRETS, t.log, t.failures)
    if before.fds then
      before.fds = before.fds + t.engine_fds
    end
    t.peers, t.log, t.failures = nil, nil, nil
    support.assert_no_leak(before)
  end
end

return failing
