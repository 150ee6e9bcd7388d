-- A sandbox that does what a spec tells it to: a raw peer that plays the platform (create, kill) and the daemon inside.
-- The spec gives Lua source that fills `on`, a table of handlers by the last part of the path:
--
--   envd_peer.start([[
--     on.Start = function(message)   -- the request's JSON; `request` is the HTTP request
--       begin(); event('{"start":{"pid":7}}'); output("stdout", "hi\n"); ended(0); finish()
--     end
--   ]])
--
-- Handlers may use conn (see peer_main.lua), shared, and:
--   begin(), envelope(payload, flags?), send(payload, flags?), finish(payload?), event(json), output(kind, bytes, …),
--   ended(code, error?), answer(status, json), fail(status, code, message), run(code, stdout?, stderr?).
local peer = require("spec.support.peer")
local platform = require("spec.support.platform")
local e2b = require("e2b")

local envd_peer = {}

local PRELUDE = [[
  local json = require("cjson")
  local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
  local on, request = {}, nil
  local function base64(bytes)
    local out = {}
    for at = 1, #bytes, 3 do
      local a, b, c = bytes:byte(at, at + 2)
      local n = a * 65536 + (b or 0) * 256 + (c or 0)
      for i = 3, 0, -1 do
        local digit = math.floor(n / 64 ^ i) % 64 + 1
        local known = i >= 2 or i == 1 and b or i == 0 and c
        out[#out + 1] = known and ALPHABET:sub(digit, digit) or "="
      end
    end
    return table.concat(out)
  end
  local function begin(headers)
    return conn:begin_chunked(200, headers or { ["Content-Type"] = "application/connect+json" })
  end
  local function envelope(payload, flags, length)
    local n = length or #payload
    return string.char(flags or 0, math.floor(n / 2 ^ 24) % 256, math.floor(n / 2 ^ 16) % 256,
      math.floor(n / 2 ^ 8) % 256, n % 256) .. payload
  end
  local function send(payload, flags, length) return conn:chunk(envelope(payload, flags, length)) end
  local function finish(payload)
    send(payload or "{}", 2)
    return conn:chunk("")
  end
  local function event(text) return send('{"event":' .. text .. '}') end
  local function output(...)
    local all = { ... }
    local parts = {}
    for i = 1, #all, 2 do
      parts[#parts + 1] = envelope('{"event":{"data":{"' .. all[i] .. '":"' .. base64(all[i + 1]) .. '"}}}')
    end
    return conn:chunk(table.concat(parts))
  end
  local function ended(code, trouble)
    if code == 0 then return event('{"end":{"exited":true,"status":"exit status 0"}}') end
    local text = trouble or "exit status " .. code
    return event(('{"end":{"exitCode":%d,"exited":%s,"status":"%s","error":"%s"}}'):format(code,
      tostring(code > 0), text, text))
  end
  local function run(code, stdout, stderr)
    begin()
    event('{"start":{"pid":7}}')
    if stdout then output("stdout", stdout) end
    if stderr then output("stderr", stderr) end
    ended(code)
    return finish()
  end
  local function answer(status, text) return conn:respond(status, text or "{}") end
  local function fail(status, code, message)
    return answer(status, json.encode({ code = code, message = message }))
  end
  local function health(status) return conn:respond(status or 204, status and '{"code":' .. status .. '}' or nil) end
  function on.health() return health() end
  function on.SendSignal() return answer(200) end
]]

local LOOP = [[
  local FACTS = '{"sandboxID":"i1","templateID":"base","envdVersion":"VERSION","state":"running",'
    .. '"startedAt":"2026-01-01T00:00:00Z","endAt":"2036-01-01T00:00:00Z","cpuCount":1,"memoryMB":1,"diskSizeMB":1,'
    .. '"envdAccessToken":"TOKEN"}'
  conn:serve(function(received)
    request = received
    local name = request.path:gsub("%?.*$", ""):match("([%w]+)$")
    if request.method == "POST" and request.path == "/v2/sandboxes" then return conn:respond(201, FACTS) end
    if request.path:find("^/v2/sandboxes%?") or request.path == "/v2/sandboxes" then
      return conn:respond(200, "[" .. FACTS:gsub(',"envdAccessToken":"[^"]*"', "") .. "]")
    end
    if request.path:find("^/sandboxes/") then
      if request.method == "GET" then return conn:respond(200, FACTS) end
      return conn:respond(204)
    end
    local handler = on[name]
    if not handler then return conn:respond(404, "no " .. name, { ["Content-Type"] = "text/plain" }) end
    local body = request.body or ""
    if (request.headers["content-type"] or ""):find("connect", 1, true) then body = body:sub(6) end
    local message = body:find("^{") and json.decode(body) or body
    return handler(message)
  end)
]]

--- Starts one.
---@param source string
---@param options? { version: string?, token: string?, watched: table?, client: table? } watched: of exchange.watch()
---@return table server a peer; with `client`, and `sandbox()` for a new object
function envd_peer.start(source, options)
  options = options or {}
  local loop = LOOP:gsub("VERSION", options.version or "0.6.13"):gsub("TOKEN", options.token or "tok-1")
  local handler = PRELUDE .. source .. "\n" .. loop
  local server = options.watched and options.watched.peer(handler) or peer.start(handler)
  server.client = platform.client_of(server, options.client)
  function server.sandbox() return assert(server.client.Sandbox.create()) end
  return server
end

--- Runs a function as a task and waits for it; what it raises is raised.
function envd_peer.in_task(fn)
  local results = e2b.all(fn)
  if not results[1].ok and results[1].message then error(results[1].message, 0) end
end

--- The two ways a program waits: by itself, and in a task beside others.
envd_peer.MODES = {
  { name = "plain", run = function(fn) return fn() end },
  { name = "a task", run = envd_peer.in_task },
}

--- The bodies of the requests to one call, decoded; envelopes are opened.
---@param server table
---@param name string last part of the path
---@return table[]
function envd_peer.messages(server, name)
  local core = require("e2b.core")
  local found = {}
  for _, request in ipairs(server:requests()) do
    if request.path:match("([%w]+)$") == name then
      local body = request.body
      if request.headers["content-type"]:find("connect", 1, true) then body = body:sub(6) end
      local message = assert(core.json_decode(body))
      found[#found + 1] = { message = message, headers = request.headers, request = request }
    end
  end
  return found
end

return envd_peer
