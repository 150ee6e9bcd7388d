--- The templates of the local server: what exists, how a reference finds one, and their routes.
-- @module e2b.server.platform.templates

local clock = require("e2b.server.clock")
local json = require("e2b.server.json")
local reply = require("e2b.server.reply")
local text = require("e2b.server.text")
local page = require("e2b.server.platform.page")

local templates = {}

-- What the service offers everybody, one private template, one of another team, and one too old for secured sandboxes.
local BUILTIN = {
  { "rki5dems9wqfm4r03t7g", "base", 2, 512, 5120, "0.6.4", "2025-03-02T09:15:00.120351Z", public = true },
  { "nlhz8vlwyupq845jsdg9", "code-interpreter-v1", 2, 1024, 10240, "0.6.4", "2025-04-11T14:02:31.556Z", public = true },
  { "k0wmnzir0zuzye6dndlw", "desktop", 8, 8192, 10240, "0.6.4", "2025-05-20T08:44:10.000812Z", public = true },
  { "8whgxv3ew5vyjp1rc2u0", "mcp-gateway", 2, 1024, 10240, "0.6.4", "2025-09-30T17:20:05.431Z", public = true },
  { "p3q9x7d1m5t8w2c6v4b0", "data-worker", 4, 2048, 20480, "0.6.2", "2026-02-17T11:08:59.77Z", namespace = "local",
    tags = { "default", "v2" } },
  { "z1y2x3w4v5u6t7s8r9q0", "legacy-python", 1, 512, 2048, "0.1.5", "2024-06-01T10:00:00Z", namespace = "local" },
  { "a9b8c7d6e5f4g3h2i1j0", "other-team-secret", 2, 512, 5120, "0.6.4", "2026-01-05T06:30:00Z", namespace = "another",
    owner = "another" },
}

-- Every team of this server answers to one slug: keys are told apart, but nobody here has a name.
local SLUG = "local"

local NEWEST_FIRST = { time = "created", id = "id", id_descending = true }

---@return table by_id
function templates.load()
  local all = {}
  for _, row in ipairs(BUILTIN) do
    local tags = {}
    for _, tag in ipairs(row.tags or { "default" }) do tags[tag] = text.random_uuid() end
    all[row[1]] = {
      id = row[1], alias = row[2], cpu = row[3], memory = row[4], disk = row[5], envd = row[6],
      created = clock.parse(row[7]), updated = clock.parse(row[7]), public = row.public or false,
      namespace = row.namespace, owner = row.owner or (row.public and "service" or nil), tags = tags, spawns = 0,
    }
  end
  return all
end

---Adds a snapshot, which is a template of its own.
---@param all table
---@param fields table
function templates.add(all, fields)
  fields.created = clock.now()
  fields.updated, fields.public, fields.spawns = fields.created, false, 0
  all[fields.id] = fields
end

-- A template without an owner belongs to whichever team asks; the builtin ones belong to the service.
local function is_own(template, team)
  return template.owner == nil or template.owner == team
end

local function visible(template, team)
  return template.public or is_own(template, team)
end

---Splits `[namespace/]name[:tag]`.
---@param reference string
---@return string|nil namespace
---@return string name
---@return string tag
function templates.parse(reference)
  local trimmed = reference:match("^%s*(.-)%s*$"):lower()
  local head, tag = trimmed:match("^([^:]*):(.*)$")
  local namespace, name = (head or trimmed):match("^([^/]*)/(.*)$")
  name = name or head or trimmed
  local valid = name:find("^[a-z0-9_-]+$") and (not namespace or namespace:find("^[a-z0-9_-]+$"))
    and (not tag or tag:find("^[a-z0-9_.-]+$"))
  if not valid then reply.raise(400, "Invalid template reference: " .. reference) end
  return namespace, name, tag or "default"
end

-- Own namespace first, then the public names, then the raw id.
local function lookup(all, team, namespace, name)
  local public, foreign
  for _, template in pairs(all) do
    if template.alias == name and (not namespace or template.namespace == namespace) then
      if not template.public and is_own(template, team) then return template end
      if template.public and not namespace then public = template else foreign = template end
    end
  end
  return public or (not namespace and all[name]) or foreign
end

---Finds the template a reference means for a team.
---@param all table
---@param team string
---@param reference string
---@return table|nil template nil when there is none, or it is another team's
---@return string|nil tag
---@return table|nil hidden another team's template of that name
function templates.find(all, team, reference)
  local namespace, name, tag = templates.parse(reference)
  local template = lookup(all, team, namespace, name)
  if template and not visible(template, team) then return nil, tag, template end
  return template, tag
end

---The template to create a sandbox from; raises the service's 404s.
---@param all table
---@param team string
---@param reference string
---@return table template
function templates.resolve(all, team, reference)
  local template, tag = templates.find(all, team, reference)
  if not template then reply.raise(404, string.format("template '%s' not found", reference)) end
  if not template.tags[tag] then
    reply.raise(404, string.format("tag '%s' does not exist for template '%s'", tag, reference))
  end
  return template
end

local function names_of(template)
  if not template.alias then return json.array({}) end
  return json.array({ template.public and template.alias or ((template.namespace or SLUG) .. "/" .. template.alias) })
end

local function aliases_of(template)
  return json.array({ template.alias })
end

local function row(template)
  return {
    templateID = template.id, buildID = template.tags.default, cpuCount = template.cpu, memoryMB = template.memory,
    diskSizeMB = template.disk, public = template.public, aliases = aliases_of(template), names = names_of(template),
    createdAt = clock.format(template.created), updatedAt = clock.format(template.updated),
    createdBy = template.public and json.null
      or { id = "11111111-2222-4333-8444-555555555555", email = "dev@example.com" },
    lastSpawnedAt = template.spawned and clock.format(template.spawned) or json.null,
    spawnCount = template.spawns, buildCount = 1, envdVersion = template.envd, buildStatus = "ready",
  }
end

local function newest_first(all, team)
  local list = {}
  for _, template in pairs(all) do
    if visible(template, team) and not template.snapshot then list[#list + 1] = template end
  end
  page.sort(list, NEWEST_FIRST)
  return list
end

local function get(state, request)
  local template = templates.find(state.templates, request.team, request.params.template)
  if not template then
    reply.raise(404, string.format("template '%s' not found", request.params.template))
  end
  return template
end

local function list_v1(state)
  return function(request)
    local rows = json.array({})
    for _, template in ipairs(newest_first(state.templates, request.team)) do
      rows[#rows + 1] = row(template)
    end
    return reply.json(200, rows)
  end
end

local function list_v2(state)
  return function(request)
    local list = newest_first(state.templates, request.team)
    local items, headers = page.of(request, list, NEWEST_FIRST)
    local rows = json.array({})
    for i, template in ipairs(items) do rows[i] = row(template) end
    return reply.json(200, rows, headers)
  end
end

local function show(state)
  return function(request)
    local template = get(state, request)
    return reply.json(200, {
      templateID = template.id, public = template.public, aliases = aliases_of(template), names = names_of(template),
      createdAt = clock.format(template.created), updatedAt = clock.format(template.updated),
      lastSpawnedAt = template.spawned and clock.format(template.spawned) or json.null, spawnCount = template.spawns,
      builds = json.array({ {
        buildID = template.tags.default, status = "ready", createdAt = clock.format(template.created),
        updatedAt = clock.format(template.updated), finishedAt = clock.format(template.updated),
        cpuCount = template.cpu, memoryMB = template.memory, diskSizeMB = template.disk, envdVersion = template.envd,
      } }),
    })
  end
end

local function alias(state)
  return function(request)
    local reference = request.params.template
    local template, tag, hidden = templates.find(state.templates, request.team, reference)
    if hidden then
      reply.raise(403, string.format("You don't have access to template alias '%s'", reference))
    end
    if not template or not template.tags[tag] then
      reply.raise(404, string.format("template alias '%s' not found", reference))
    end
    return reply.json(200, { templateID = template.id, public = template.public })
  end
end

local function tags(state)
  return function(request)
    local template = get(state, request)
    local names, rows = {}, json.array({})
    for tag in pairs(template.tags) do names[#names + 1] = tag end
    table.sort(names)
    for i, tag in ipairs(names) do
      rows[i] = { tag = tag, buildID = template.tags[tag], createdAt = clock.format(template.created) }
    end
    return reply.json(200, rows)
  end
end

local function delete(state)
  return function(request)
    local template = get(state, request)
    if not is_own(template, request.team) then
      reply.raise(403, string.format("You don't have permission to delete template '%s'", request.params.template))
    end
    for _, sandbox in pairs(state.store:of_team(request.team)) do
      if sandbox.template == template then
        reply.raise(400, string.format(
          "cannot delete template '%s' because there are paused or running sandboxes using it", template.id))
      end
    end
    state.templates[template.id] = nil
    if template.saved then template.saved:release() end
    return reply.empty()
  end
end

---@param routes table
---@param state table
function templates.routes(routes, state)
  routes:add("GET", "/templates", list_v1(state))
  routes:add("GET", "/v2/templates", list_v2(state), { v2 = true })
  routes:add("GET", "/templates/{template}", show(state))
  routes:add("DELETE", "/templates/{template}", delete(state))
  routes:add("GET", "/templates/{template}/tags", tags(state))
  routes:add("GET", "/templates/aliases/{template}", alias(state))
end

return templates
