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

local function unknown(name, known, what)
  raise(require("e2b.suggest").unknown(name, known, what))
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
