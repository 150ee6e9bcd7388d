--- Copies of the files of sandboxes, for forks and snapshots. Many may begin with one copy, each with its own of it.
-- @module e2b.server.sandbox.saved

local daemon = require("e2b.server.sandbox.daemon")
local native = require("e2b.server.native")
local root = require("e2b.server.sandbox.root")

local saved = {}
saved.__index = saved

local count = 0

-- Everything as it is: owners, times, links, holes and extended attributes. Where the file system can, without copying.
local function copy(from, to)
  return daemon.run({ "cp", "-a", "--reflink=auto", from, to })
end

---Copies the files of a sandbox; waits for it.
---@param tree string the directory of the sandbox
---@param folder string the server's root
---@return table|nil saved one user has it: who asked
---@return string|nil message
function saved.new(tree, folder)
  count = count + 1
  local path = string.format("%s/saved-%d", folder, count)
  local ok, message = native.fs_mkdir(path, 448)
  if not ok then return nil, message end
  if not copy(tree .. "/root", path .. "/root") then
    root.remove(path)
    return nil, "the files of the sandbox could not be copied"
  end
  return setmetatable({ path = path, users = 1 }, saved)
end

---@return table saved for one user more
function saved:share()
  self.users = self.users + 1
  return self
end

---One user less; after the last one it is removed.
function saved:release()
  self.users = self.users - 1
  if self.users == 0 then root.remove(self.path) end
end

---Copies the files into the directory of a new sandbox; waits for it.
---@param tree string
---@return boolean ok
function saved:fill(tree)
  return native.fs_mkdir(tree .. "/run", 493) and copy(self.path .. "/root", tree .. "/root")
end

return saved
