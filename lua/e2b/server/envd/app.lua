--- What the daemon does with a request: CORS, access token, user, route, in this order.
-- @module e2b.server.envd.app

local protect = require("e2b.server.protect")
local reply = require("e2b.server.reply")
local router = require("e2b.server.router")
local text = require("e2b.server.text")
local connect = require("e2b.server.envd.connect")
local users = require("e2b.server.envd.users")

local app = {}
app.__index = app

local EXPOSED = "Content-Encoding, Connect-Content-Encoding, Grpc-Status, Grpc-Message, Grpc-Status-Details-Bin, "
  .. "Location, Cache-Control, X-Content-Type-Options"

-- These check the token themselves, or need none.
local OPEN = { ["GET /health"] = true, ["GET /files"] = true, ["POST /files"] = true, ["POST /init"] = true }

local SERVICES = { "control", "process", "filesystem", "watch", "files" }

---@param daemon table the daemon: `access_token`, `envs`, `options`
---@return table app
function app.new(daemon)
  local self = setmetatable({ daemon = daemon, router = router.new() }, app)
  for _, name in ipairs(SERVICES) do require("e2b.server.envd." .. name).routes(self.router, daemon) end
  return self
end

---Whether two secrets are equal; takes the same time wherever they differ.
---@param given string
---@param wanted string
---@return boolean
function app.same(given, wanted)
  local equal = #given == #wanted
  for i = 1, #given do
    -- Against itself when the lengths differ, so that the length is all that shows.
    local other = equal and wanted or given
    if given:byte(i) ~= other:byte(i) then equal = false end
  end
  return equal
end

---A failure as the daemon's REST half writes it.
---@param status integer
---@param message string
---@return table reply
function app.failure(status, message)
  local answer = reply.failure(status, message, nil, {
    "content-type", "application/json; charset=utf-8", "x-content-type-options", "nosniff",
  })
  answer.body = answer.body .. "\n"
  return answer
end

---@param status integer
---@param message string
---@param headers string[]|nil
---@return table reply plain text
function app.text(status, message, headers)
  headers = headers or {}
  for _, value in ipairs({ "content-type", "text/plain; charset=utf-8", "x-content-type-options", "nosniff" }) do
    headers[#headers + 1] = value
  end
  return { status = status, body = message .. "\n", headers = headers }
end

local function preflight(request)
  local headers = {
    "access-control-allow-methods", request.headers["access-control-request-method"],
    "access-control-max-age", "7200",
  }
  if request.headers["access-control-request-headers"] then
    headers[#headers + 1] = "access-control-allow-headers"
    headers[#headers + 1] = request.headers["access-control-request-headers"]
  end
  return { status = 204, headers = headers }
end

local function dispatch(self, request)
  local token = self.daemon.access_token
  if token and not OPEN[request.method .. " " .. request.path]
    and not app.same(request.headers["x-access-token"] or "", token) then
    return app.failure(401,
      "unauthorized access, please provide a valid access token or method signing if supported")
  end
  local known, raised = pcall(users.authenticate, request)
  if not known then return connect.failure_for(request, raised) end
  local route, allow = self.router:find(request.method, request.path)
  -- The router lets HEAD pass for GET; the daemon knows no HEAD.
  if route and route.method ~= request.method then route, allow = nil, route.method end
  if route and request.method ~= route.method then
    route, allow = nil, route.method
  end
  if not route then
    if allow then return { status = 405, headers = { "allow", allow } } end
    return app.text(404, "404 page not found")
  end
  request.query = text.parse_query(request.query_string)
  if not request.query then return app.text(400, "Invalid format for parameter: the query is not properly encoded") end
  return route.handler(request)
end

---Answers one request; never raises.
---@param request table
---@return table reply
function app:handle(request)
  if request.method == "CONNECT" then return require("e2b.server.envd.forward").handle(request) end
  local answer
  if request.method == "OPTIONS" and request.headers.origin and request.headers["access-control-request-method"] then
    answer = preflight(request)
  else
    local ok, raised = protect(dispatch, self, request)
    answer = raised
    if not ok then
      answer = reply.of(raised)
      if not answer then
        io.stderr:write("e2b-server: ", request.method, " ", request.path, ": ", tostring(raised), "\n")
        answer = app.failure(500, "internal error")
      end
    end
  end
  if request.headers.origin then
    local headers = answer.headers
    for _, value in ipairs({ "access-control-allow-origin", "*", "access-control-expose-headers", EXPOSED,
      "vary", "Origin" }) do
      headers[#headers + 1] = value
    end
  end
  return answer
end

return app
