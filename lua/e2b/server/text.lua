--- Small text codecs: percent-encoding, queries, base64url, random ids.
-- @module e2b.server.text

local random = require("openssl.rand")

local text = {}

local function decode_percent(value)
  if value:find("%%") and value:gsub("%%%x%x", ""):find("%%") then return nil end
  return (value:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

---Decodes a path segment.
---@param segment string
---@return string|nil decoded nil when a percent sign is not followed by two hex digits
function text.unescape_path(segment)
  return decode_percent(segment)
end

---Decodes a part of a query: `+` is a space.
---@param value string
---@return string|nil decoded nil when a percent sign is not followed by two hex digits
function text.unescape_query(value)
  return decode_percent((value:gsub("%+", " ")))
end

---Splits a query string; of a repeated name the first value counts.
---@param query string what follows the question mark
---@return table|nil values by name; nil when something is wrongly encoded
function text.parse_query(query)
  local values = {}
  for pair in query:gmatch("[^&]+") do
    local name, value = pair:match("^([^=]*)=?(.*)$")
    name, value = text.unescape_query(name), text.unescape_query(value)
    if not name or not value then return nil end
    if values[name] == nil then values[name] = value end
  end
  return values
end

---@param value string
---@param separator string one character
---@return string[] parts at least one
function text.split(value, separator)
  local parts = {}
  for part in (value .. separator):gmatch("([^" .. separator .. "]*)" .. separator) do parts[#parts + 1] = part end
  return parts
end

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
local letters, values = {}, {}
for i = 1, #ALPHABET do
  letters[i - 1] = ALPHABET:sub(i, i)
  values[ALPHABET:sub(i, i)] = i - 1
end

---@param bytes string
---@return string encoded base64url with padding
function text.base64url(bytes)
  local out = {}
  for at = 1, #bytes, 3 do
    local a, b, c = bytes:byte(at, at + 2)
    local group = a * 65536 + (b or 0) * 256 + (c or 0)
    out[#out + 1] = letters[math.floor(group / 262144)] .. letters[math.floor(group / 4096) % 64]
      .. (b and letters[math.floor(group / 64) % 64] or "=") .. (c and letters[group % 64] or "=")
  end
  return table.concat(out)
end

---@param encoded string
---@return string|nil bytes nil when it is no padded base64url
function text.unbase64url(encoded)
  if #encoded % 4 ~= 0 or not encoded:find("^[%w_-]*=?=?$") then return nil end
  local out = {}
  for quad in encoded:gmatch("....") do
    local a, b, c, d = quad:match("(.)(.)(.)(.)")
    local group = values[a] * 262144 + values[b] * 4096 + (values[c] or 0) * 64 + (values[d] or 0)
    local bytes = string.char(math.floor(group / 65536), math.floor(group / 256) % 256, group % 256)
    out[#out + 1] = bytes:sub(1, (c == "=" and 1) or (d == "=" and 2) or 3)
  end
  return table.concat(out)
end

---@param bytes string
---@return string
function text.hex(bytes)
  return (bytes:gsub(".", function(char) return string.format("%02x", char:byte()) end))
end

local ID_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"

---@return string id 20 characters of `[a-z0-9]`
function text.random_id()
  local out = {}
  while #out < 20 do
    for _, byte in ipairs({ random.bytes(24):byte(1, 24) }) do
      -- 252 is the largest multiple of 36: above it the first letters would be likelier than the others.
      if byte < 252 and #out < 20 then
        local at = byte % 36 + 1
        out[#out + 1] = ID_LETTERS:sub(at, at)
      end
    end
  end
  return table.concat(out)
end

---@return string uuid version 4
function text.random_uuid()
  local bytes = { random.bytes(16):byte(1, 16) }
  bytes[7] = 64 + bytes[7] % 16
  bytes[9] = 128 + bytes[9] % 64
  for i, byte in ipairs(bytes) do bytes[i] = string.format("%02x", byte) end
  local hex = table.concat(bytes)
  return table.concat({ hex:sub(1, 8), hex:sub(9, 12), hex:sub(13, 16), hex:sub(17, 20), hex:sub(21) }, "-")
end

---@param count integer
---@return string hex random, two characters a byte
function text.random_hex(count)
  return text.hex(random.bytes(count))
end

return text
