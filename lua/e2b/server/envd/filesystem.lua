--- The filesystem service's unary calls: Stat, ListDir, MakeDir, Move, Remove.
-- @module e2b.server.envd.filesystem

local sleep = require("cqueues").sleep
local json = require("e2b.server.json")
local connect = require("e2b.server.envd.connect")
local dirs = require("e2b.server.envd.dirs")
local entry = require("e2b.server.envd.entry")
local names = require("e2b.server.envd.names")
local native = require("e2b.server.native")
local paths = require("e2b.server.envd.paths")
local users = require("e2b.server.envd.users")

local filesystem = {}

local errno = native.fs_errno
local BATCH = 256 -- entries listed before others get their turn

local function fail(code, ...)
  error(connect.failure(code, table.concat({ ... })), 0)
end

local function resolve(request, path)
  local user = users.required(request)
  local resolved, message = paths.resolve(user, path)
  if not resolved then
    fail("invalid_argument", "failed to expand path '", path, "' for user '", user.name, "': ", message)
  end
  return resolved, user
end

---Finds the path a call is about; leaves the handler when its user or path is none.
---@param request table
---@param path string as the client wrote it
---@return string path absolute
---@return table user
filesystem.resolve = resolve

local function described(path)
  local info, message, number = entry.of(path)
  if info then return info end
  if number == errno.ENOENT then fail("not_found", "file not found: lstat ", path, ": ", message) end
  fail("internal", "error getting file info: lstat ", path, ": ", message)
end

function filesystem.stat(request, message)
  return { entry = described(resolve(request, message.path)) }
end

-- The folder behind the path, all links resolved.
local function folder(path)
  local real, message, number = native.fs_realpath(paths.real(path))
  if not real then
    if number == errno.ENOENT then fail("not_found", "directory not found: lstat ", path, ": ", message) end
    if number == errno.ELOOP then
      fail("failed_precondition", 'cyclic symlink or chain >255 links at "', path, '"')
    end
    fail("internal", "error resolving symlink: lstat ", path, ": ", message)
  end
  local stat
  stat, message, number = native.fs_stat(real)
  if not stat then
    fail(number == errno.ENOENT and "not_found" or "internal", "error getting file info: stat ", path, ": ", message)
  end
  if stat.type ~= "dir" then fail("invalid_argument", "path is not a directory: ", path) end
  return paths.seen(real)
end

-- Adds what is in a folder, each folder's own entries right behind it. Symbolic links are not entered.
local function walk(list, at, shown, depth, top)
  local found, message, number = native.fs_readdir(paths.real(at))
  if not found then
    -- What was listed a moment ago may be gone, or be a file by now.
    if not top and (number == errno.ENOENT or number == errno.ENOTDIR) then return end
    fail("internal", "error reading directory: open ", at, ": ", message)
  end
  for _, name in ipairs(found) do
    local path = names.join(at, name)
    local info, problem, why, stat = entry.of(path)
    if info then
      info.path = json.clean(names.join(shown, name))
      if stat.type == "symlink" and info.symlinkTarget == json.clean(path) then info.symlinkTarget = info.path end
      list[#list + 1] = info
      if #list % BATCH == 0 then sleep(0) end
      if depth > 1 and stat.type == "dir" then walk(list, path, names.join(shown, name), depth - 1) end
    elseif why ~= errno.ENOENT then
      fail("internal", "error getting file info: lstat ", path, ": ", problem)
    end
  end
end

function filesystem.list_dir(request, message)
  local depth = message.depth
  local path = resolve(request, message.path)
  local list = json.array({})
  walk(list, folder(path), path, depth == 0 and 1 or depth, true)
  return { entries = #list > 0 and list or nil }
end

function filesystem.make_dir(request, message)
  local path, user = resolve(request, message.path)
  local stat, problem, number = native.fs_stat(paths.real(path))
  if stat and stat.type == "dir" then fail("already_exists", "directory already exists: ", path) end
  if stat then fail("invalid_argument", "path already exists but it is not a directory: ", path) end
  if number ~= errno.ENOENT then fail("internal", "error getting file info: stat ", path, ": ", problem) end
  local ok
  ok, problem = dirs.ensure(path, user)
  if not ok then fail("internal", problem) end
  return { entry = described(path) }
end

-- Go refuses to rename onto any folder; a source that is missing is the better news, though.
local function rename(source, destination)
  local from, to = paths.real(source), paths.real(destination)
  local there = native.fs_lstat(to)
  if there and there.type == "dir" then
    local stat, message, number = native.fs_lstat(from)
    if not stat then return nil, message, number end
    if source == destination or stat.ino ~= there.ino or stat.dev ~= there.dev then
      return nil, "file exists", errno.EEXIST
    end
  end
  return native.fs_rename(from, to)
end

function filesystem.move(request, message)
  local source = resolve(request, message.source)
  local destination, user = resolve(request, message.destination)
  local ok, problem = dirs.ensure(names.dir(destination), user)
  if not ok then fail("internal", problem) end
  local number
  ok, problem, number = rename(source, destination)
  if not ok then
    local text = "rename " .. source .. " " .. destination .. ": " .. problem
    if number == errno.ENOENT then fail("not_found", "source file not found: ", text) end
    fail("internal", "error renaming: ", text)
  end
  return { entry = described(destination) }
end

function filesystem.remove(request, message)
  local path = resolve(request, message.path)
  local ok, problem = dirs.remove(path)
  if not ok then fail("internal", "error removing file or directory: unlinkat ", path, ": ", problem) end
  return {}
end

---Adds the calls to the daemon's routes.
---@param router table e2b.server.router
function filesystem.routes(router)
  local function add(call, handler, fields)
    connect.service(router, "/filesystem.Filesystem/" .. call, handler, fields)
  end
  add("Stat", filesystem.stat, { path = "string" })
  add("ListDir", filesystem.list_dir, { path = "string", depth = "uint32" })
  add("MakeDir", filesystem.make_dir, { path = "string" })
  add("Move", filesystem.move, { source = "string", destination = "string" })
  add("Remove", filesystem.remove, { path = "string" })
end

return filesystem
