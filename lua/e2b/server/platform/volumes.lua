--- Volumes, as far as the platform API goes: names that sandboxes can mount. Their content is not served.
-- @module e2b.server.platform.volumes

local json = require("e2b.server.json")
local reply = require("e2b.server.reply")
local text = require("e2b.server.text")
local validation = require("e2b.server.validation")

local volumes = {}
volumes.__index = volumes

local NEW_VOLUME = { type = "object", required = { "name" }, fields = { name = { type = "string" } } }

---@return table volumes
function volumes.new()
  return setmetatable({ teams = {} }, volumes)
end

---@param team string
---@param name string
---@return table|nil volume
function volumes:named(team, name)
  for _, volume in pairs(self.teams[team] or {}) do
    if volume.name == name then return volume end
  end
end

local function shown(state, volume)
  return { volumeID = volume.id, name = volume.name, token = state.token("volume", volume.id) }
end

local function get(state, request)
  local id = request.params.volume
  if not id:find("^%x%x%x%x%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$") then
    reply.raise(400, "Invalid volume ID")
  end
  local volume = (state.volumes.teams[request.team] or {})[id:lower()]
  if not volume then reply.raise(404, string.format("Volume '%s' not found", id)) end
  return volume
end

---@param routes table
---@param state table
function volumes.routes(routes, state)
  routes:add("GET", "/volumes", function(request)
    local rows = json.array({})
    for _, volume in pairs(state.volumes.teams[request.team] or {}) do
      rows[#rows + 1] = { volumeID = volume.id, name = volume.name }
    end
    return reply.json(200, rows)
  end)
  routes:add("POST", "/volumes", function(request)
    local name = validation.body(request, NEW_VOLUME).name
    if not name:find("^[%w_-]+$") then reply.raise(400, "Invalid volume name") end
    if state.volumes:named(request.team, name) then
      reply.raise(400, string.format("Volume with name '%s' already exists", name))
    end
    local volume = { id = text.random_uuid(), name = name }
    local mine = state.volumes.teams[request.team] or {}
    mine[volume.id], state.volumes.teams[request.team] = volume, mine
    return reply.json(201, shown(state, volume))
  end)
  routes:add("GET", "/volumes/{volume}", function(request)
    return reply.json(200, shown(state, get(state, request)))
  end)
  routes:add("DELETE", "/volumes/{volume}", function(request)
    state.volumes.teams[request.team][get(state, request).id] = nil
    return reply.empty()
  end)
end

return volumes
