--- URLs of a sandbox's files for others: a browser, curl, another service. They carry a signature in the place of the
--- sandbox's token, which never leaves this process.
local core = require("e2b.core")
local book = require("e2b.sandbox_book")
local envd = require("e2b.envd")
local options = require("e2b.options")

local M = {}

local raise = options.raise

--- The signature of a request for a file. Over the raw values: nothing is escaped before it is hashed.
---@param path string as it will stand in the query, before it is percent-encoded
---@param operation "read"|"write"
---@param user string "" when the query names none
---@param token string the sandbox's access token
---@param expiration integer? seconds since the epoch
---@return string signature
function M.signature(path, operation, user, token, expiration)
  local text = table.concat({ path, operation, user, token }, ":")
  if expiration then text = ("%s:%.0f"):format(text, expiration) end
  return "v1_" .. (core.base64_encode(core.sha256(text)):gsub("=+$", ""))
end

local NAMES = { "user", "use_signature_expiration" }

local function check(opts, what)
  options.call(opts, NAMES, what)
  local user, lifetime = opts.user, opts.use_signature_expiration
  if user ~= nil and type(user) ~= "string" then
    raise(("%s: user must be a string, got %s"):format(what, type(user)))
  end
  if lifetime ~= nil and (type(lifetime) ~= "number" or lifetime ~= math.floor(lifetime)
    or math.abs(lifetime) > 2 ^ 31) then
    raise(("%s: use_signature_expiration must be a whole number of seconds from now, got %s"):format(
      what, require("e2b.format").value(lifetime)))
  end
end

local NONE = {}

local function url(object, operation, path, opts, what)
  if opts ~= nil then check(opts, what) end
  opts = opts or NONE
  local link = envd.link(object)
  local token, message, err = link:token(what, opts)
  if token == nil then return nil, message, err end
  local user, lifetime = opts.user, opts.use_signature_expiration
  if lifetime ~= nil and not token then
    raise(what .. ": use_signature_expiration is for secured sandboxes, and this one has no access token")
  end
  local where
  where, message, err = link:direct_url()
  if where == nil then return nil, message, err end
  -- Daemons before 0.4.0 have no default user.
  if user == nil and not link:at_least(0, 4, 0) then user = "user" end
  local query = {}
  if user ~= nil then query[1] = "username=" .. core.escape(user) end
  if path ~= nil then query[#query + 1] = "path=" .. core.escape(path) end
  if token then
    local expiration = lifetime and book.now(link.binding) + lifetime
    query[#query + 1] = "signature=" .. core.escape(M.signature(path or "", operation, user or "", token, expiration))
    if expiration then query[#query + 1] = ("signature_expiration=%.0f"):format(expiration) end
  end
  if #query == 0 then return where .. "/files" end
  return where .. "/files?" .. table.concat(query, "&")
end

--- See Sandbox.download_url.
---@param object e2b.Sandbox
---@param path string
---@param opts table?
---@return string? url
---@return string? message
---@return e2b.Error? err
function M.download_url(object, path, opts)
  local what = "sandbox:download_url"
  if type(path) ~= "string" or path == "" then
    raise(("%s needs the path of a file, got %s"):format(what, path == "" and "an empty string" or type(path)))
  end
  return url(object, "read", path, opts, what)
end

--- See Sandbox.upload_url.
---@param object e2b.Sandbox
---@param path string?
---@param opts table?
---@return string? url
---@return string? message
---@return e2b.Error? err
function M.upload_url(object, path, opts)
  local what = "sandbox:upload_url"
  if type(path) == "table" and opts == nil then path, opts = nil, path end -- upload_url({ user = … })
  if path ~= nil and type(path) ~= "string" then
    raise(("%s: the path must be a string, got %s"):format(what, type(path)))
  end
  if path == "" then path = nil end
  return url(object, "write", path, opts, what)
end

return M
