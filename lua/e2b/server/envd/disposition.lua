--- Content-Disposition and media types with parameters, read and written as Go's `mime` package does.
-- @module e2b.server.envd.disposition

local disposition = {}

local TOKEN = "^[%w!#$&'*+%-.^_`|~%%]+$"
local SPECIAL = '[()<>@,;:\\"/%[%]?=]'

---Writes a value with one parameter.
---@param value string
---@param name string
---@param parameter string any bytes
---@return string text quoted or percent-encoded as far as it must be
function disposition.format(value, name, parameter)
  if parameter:find("[^\t\32-\126]") then
    local encoded = parameter:gsub("[^%w!#$&+%-.^_`|~]", function(char) return string.format("%%%02X", char:byte()) end)
    return value .. "; " .. name .. "*=utf-8''" .. encoded
  end
  if parameter:find(TOKEN) then return value .. "; " .. name .. "=" .. parameter end
  return value .. "; " .. name .. '="' .. parameter:gsub('[\\"]', "\\%0") .. '"'
end

-- A quoted string from its opening quote; a backslash is one, except before what must be escaped: browsers once sent
-- names like "C:\dev\go".
local function read_quoted(text, at)
  local out, start = {}, at + 1
  while true do
    local stop = text:find('[\\"\r\n]', start)
    local char = stop and text:sub(stop, stop)
    if not stop or char == "\r" or char == "\n" then return nil end
    out[#out + 1] = text:sub(start, stop - 1)
    if char == '"' then return table.concat(out), stop + 1 end
    if text:find("^" .. SPECIAL, stop + 1) then
      out[#out + 1] = text:sub(stop + 1, stop + 1)
      start = stop + 2
    else
      out[#out + 1] = "\\"
      start = stop + 1
    end
  end
end

local function read_value(text, at)
  if text:sub(at, at) == '"' then return read_quoted(text, at) end
  local token = text:match("^[^%c%s()<>@,;:\\\"/%[%]?=\127-\255]+", at)
  if token then return token, at + #token end
end

local function percent_decoded(text)
  if text:gsub("%%%x%x", ""):find("%", 1, true) then return nil end
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- RFC 2231: charset'language'value
local function decoded(text)
  local charset, value = text:match("^([^']*)'[^']*'(.*)$")
  charset = charset and charset:lower()
  if charset ~= "us-ascii" and charset ~= "utf-8" then return nil end
  return percent_decoded(value)
end

-- Joins `name*0=…; name*1*=…` and decodes `name*=…`; these win over a plain `name`.
local function join(parameters, extended)
  for name, pieces in pairs(extended) do
    local value
    if pieces.whole then
      value = decoded(pieces.whole)
    else
      local out, count = {}, 0
      while pieces[count] or pieces[count .. "*"] do
        local plain, coded = pieces[count], pieces[count .. "*"]
        out[#out + 1] = plain or (count == 0 and decoded(coded) or percent_decoded(coded)) or ""
        count = count + 1
      end
      value = count > 0 and table.concat(out) or nil
    end
    if value then parameters[name] = value end
  end
end

---Reads a value with parameters.
---@param text string
---@return string|nil value in lower case; nil when the text is malformed
---@return table|nil parameters by name in lower case
function disposition.parse(text)
  local head = text:match("^[^;]*")
  local value = head:match("^%s*(.-)%s*$"):lower()
  if value == "" then return nil end
  local parameters, extended, at = {}, {}, #head + 1
  while true do
    local _, stop, name = text:find("^%s*;%s*([^%c%s()<>@,;:\\\"/%[%]?=\127-\255]+)%s*=%s*", at)
    if not stop then break end
    local parameter
    parameter, at = read_value(text, stop + 1)
    if not parameter then return nil end
    name = name:lower()
    local base, piece = name:match("^([^*]+)%*(.*)$")
    if base then
      extended[base] = extended[base] or {}
      local key = piece == "" and "whole" or tonumber(piece) or piece
      if extended[base][key] then return nil end
      extended[base][key] = parameter
    else
      if parameters[name] then return nil end
      parameters[name] = parameter
    end
  end
  if text:find("[^%s;]", at) then return nil end
  join(parameters, extended)
  return value, parameters
end

return disposition
