--- The daemon's control endpoints: /health, /metrics, /envs, /init.
-- @module e2b.server.envd.control

local native = require("e2b.server.native")
local clock = require("e2b.server.clock")
local json = require("e2b.server.json")
local paths = require("e2b.server.envd.paths")

local control = {}

local MIB = 1024 * 1024

local function read_file(path)
  local file = io.open(path, "r")
  if not file then return "" end
  local text = file:read("*a")
  file:close()
  return text or ""
end

-- ---------------------------------------------------------------- /metrics

-- Processor time since the machine's start: all of it, and what was not idle; and the number of processors.
local function processor_time()
  local text = read_file("/proc/stat")
  local total, idle, at = 0, 0, 0
  for value in (text:match("^cpu +([%d ]+)") or ""):gmatch("%d+") do
    at = at + 1
    -- What guests use is in the first two already.
    if at <= 8 then total = total + tonumber(value) end
    if at == 4 or at == 5 then idle = idle + tonumber(value) end
  end
  local _, count = text:gsub("\ncpu%d+", "")
  return total, total - idle, count
end

local function memory()
  local text = read_file("/proc/meminfo")
  local function field(name) return (tonumber(text:match("\n" .. name .. ": +(%d+)")) or 0) * 1024 end
  local total = (tonumber(text:match("^MemTotal: +(%d+)")) or 0) * 1024
  local cache = field("Cached") + field("SReclaimable")
  return total, math.max(total - field("MemFree") - field("Buffers") - cache, 0), cache
end

local function metrics(daemon)
  local total, busy, count = processor_time()
  local before = daemon.processor_time or { 0, 0 }
  local percent = total > before[1] and (busy - before[2]) / (total - before[1]) * 100 or 0
  daemon.processor_time = { total, busy }
  local all, used, cache = memory()
  local disk = native.fs_statfs(paths.real("/")) or { total = 0, available = 0 }
  return {
    ts = math.floor(clock.now() / clock.SECOND), cpu_count = daemon.options.cpu_count or count,
    cpu_used_pct = math.floor(percent * 100 + 0.5) / 100, mem_total = all, mem_used = used, mem_cache = cache,
    mem_total_mib = math.floor(all / MIB), mem_used_mib = math.floor(used / MIB), disk_total = disk.total,
    disk_used = disk.total - disk.available,
  }
end

-- ---------------------------------------------------------------- /init

-- The variables of the daemon's own; nobody overrides them.
local function internal(daemon)
  local options = daemon.options
  return {
    E2B_SANDBOX = "true", E2B_SANDBOX_ID = options.sandbox_id, E2B_TEMPLATE_ID = options.template_id,
    E2B_EVENTS_ADDRESS = daemon.events_address,
  }
end

---Replaces the variables that processes start with.
---@param daemon table gets `envs`
---@param envs table<string, string>
function control.set_envs(daemon, envs)
  local all = {}
  for name, value in pairs(envs) do all[name] = value end
  for name, value in pairs(internal(daemon)) do all[name] = value end
  daemon.envs = all
end

local function is_text(value)
  return value == nil or type(value) == "string"
end

-- What is wrong with the body of an /init.
local function problem_of(given)
  for _, name in ipairs({ "accessToken", "timestamp", "defaultUser", "defaultWorkdir", "hyperloopIP" }) do
    if not is_text(given[name]) then return name .. " must be a string" end
  end
  if given.accessToken == "" then return "accessToken must not be empty" end
  if given.envVars ~= nil and type(given.envVars) ~= "table" then return "envVars must be an object" end
  for name, value in pairs(given.envVars or {}) do
    if type(name) ~= "string" or type(value) ~= "string" then return "envVars must be a map of strings" end
  end
  if given.timestamp and not clock.parse(given.timestamp) then return "timestamp is no RFC 3339 time" end
end

local function apply(daemon, given)
  if given.timestamp then
    local at = clock.parse(given.timestamp)
    if daemon.initialized_at and at <= daemon.initialized_at then return end
    daemon.initialized_at = at
  end
  daemon.access_token = given.accessToken
  if given.hyperloopIP and given.hyperloopIP ~= "" then
    daemon.events_address = "http://" .. given.hyperloopIP
  end
  control.set_envs(daemon, given.envVars or daemon.user_envs)
  daemon.user_envs = given.envVars or daemon.user_envs
  if given.defaultUser and given.defaultUser ~= "" then daemon.default_user = given.defaultUser end
  if given.defaultWorkdir and given.defaultWorkdir ~= "" then daemon.default_workdir = given.defaultWorkdir end
end

local function init(daemon, app, request)
  local body, refusal = request.body()
  if not body then return refusal or { drop = true, headers = {} } end
  local given = {}
  if body ~= "" then
    given = json.decode(body)
    if not json.is_object(given) then return app.text(400, "the body must be a JSON object") end
    given = json.plain(given)
  end
  local token = daemon.access_token
  local shown = request.headers["x-access-token"] or given.accessToken
  if token and (type(shown) ~= "string" or not app.same(shown, token)) then
    return app.text(401, "access token mismatch")
  end
  local problem = problem_of(given)
  if problem then return app.text(400, problem) end
  apply(daemon, given)
  return { status = 204, headers = { "cache-control", "no-store", "x-envd-version", daemon.options.version or "" } }
end

-- ---------------------------------------------------------------- routes

---@param router table e2b.server.router
---@param daemon table
function control.routes(router, daemon)
  local app = require("e2b.server.envd.app")
  control.set_envs(daemon, daemon.user_envs)
  router:add("GET", "/health", function()
    return { status = 204, headers = { "cache-control", "no-store", "content-type", "" } }
  end)
  router:add("GET", "/metrics", function()
    local answer = { "cache-control", "no-store", "content-type", "application/json" }
    return { status = 200, headers = answer, body = json.encode(metrics(daemon)) }
  end)
  router:add("GET", "/envs", function()
    local answer = { "cache-control", "no-store", "content-type", "application/json" }
    return { status = 200, headers = answer, body = json.encode(daemon.envs) }
  end)
  router:add("POST", "/init", function(request) return init(daemon, app, request) end)
end

return control
