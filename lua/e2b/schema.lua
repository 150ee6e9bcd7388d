--- The part of JSON Schema that tool inputs need: type, enum, minimum, maximum, minLength, items, properties, required,
--- additionalProperties. It checks and copies; it never coerces.
local lazy = require("e2b.lazy")

local suggest = lazy("e2b.suggest")

local M = {}

local function is_null(value)
  -- Whatever JSON library the caller decoded with: a userdata in decoded data can only be its null.
  return value == nil or type(value) == "userdata"
end

local function describe(value)
  if type(value) == "string" then return ("string %q"):format(#value > 40 and value:sub(1, 40) .. "…" or value) end
  if type(value) == "number" or type(value) == "boolean" then return type(value) .. " " .. tostring(value) end
  return type(value)
end

local function place(path, key)
  if type(key) == "number" then return ("%s[%d]"):format(path, key) end
  return path == "" and tostring(key) or path .. "." .. tostring(key)
end

local function keys_in_order(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  return keys
end

-- "id" for sandbox_id, and what the options of calls are mistaken for.
local function meant(key, properties)
  local name, in_seconds = suggest.suggest(key, properties)
  if not name then
    for candidate in pairs(properties) do
      if candidate:sub(-#key - 1) == "_" .. key then
        if name then return "" end -- two of them: no guess
        name = candidate
      end
    end
  end
  if not name then return "" end
  return (" (did you mean %s?%s)"):format(name, in_seconds and " It is in seconds." or "")
end

-- All that is missing and all that is unknown: who wrote one name for another has to be told both.
local function names_fault(schema, properties, value, path)
  local faults, unknown = {}, false
  for _, key in ipairs(schema.required or {}) do
    if is_null(value[key]) then faults[#faults + 1] = place(path, key) .. " is missing" end
  end
  if schema.additionalProperties == false then
    for _, key in ipairs(keys_in_order(value)) do
      if type(key) == "string" and properties[key] == nil then
        unknown = true
        faults[#faults + 1] = place(path, key) .. " is unknown" .. meant(key, properties)
      end
    end
  end
  if unknown then faults[#faults + 1] = "known are: " .. table.concat(keys_in_order(properties), ", ") end
  return faults[1] and table.concat(faults, "; ")
end

local check

local function check_object(schema, value, path)
  local copy, properties = {}, schema.properties or {}
  local fault = names_fault(schema, properties, value, path)
  if fault then return nil, fault end
  for _, key in ipairs(keys_in_order(value)) do
    local where = place(path, key)
    if type(key) ~= "string" then
      return nil, ("%s must be an object, it has the key %s"):format(path == "" and "the input" or path, tostring(key))
    end
    local rule = properties[key]
    if rule == nil then rule = schema.additionalProperties end
    if not is_null(value[key]) then
      local item = value[key]
      if type(rule) == "table" then
        local message
        item, message = check(rule, item, where)
        if message then return nil, message end
      end
      copy[key] = item
    end
  end
  return copy
end

local function check_array(schema, value, path)
  local copy, count = {}, #value
  for key in pairs(value) do
    if type(key) ~= "number" or key < 1 or key > count or key ~= math.floor(key) then
      return nil, ("%s must be an array, it has the key %s"):format(path, tostring(key))
    end
  end
  for index = 1, count do
    local item, message = check(schema.items or {}, value[index], place(path, index))
    if message then return nil, message end
    copy[index] = item
  end
  return copy
end

local function is_type(kind, value)
  if kind == "object" or kind == "array" then return type(value) == "table" end
  if kind == "integer" then return type(value) == "number" and value == math.floor(value) and value - value == 0 end
  return type(value) == kind -- string, number, boolean
end

check = function(schema, value, path)
  local name = path == "" and "the input" or path
  local kind = schema.type
  if kind and not is_type(kind, value) then
    return nil, ("%s must be %s %s, got %s"):format(name, kind:find("^[aeiou]") and "an" or "a", kind, describe(value))
  end
  if schema.enum then
    local known = false
    for _, word in ipairs(schema.enum) do known = known or word == value end
    if not known then
      local words = {}
      for i, word in ipairs(schema.enum) do words[i] = ("%q"):format(word) end
      return nil, ("%s must be one of %s, got %s"):format(name, table.concat(words, ", "), describe(value))
    end
  end
  if schema.minimum and value < schema.minimum then
    return nil, ("%s must be at least %d, got %s"):format(name, schema.minimum, tostring(value))
  end
  if schema.maximum and value > schema.maximum then
    return nil, ("%s must be at most %d, got %s"):format(name, schema.maximum, tostring(value))
  end
  if schema.minLength and #value < schema.minLength then return nil, name .. " must not be empty" end
  if kind == "object" then return check_object(schema, value, path) end
  if kind == "array" then return check_array(schema, value, path) end
  return value
end

--- Checks a value against a schema.
---@param schema table
---@param value any
---@return any copy without what was null; nil when it doesn't fit
---@return string? message which part is wrong, and how
function M.check(schema, value)
  return check(schema, value, "")
end

return M
