--- The connection of an nginx worker's driver to the bridge (csrc/bridge.c), which says when the engine has something.
local core = require("e2b.core")

local M = {}

local ngx = rawget(_G, "ngx") or {}

local DAY_MS = 86400000

-- nginx keeps its environment from its workers, unless told `env TMPDIR;`.
local function usual_folders()
  local list = { "/tmp", "/var/tmp" }
  local first = os.getenv("TMPDIR")
  if first and first ~= "" then table.insert(list, 1, first) end
  return list
end

local function connect(bridge)
  local socket = ngx.socket.tcp()
  socket:settimeout(DAY_MS)
  local ok, why = socket:connect("unix:" .. bridge:path())
  if ok then ok, why = bridge:start() end
  if ok then return { bridge = bridge, socket = socket, rung = false, open = true } end
  socket:close()
  bridge:close()
  return nil, why
end

-- Sits in the cosocket.
local function listen(link, ring)
  local socket = link.socket
  repeat
    local byte, why = socket:receive(1)
    if byte then
      link.rung = true
      ring()
    end
  until not byte and why ~= "timeout"
  socket:close()
  link.open = false
  ring()
end

--- Builds the bridge and connects to it; a light thread of the caller's listens there.
---@param folders string[]? where its socket may lie; $TMPDIR, /tmp or /var/tmp if not given
---@param ring fun() told when `rung` or `open` of the link has changed
---@return { bridge: userdata, socket: table, rung: boolean, open: boolean }? link
---@return string? why there is none
function M.open(folders, ring)
  local why
  for _, folder in ipairs(folders or usual_folders()) do
    local bridge, link
    bridge, why = core.bridge(folder)
    if bridge then
      link, why = connect(bridge)
      if link then
        ngx.thread.spawn(listen, link, ring)
        return link
      end
    end
  end
  return nil, why or "there is no folder for it"
end

return M
