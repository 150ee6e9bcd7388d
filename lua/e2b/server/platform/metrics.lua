--- Metrics and logs. There is no machine behind a sandbox here: the numbers are made up, but plausible and steady.
-- @module e2b.server.platform.metrics

local clock = require("e2b.server.clock")
local json = require("e2b.server.json")
local reply = require("e2b.server.reply")
local text = require("e2b.server.text")
local validation = require("e2b.server.validation")
local sandboxes = require("e2b.server.platform.sandboxes")

local metrics = {}

local SECOND = clock.SECOND
local MIB = 1048576

-- Range in seconds up to which a resolution in seconds is used.
local RESOLUTIONS = { { 3600, 5 }, { 6 * 3600, 30 }, { 12 * 3600, 60 }, { 24 * 3600, 120 }, { 48 * 3600, 300 } }

local function resolution(range)
  for _, row in ipairs(RESOLUTIONS) do
    if range < row[1] then return row[2] end
  end
  return 900
end

local function point(sandbox, second)
  local wave = (second * 7 + sandbox.cpu) % 50
  return {
    timestamp = clock.format(second * SECOND), timestampUnix = second, cpuCount = sandbox.cpu,
    cpuUsedPct = 1.25 + wave / 10, memUsed = (90 + wave) * MIB, memTotal = sandbox.memory * MIB,
    memCache = (40 + wave) * MIB, diskUsed = 900 * MIB + wave * 4096, diskTotal = sandbox.disk * MIB,
  }
end

local function series(state)
  return function(request)
    local first = validation.query_integer(request, "start", 0)
    local last = validation.query_integer(request, "end", 0)
    if first and last and first > last then reply.raise(400, "start time cannot be after end time") end
    local sandbox = sandboxes.get(state, request)
    local began = math.ceil(sandbox.started / SECOND)
    local ended = math.floor(math.min(clock.now(), sandbox.state == "paused" and sandbox.end_at or math.huge) / SECOND)
    local from, to = math.max(first or began, began), math.min(last or ended, ended)
    local step = resolution((last or ended) - (first or began))
    local rows = json.array({})
    -- Points lie where they lie, whatever range is asked for.
    for second = began + math.ceil((from - began) / step) * step, to, step do
      rows[#rows + 1] = point(sandbox, second)
    end
    return reply.json(200, rows)
  end
end

local function latest(state)
  return function(request)
    local raw = request.query.sandbox_ids
    if not raw or raw == "" then
      reply.raise(400, 'validation error: parameter "sandbox_ids" in query has an error: value is required but missing')
    end
    local ids, seen = text.split(raw, ","), {}
    if #ids > 100 then validation.query_problem("sandbox_ids", "maximum number of items is 100") end
    local found = {}
    for _, id in ipairs(ids) do
      if seen[id] then validation.query_problem("sandbox_ids", "duplicate items found") end
      seen[id] = true
      local sandbox = state.store:find(request.team, id:match("^[a-z0-9]+") or "")
      if sandbox and sandbox.state ~= "paused" then
        found[id] = point(sandbox, math.floor(clock.now() / SECOND))
      end
    end
    return reply.json(200, { sandboxes = found })
  end
end

local function logs(state, version)
  return function(request)
    validation.query_integer(request, "limit", 0, version == 2 and 1000 or nil)
    validation.query_integer(request, version == 2 and "cursor" or "start", 0)
    if version == 2 then
      validation.query_words(request, "direction", { "forward", "backward" })
      validation.query_words(request, "level", { "debug", "info", "warn", "error" })
      if #(request.query.search or "") > 256 then
        validation.query_problem("search", "maximum string length is 256")
      end
    end
    sandboxes.get(state, request)
    local nothing = json.array({})
    return reply.json(200, version == 2 and { logs = nothing } or { logs = nothing, logEntries = nothing })
  end
end

---@param routes table
---@param state table
function metrics.routes(routes, state)
  routes:add("GET", "/sandboxes/metrics", latest(state))
  routes:add("GET", "/sandboxes/{sandbox}/metrics", series(state))
  routes:add("GET", "/sandboxes/{sandbox}/logs", logs(state, 1))
  routes:add("GET", "/v2/sandboxes/{sandbox}/logs", logs(state, 2), { v2 = true })
end

return metrics
