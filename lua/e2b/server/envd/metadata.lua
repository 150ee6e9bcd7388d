--- What users note about their files: headers of an upload, kept as extended attributes.
-- @module e2b.server.envd.metadata

local native = require("e2b.server.native")
local paths = require("e2b.server.envd.paths")

local metadata = {}

local HEADER = "^x%-metadata%-(.+)$"
local PREFIX = "user.e2b."
local COUNTED = 9 -- bytes of the prefix, which count
local MAX_KEY = 246
local MAX_TOTAL = 4096

---Reads the metadata among a request's headers.
---@param fields string[] name, value, name, value …
---@return table|nil metadata by key in lower case; the first value of a key counts
---@return string|nil message what is wrong with it
function metadata.of_headers(fields)
  local found, total = {}, 0
  for i = 1, #fields, 2 do
    local key, value = fields[i]:lower():match(HEADER), fields[i + 1]
    if key and not found[key] then
      if key:find("[^\32-\126]") then return nil, "key '" .. key .. "' is not printable ASCII" end
      if value:find("[^\32-\126]") then return nil, "value of key '" .. key .. "' is not printable ASCII" end
      if #key > MAX_KEY then return nil, "key '" .. key .. "' is longer than " .. MAX_KEY .. " bytes" end
      total = total + COUNTED + #key + #value
      if total > MAX_TOTAL then return nil, "it is larger than " .. MAX_TOTAL .. " bytes in total" end
      found[key] = value
    end
  end
  return found
end

---Makes `wanted` the file's metadata, all of it. Where a filesystem keeps none it is not kept.
---@param path string in the sandbox; links are followed
---@param wanted table
---@return boolean|nil ok
---@return string|nil message
---@return integer|nil errno
function metadata.replace(path, wanted)
  local real, unsupported = paths.real(path), native.fs_errno.ENOTSUP
  for key in pairs(native.fs_xattrs(real, PREFIX) or {}) do
    if wanted[key] == nil then native.fs_removexattr(real, PREFIX .. key) end
  end
  for key, value in pairs(wanted) do
    local ok, message, errno = native.fs_setxattr(real, PREFIX .. key, value)
    -- Devices and the files of /proc answer that the act is not permitted.
    if not ok and (errno == unsupported or errno == native.fs_errno.EPERM or errno == native.fs_errno.EACCES) then
      return true
    end
    if not ok then return nil, "setxattr " .. path .. ": " .. message, errno end
  end
  return true
end

return metadata
