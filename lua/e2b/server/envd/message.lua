--- Messages of the daemon's protocol: from JSON, by a table of their fields.
--
-- The table names each field as protobuf does and says what it is: "string", "bool", "uint32", "bytes" (absent: the
-- empty value), the same with a question mark (absent: nil), "[string]" (a list), "{string}" (a map), a table of fields
-- (a message; absent: nil), `{ enum = { NAME = number } }` (the name; a number nobody named stays one). `oneof` lists
-- fields of which at most one may be there.
-- @module e2b.server.envd.message

local json = require("e2b.server.json")
local native = require("e2b.server.native")

local message = {}

local LARGE = 8192 -- bytes of JSON from which on bytes are taken out before it is read
local MARK = "\1" -- stands for them: no base64 holds it

local failure_meta = { __name = "e2b.server.message" }

local function fail(name, what)
  error(setmetatable({ text = string.format("invalid value for field %s: %s", name, what) }, failure_meta), 0)
end

local camel = {}

local function camel_case(name)
  local known = camel[name]
  if not known then
    known = name:gsub("_(%l)", string.upper)
    camel[name] = known
  end
  return known
end

local function number(value)
  if json.is_float(value) then return tonumber(value.literal) end
  if type(value) == "string" then return value:find("^%-?[%d.]+[eE]?[+-]?%d*$") and tonumber(value) or nil end
  return type(value) == "number" and value or nil
end

local readers = {}

local function read(kind, name, value, lifted)
  if type(kind) == "string" then return readers[kind](name, value, lifted) end
  if kind.enum then
    if kind.enum[value] then return value end
    local n = type(value) ~= "string" and number(value) or nil
    for word, code in pairs(kind.enum) do
      if code == n then return word end
    end
    if not n then fail(name, "unknown enum value") end
    return n
  end
  return message.read(kind, value, lifted, name)
end

function readers.string(name, value)
  if type(value) ~= "string" then fail(name, "not a string") end
  return value
end

function readers.bool(name, value)
  if type(value) ~= "boolean" then fail(name, "not a boolean") end
  return value
end

function readers.uint32(name, value)
  local n = number(value)
  if not n or n % 1 ~= 0 or n < 0 or n >= 2 ^ 32 then fail(name, "not a uint32") end
  return n
end

function readers.bytes(name, value, lifted)
  if type(value) ~= "string" then fail(name, "not base64") end
  local bytes = native.base64_decode(value == MARK and lifted or value)
  if not bytes then fail(name, "not base64") end
  return bytes
end

readers["[string]"] = function(name, value)
  if not json.is_array(value) then fail(name, "not a list") end
  local list = {}
  for i, item in ipairs(value) do list[i] = readers.string(name, item) end
  return list
end

readers["{string}"] = function(name, value)
  if not json.is_object(value) then fail(name, "not an object") end
  local map = {}
  for key, item in pairs(value) do map[key] = readers.string(name, item) end
  return map
end

local DEFAULTS = {
  string = function() return "" end,
  bytes = function() return "" end,
  bool = function() return false end,
  uint32 = function() return 0 end,
  ["[string]"] = function() return {} end,
  ["{string}"] = function() return {} end,
}

---Makes a message out of what `json.decode` answered.
---@param fields table
---@param value any
---@param lifted string|nil what `message.decode` took out
---@param name string|nil of the field that holds the message
---@return table message raises when a field is of another type
function message.read(fields, value, lifted, name)
  if not json.is_object(value) then fail(name or "(root)", "not an object") end
  local result = {}
  for field, kind in pairs(fields) do
    if field ~= "oneof" then
      local given = value[camel_case(field)]
      if given == nil then given = value[field] end
      local bare = type(kind) == "string" and kind:match("^(.-)%?$") or kind
      if given ~= nil and given ~= json.null then
        result[field] = read(bare, field, given, lifted)
      elseif bare == kind and DEFAULTS[kind] then
        result[field] = DEFAULTS[kind]()
      end
    end
  end
  local chosen
  for _, field in ipairs(fields.oneof or {}) do
    if result[field] ~= nil then
      if chosen then fail(field, "another of its group is set too") end
      chosen = field
    end
  end
  return result
end

-- A long piece of base64 need not pass through the reader of JSON: it is taken out as it stands.
local function lift(text)
  local _, from = text:find('"stdin":"', 1, true)
  if not from then
    _, from = text:find('"pty":"', 1, true)
  end
  local stop = from and text:find('"', from + 1, true)
  if not stop then return text end
  local bytes = text:sub(from + 1, stop - 1)
  if bytes:find("\\", 1, true) then return text end
  return text:sub(1, from) .. "\\u0001" .. text:sub(stop), bytes
end

---Reads the JSON of a message.
---@param fields table
---@param text string
---@return table|nil message
---@return string|nil problem
function message.decode(fields, text)
  local lifted
  if #text > LARGE then text, lifted = lift(text) end
  local value, problem = json.decode(text)
  if value == nil then return nil, problem end
  local ok, result = pcall(message.read, fields, value, lifted)
  if ok then return result end
  if getmetatable(result) == failure_meta then return nil, result.text end
  error(result, 0)
end

return message
