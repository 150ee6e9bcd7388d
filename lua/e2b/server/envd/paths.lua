--- Paths of requests: what they name for a user, and where that lies.
-- In plain mode a sandbox has no filesystem of its own: its paths are put below one folder of the machine's.
-- @module e2b.server.envd.paths

local paths = {}

local root -- of plain mode, without a slash at its end
local daemon -- its field `default_workdir` may change

---@param state table the daemon: `default_workdir`, and `options`: `plain_root`
function paths.setup(state)
  daemon = state
  root = state.options.plain_root and state.options.plain_root:gsub("/+$", "")
end

---Whether the sandbox's paths are kept below a folder of this machine.
---@return boolean
function paths.is_plain()
  return root ~= nil
end

---Removes doubled slashes, `.` and `..`.
---@param path string absolute
---@return string
function paths.clean(path)
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

---What a path of a request names: absolute ones are taken verbatim, others start at the user's home.
---@param user table `home`
---@param path string|nil
---@return string|nil path absolute
---@return string|nil message
function paths.resolve(user, path)
  if not path or path == "" then return daemon.default_workdir or user.home end
  if path:sub(1, 1) == "~" then
    if #path > 1 and path:sub(2, 2) ~= "/" then return nil, "cannot expand user-specific home dir" end
    return paths.clean(user.home .. path:sub(2))
  end
  if path:sub(1, 1) == "/" then return path end
  return paths.clean(user.home .. "/" .. path)
end

---Where a path of the sandbox lies for this process.
---@param path string absolute
---@return string
function paths.real(path)
  if not root then return path end
  if path == root or path:sub(1, #root + 1) == root .. "/" then return path end
  -- Dots must not lead out of the folder.
  if path:find("/..", 1, true) then path = paths.clean(path) end
  return root .. path
end

---What the sandbox calls a place: the way back from `paths.real`.
---@param path string absolute
---@return string
function paths.seen(path)
  if not root then return path end
  if path == root then return "/" end
  if path:sub(1, #root + 1) == root .. "/" then return path:sub(#root + 1) end
  return path
end

return paths
