--- Option tables: what a caller got wrong is raised at the caller's own line and names what was probably meant.
local M = {}

-- Every file of the library lies beside this one; the server does not call the rest.
local own = (debug.getinfo(1, "S").source:gsub("options%.lua$", ""))

local function is_own(source)
  return source:sub(1, #own) == own
end

-- "script.lua:12: " of the first Lua function on the stack that is not the library's. Walking there instead of counting
-- levels keeps the line right through statics, tail calls and helper functions.
local function position()
  local level = 3
  while true do
    local info = debug.getinfo(level, "Sl")
    if not info then return "" end
    if info.what ~= "C" and info.currentline > 0 and not is_own(info.source) then
      return info.short_src .. ":" .. info.currentline .. ": "
    end
    level = level + 1
  end
end

--- Raises a message at the line of the caller of the library.
---@param message string
function M.raise(message)
  error(position() .. message, 0)
end

local raise = M.raise

-- Suggestions --------------------------------------------------------------------------------------------------------

-- Names from the official SDKs and from habit, where converting the case is not enough. A name is only suggested when
-- the call has it.
local ALIASES = {
  timeout_ms = "timeout", request_timeout_ms = "request_timeout", connect_timeout_ms = "connect_timeout",
  idle_timeout_ms = "idle_timeout", env_vars = "envs", env = "envs", environment = "envs", env_variables = "envs",
  template_id = "template", template_name = "template", key = "api_key", apikey = "api_key", token = "api_key",
  access_token = "api_key", url = "api_url", base_url = "api_url", endpoint = "api_url", host = "api_url",
  max_retries = "retries", retry = "retries", retry_count = "retries", ttl = "timeout", lifetime = "timeout",
  auto_pause = "lifecycle", auto_resume = "lifecycle", allow_out = "network", deny_out = "network",
  internet = "allow_internet_access", allow_internet = "allow_internet_access", volumes = "volume_mounts",
  mounts = "volume_mounts", start = "from", ["end"] = "to", query = "metadata", cursor = "next_token",
  page_token = "next_token", page_size = "limit", ca = "ca_file", ca_bundle = "ca_file", cainfo = "ca_file",
  max_connections = "connections", log = "logger", agent = "user_agent", tags = "metadata",
  states = "state", labels = "metadata", started_at = "started_after",
}

-- requestTimeoutMs -> request_timeout_ms, accessURL -> access_url
local function snake(name)
  name = name:gsub("(%l)(%u)", "%1_%2"):gsub("(%u+)(%u%l)", "%1_%2"):gsub("[-%s]", "_")
  return name:lower()
end

-- Edit distance with neighbours swapped counted as one.
local function distance(a, b)
  local before, last = {}, {}
  for j = 0, #b do last[j] = j end
  for i = 1, #a do
    local row = { [0] = i }
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      local cost = math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (same and 0 or 1))
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        cost = math.min(cost, before[j - 2] + 1)
      end
      row[j] = cost
    end
    before, last = last, row
  end
  return last[#b]
end

--- The name that was probably meant.
---@param name string
---@param known table<string, any> keyed by the names there are
---@return string? suggestion
---@return boolean? seconds true when the caller wrote milliseconds
function M.suggest(name, known)
  local plain = snake(name)
  local milliseconds = plain:find("_ms$") ~= nil
  local alias = ALIASES[plain] or plain:match("^(.*)_ms$")
  if known[plain] then return plain end
  if alias and known[alias] then return alias, milliseconds end
  if #plain > 64 then return nil end
  local best, least
  for candidate in pairs(known) do
    local far = distance(plain, candidate)
    -- The order of pairs is not the same twice: ties go to the first in the alphabet.
    if not least or far < least or far == least and candidate < best then best, least = candidate, far end
  end
  if best and least <= math.max(1, math.floor(#plain / 3)) then return best end
  return nil
end

-- The names a call takes ---------------------------------------------------------------------------------------------

local function seconds(value)
  if type(value) ~= "number" then return "a number of seconds expected, got " .. type(value) end
  if not (value >= 0 and value < math.huge) then
    return "seconds from 0 on expected, got " .. tostring(value)
  end
  return nil
end

local function whole(least)
  return function(value)
    if type(value) ~= "number" then return "a whole number expected, got " .. type(value) end
    if value ~= math.floor(value) or value < least or value >= 2 ^ 53 then
      return ("a whole number from %d on expected, got %s"):format(least, tostring(value))
    end
    return nil
  end
end

local function typed(...)
  local wanted = { ... }
  return function(value)
    for _, name in ipairs(wanted) do
      if type(value) == name then return nil end
    end
    return table.concat(wanted, " or ") .. " expected, got " .. type(value)
  end
end

local function headers(value)
  if type(value) ~= "table" then return "a table { name = value } expected, got " .. type(value) end
  for name, text in pairs(value) do
    if type(name) ~= "string" then return "header names must be strings, got a " .. type(name) end
    if type(text) ~= "string" and type(text) ~= "number" then
      return ("the value of header %q must be a string, got a %s"):format(name:gsub("%c", "?"), type(text))
    end
  end
  return nil
end

-- Each function answers nil, or what is wrong with a value.
M.types = {
  seconds = seconds, count = whole(0), positive = whole(1), string = typed("string"), boolean = typed("boolean"),
  ["function"] = typed("function"), table = typed("table"), headers = headers,
}

-- What every call takes.
local CALL = {
  request_timeout = seconds, connect_timeout = seconds, idle_timeout = seconds, retries = M.types.count,
}
M.CALL = CALL

-- What only e2b.client takes; a call that is given one of these is told so.
local CLIENT_ONLY = {
  api_key = true, domain = true, api_url = true, sandbox_url = true, debug = true, headers = true, api_headers = true,
  proxy = true, ca_file = true, user_agent = true, integration = true, logger = true, connections = true,
  max_answer_bytes = true, loop = true, getenv = true, validate_api_key = true,
}

local function unknown(name, known, what)
  if type(name) ~= "string" then
    raise(("unknown option [%s] for %s (options have names: { name = value })"):format(tostring(name), what))
  end
  local shown = name:gsub("%c", "?"):sub(1, 64)
  local plain, hint = snake(name), ""
  if CLIENT_ONLY[plain] and not known[plain] then
    hint = (" ('%s' is an option of e2b.client)"):format(plain)
  else
    local meant, in_seconds = M.suggest(name, known)
    if meant then hint = (" (did you mean '%s'?%s)"):format(meant, in_seconds and " It is in seconds." or "") end
  end
  raise(("unknown option '%s' for %s%s"):format(shown, what, hint))
end

-- Sets of names made of lists, kept as long as the list is.
local sets = setmetatable({}, { __mode = "k" })

local function set_of(names)
  local set = sets[names]
  if not set then
    set = {}
    for _, name in ipairs(names) do set[name] = true end
    sets[names] = set
  end
  return set
end

local function known_with_call(extra)
  local known = {}
  for name in pairs(CALL) do known[name] = true end
  for name in pairs(extra) do known[name] = true end
  return known
end

local NONE = {}

local function must_be_table(opts, what)
  if type(opts) ~= "table" then
    raise(("bad options for %s (a table { name = value } expected, got %s)"):format(what, type(opts)))
  end
end

--- Checks the options of a public call: only the names that every call takes and those in `extra`; the shared ones must
--- be of the right type. Raises at the caller's line.
---@param opts table the caller's; it is only read
---@param extra string[]? names that this call takes besides request_timeout, connect_timeout, idle_timeout and retries
---@param what string the operation: "Sandbox.create"
---@return table opts
function M.call(opts, extra, what)
  must_be_table(opts, what)
  local set = extra and set_of(extra) or NONE
  for name, value in pairs(opts) do
    local check = CALL[name]
    if check then
      local wrong = check(value)
      if wrong then raise(("bad option '%s' for %s (%s)"):format(name, what, wrong)) end
    elseif not set[name] then
      unknown(name, known_with_call(set), what)
    end
  end
  return opts
end

--- Checks that a table has only the given names.
---@param value table
---@param names string[]
---@param what string named in the message
---@return table value
function M.check(value, names, what)
  must_be_table(value, what)
  local set = set_of(names)
  for name in pairs(value) do
    if not set[name] then unknown(name, set, what) end
  end
  return value
end

--- Checks names and types and copies.
---@param opts table? nil is an empty table
---@param spec table<string, fun(value: any): string?> a check for each name (see options.types)
---@param what string named in the message
---@return table copy
function M.read(opts, spec, what)
  local copy = {}
  if opts == nil then return copy end
  must_be_table(opts, what)
  for name, value in pairs(opts) do
    local check = spec[name]
    if not check then unknown(name, spec, what) end
    local wrong = check(value)
    if wrong then raise(("bad option '%s' for %s (%s)"):format(name, what, wrong)) end
    copy[name] = value
  end
  return copy
end

--- A copy, one level deep. The caller's table is never kept and never changed.
---@param opts table?
---@return table
function M.copy(opts)
  local copy = {}
  for name, value in pairs(opts or NONE) do copy[name] = value end
  return copy
end

return M
