--- Makes and removes folders the way envd does.
-- @module e2b.server.envd.dirs

local sleep = require("cqueues").sleep
local names = require("e2b.server.envd.names")
local native = require("e2b.server.native")
local paths = require("e2b.server.envd.paths")

local dirs = {}

local ENOENT, EEXIST = native.fs_errno.ENOENT, native.fs_errno.EEXIST
local EPERM, EINVAL = native.fs_errno.EPERM, native.fs_errno.EINVAL
local STEP = 512 -- entries removed before others get their turn

---Gives a file away. A daemon that is not root can't, and then everything in the sandbox is one user's anyway.
---@param path string in the sandbox; links are followed
---@param uid integer
---@param gid integer
---@return boolean|nil ok
---@return string|nil message
---@return integer|nil errno
function dirs.chown(path, uid, gid)
  local ok, message, errno = native.fs_chown(paths.real(path), uid, gid)
  if not ok and (errno == EPERM or errno == EINVAL) and native.fs_euid() ~= 0 then return true end
  return ok, message, errno
end

local function make(path, user)
  local ok, message, errno = native.fs_mkdir(paths.real(path), 493) -- 0755
  if not ok and errno ~= EEXIST then
    return nil, "failed to create directory: mkdir " .. path .. ": " .. message, errno
  end
  if not ok then
    -- Somebody was faster: then it is theirs to give away, if it is a folder at all.
    local stat = native.fs_stat(paths.real(path))
    if stat and stat.type ~= "dir" then return nil, "path is a file: " .. path end
    return true
  end
  ok, message, errno = dirs.chown(path, user.uid, user.gid)
  if not ok then return nil, "failed to chown directory: chown " .. path .. ": " .. message, errno end
  return true
end

---Creates every folder of the path that is missing, as the user's own; those there are left as they are.
---@param path string in the sandbox, absolute
---@param user table `uid`, `gid`
---@return boolean|nil ok
---@return string|nil message
---@return integer|nil errno
function dirs.ensure(path, user)
  local stat = native.fs_stat(paths.real(path))
  if stat and stat.type == "dir" then return true end
  local chain = {}
  repeat
    table.insert(chain, 1, path)
    path = names.dir(path:gsub("/+$", ""))
  until path == "/"
  for _, folder in ipairs(chain) do
    local problem, errno
    stat, problem, errno = native.fs_stat(paths.real(folder))
    if stat and stat.type ~= "dir" then return nil, "path is a file: " .. folder end
    if not stat and errno ~= ENOENT then
      return nil, "failed to stat directory: stat " .. folder .. ": " .. problem, errno
    end
    if not stat then
      local ok, message, number = make(folder, user)
      if not ok then return nil, message, number end
    end
  end
  return true
end

---Removes whatever is at the path; links are removed, not followed. Nothing there is success.
---@param path string in the sandbox, absolute
---@return boolean|nil ok
---@return string|nil message
---@return integer|nil errno
function dirs.remove(path)
  local remover, message, errno = native.fs_remover((paths.real(path):gsub("(.)/+$", "%1")))
  if not remover then return nil, message, errno end
  while true do
    local done
    done, message, errno = remover:step(STEP)
    if done == nil then return nil, message, errno end
    if done then return true end
    sleep(0)
  end
end

return dirs
