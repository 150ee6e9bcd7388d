--- gzip between client and file: which encoding an answer gets, and how a body is unpacked.
-- @module e2b.server.envd.encoding

local native = require("e2b.server.native")

local encoding = {}

local PIECE = 128 * 1024

-- "gzip;q=0.5" -> "gzip", 0.5
local function read_choice(text)
  local name, parameters = text:match("^%s*([^;]*)(.*)$")
  local quality = 1
  for parameter in parameters:gmatch("[^;]+") do
    local value = parameter:match("^%s*[qQ]=(.-)%s*$")
    quality = value and tonumber(value) or quality
  end
  return name:match("^(.-)%s*$"):lower(), quality
end

---Chooses what an answer is encoded with.
---@param header string|nil `Accept-Encoding`
---@return string|nil choice `identity` or `gzip`; nil when the client takes neither
---@return string|nil message
---@return boolean|nil identity_refused true when the client does not take the plain bytes
function encoding.choose(header)
  if not header or header == "" then return "identity" end
  local choices, by_name = {}, {}
  for text in (header .. ","):gmatch("([^,]*),") do
    local name, quality = read_choice(text)
    choices[#choices + 1] = { name = name, quality = quality, at = #choices }
    by_name[name] = by_name[name] or quality
  end
  table.sort(choices, function(a, b)
    if a.quality ~= b.quality then return a.quality > b.quality end
    return a.at < b.at
  end)
  local refused = by_name.identity == 0 or (by_name["*"] == 0 and by_name.identity == nil)
  for _, choice in ipairs(choices) do
    if choice.quality > 0 then
      if choice.name == "gzip" or (choice.name == "*" and refused) then return "gzip", nil, refused end
      if choice.name == "identity" or choice.name == "*" then return "identity" end
    end
  end
  if not refused then return "identity" end
  return nil, "no acceptable encoding found, supported: [gzip]", true
end

---@param header string|nil `Content-Encoding` of a request
---@return boolean|nil gzip whether the body is packed; nil when it is packed with something else
---@return string|nil message
function encoding.of_body(header)
  if not header or header == "" then return false end
  local name = read_choice(header)
  if name == "identity" then return false end
  if name == "gzip" then return true end
  return nil, "unsupported Content-Encoding: " .. header .. ", supported: [gzip]"
end

---Unpacks a body as it is read.
---@param read fun(): string|nil, string|nil
---@return function|nil read the same for the unpacked bytes; nil when the body does not begin as gzip does
---@return string|nil message
function encoding.unpacked(read)
  local inflate = native.inflate()
  local ended, problem, any, held

  local function feed()
    local piece
    piece, problem = read()
    if piece then
      any = any or piece ~= ""
      inflate:push(piece)
    else
      ended = true
    end
    return not ended
  end

  repeat
    local message
    if feed() then
      held, message = inflate:pull(PIECE)
    else
      message = problem or (any and "unexpected EOF" or "EOF")
    end
    if message then return nil, "failed to create gzip reader: " .. message end
  until held or inflate:started()

  return function()
    local piece = held
    held = nil
    while not piece do
      local message
      piece, message = inflate:pull(PIECE)
      if piece == nil then return nil, message end
      if not piece and (ended or not feed()) then
        if problem or inflate:at_end() then return nil, problem end
        return nil, "unexpected EOF"
      end
    end
    return piece
  end
end

return encoding
