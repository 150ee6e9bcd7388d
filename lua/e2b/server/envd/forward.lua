--- Connections from the server to services that listen inside this sandbox: `CONNECT 127.0.0.1:<port>` on the daemon's
-- socket. The daemon dials, for it is inside: the sandbox may have a network of its own.
-- @module e2b.server.envd.forward

local cqueues = require("cqueues")
local cs = require("cqueues.socket")
local native = require("e2b.server.native")
local proxy = require("e2b.server.proxy")
local reply = require("e2b.server.reply")
local wire = require("e2b.server.wire")

local forward = {}

local ATTEMPTS, PAUSE = 5, 0.1 -- seconds, each longer by that: a service that has just been started needs a moment
local LISTENING = "0A"

-- The inodes of the sockets that listen on a port.
local function listeners(port)
  local found = {}
  local suffix = string.format(":%04X", port)
  for _, name in ipairs({ "tcp", "tcp6" }) do
    local file = io.open("/proc/net/" .. name, "r")
    if file then
      for line in file:lines() do
        local address, state, inode = line:match("^%s*%d+: (%x+:%x+) %x+:%x+ (%x%x) %S+ %S+ %S+%s+%d+%s+%d+ (%d+)")
        if state == LISTENING and address:sub(-5) == suffix then found["socket:[" .. inode .. "]"] = true end
      end
      file:close()
    end
  end
  return found
end

-- Whether one of this sandbox's processes listens on the port. Sandboxes that share the machine's network also share
-- its ports, and one must not be given what another serves.
local function is_ours(port)
  local wanted = listeners(port)
  if not next(wanted) then return false end
  for _, pid in ipairs((native.descendants())) do
    local folder = string.format("/proc/%d/fd/", pid)
    for _, fd in ipairs(native.fs_readdir(folder) or {}) do
      local target = native.fs_readlink(folder .. fd)
      if target and wanted[target] then return true end
    end
  end
  return false
end

local function dial(port)
  for _, host in ipairs({ "127.0.0.1", "::1" }) do
    local ok, socket = pcall(cs.connect, { host = host, port = port, nodelay = true })
    if ok and socket then
      local service = wire.new(socket)
      if socket:connect(2) then return service end
      service:close()
    end
  end
end

---Answers 200 and then carries bytes both ways, or 502 when nothing listens there.
---@param request table
---@return table reply
function forward.handle(request)
  local port = tonumber(request.path:match("^127%.0%.0%.1:(%d+)$"))
  if not port or port < 1 or port > 65535 then return reply.failure(400, "invalid port") end
  for attempt = 1, ATTEMPTS do
    local service = is_ours(port) and dial(port)
    if service then
      return { status = 200, headers = {}, takeover = function(client)
        proxy.tunnel(client, service)
        service:close()
      end }
    end
    if attempt < ATTEMPTS then cqueues.sleep(PAUSE * attempt) end
  end
  return reply.failure(502, "nothing listens there")
end

return forward
