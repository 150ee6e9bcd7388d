--- What one path is: the EntryInfo of the filesystem service.
-- @module e2b.server.envd.entry

local monotime = require("cqueues").monotime
local clock = require("e2b.server.clock")
local json = require("e2b.server.json")
local names = require("e2b.server.envd.names")
local native = require("e2b.server.native")
local paths = require("e2b.server.envd.paths")
local users = require("e2b.server.envd.users")

local entry = {}

local METADATA = "user.e2b."
local NAMES_FRESH = 1 -- seconds an owner's name is believed; users are added while the sandbox runs

-- Go's letters for what is not a permission, in its order: d a l T L D p S u g c t.
local TYPE_LETTERS = { dir = "d", symlink = "L", block = "D", char = "D", fifo = "p", socket = "S", other = "?" }
local BITS = { "x", "w", "r", "x", "w", "r", "x", "w", "r" }

---Writes a mode as Go does: letters of the type and the special bits, then nine permissions.
---@param stat table what `native.fs_lstat` answered
---@return string permissions
function entry.permissions(stat)
  local special = math.floor(stat.mode / 512)
  local letters = (TYPE_LETTERS[stat.type] or "")
    .. (special >= 4 and "u" or "") .. (special % 4 >= 2 and "g" or "")
    .. (stat.type == "char" and "c" or "") .. (special % 2 == 1 and "t" or "")
  local rest, out = stat.mode % 512, {}
  for i = 1, 9 do
    out[10 - i] = rest % 2 == 1 and BITS[i] or "-"
    rest = math.floor(rest / 2)
  end
  return (letters == "" and "-" or letters) .. table.concat(out)
end

---Writes a time as protobuf's JSON does: UTC, and 0, 3, 6 or 9 digits of fraction.
---@param seconds integer since the epoch
---@param nanoseconds integer
---@return string
function entry.timestamp(seconds, nanoseconds)
  local text = clock.format(seconds * 1000000)
  if nanoseconds == 0 then return text end
  local digits = string.format("%09d", nanoseconds):gsub("000$", ""):gsub("000$", "")
  return text:sub(1, -2) .. "." .. digits .. "Z"
end

local known = { users = {}, groups = {}, read_at = -math.huge }

-- Without isolation the machine's names are not the sandbox's: its users are told first.
local function of_sandbox(field, id)
  if not paths.is_plain() then return nil end
  local default, root = users.find(), users.find("root")
  if default and default[field] == id then return default.name end
  if root and root[field] == id then return root.name end
end

local function name_of(kind, lookup, id)
  local now = monotime()
  if now - known.read_at > NAMES_FRESH then known = { users = {}, groups = {}, read_at = now } end
  local name = known[kind][id]
  if not name then
    name = of_sandbox(kind == "users" and "uid" or "gid", id) or lookup(id) or string.format("%d", id)
  end
  known[kind][id] = name
  return name
end

---@param uid integer
---@return string name the number where nobody has it
function entry.owner(uid)
  return name_of("users", native.fs_username, uid)
end

---@param gid integer
---@return string name the number where no group has it
function entry.group(gid)
  return name_of("groups", native.fs_groupname, gid)
end

---@param path string in the sandbox; links are followed
---@return table|nil metadata string to string; nil when there is none
function entry.metadata(path)
  local found = native.fs_xattrs(paths.real(path), METADATA)
  if not found then return nil end
  local metadata
  for key, value in pairs(found) do
    if json.clean(value) == value then
      metadata = metadata or {}
      metadata[key] = value
    end
  end
  return metadata
end

local TYPES = { file = "FILE_TYPE_FILE", dir = "FILE_TYPE_DIRECTORY" }

---Describes a path without following its last link.
---@param path string in the sandbox, absolute
---@return table|nil info an EntryInfo as it goes on the wire, defaults left out
---@return string|nil message the system's
---@return integer|nil errno
function entry.of(path)
  local real = paths.real(path)
  local stat, message, errno = native.fs_lstat(real)
  if not stat then return nil, message, errno end
  local target, target_path = stat, nil
  if stat.type == "symlink" then
    local resolved = native.fs_realpath(real)
    target_path = resolved and paths.seen(resolved) or path
    target = native.fs_stat(real)
  end
  return {
    name = json.clean(names.base(path)),
    type = target and TYPES[target.type],
    path = json.clean(path),
    size = stat.size > 0 and string.format("%d", stat.size) or nil,
    mode = target and target.mode % 512 > 0 and target.mode % 512 or nil,
    permissions = entry.permissions(stat),
    owner = entry.owner(stat.uid),
    group = entry.group(stat.gid),
    modifiedTime = (stat.mtime ~= 0 or stat.mtime_nsec ~= 0) and entry.timestamp(stat.mtime, stat.mtime_nsec) or nil,
    symlinkTarget = target_path and json.clean(target_path),
    metadata = entry.metadata(path),
  }, nil, nil, stat
end

return entry
