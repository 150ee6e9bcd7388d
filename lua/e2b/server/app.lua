--- What the server does with a request: routing, authentication, limits, test switches.
-- Requests are those of e2b.server.http with streamed bodies; a handler of the platform API finds the whole `body`.
-- @module e2b.server.app

local cqueues = require("cqueues")
local clock = require("e2b.server.clock")
local limits = require("e2b.server.limits")
local protect = require("e2b.server.protect")
local reply = require("e2b.server.reply")
local text = require("e2b.server.text")
local control = require("e2b.server.control")
local platform = require("e2b.server.platform")
local traffic = require("e2b.server.platform.traffic")

local app = {}
app.__index = app

local EXPOSED = "X-Next-Token, X-Total-Running, X-E2B-Trace-ID, RateLimit-Limit, RateLimit-Remaining, "
  .. "RateLimit-Reset, Retry-After"

---@param options table the server's options
---@param cq table the cqueues controller
---@return table app
function app.new(options, cq)
  local self = setmetatable({ options = options, limiter = limits.new(options.rate_limit) }, app)
  self.places = require("e2b.server.sandbox").new(options, cq)
  self.state = platform.new(options, function(fn) cq:wrap(fn) end, self.places)
  self.routes = platform.router(self.state)
  if options.control then
    self.control = control.new(self)
    self.control:routes(self.routes)
  end
  return self
end

-- Every key is a team of its own. The texts tell apart what the service tells apart.
local function authenticate(self, request)
  local key = request.headers["x-api-key"]
  if not key or key == "" then reply.raise(401, "authorization header is missing") end
  if key:sub(1, 4) ~= "e2b_" then
    local known = self.options.api_keys and self.options.api_keys[key]
    if not known then reply.raise(401, "authorization header is malformed") end
  end
  local accepted
  if self.options.api_keys then accepted = self.options.api_keys[key] else accepted = key:find("^e2b_%x+$") end
  if not accepted then
    reply.raise(401, "Invalid API key, please visit https://e2b.dev/docs/api-key for more information.\n"
      .. "Cannot get the team for the given API key")
  end
  request.team = key
end

local function find_route(self, request)
  local route, params = self.routes:find(request.method, request.path)
  local missing = self.options.missing
  if route and route.options.v2 and missing.v2 then
    reply.raise(missing.v2, missing.v2 == 405 and "Method not allowed" or "Not found")
  elseif route and route.options.resume and missing.resume then
    reply.raise(missing.resume, "Gone: use connect")
  end
  if route then
    request.params, request.route = params, route
    return route
  elseif params then
    reply.raise(405, "Method not allowed", nil, { "allow", params })
  end
  reply.raise(404, "Not found")
end

local function handle_api(self, request)
  if request.path == "/health" and (request.method == "GET" or request.method == "HEAD") then
    return { status = 200, body = "Health check successful", headers = { "content-type", "text/plain; charset=utf-8" } }
  end
  local route = find_route(self, request)
  if not route.options.open then
    authenticate(self, request)
    local allowed, headers = self.limiter:take(route.method .. " " .. route.path .. " " .. request.team)
    request.limit_headers = headers
    if not allowed then reply.raise(429, "Rate limit exceeded") end
  end
  request.query = text.parse_query(request.query_string)
  if not request.query then reply.raise(400, "validation error: the query is not properly encoded") end
  return route.handler(request)
end

local function preflight(request)
  return { status = 204, headers = {
    "access-control-allow-methods", "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS",
    "access-control-allow-headers", request.headers["access-control-request-headers"]
      or "Content-Type, X-API-Key, Authorization",
    "access-control-max-age", "43200",
  } }
end

local function dispatch(self, request)
  if request.method == "OPTIONS" and request.headers.origin then return preflight(request) end
  local override = self.control and self.control:override(request)
  if override then return override end
  if request.for_sandbox then return traffic.handle(self.state, request) end
  return handle_api(self, request)
end

local function append(headers, more)
  for i = 1, #(more or {}) do headers[#headers + 1] = more[i] end
end

---Answers one request; never raises.
---@param request table
---@return table reply
function app:handle(request)
  local is_control = self.control and request.path:find("^/_control/")
  local started = cqueues.monotime()
  request.for_sandbox = traffic.is_for_sandbox(request)
  if not request.for_sandbox then
    -- What was cut short is no request: nothing of it is acted on.
    local body, refusal = request.body()
    if not body then return refusal or { drop = true, headers = {} } end
    request.body = body
  elseif self.control then
    self.control:capture(request)
  end
  if self.options.latency and not is_control then cqueues.sleep(self.options.latency) end
  -- A plain pcall cannot be yielded across on Lua 5.1, and transitions take time.
  local ok, answer = protect(dispatch, self, request)
  if not ok then
    local raised = answer
    answer = reply.of(raised)
    if not answer then
      io.stderr:write("e2b-server: ", request.method, " ", request.path, ": ", tostring(raised), "\n")
      answer = reply.failure(500, "Internal server error", { error_code = "internal_server_error" })
    end
  end
  append(answer.headers, request.limit_headers)
  if not is_control then
    append(answer.headers, { "x-e2b-trace-id", text.random_hex(16) })
    if request.headers.origin then
      append(answer.headers, { "access-control-allow-origin", "*", "access-control-expose-headers", EXPOSED })
    end
  end
  append(answer.headers, { "date", clock.http_date(clock.now()) })
  local entry = self.control and not is_control and self.control:record(request, answer)
  local function done(status)
    if entry then entry.status = status end
    if not self.options.log then return end
    io.stderr:write(string.format("%s %s %d %.1f ms\n", request.method, request.path:gsub("%c", "?"), status,
      (cqueues.monotime() - started) * 1000))
  end
  -- What a service inside a sandbox answers is known later.
  if answer.exchange then request.on_done = done else done(answer.status or 0) end
  return answer
end

return app
