--- Traffic into sandboxes: finds the sandbox a request means and answers for it, as the service's proxy does.
-- Of what runs inside a sandbox only the health check of its daemon is served so far.
-- @module e2b.server.platform.traffic

local reply = require("e2b.server.reply")
local lifecycle = require("e2b.server.platform.lifecycle")

local traffic = {}

local ENVD_PORT = 49983

local function bad_request(message)
  reply.raise(400, message)
end

-- Header routing counts only on hosts without a sandbox in their name; else the first label is `port-id`.
local function target(request)
  local host = (request.headers[":authority"] or ""):gsub(":%d+$", "")
  local port, id = host:match("^(%d+)%-([a-z0-9]+)%.")
  if port then return id, port end
  id, port = request.headers["e2b-sandbox-id"], request.headers["e2b-sandbox-port"]
  if not id and not port then return nil end
  if not id then bad_request("The header E2b-Sandbox-Id is missing") end
  if not port then bad_request("The header E2b-Sandbox-Port is missing") end
  return id, port
end

---@param request table
---@return boolean to_sandbox the request is meant for a sandbox, not for the API
function traffic.is_for_sandbox(request)
  if request.path:find("^/_control/") then return false end
  local headers = request.headers
  return headers["e2b-sandbox-id"] ~= nil or headers["e2b-sandbox-port"] ~= nil
    or (headers[":authority"] or ""):find("^%d+%-i[a-z0-9]+%.") ~= nil
end

local function gone(id)
  reply.raise(502, "The sandbox was not found", { sandboxId = id })
end

---@param state table
---@param request table
---@return table reply
function traffic.handle(state, request)
  local raw_id, raw_port = target(request)
  local id = raw_id:match("^([a-z0-9]+)$") or raw_id:match("^([a-z0-9]+)%-[a-z0-9]*$")
  local port = raw_port:find("^%d+$") and #raw_port <= 5 and tonumber(raw_port)
  if not id then bad_request("Invalid sandbox ID") end
  if not port or port < 1 or port > 65535 then bad_request("Invalid sandbox port") end
  local sandbox = state.store:find_any(id)
  if not sandbox then gone(id) end
  if sandbox.state == "pausing" or sandbox.state == "snapshotting" then
    reply.raise(409, "The sandbox is in a state transition", { sandboxId = id })
  end
  if sandbox.state == "paused" then
    -- A sandbox without its memory would boot afresh, which traffic may not cause.
    if not sandbox.auto_resume or not sandbox.has_memory then gone(id) end
    lifecycle.auto_resume(state, sandbox)
  end
  if port ~= ENVD_PORT then
    if sandbox.traffic_token and request.headers["e2b-traffic-access-token"] ~= sandbox.traffic_token then
      reply.raise(403, "Missing or wrong traffic access token", { sandboxId = id })
    end
    reply.raise(502, "The sandbox is running but port is not open", { sandboxId = id, port = port })
  end
  if request.path == "/health" then
    if request.method == "GET" or request.method == "HEAD" then return reply.empty() end
    reply.raise(405, "Method not allowed")
  end
  if request.path == "/init" then
    reply.raise(404, "Not found", { path = request.path })
  end
  reply.raise(501, "This local server does not run processes or keep files: of a sandbox's daemon it has only /health")
end

return traffic
