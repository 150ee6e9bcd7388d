--- Lists of sandboxes: filters, order, pages.
-- @module e2b.server.platform.listing

local clock = require("e2b.server.clock")
local json = require("e2b.server.json")
local reply = require("e2b.server.reply")
local text = require("e2b.server.text")
local validation = require("e2b.server.validation")
local page = require("e2b.server.platform.page")
local sandboxes = require("e2b.server.platform.sandboxes")
local templates = require("e2b.server.platform.templates")

local listing = {}

local KEYS = { time = "started", id = "id" }

-- The value is encoded in layers: the query decoded it once; the whole string and each part are decoded here.
local function metadata_filter(request)
  local raw = request.query.metadata
  if raw == nil then return nil end
  local function refuse(what) reply.raise(400, "Error parsing metadata: " .. what) end
  local whole = text.unescape_query(raw) or refuse("error when unescaping query")
  local wanted = {}
  for _, pair in ipairs(text.split(whole, "&")) do
    local parts = text.split(pair, "=")
    if #parts ~= 2 then refuse("invalid key value pair in query") end
    local key, value = text.unescape_query(parts[1]), text.unescape_query(parts[2])
    if not key or not value then refuse("error when unescaping key or value") end
    wanted[key] = value
  end
  return wanted
end

local function has_metadata(sandbox, wanted)
  if not wanted then return true end
  for key, value in pairs(wanted) do
    if not sandbox.metadata or sandbox.metadata[key] ~= value then return false end
  end
  return true
end

-- nil: any template; false: one that does not exist.
local function template_filter(state, request)
  local reference = request.query.template
  if reference == nil or reference == "" then return nil end
  if reference:find(":", 1, true) then
    reply.raise(400, "Invalid template filter: a tag is not supported")
  end
  local template = templates.find(state.templates, request.team, reference)
  return template and template.id or false
end

local function started_filter(request)
  local raw = request.query.startedAfter
  if raw == nil then return nil end
  local micros = clock.parse(raw)
  if not micros then
    validation.query_problem("startedAfter", string.format("value %s: not a date-time of RFC 3339", raw))
  end
  return micros
end

local function is_up(sandbox)
  return sandbox.state == "running" or sandbox.state == "snapshotting"
end

local function rows_of(items)
  local rows = json.array({})
  for i, sandbox in ipairs(items) do rows[i] = sandboxes.row(sandbox) end
  return rows
end

local function list_v2(state)
  return function(request)
    local states = validation.query_words(request, "state", { "running", "paused" })
    local order = validation.query_words(request, "order", { "asc", "desc" }) or {}
    if order.asc and order.desc then
      validation.query_problem("order", 'value is not one of the allowed values ["asc","desc"]')
    end
    local metadata, after = metadata_filter(request), started_filter(request)
    local template = template_filter(state, request)
    if state.options.ignore_filters then states, metadata, after, template = nil, nil, nil, nil end
    local list, up = {}, 0
    for _, sandbox in pairs(state.store:of_team(request.team)) do
      local running = is_up(sandbox)
      if (not states or states[running and "running" or "paused"]) and has_metadata(sandbox, metadata)
        and (not after or sandbox.started >= after) and (template == nil or sandbox.template_id == template) then
        list[#list + 1] = sandbox
        if running then up = up + 1 end
      end
    end
    page.sort(list, KEYS, order.asc)
    local items, headers = page.of(request, list, KEYS, order.asc)
    if not states or states.running then
      headers[#headers + 1] = "x-total-running"
      headers[#headers + 1] = tostring(up)
    end
    return reply.json(200, rows_of(items), headers)
  end
end

local function list_v1(state)
  return function(request)
    local metadata = metadata_filter(request)
    if state.options.ignore_filters then metadata = nil end
    local list = {}
    for _, sandbox in pairs(state.store:of_team(request.team)) do
      if is_up(sandbox) and has_metadata(sandbox, metadata) then list[#list + 1] = sandbox end
    end
    page.sort(list, KEYS)
    return reply.json(200, rows_of(list))
  end
end

---@param routes table
---@param state table
function listing.routes(routes, state)
  routes:add("GET", "/sandboxes", list_v1(state))
  routes:add("GET", "/v2/sandboxes", list_v2(state), { v2 = true })
end

return listing
