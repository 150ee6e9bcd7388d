--- Paths as text, by the rules of Go's `filepath`, which the paths in envd's answers follow.
-- @module e2b.server.envd.names

local names = {}

---Resolves `.`, `..` and repeated slashes without asking the filesystem.
---@param path string absolute
---@return string clean
function names.clean(path)
  local parts = {}
  for part in path:gmatch("[^/]+") do
    if part == ".." then
      parts[#parts] = nil
    elseif part ~= "." then
      parts[#parts + 1] = part
    end
  end
  return "/" .. table.concat(parts, "/")
end

---@param path string
---@return string name the last component; `/` for the root, `.` for nothing
function names.base(path)
  if path == "" then return "." end
  return path:match("([^/]+)/*$") or "/"
end

---@param path string absolute
---@return string parent all but the last component, clean
function names.dir(path)
  return names.clean(path:match("^(.*/)") or "/")
end

---@param folder string absolute
---@param name string relative to it
---@return string path clean
function names.join(folder, name)
  return names.clean(folder .. "/" .. name)
end

return names
