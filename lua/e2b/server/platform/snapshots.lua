--- Forks and snapshots.
-- @module e2b.server.platform.snapshots

local json = require("e2b.server.json")
local reply = require("e2b.server.reply")
local text = require("e2b.server.text")
local validation = require("e2b.server.validation")
local page = require("e2b.server.platform.page")
local sandboxes = require("e2b.server.platform.sandboxes")
local templates = require("e2b.server.platform.templates")

local snapshots = {}

local FORK = { type = "object", fields = {
  timeout = { type = "integer", min = 0 }, count = { type = "integer", min = 1, max = 100 },
} }
local SNAPSHOT = { type = "object", fields = { name = { type = "string" } } }

local KEYS = { time = "created", id = "id", id_descending = true }

-- What a copy of a sandbox starts with.
local INHERITED = {
  "team", "template", "template_id", "alias", "cpu", "memory", "disk", "envd", "secure", "metadata", "env", "mcp",
  "iam", "network", "allow_internet", "volume_mounts", "auto_pause", "auto_pause_memory", "auto_resume",
}

local function need_copyable(sandbox, id)
  if not sandboxes.version_at_least(sandbox.envd, "0.5.0") then
    reply.raise(400, string.format("The envd of sandbox '%s' is too old for snapshots: %s, must be at least 0.5.0",
      id, sandbox.envd))
  end
end

local function copied(state, sandbox, id)
  local done, saved = state.store:snapshot(sandbox)
  if not done then sandboxes.not_found(id) end
  return saved
end

local function fork(state, default_timeout)
  return function(request)
    local body = validation.body(request, FORK, true)
    local seconds, count = body.timeout or default_timeout, body.count or 1
    sandboxes.check_timeout(state, seconds)
    local sandbox, id = sandboxes.get(state, request)
    if sandbox.state == "paused" then
      reply.raise(409, string.format('Sandbox "%s" is paused, resume it first', id))
    elseif sandbox.state ~= "running" then
      reply.raise(409, string.format('Sandbox "%s" is in a transitional state', id))
    end
    need_copyable(sandbox, id)
    if state.options.max_sandboxes and count >= state.options.max_sandboxes then
      reply.raise(400, string.format("count must be lower than the maximum number of concurrent sandboxes (%d)",
        state.options.max_sandboxes))
    end
    local saved = copied(state, sandbox, id)
    local results = json.array({})
    for i = 1, count do
      local ok, raised = pcall(sandboxes.check_quota, state, request.team, 1)
      if ok then
        local fields = {}
        for _, name in ipairs(INHERITED) do fields[name] = sandbox[name] end
        fields.seed = saved and saved:share()
        results[i] = { sandbox = sandboxes.brief(sandboxes.start(state, fields, seconds)) }
      else
        local refused = reply.of(raised)
        if not refused then error(raised, 0) end
        results[i] = { error = json.decode(refused.body) }
      end
    end
    if saved then saved:release() end
    return reply.json(201, results)
  end
end

local function info(template)
  local names = json.array({})
  if template.alias then names[1] = template.namespace .. "/" .. template.alias .. ":" .. template.snapshot.tag end
  return { snapshotID = template.id .. ":" .. template.snapshot.tag, names = names }
end

local function new_snapshot(state)
  return function(request)
    local body = validation.body(request, SNAPSHOT)
    local namespace, name, tag
    if body.name then
      namespace, name, tag = templates.parse(body.name)
      if namespace and namespace ~= "local" then
        reply.raise(400, string.format("Invalid snapshot name '%s': the namespace is not yours", body.name))
      end
    end
    local sandbox, id = sandboxes.get(state, request)
    if sandbox.state == "paused" then sandboxes.not_found(id) end
    if sandbox.state ~= "running" then
      reply.raise(409, string.format('Sandbox "%s" is in a transitional state', id))
    end
    need_copyable(sandbox, id)
    local saved = copied(state, sandbox, id)
    local template = name and templates.find(state.templates, request.team, "local/" .. name)
    if template and template.snapshot then
      -- The same name again is another build of the same template.
      template.tags[tag], template.snapshot = text.random_uuid(), { sandbox = id, tag = tag }
    else
      template = {
        id = text.random_id(), alias = name, namespace = "local", owner = request.team, cpu = sandbox.cpu,
        memory = sandbox.memory, disk = sandbox.disk, envd = sandbox.envd,
        snapshot = { sandbox = id, tag = tag or "default" },
        tags = { [tag or "default"] = text.random_uuid() },
      }
      templates.add(state.templates, template)
    end
    if template.saved then template.saved:release() end
    template.saved = saved
    return reply.json(201, info(template))
  end
end

local function list(state)
  return function(request)
    local sandbox, wanted = request.query.sandboxID, request.query.name
    local name, tag
    if wanted and wanted ~= "" then
      local _
      _, name, tag = templates.parse(wanted)
      if not wanted:find(":", 1, true) then tag = nil end
    end
    local found = {}
    for _, template in pairs(state.templates) do
      local snapshot = template.owner == request.team and template.snapshot
      if snapshot and (not name or template.alias == name) and (not tag or template.tags[tag])
        and (not sandbox or snapshot.sandbox == sandbox:match("^[^-]*")) then
        found[#found + 1] = template
      end
    end
    page.sort(found, KEYS)
    local items, headers = page.of(request, found, KEYS)
    local rows = json.array({})
    for i, template in ipairs(items) do rows[i] = info(template) end
    return reply.json(200, rows, headers)
  end
end

---@param routes table
---@param state table
function snapshots.routes(routes, state)
  routes:add("POST", "/sandboxes/{sandbox}/fork", fork(state, 15))
  routes:add("POST", "/v2/sandboxes/{sandbox}/fork", fork(state, 300), { v2 = true })
  routes:add("POST", "/sandboxes/{sandbox}/snapshots", new_snapshot(state))
  routes:add("GET", "/snapshots", list(state))
end

return snapshots
