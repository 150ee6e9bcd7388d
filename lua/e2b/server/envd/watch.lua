--- The filesystem service's watching: the WatchDir stream and the watchers that are polled.
-- @module e2b.server.envd.watch

local condition = require("cqueues.condition")
local cqueues = require("cqueues")
local protect = require("e2b.server.protect")
local json = require("e2b.server.json")
local text = require("e2b.server.text")
local connect = require("e2b.server.envd.connect")
local entry = require("e2b.server.envd.entry")
local filesystem = require("e2b.server.envd.filesystem")
local names = require("e2b.server.envd.names")
local native = require("e2b.server.native")
local paths = require("e2b.server.envd.paths")
local watcher = require("e2b.server.envd.watcher")

local watch = {}

local MAX_EVENTS = 100000 -- kept for a client that never asks for them

-- NFS, CIFS, SMB, SMB2, FUSE: inotify tells only what this machine does there.
local NETWORK = { [0x6969] = true, [0xFF534D42] = true, [0x517B] = true, [0xFE534D42] = true, [0x65735546] = true }

local FIELDS = { path = "string", recursive = "bool", include_entry = "bool", allow_network_mounts = "bool" }

local DESCRIBED = { EVENT_TYPE_CREATE = true, EVENT_TYPE_WRITE = true, EVENT_TYPE_CHMOD = true }

local function fail(code, ...)
  error(connect.failure(code, table.concat({ ... })), 0)
end

-- The checks that both ways of watching have in common.
local function open(request, message)
  local path = filesystem.resolve(request, message.path)
  local stat, problem, errno = native.fs_stat(paths.real(path))
  if not stat then
    if errno ~= native.fs_errno.ENOENT then
      fail("internal", "error statting path ", path, ": stat ", path, ": ", problem)
    end
    fail("not_found", "path ", path, " not found: stat ", path, ": ", problem)
  end
  if stat.type ~= "dir" then fail("invalid_argument", "path ", path, " not a directory") end
  if not message.allow_network_mounts then
    local mount
    mount, problem = native.fs_statfs(paths.real(path))
    if not mount then fail("internal", "error checking mount status: failed to statfs ", path, ": ", problem) end
    if NETWORK[mount.kind] then fail("invalid_argument", "cannot watch path on network filesystem: ", path) end
  end
  local watching
  watching, problem = watcher.new(path, message.recursive)
  if not watching then fail("internal", "error adding path ", path, " to watcher: ", problem) end
  watching.path = path
  watching.describes = message.include_entry
  return watching
end

-- What happened, with the entries that are still there; nil and a message when the watch is broken.
local function events_of(watching)
  local events, problem = watching:read()
  if not events then return nil, "watcher error: " .. problem end
  for _, event in ipairs(events) do
    if watching.describes and DESCRIBED[event.type] then
      event.entry = entry.of(names.join(watching.path, event.name))
    end
    event.name = json.clean(event.name)
  end
  return events
end

-- Sends until the client is gone or the watch breaks; answers the problem.
local function stream(request, watching, send)
  local gone = request.on_gone()
  if not send({ start = {} }) then return nil end
  local last = cqueues.monotime()
  while not request.gone() do
    connect.check_deadline(request)
    local events, problem = events_of(watching)
    if not events then return problem end
    for _, event in ipairs(events) do
      if not send({ filesystem = event }) then return nil end
    end
    local now = cqueues.monotime()
    if events[1] then
      last = now
    elseif now >= last + request.keepalive then
      last = now
      if not send({ keepalive = {} }) then return nil end
    else
      local wake = math.min(last + request.keepalive, request.deadline or math.huge)
      cqueues.poll(watching.pollable, gone, math.max(wake - now, 0))
    end
  end
end

function watch.watch_dir(request, message, send)
  local watching = open(request, message)
  local ok, problem = protect(stream, request, watching, send)
  watching:close()
  if not ok then error(problem, 0) end
  if problem then fail("internal", problem) end
end

-- Moves events from the kernel's queue to ours: the kernel's overflows, and new folders must be watched at once.
local function collect(watching)
  if watching.collecting then return end -- it yields in a large tree, and the order of events matters
  watching.collecting = true
  local events, problem = events_of(watching)
  watching.collecting = false
  if events then
    for _, event in ipairs(events) do watching.kept[#watching.kept + 1] = event end
    if #watching.kept > MAX_EVENTS then problem = "watcher error: fsnotify: queue or buffer overflow" end
  end
  if problem then watching.kept, watching.problem = {}, problem end
end

local function keep_collecting(watching)
  while not watching.removed and not watching.problem do
    collect(watching)
    if not watching.removed and not watching.problem then cqueues.poll(watching.pollable, watching.stop) end
  end
  watching:close()
end

local function find(state, message)
  local id = message.watcher_id
  local watching = state.watchers[id]
  if not watching then fail("not_found", "watcher with id ", id, " not found") end
  return watching, id
end

function watch.create(state, request, message)
  local watching = open(request, message)
  local id = "w" .. text.random_id()
  watching.kept, watching.stop = {}, condition.new()
  state.watchers[id] = watching
  cqueues.running():wrap(keep_collecting, watching)
  return { watcherId = id }
end

function watch.events(state, _, message)
  local watching = find(state, message)
  -- What the kernel has already belongs into this answer.
  if not watching.problem then collect(watching) end
  if watching.problem then fail("internal", watching.problem) end
  local events = watching.kept
  watching.kept = {}
  return { events = events[1] and json.array(events) or nil }
end

function watch.remove(state, _, message)
  local watching, id = find(state, message)
  state.watchers[id] = nil
  watching.removed = true
  watching.stop:signal()
  return {}
end

---Adds the calls to the daemon's routes.
---@param router table e2b.server.router
function watch.routes(router)
  local state = { watchers = {} }
  local function add(call, handler, fields)
    connect.service(router, "/filesystem.Filesystem/" .. call, function(request, message)
      return handler(state, request, message)
    end, fields)
  end
  connect.stream(router, "/filesystem.Filesystem/WatchDir", watch.watch_dir, FIELDS)
  add("CreateWatcher", watch.create, FIELDS)
  add("GetWatcherEvents", watch.events, { watcher_id = "string" })
  add("RemoveWatcher", watch.remove, { watcher_id = "string" })
end

return watch
