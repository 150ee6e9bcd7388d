--- Watches a folder, alone or with everything below it: inotify events as envd names them.
-- @module e2b.server.envd.watcher

local cqueues = require("cqueues")
local native = require("e2b.server.native")
local paths = require("e2b.server.envd.paths")

local watcher = {}
local methods = {}
local meta = { __name = "watcher", __index = methods }

local ENOENT, ENOTDIR = native.fs_errno.ENOENT, native.fs_errno.ENOTDIR
local BATCH = 128 -- folders watched before others get their turn

local function below(folder, name)
  return folder == "" and name or folder .. "/" .. name
end

-- Watches a folder and, when asked, those below it; what vanishes meanwhile is left out.
local function arm(self, relative, first)
  local pending, done = { relative }, 0
  while pending[1] do
    local folder = table.remove(pending)
    local real = folder == "" and self.real or self.real .. "/" .. folder
    local wd, message, errno = self.inotify:add(real)
    if wd then
      self.folders[wd] = folder
      if self.recursive then
        for _, name in ipairs(native.fs_readdir(real) or {}) do
          local stat = native.fs_lstat(real .. "/" .. name)
          if stat and stat.type == "dir" then pending[#pending + 1] = below(folder, name) end
        end
      end
    elseif first and folder == "" or (errno ~= ENOENT and errno ~= ENOTDIR) then
      return nil, message
    end
    done = done + 1
    if done % BATCH == 0 then cqueues.sleep(0) end
  end
  return true
end

-- A folder that left takes its watches along; their events would come under its old name.
local function disarm(self, relative)
  for wd, folder in pairs(self.folders) do
    if folder == relative or folder:sub(1, #relative + 1) == relative .. "/" then
      self.inotify:remove(wd)
      self.folders[wd] = nil
    end
  end
end

local ORDER = {
  { "EVENT_TYPE_CREATE", "create", "moved_to" },
  { "EVENT_TYPE_RENAME", "moved_from", "move_self" },
  { "EVENT_TYPE_CHMOD", "attrib" },
  { "EVENT_TYPE_WRITE", "modify" },
  { "EVENT_TYPE_REMOVE", "delete", "delete_self" },
}

local function convert(self, event, out)
  local folder = self.folders[event.wd]
  if event.overflow then return nil, "fsnotify: queue or buffer overflow" end
  if not folder then return true end
  if event.ignored then
    self.folders[event.wd] = nil
    return true
  end
  -- What happens to a folder below the watched one is told by the folder above it.
  if not event.name and folder ~= "" then return true end
  local name = event.name and below(folder, event.name) or "."
  for _, kind in ipairs(ORDER) do
    if event[kind[2]] or (kind[3] and event[kind[3]]) then out[#out + 1] = { name = name, type = kind[1] } end
  end
  if self.recursive and event.is_dir and event.name then
    if event.moved_from then disarm(self, name) end
    if event.create or event.moved_to then return arm(self, name) end
  end
  return true
end

---Begins to watch; from now on nothing is missed.
---@param path string in the sandbox, absolute; a folder
---@param recursive boolean also everything below it
---@return table|nil watcher `pollable`, `read()`, `close()`
---@return string|nil message the system's
function watcher.new(path, recursive)
  local inotify, message = native.inotify()
  if not inotify then return nil, message end
  local self = setmetatable({
    inotify = inotify, real = paths.real(path):gsub("(.)/+$", "%1"), recursive = recursive, folders = {},
    pollable = { pollfd = inotify:fd(), events = "r" },
  }, meta)
  local ok
  ok, message = arm(self, "", true)
  if not ok then
    inotify:close()
    return nil, message
  end
  return self
end

---Takes what happened since the last call.
---@return table|nil events list of `{ name, type }`, empty when nothing did
---@return string|nil message the watch is broken, events were lost
function methods:read()
  local out = {}
  while true do
    local events, message = self.inotify:read()
    if events == nil then return nil, message end
    if not events then return out end
    for _, event in ipairs(events) do
      local ok
      ok, message = convert(self, event, out)
      if not ok then return nil, message end
    end
  end
end

---Ends the watch. Whoever polls it must have stopped.
function methods:close()
  local controller = cqueues.running()
  -- The number of the descriptor will be another file's soon.
  if controller then controller:cancel(self.pollable.pollfd) end
  self.inotify:close()
end

return watcher
