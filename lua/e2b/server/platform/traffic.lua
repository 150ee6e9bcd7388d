--- Traffic into sandboxes: finds the sandbox and the service a request means, as the service's proxy at the edge does.
-- @module e2b.server.platform.traffic

local reply = require("e2b.server.reply")
local proxy = require("e2b.server.proxy")
local lifecycle = require("e2b.server.platform.lifecycle")

local traffic = {}

local ENVD_PORT = 49983
local HEAD_TIMEOUT = 60

-- Routes of the daemon that are not for the outside.
local RESERVED = {
  ["/init"] = true, ["/freeze"] = true, ["/unfreeze"] = true, ["/collapse"] = true, ["/fsfreeze"] = true,
  ["/fsthaw"] = true, ["/upgrade"] = true,
}

-- ---------------------------------------------------------------- whom it is for

local function host_of(request)
  return ((request.headers[":authority"] or ""):lower():gsub(":%d+$", ""))
end

-- The parts of a host like 49983-i1a2b.e2b.app, whatever they are worth.
local function split_host(host)
  local label = host:match("^([^.]*)%.")
  if not label then return nil end
  return label:match("^([^-]*)%-([^-]*)")
end

---@param request table
---@return boolean to_sandbox the request is meant for a sandbox, not for the API
function traffic.is_for_sandbox(request)
  if request.path:find("^/_control/") then return false end
  local headers = request.headers
  return headers["e2b-sandbox-id"] ~= nil or headers["e2b-sandbox-port"] ~= nil
    or host_of(request):find("^%d+%-") ~= nil
end

local function plain(status, message)
  return { status = status, body = message, headers = { "content-type", "text/plain; charset=utf-8" } }
end

-- Port and id; or nil and a reply.
local function target(request)
  local host = host_of(request)
  local id, port
  -- Where the host names no sandbox (localhost, an address, this server's own name) the headers count.
  if not host:find("^%d+%-") then
    id, port = request.headers["e2b-sandbox-id"], request.headers["e2b-sandbox-port"]
    if not id or not port then return nil, plain(400, "missing header") end
    -- Old ids have a suffix that means nothing any more.
    id = id:match("^([a-z0-9]+)%-[a-z0-9]*$") or id
  else
    port, id = split_host(host)
    if not port then return nil, plain(400, "Invalid host") end
  end
  local number = port:find("^%d+$") and #port <= 5 and tonumber(port)
  if not number or number < 1 or number > 65535 then return nil, plain(400, "Invalid sandbox port") end
  if not id:find("^[a-z0-9]+$") then return nil, plain(400, "Invalid sandbox ID") end
  return number, id
end

-- ---------------------------------------------------------------- what becomes of it

local function gone(id)
  reply.raise(502, "The sandbox was not found", { sandboxId = id })
end

local function closed(id, port)
  return reply.failure(502, "The sandbox is running but port is not open", { sandboxId = id, port = port })
end

local function find(state, id)
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
  return sandbox
end

local function daemon_of(state, sandbox, request)
  local daemon, message = state.places:daemon(sandbox)
  if not daemon then
    if not state.store:find_any(sandbox.id) then gone(sandbox.id) end
    reply.raise(500, message or "the sandbox's daemon did not start", { sandboxId = sandbox.id })
  end
  -- It may have been paused or killed while the daemon was started.
  if sandbox.state ~= "running" then return daemon_of(state, find(state, sandbox.id), request) end
  return daemon
end

-- A connection to the daemon. One that has just crashed may not be known to have: nothing was sent yet, so the next
-- one will do.
local function connect(state, sandbox, request)
  for _ = 1, 2 do
    local daemon = daemon_of(state, sandbox, request)
    local service, dead = daemon:connect()
    if service or not dead then return service end
    daemon:stop()
  end
end

local function carry(state, sandbox, service, fields)
  fields.service = service
  fields.track = function(cut) return state.places:track(sandbox, cut) end
  return proxy.reply(fields)
end

local function to_daemon(state, sandbox, request)
  local path = request.path
  if path == "/health" and (request.method == "GET" or request.method == "HEAD") then
    return { status = 204, headers = { "cache-control", "no-store" } }
  end
  if RESERVED[path] then
    reply.raise(404, "This path is reserved for the E2B control plane", { path = path })
  end
  local service = connect(state, sandbox, request)
  if not service then return closed(sandbox.id, ENVD_PORT) end
  return carry(state, sandbox, service, {
    broken = function()
      -- Killed or paused under the request: what the next one will be told.
      if sandbox.state ~= "running" then
        return reply.failure(502, "The sandbox was not found", { sandboxId = sandbox.id })
      end
      return closed(sandbox.id, ENVD_PORT)
    end,
  })
end

local function contains(list, value)
  for _, each in ipairs(list or {}) do
    if each == value then return true end
  end
  return false
end

-- TLS to a service that wants it; nobody could have signed its certificate, so it is not looked at.
local function encrypt(service)
  local context = require("openssl.ssl.context").new("TLS", false)
  context:setVerify(require("openssl.ssl.context").VERIFY_NONE)
  return service.socket:starttls(context, 10)
end

local function to_service(state, sandbox, request, port)
  local id = sandbox.id
  if sandbox.traffic_token and request.headers["e2b-traffic-access-token"] ~= sandbox.traffic_token then
    reply.raise(403, "Missing or wrong traffic access token", { sandboxId = id })
  end
  -- Nothing was ever started in it.
  if not state.places:is_started(sandbox) then return closed(id, port) end
  local service = connect(state, sandbox, request)
  if not service then return closed(id, port) end
  local address = string.format("127.0.0.1:%d", port)
  service:write(string.format("CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", address, address), HEAD_TIMEOUT)
  local answer = service:read_answer(HEAD_TIMEOUT)
  local settings = sandbox.network or {}
  if not answer or answer.status ~= 200 or (contains(settings.httpsPorts, port) and not encrypt(service)) then
    service:close()
    return closed(id, port)
  end
  local host = settings.maskRequestHost
  return carry(state, sandbox, service, {
    may_upgrade = true, drop = { ["e2b-traffic-access-token"] = true },
    host = host and (host:gsub("%${PORT}", tostring(port))),
    broken = function() return closed(id, port) end,
  })
end

---@param state table
---@param request table
---@return table reply
function traffic.handle(state, request)
  local port, id = target(request)
  if not port then return id end
  local sandbox = find(state, id)
  if port == ENVD_PORT then return to_daemon(state, sandbox, request) end
  return to_service(state, sandbox, request, port)
end

return traffic
