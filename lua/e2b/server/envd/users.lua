--- The users of a sandbox: names, ids, homes, and as whom processes run.
-- @module e2b.server.envd.users

local native = require("e2b.server.native")
local connect = require("e2b.server.envd.connect")

local users = {}

local known = {} -- by name
local daemon -- its field `default_user` may change
local own_uid, own_gid
local can_switch -- whether a process may run as somebody else

---@class e2b.server.user
---@field name string
---@field uid integer
---@field gid integer
---@field groups integer[] supplementary ones, the primary included
---@field home string as the sandbox calls it

local function split(line)
  local fields = {}
  for field in (line .. ":"):gmatch("([^:]*):") do fields[#fields + 1] = field end
  return fields
end

local function lines_of(path)
  local list = {}
  local file = io.open(path, "r")
  if file then
    for line in file:lines() do list[#list + 1] = line end
    file:close()
  end
  return list
end

local function from_system()
  local list, by_name = {}, {}
  for _, line in ipairs(lines_of("/etc/passwd")) do
    local field = split(line)
    if tonumber(field[3]) and tonumber(field[4]) then
      local user = { name = field[1], uid = tonumber(field[3]), gid = tonumber(field[4]), home = field[6] }
      user.groups = { user.gid }
      list[#list + 1] = user
      by_name[user.name] = user
    end
  end
  for _, line in ipairs(lines_of("/etc/group")) do
    local field = split(line)
    local gid = tonumber(field[3])
    for name in (field[4] or ""):gmatch("[^,%s]+") do
      local user = gid and by_name[name]
      if user and gid ~= user.gid then user.groups[#user.groups + 1] = gid end
    end
  end
  return list
end

---@param state table the daemon: `default_user`, and `options`: `users` (name, uid, gid, home, groups; without it the
---  system's, in plain mode two that are this process's user), `plain_root`
function users.setup(state)
  daemon = state
  local options = state.options
  own_uid, own_gid = native.ids()
  can_switch = own_uid == 0
  local list = options.users
  if not list and options.plain_root then
    list = {
      { name = "root", uid = own_uid, gid = own_gid, home = "/root" },
      { name = "user", uid = own_uid, gid = own_gid, home = "/home/user" },
    }
  end
  known = {}
  for _, user in ipairs(list or from_system()) do
    user.groups = user.groups or { user.gid }
    if not known[user.name] then known[user.name] = user end
  end
end

---@param name string|nil nil: the default user
---@return e2b.server.user|nil user nil when there is none of that name, or no default
function users.find(name)
  name = name or daemon.default_user
  return name and known[name]
end

---@return boolean
function users.has_default()
  return daemon.default_user ~= nil
end

-- The name in an Authorization header; the password does not matter.
local function basic_name(header)
  local encoded = header and header:match("^[Bb][Aa][Ss][Ii][Cc] +(%S+)%s*$")
  local decoded = encoded and native.base64_decode(encoded)
  return decoded and decoded:match("^([^:]*):")
end

---Finds whom a request names; raises when there is no such user.
---@param request table gets `user`: whom it names, or the default user if there is one
function users.authenticate(request)
  local name = basic_name(request.headers.authorization)
  if name == "" then name = nil end
  request.user = users.find(name)
  if name and not request.user then connect.raise("unauthenticated", "invalid username: '" .. name .. "'") end
end

---The user of a call: the one it names, or the default; raises when there is none.
---@param request table
---@return e2b.server.user
function users.required(request)
  if request.user then return request.user end
  local name = daemon.default_user
  if name then connect.raise("unauthenticated", "invalid username: '" .. name .. "'") end
  connect.raise("unauthenticated", "no user specified")
end

---The ids for `native.spawn`, as far as this process may change its own.
---@param user e2b.server.user
---@return integer|nil uid
---@return integer|nil gid
---@return integer[]|nil groups
function users.ids(user)
  if not can_switch or (user.uid == own_uid and user.gid == own_gid) then return nil end
  return user.uid, user.gid, user.groups
end

---Remembers that the system does not let processes run as somebody else, as in a namespace of one user.
---@return boolean changed
function users.cannot_switch()
  local changed = can_switch
  can_switch = false
  return changed
end

return users
