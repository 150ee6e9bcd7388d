--- Who may read and write files: the access token in a header, or a signature in the query.
-- @module e2b.server.envd.signature

local digest = require("openssl.digest")
local text = require("e2b.server.text")

local signature = {}

---Signs a path.
---@param token string the sandbox's access token
---@param path string as in the query, before encoding
---@param operation string `read` or `write`
---@param username string|nil as in the query
---@param expiration string|nil seconds since the epoch, in digits
---@return string signature
function signature.sign(token, path, operation, username, expiration)
  local fields = path .. ":" .. operation .. ":" .. (username or "") .. ":" .. token
  if expiration then fields = fields .. ":" .. expiration end
  local encoded = text.base64url(digest.new("sha256"):final(fields))
  return "v1_" .. encoded:gsub("-", "+"):gsub("_", "/"):gsub("=", "")
end

---Compares without telling by its time where two strings differ.
---@param a string
---@param b string
---@return boolean
function signature.same(a, b)
  if #a ~= #b then return false end
  local differing = 0
  for i = 1, #a do
    if a:byte(i) ~= b:byte(i) then differing = differing + 1 end
  end
  return differing == 0
end

---Checks a request for a file.
---@param token string|nil the sandbox's access token; nil when it has none
---@param request table `headers`
---@param query table `path`, `username`, `signature`, `signature_expiration`
---@param operation string `read` or `write`
---@param now number seconds since the epoch
---@return boolean|nil ok
---@return string|nil message
function signature.check(token, request, query, operation, now)
  if not token or token == "" then return true end
  local header = request.headers["x-access-token"]
  if header and header ~= "" then
    if signature.same(header, token) then return true end
    return nil, "access token present in header but does not match"
  end
  if not query.signature then return nil, "missing signature query parameter" end
  local expiration = query.signature_expiration
  if expiration then
    -- The number is what was signed, however it is written.
    local sign, digits = expiration:match("^([+-]?)0*(%d+)$")
    expiration = ((sign == "-" and digits ~= "0") and "-" or "") .. digits
  end
  local expected = signature.sign(token, query.path or "", operation, query.username, expiration)
  if not signature.same(expected, query.signature) then return nil, "invalid signature" end
  if expiration and tonumber(expiration) < math.floor(now) then return nil, "signature is already expired" end
  return true
end

return signature
