--- Makes lua-http loadable on this Lua.
-- Debian puts the pure-Lua files of lua-http and its kin into the folders of only some Lua versions. They run on all:
-- the other versions' folders are appended to the path, last, so that nothing made for this Lua is hidden.
-- @module e2b.server.requirements

local requirements = {}

local OTHERS = { "5.3", "5.2", "5.1" }
local USED = "http.h1_reason_phrases" -- the one of its modules the server requires; cqueues comes with it

local function widened(path)
  local entries, known = {}, {}
  for entry in path:gmatch("[^;]+") do known[entry] = true end
  for _, version in ipairs(OTHERS) do
    for entry in path:gmatch("[^;]+") do
      local other, count = entry:gsub("/5%.%d/", "/" .. version .. "/")
      if count > 0 and not known[other] then
        known[other] = true
        entries[#entries + 1] = other
      end
    end
  end
  if not entries[1] then return path end
  return path .. ";" .. table.concat(entries, ";")
end

---@param name string|nil which of its modules; what the server uses if not given
---@return boolean|nil ok
---@return string|nil message what to install
function requirements.load(name)
  name = name or USED
  local ok, problem = pcall(require, name)
  if not ok then
    package.path = widened(package.path)
    ok, problem = pcall(require, name)
  end
  if ok then return true end
  return nil, "the local server needs lua-http (apt-get install lua-http, or luarocks install http) for "
    .. _VERSION .. ": " .. (tostring(problem):match("^[^\n]*"))
end

return requirements
