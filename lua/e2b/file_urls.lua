--- URLs of a sandbox's files for others: a browser, curl, another service. They carry a signature in the place of the
--- sandbox's token, which never leaves this process.
local core = require("e2b.core")
local base = require("e2b.sandbox_base")
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

local function url(binding, target, operation, path, opts, name)
  local _, object, owner = base.object(binding, target, name)
  local what = "sandbox:" .. name
  if opts ~= nil then check(opts, what) end
  opts = opts or NONE
  local link = envd.link(object)
  local token, message, err = link:token(opts)
  if token == nil and err ~= nil then return nil, message, err end
  local user, lifetime = opts.user, opts.use_signature_expiration
  if lifetime ~= nil and not token then
    raise(what .. ": use_signature_expiration is for secured sandboxes, and this one has no access token")
  end
  -- Daemons before 0.4.0 have no default user.
  if user == nil and not link:at_least(0, 4, 0) then user = "user" end
  local query = {}
  if user ~= nil then query[1] = "username=" .. core.escape(user) end
  if path ~= nil then query[#query + 1] = "path=" .. core.escape(path) end
  if token then
    local expiration = lifetime and book.now(owner) + lifetime
    query[#query + 1] = "signature=" .. core.escape(M.signature(path or "", operation, user or "", token, expiration))
    if expiration then query[#query + 1] = ("signature_expiration=%.0f"):format(expiration) end
  end
  local where = link:direct_url():gsub("/+$", "") .. "/files"
  if #query == 0 then return where end
  return where .. "?" .. table.concat(query, "&")
end

---@return string? url
---@return string? message
---@return e2b.Error? err
function M.download_url(binding, target, path, opts)
  if type(path) ~= "string" or path == "" then
    base.object(binding, target, "download_url")
    raise(("sandbox:download_url needs the path of a file, got %s"):format(path == "" and "an empty string"
      or type(path)))
  end
  return url(binding, target, "read", path, opts, "download_url")
end

---@return string? url
---@return string? message
---@return e2b.Error? err
function M.upload_url(binding, target, path, opts)
  if type(path) == "table" and opts == nil then
    path, opts = nil, path -- upload_url({ user = … }): the path is optional
  end
  if path ~= nil and type(path) ~= "string" then
    base.object(binding, target, "upload_url")
    raise("sandbox:upload_url: the path must be a string, got " .. type(path))
  end
  if path == "" then path = nil end
  return url(binding, target, "write", path, opts, "upload_url")
end

return M
