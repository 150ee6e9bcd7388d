--- JSON for the local server.
-- The server must tell `{}` from `[]`, an absent field from `null` and `300` from `300.0`, because the service it
-- stands in for does; and a codec of its own keeps a fault in the client's from cancelling itself out in the specs.
-- @module e2b.server.json

local json = {}

--- The value of a JSON `null`.
json.null = setmetatable({}, { __tostring = function() return "null" end })

local array_meta = { __name = "json.array" }
local float_meta = { __name = "json.float" }

local MAX_DEPTH = 500

---Marks a sequence as a JSON array, so that an empty one is written `[]`.
---@param list table
---@return table list the same table
function json.array(list)
  return setmetatable(list, array_meta)
end

---@param value any
---@return boolean
function json.is_array(value)
  return type(value) == "table" and getmetatable(value) == array_meta
end

---@param value any
---@return boolean is_object true for what was written with braces
function json.is_object(value)
  return type(value) == "table" and value ~= json.null and getmetatable(value) == nil
end

---@param value any
---@return boolean is_float true for a number written with a fraction or an exponent
function json.is_float(value)
  return type(value) == "table" and getmetatable(value) == float_meta
end

---Drops the distinctions: fractions become numbers, nulls vanish, arrays and objects become plain tables.
---@param value any what `json.decode` answered
---@return any plain
function json.plain(value)
  if value == json.null then return nil end
  if type(value) ~= "table" then return value end
  if getmetatable(value) == float_meta then return tonumber(value.literal) end
  local plain = {}
  for key, item in pairs(value) do plain[key] = json.plain(item) end
  return plain
end

-- ---------------------------------------------------------------- writing

local escapes = {
  ['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t",
}

local function escape(char)
  return escapes[char] or string.format("\\u%04x", char:byte())
end

-- %z instead of \0: Lua 5.1 ends a pattern at a zero byte, and 5.2 and later still know %z.
local UNSAFE = _VERSION == "Lua 5.1" and '[%z\1-\31\\"\127]' or '[\0-\31\\"\127]'

local function quote(text)
  return '"' .. text:gsub(UNSAFE, escape) .. '"'
end

local function number(value)
  if value ~= value or value == math.huge or value == -math.huge then
    error("a number JSON cannot hold", 0)
  end
  if value % 1 == 0 and value > -2 ^ 53 and value < 2 ^ 53 then
    return string.format("%d", value)
  end
  return (string.format("%.14g", value):gsub(",", "."))
end

local write

local function write_array(value, out)
  out[#out + 1] = "["
  for i = 1, #value do
    if i > 1 then out[#out + 1] = "," end
    write(value[i], out)
  end
  out[#out + 1] = "]"
end

local function write_object(value, out)
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys)
  out[#out + 1] = "{"
  for i, key in ipairs(keys) do
    out[#out + 1] = (i > 1 and "," or "") .. quote(key) .. ":"
    write(value[key], out)
  end
  out[#out + 1] = "}"
end

function write(value, out)
  local kind = type(value)
  if kind == "string" then
    out[#out + 1] = quote(value)
  elseif kind == "number" then
    out[#out + 1] = number(value)
  elseif kind == "boolean" then
    out[#out + 1] = tostring(value)
  elseif kind ~= "table" then
    error("cannot write a " .. kind, 0)
  elseif value == json.null then
    out[#out + 1] = "null"
  elseif getmetatable(value) == array_meta then
    write_array(value, out)
  elseif getmetatable(value) == float_meta then
    out[#out + 1] = value.literal
  else
    write_object(value, out)
  end
end

---Writes a value. Plain tables are objects (keys sorted), `json.array` tables are arrays.
---@param value any
---@return string text
function json.encode(value)
  local out = {}
  write(value, out)
  return table.concat(out)
end

-- ---------------------------------------------------------------- reading

local function utf8_char(code)
  if code < 0x80 then
    return string.char(code)
  elseif code < 0x800 then
    return string.char(0xC0 + math.floor(code / 64), 0x80 + code % 64)
  elseif code < 0x10000 then
    return string.char(0xE0 + math.floor(code / 4096), 0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
  end
  return string.char(0xF0 + math.floor(code / 262144), 0x80 + math.floor(code / 4096) % 64,
    0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
end

local REPLACEMENT = "\239\191\189"

-- The shapes of a well-formed character, by first byte; second byte bounds keep overlong forms and surrogates out.
local function utf8_length(text, at)
  local a, b, c, d = text:byte(at, at + 3)
  local function tail(byte) return byte and byte >= 0x80 and byte <= 0xBF end
  if a < 0x80 then return 1 end
  if a >= 0xC2 and a <= 0xDF then return tail(b) and 2 end
  if a >= 0xE0 and a <= 0xEF then
    if not (tail(b) and tail(c)) or (a == 0xE0 and b < 0xA0) or (a == 0xED and b > 0x9F) then return nil end
    return 3
  end
  if a >= 0xF0 and a <= 0xF4 then
    if not (tail(b) and tail(c) and tail(d)) or (a == 0xF0 and b < 0x90) or (a == 0xF4 and b > 0x8F) then return nil end
    return 4
  end
end

---Replaces each byte that is no UTF-8 by U+FFFD, as Go's JSON reader does.
---@param text string
---@return string text
function json.clean(text)
  if not text:find("[\128-\255]") then return text end
  local out, start, at = {}, 1, text:find("[\128-\255]")
  while at do
    local length = utf8_length(text, at)
    if length then
      at = at + length
    else
      out[#out + 1] = text:sub(start, at - 1) .. REPLACEMENT
      at = at + 1
      start = at
    end
    at = text:find("[\128-\255]", at)
  end
  if not out[1] then return text end
  out[#out + 1] = text:sub(start)
  return table.concat(out)
end

local function fail(at, what)
  error({ json = string.format("%s at byte %d", what, at) }, 0)
end

local simple_escapes = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }

local function read_escape(text, at)
  local char = text:sub(at + 1, at + 1)
  if simple_escapes[char] then return simple_escapes[char], at + 2 end
  local hex = char == "u" and text:match("^%x%x%x%x", at + 2)
  if not hex then fail(at, "invalid escape") end
  local code = tonumber(hex, 16)
  if code >= 0xD800 and code <= 0xDFFF then
    local low = text:match("^\\u([dD][c-fC-F]%x%x)", at + 6)
    if code > 0xDBFF or not low then return REPLACEMENT, at + 6 end
    return utf8_char(0x10000 + (code - 0xD800) * 1024 + tonumber(low, 16) - 0xDC00), at + 12
  end
  return utf8_char(code), at + 6
end

local STRING_STOP = _VERSION == "Lua 5.1" and '[%z\1-\31\\"]' or '[\0-\31\\"]'

local function read_string(text, at)
  local parts, start = {}, at + 1
  while true do
    local stop = text:find(STRING_STOP, start)
    if not stop then fail(at, "unfinished string") end
    local char = text:sub(stop, stop)
    parts[#parts + 1] = text:sub(start, stop - 1)
    if char == '"' then
      return json.clean(table.concat(parts)), stop + 1
    elseif char ~= "\\" then
      fail(stop, "control character in a string")
    end
    parts[#parts + 1], start = read_escape(text, stop)
  end
end

local function skip(text, at)
  return text:find("[^ \t\r\n]", at) or #text + 1
end

local function read_number(text, at)
  local literal = text:match("^-?%d+%.?%d*[eE]?[+-]?%d*", at)
  local valid = literal and (literal:match("^-?0$") or literal:match("^-?[1-9]%d*$"))
  if valid and #literal <= 16 then
    -- Without this Lua 5.3 and later would keep -0 apart from 0.
    return tonumber(literal), at + #literal
  end
  local whole, rest = (literal or ""):match("^-?(%d+)(.*)$")
  local proper = whole and (whole == "0" or not whole:find("^0"))
    and (rest == "" or rest:find("^%.%d+$") or rest:find("^%.%d+[eE][+-]?%d+$") or rest:find("^[eE][+-]?%d+$"))
  if not proper then fail(at, "unexpected character") end
  return setmetatable({ literal = literal }, float_meta), at + #literal
end

local read

local function read_array(text, at, depth)
  local list = json.array({})
  at = skip(text, at + 1)
  if text:sub(at, at) == "]" then return list, at + 1 end
  while true do
    list[#list + 1], at = read(text, at, depth + 1)
    at = skip(text, at)
    local char = text:sub(at, at)
    if char == "]" then return list, at + 1 end
    if char ~= "," then fail(at, "expected a comma or the end of the array") end
    at = skip(text, at + 1)
  end
end

local function read_object(text, at, depth)
  local object = {}
  at = skip(text, at + 1)
  if text:sub(at, at) == "}" then return object, at + 1 end
  while true do
    if text:sub(at, at) ~= '"' then fail(at, "expected a key") end
    local key
    key, at = read_string(text, at)
    at = skip(text, at)
    if text:sub(at, at) ~= ":" then fail(at, "expected a colon") end
    object[key], at = read(text, skip(text, at + 1), depth + 1)
    at = skip(text, at)
    local char = text:sub(at, at)
    if char == "}" then return object, at + 1 end
    if char ~= "," then fail(at, "expected a comma or the end of the object") end
    at = skip(text, at + 1)
  end
end

local words = { t = { "true", true }, f = { "false", false }, n = { "null", json.null } }

function read(text, at, depth)
  if depth > MAX_DEPTH then fail(at, "nested too deeply") end
  local char = text:sub(at, at)
  if char == "{" then return read_object(text, at, depth) end
  if char == "[" then return read_array(text, at, depth) end
  if char == '"' then return read_string(text, at) end
  local word = words[char]
  if word then
    if text:sub(at, at + #word[1] - 1) ~= word[1] then fail(at, "unexpected word") end
    return word[2], at + #word[1]
  end
  if char == "" then fail(at, "unexpected end") end
  return read_number(text, at)
end

---Reads one JSON text.
---@param text string
---@return any value `nil` when the text is not JSON
---@return string|nil message
function json.decode(text)
  local ok, value, at = pcall(function()
    local value, at = read(text, skip(text, 1), 1)
    at = skip(text, at)
    if at <= #text then fail(at, "unexpected text after the value") end
    return value, at
  end)
  if ok then return value end
  if type(value) == "table" and value.json then return nil, value.json end
  return nil, tostring(value) .. tostring(at or "")
end

return json
