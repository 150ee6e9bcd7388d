--- Create, get and kill sandboxes; how a sandbox is shown.
-- @module e2b.server.platform.sandboxes

local clock = require("e2b.server.clock")
local json = require("e2b.server.json")
local reply = require("e2b.server.reply")
local text = require("e2b.server.text")
local validation = require("e2b.server.validation")
local network = require("e2b.server.platform.network")
local templates = require("e2b.server.platform.templates")

local sandboxes = {}

local SECOND = clock.SECOND

-- Every answer carries it; nothing reads it any more.
local CLIENT_ID = "6532622b"

local boolean = { type = "boolean" }
local string_map = { type = "object", map = { type = "string" } }

local NEW_SANDBOX = {
  type = "object",
  required = { "templateID" },
  fields = {
    templateID = { type = "string" }, timeout = { type = "integer", min = 0 }, autoPause = boolean,
    autoPauseMemory = boolean, secure = boolean, allow_internet_access = boolean, network = network.config,
    autoResume = { type = "object", required = { "enabled" }, fields = { enabled = boolean } },
    metadata = string_map, envVars = string_map,
    mcp = { type = "object", nullable = true },
    iam = { type = "object", fields = { tokens = { type = "object", map = {
      type = "object", required = { "audience", "tokenType" },
      fields = { audience = { type = "string" }, tokenType = { type = "string" } },
    } } } },
    volumeMounts = { type = "array", items = {
      type = "object", required = { "name", "path" },
      fields = { name = { type = "string" }, path = { type = "string" } },
    } },
  },
}

---@param have string a version such as 0.6.4
---@param want string
---@return boolean at_least compared number by number: 0.10.0 is newer than 0.9.0
function sandboxes.version_at_least(have, want)
  local a, b = {}, {}
  for part in have:gmatch("%d+") do a[#a + 1] = tonumber(part) end
  for part in want:gmatch("%d+") do b[#b + 1] = tonumber(part) end
  for i = 1, 3 do
    if (a[i] or 0) ~= (b[i] or 0) then return (a[i] or 0) > (b[i] or 0) end
  end
  return true
end

---Finds the sandbox a path names, running or paused; raises 400 and 404 as the service does.
---@param state table
---@param request table
---@return table sandbox
---@return string id as shown in messages
function sandboxes.get(state, request)
  -- Old clients send `id-clientID`; only the first part counts.
  local id = request.params.sandbox:match("^([a-z0-9]+)$") or request.params.sandbox:match("^([a-z0-9]+)%-[a-z0-9]*$")
  if not id then reply.raise(400, "Invalid sandbox ID") end
  local sandbox = state.store:find(request.team, id)
  if not sandbox then sandboxes.not_found(id) end
  return sandbox, id
end

---@param id string
function sandboxes.not_found(id)
  reply.raise(404, string.format('Sandbox "%s" doesn\'t exist or you don\'t have access to it', id))
end

---Checks a life asked for on create, resume, connect or fork.
---@param state table
---@param seconds integer
---@param zero_allowed boolean|nil
function sandboxes.check_timeout(state, seconds, zero_allowed)
  if seconds <= 0 and not (zero_allowed and seconds == 0) then
    reply.raise(400, "Timeout must be greater than 0")
  end
  if seconds > state.options.max_timeout then
    reply.raise(400, string.format("Timeout cannot be greater than %g hours", state.options.max_timeout / 3600))
  end
end

---Raises the quota's 429 (which has no `Retry-After`) unless there is room for more running sandboxes.
---@param state table
---@param team string
---@param more integer
function sandboxes.check_quota(state, team, more)
  local limit = state.options.max_sandboxes
  if limit and state.store:running(team) + more > limit then
    reply.raise(429, string.format("you have reached the maximum number of concurrent E2B sandboxes (%d). "
      .. "If you need more, please contact us at 'https://e2b.dev/docs/getting-help'", limit), nil,
      { "should-retry", "false" })
  end
end

-- ---------------------------------------------------------------- views

---The short form: what create, connect, resume and fork answer.
---@param sandbox table
---@return table
function sandboxes.brief(sandbox)
  return {
    templateID = sandbox.template_id, sandboxID = sandbox.id, alias = sandbox.alias, clientID = CLIENT_ID,
    envdVersion = sandbox.envd, envdAccessToken = sandbox.token, domain = json.null,
    trafficAccessToken = sandbox.traffic_token or json.null,
  }
end

---A row of a list.
---@param sandbox table
---@return table
function sandboxes.row(sandbox)
  local up = sandbox.state == "running" or sandbox.state == "snapshotting"
  return {
    templateID = sandbox.template_id, sandboxID = sandbox.id, alias = sandbox.alias, clientID = CLIENT_ID,
    startedAt = clock.format(sandbox.started), endAt = clock.format(sandbox.end_at), cpuCount = sandbox.cpu,
    memoryMB = sandbox.memory, diskSizeMB = sandbox.disk, metadata = sandbox.metadata, envdVersion = sandbox.envd,
    state = up and "running" or "paused", volumeMounts = up and sandbox.volume_mounts or nil,
  }
end

---Everything about one sandbox.
---@param sandbox table
---@return table
function sandboxes.detail(sandbox)
  local shown = sandboxes.row(sandbox)
  local allow = sandbox.allow_internet
  if allow == nil then allow = json.null end
  shown.envdAccessToken, shown.allowInternetAccess, shown.domain = sandbox.token, allow, json.null
  shown.network = network.shown(sandbox.network)
  shown.lifecycle = { onTimeout = sandbox.auto_pause and "pause" or "kill", autoResume = sandbox.auto_resume or false }
  return shown
end

-- ---------------------------------------------------------------- create

local function check_iam(iam)
  local count = 0
  for name, token in pairs(iam.tokens or {}) do
    count = count + 1
    if name == "" or name:find("[{}%c]") then reply.raise(400, "Invalid iam token name") end
    if token.tokenType ~= "JWT-SVID" then
      reply.raise(400, string.format("Invalid token type of iam token '%s': only JWT-SVID is supported", name))
    elseif token.audience == "" then
      reply.raise(400, string.format("The audience of iam token '%s' must not be empty", name))
    end
  end
  if count > 5 then reply.raise(400, "At most 5 iam tokens are allowed") end
end

local function check_mounts(state, request, mounts)
  local wrong, used = {}, {}
  for i, mount in ipairs(mounts) do
    local path, problem = mount.path, nil
    if not state.volumes:named(request.team, mount.name) then
      problem = string.format("volume '%s' not found", mount.name)
    elseif path == "" then
      problem = "path cannot be empty"
    elseif path:sub(1, 1) ~= "/" then
      problem = "path must be absolute"
    elseif path:find("//", 1, true) or (path .. "/"):find("/%.%.?/") or (#path > 1 and path:sub(-1) == "/") then
      problem = "path must not contain any '.' or '..' components"
    elseif used[path] then
      problem = string.format("path '%s' is already used", path)
    end
    used[path] = true
    if problem then wrong[#wrong + 1] = string.format("\t- volume mount #%d: %s", i - 1, problem) end
  end
  if wrong[1] then reply.raise(400, "invalid mounts:\n" .. table.concat(wrong, "\n")) end
end

local function need_envd(template, version, what)
  if not sandboxes.version_at_least(template.envd, version) then
    reply.raise(400, string.format("%s; template must be rebuilt. Template envd version is %s, must be at least %s",
      what, template.envd, version))
  end
end

local function check_create(state, request, body, template, secure)
  if body.autoPauseMemory == false then
    if not body.autoPause then reply.raise(400, "autoPauseMemory can be false only together with autoPause") end
    if body.autoResume and body.autoResume.enabled then
      reply.raise(400, "autoPauseMemory=false cannot be combined with autoResume")
    end
  end
  if secure and not sandboxes.version_at_least(template.envd, "0.2.0") then
    reply.raise(400, "Template is not compatible with secured access. Please visit "
      .. "https://e2b.dev/docs/sandbox/secured-access for more information.")
  end
  if body.network then
    network.check(body.network)
    if body.network.allowPublicTraffic == false and not secure then
      reply.raise(400, "You cannot create a sandbox without public access unless you enable secure envd access "
        .. "via 'secure' flag.")
    end
    if next(body.network.rules or {}) then need_envd(template, "0.5.13", "Network rules are not supported") end
  end
  if body.iam then check_iam(body.iam) end
  if body.volumeMounts and body.volumeMounts[1] then
    need_envd(template, "0.5.14", "Volumes are not supported")
    check_mounts(state, request, body.volumeMounts)
  end
end

---Puts a new running sandbox into the store.
---@param state table
---@param fields table
---@param seconds integer
---@return table sandbox
function sandboxes.start(state, fields, seconds)
  local now = clock.now()
  fields.id = "i" .. text.random_id()
  fields.state, fields.timeout, fields.has_memory = "running", seconds, true
  fields.started, fields.end_at = now, now + seconds * SECOND
  fields.token = fields.secure and state.token("envd", fields.id) or nil
  fields.traffic_token = fields.network and fields.network.allowPublicTraffic == false
    and state.token("traffic", fields.id) or nil
  local template = fields.template
  if not fields.seed and template.saved then fields.seed = template.saved:share() end
  template.spawned, template.spawns = now, template.spawns + 1
  state.store:add(fields)
  return fields
end

local function create(state, default_timeout, always_secure)
  local function make(request)
    local body = validation.body(request, NEW_SANDBOX)
    local template = templates.resolve(state.templates, request.team, body.templateID)
    local seconds = body.timeout or default_timeout
    sandboxes.check_timeout(state, seconds)
    local secure = always_secure or body.secure == true
    check_create(state, request, body, template, secure)
    sandboxes.check_quota(state, request.team, 1)
    local memory = body.autoPauseMemory
    if memory == nil then memory = true end
    local sandbox = sandboxes.start(state, {
      team = request.team, template = template, template_id = template.id, alias = template.alias, cpu = template.cpu,
      memory = template.memory, disk = template.disk, envd = template.envd, secure = secure, metadata = body.metadata,
      env = body.envVars, mcp = body.mcp, iam = body.iam, network = body.network,
      allow_internet = body.allow_internet_access, volume_mounts = body.volumeMounts,
      auto_pause = body.autoPause or false, auto_pause_memory = memory,
      auto_resume = body.autoResume and body.autoResume.enabled or false,
    }, seconds)
    return reply.json(201, sandboxes.brief(sandbox))
  end
  if not always_secure then return make end
  return function(request)
    return state.idempotency:run(request, function() return make(request) end)
  end
end

local function show(state)
  return function(request)
    return reply.json(200, sandboxes.detail((sandboxes.get(state, request))))
  end
end

local function kill(state)
  return function(request)
    state.store:kill((sandboxes.get(state, request)))
    return reply.empty()
  end
end

---@param routes table
---@param state table
function sandboxes.routes(routes, state)
  routes:add("POST", "/sandboxes", create(state, 15, false))
  routes:add("POST", "/v2/sandboxes", create(state, 300, true), { v2 = true })
  routes:add("GET", "/sandboxes/{sandbox}", show(state))
  routes:add("DELETE", "/sandboxes/{sandbox}", kill(state))
end

return sandboxes
