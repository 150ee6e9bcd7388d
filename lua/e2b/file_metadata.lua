--- Words kept with a file in the sandbox (extended attributes); checked before anything is sent.
local options = require("e2b.options")

local M = {}

local LONGEST_KEY, MOST = 246, 4096
local PREFIX = 9 -- bytes that each key takes beside itself

--- The headers of a request that stores metadata.
---@param metadata table<string, string>|nil
---@param what string the operation
---@return string[]|nil headers name, value, name, value …; nil: there is no metadata
function M.headers(metadata, what)
  if metadata == nil then return nil end
  local function wrong(text) options.raise(what .. ": " .. text) end
  if type(metadata) ~= "table" then wrong("metadata must be a table of strings, got " .. type(metadata)) end
  local keys, total = {}, 0
  for key, value in pairs(metadata) do
    if type(key) ~= "string" or type(value) ~= "string" then
      wrong("the keys and values of metadata must be strings")
    end
    local shown = key:gsub("[^\32-\126]", "?"):sub(1, 64)
    if not key:find("^[%w!#$%%&'*+.^_`|~-]+$") then
      wrong(("the metadata key %q can't be the name of a header (letters, digits and !#$%%&'*+-.^_`|~)"):format(shown))
    end
    if #key > LONGEST_KEY then wrong(("a metadata key has %d bytes, %d are the most"):format(#key, LONGEST_KEY)) end
    if value:find("[^\32-\126]") then
      wrong(("the value of metadata %q must be printable ASCII"):format(shown))
    end
    if value:find("^ ") or value:find(" $") then
      wrong(("the value of metadata %q begins or ends with a blank, which would be lost"):format(shown))
    end
    keys[#keys + 1] = key
    total = total + PREFIX + #key + #value
  end
  if #keys == 0 then return nil end
  if total > MOST then
    wrong(("the metadata has %d bytes with what each key takes, %d are the most"):format(total, MOST))
  end
  table.sort(keys)
  local headers, seen = {}, {}
  for _, key in ipairs(keys) do
    local lower = key:lower()
    if seen[lower] then
      wrong(("the metadata keys %q and %q are the same to the sandbox, which keeps them in lower case"):format(
        seen[lower], key))
    end
    seen[lower] = key
    headers[#headers + 1] = "X-Metadata-" .. key
    headers[#headers + 1] = metadata[key]
  end
  return headers
end

return M
