--- What Tab offers: names of globals, fields after a dot, methods after a colon; of this library's objects also what
--- is made when it is first asked for. Nothing is called and nothing is fetched.
local help = require("e2b.help")

local M = {}

local KEYWORDS = {
  "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in", "local", "nil", "not",
  "or", "repeat", "return", "then", "true", "until", "while",
}

local DEEPEST = 10 -- __index after __index

local function index(value, key) return value[key] end

local function get(value, key)
  local ok, found = pcall(index, value, key)
  if ok then return found end
  return nil
end

-- Adds the names that a table has, and the tables behind it.
local function collect(names, from, depth)
  if type(from) ~= "table" or depth > DEEPEST then return end
  for key in next, from do
    if type(key) == "string" and key:find("^[%a_][%w_]*$") then names[key] = true end
  end
  local mt = debug.getmetatable(from)
  if type(mt) == "table" then collect(names, rawget(mt, "__index"), depth + 1) end
end

local function names_of(value, e2b)
  local names = {}
  local mt = debug.getmetatable(value)
  if type(value) == "table" then
    collect(names, value, 1)
  elseif type(mt) == "table" then
    collect(names, rawget(mt, "__index"), 1)
  end
  -- An __index that is a function doesn't say what it knows; the help does.
  local known = type(value) == "table" and help.names(value, e2b)
  for _, name in ipairs(known or {}) do names[name] = true end
  return names, known ~= nil and known ~= false
end

-- What is called with a dot: functions of modules and classes, which are in the table itself.
local function has_own(value, name)
  return type(value) == "table" and type(rawget(value, name)) == "function"
end

-- The names after value. or value: that begin with a text.
local function members(value, separator, begin, e2b)
  local found = {}
  if value == nil then return found end
  local names, is_ours = names_of(value, e2b)
  for name in pairs(names) do
    if name:sub(1, #begin) == begin and (begin ~= "" or name:sub(1, 1) ~= "_") then
      local member = get(value, name)
      local method = type(member) == "function" and not (is_ours and has_own(value, name))
      local field = not method or not is_ours
      if separator == ":" and method or separator == "." and member ~= nil and field then found[#found + 1] = name end
    end
  end
  table.sort(found)
  return found
end

local function globals(begin, env)
  local names, found = {}, {}
  collect(names, env, 1)
  for _, word in ipairs(KEYWORDS) do names[word] = true end
  for name in pairs(names) do
    if name:sub(1, #begin) == begin and (begin ~= "" or name:sub(1, 1) ~= "_") then found[#found + 1] = name end
  end
  table.sort(found)
  return found
end

-- The value of "a.b[1].c".
local function walk(path, env)
  local name, rest = path:match("^([%a_][%w_]*)(.*)$")
  if not name then return nil end
  local value = get(env, name)
  while rest ~= "" do
    local key, after = rest:match("^%.([%a_][%w_]*)(.*)$")
    if not key then
      key, after = rest:match("^%[(%d+)%](.*)$")
      key = tonumber(key)
    end
    if key == nil or value == nil then return nil end
    value, rest = get(value, key), after
  end
  return value
end

--- What may stand in the place of the end of a text.
---@param text string up to the cursor
---@param env table the globals
---@param e2b table the module
---@return string[] whole words, in their order
---@return integer from where the word to be replaced begins
function M.words(text, env, e2b)
  local from = text:find("[%w_%.:%[%]]*$")
  local expression = text:sub(from)
  -- "x[a.b": what counts stands in the bracket.
  local inner = expression:match(".*%[()[%a_][^%]]*$")
  if inner then from, expression = from + inner - 1, expression:sub(inner) end
  local path, separator, begin = expression:match("^(.-)([.:]?)([%w_]*)$")
  if begin:find("^%d") then return {}, from end
  if separator == "" then
    -- After a bracket or a number nothing begins.
    return path == "" and globals(begin, env) or {}, from
  end
  local value = walk(path, env)
  local found = members(value, separator, begin, e2b)
  if found[1] == nil and separator == "." and begin ~= "" then
    separator = ":"
    found = members(value, separator, begin, e2b)
  end
  for i, name in ipairs(found) do found[i] = path .. separator .. name end
  return found, from
end

return M
