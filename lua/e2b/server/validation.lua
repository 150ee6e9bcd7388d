--- Checks request bodies and query parameters against the API's schema, with its texts.
-- @module e2b.server.validation

local json = require("e2b.server.json")
local reply = require("e2b.server.reply")

local validation = {}

local INT32_MAX = 2147483647

local BODY = "validation error: request body has an error"

local function refuse(where, what)
  reply.raise(400, string.format("%s: doesn't match schema: Error at \"%s\": %s", BODY,
    where == "" and "/" or where, what))
end

local function not_one_of(allowed)
  return 'value is not one of the allowed values ["' .. table.concat(allowed, '","') .. '"]'
end

local check

local checks = {}

function checks.string(schema, value, where)
  if type(value) ~= "string" then refuse(where, "value must be a string") end
  if schema.max_length and #value > schema.max_length then
    refuse(where, "maximum string length is " .. schema.max_length)
  end
  if schema.enum then
    for _, allowed in ipairs(schema.enum) do
      if allowed == value then return end
    end
    refuse(where, not_one_of(schema.enum))
  end
end

function checks.boolean(_, value, where)
  if type(value) ~= "boolean" then refuse(where, "value must be a boolean") end
end

function checks.integer(schema, value, where)
  if type(value) ~= "number" then refuse(where, "value must be an integer") end
  if schema.min and value < schema.min then refuse(where, "number must be at least " .. schema.min) end
  if value > (schema.max or INT32_MAX) then
    refuse(where, "number must be at most " .. (schema.max or INT32_MAX))
  end
end

function checks.array(schema, value, where)
  if not json.is_array(value) then refuse(where, "value must be an array") end
  for i, item in ipairs(value) do check(schema.items, item, where .. "/" .. (i - 1)) end
end

function checks.object(schema, value, where)
  if not json.is_object(value) then refuse(where, "value must be an object") end
  for _, name in ipairs(schema.required or {}) do
    if value[name] == nil then refuse(where .. "/" .. name, string.format('property "%s" is missing', name)) end
  end
  for name, field in pairs(schema.fields or {}) do
    if value[name] ~= nil then check(field, value[name], where .. "/" .. name) end
  end
  if schema.map then
    for name, item in pairs(value) do check(schema.map, item, where .. "/" .. name) end
  end
end

function checks.any() end

function check(schema, value, where)
  if value == json.null then
    if not schema.nullable then refuse(where, "Value is not nullable") end
    return
  end
  checks[schema.type](schema, value, where)
end

---Reads and checks the JSON body of a request. A `null` field that may be null becomes an absent one.
---@param request table
---@param schema table
---@param optional boolean|nil an absent body counts as `{}`
---@return table body
function validation.body(request, schema, optional)
  local raw = request.body
  if raw == "" then
    if optional then return {} end
    reply.raise(400, BODY .. ": value is required but missing")
  end
  local kind = (request.headers["content-type"] or ""):match("^%s*([^;%s]*)"):lower()
  if kind ~= "application/json" then
    reply.raise(400, string.format('%s: header Content-Type has unexpected value "%s"', BODY,
      request.headers["content-type"] or ""))
  end
  local value, message = json.decode(raw)
  if value == nil then
    reply.raise(400, BODY .. ": failed to decode request body: " .. message)
  end
  check(schema, value, "")
  for name, field in pairs(value) do
    if field == json.null then value[name] = nil end
  end
  return value
end

---A whole number from the query.
---@param request table
---@param name string
---@param min integer
---@param max integer|nil
---@return integer|nil value nil when the parameter is absent
function validation.query_integer(request, name, min, max)
  local raw = request.query[name]
  if raw == nil then return nil end
  local value = raw:find("^-?%d+$") and #raw <= 18 and tonumber(raw)
  local problem
  if not value then
    problem = string.format('value %s: an invalid integer: invalid syntax', raw)
  elseif value < min then
    problem = "number must be at least " .. min
  elseif max and value > max then
    problem = "number must be at most " .. max
  end
  if problem then validation.query_problem(name, problem) end
  return value
end

---@param name string
---@param problem string
function validation.query_problem(name, problem)
  reply.raise(400, string.format('validation error: parameter "%s" in query has an error: %s', name, problem))
end

---Checks a comma-separated list, or a single word, against the words allowed.
---@param request table
---@param name string
---@param allowed string[]
---@return table|nil set allowed words given, by word; nil when the parameter is absent
function validation.query_words(request, name, allowed)
  local raw = request.query[name]
  if raw == nil then return nil end
  local set = {}
  for word in (raw .. ","):gmatch("([^,]*),") do
    local known = false
    for _, each in ipairs(allowed) do known = known or each == word end
    if not known then
      validation.query_problem(name, not_one_of(allowed))
    end
    set[word] = true
  end
  return set
end

return validation
