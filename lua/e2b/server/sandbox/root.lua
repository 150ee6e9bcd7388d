--- The directory under which a server keeps the trees of its sandboxes, and what dead servers left of theirs.
-- A root belongs to a living server as long as somebody listens on the socket in it. The kernel closes that socket
-- however the server ends, and there is no lock to be left behind or process id to be mistaken for another's.
-- @module e2b.server.sandbox.root

local cqueues = require("cqueues")
local cs = require("cqueues.socket")
local ce = require("cqueues.errno")
local native = require("e2b.server.native")

local root = {}

local PREFIX = "e2b-server-"
local LONGEST = 40 -- bytes of the folder around a root: paths of Unix sockets end at about 100
local NEWBORN = 60 -- seconds in which a root without a socket may still get one
local KILL = 9

---Where roots are made and looked for.
---@param wanted string|nil a folder; nil: the one for temporary files
---@return string|nil path
---@return string|nil message
function root.folder(wanted)
  local path = (wanted or os.getenv("TMPDIR") or ""):gsub("(.)/+$", "%1")
  local fits = path:sub(1, 1) == "/" and #path <= LONGEST
  local facts = fits and native.fs_stat(path)
  if facts and facts.type == "dir" then return path end
  if not wanted then return "/tmp" end
  if fits then return nil, "the folder for sandboxes must be there: " .. path end
  return nil, string.format("the folder for sandboxes must be an absolute path of at most %d bytes", LONGEST)
end

local function random_name()
  local source = assert(io.open("/dev/urandom", "rb"))
  local bytes = source:read(8)
  source:close()
  return (bytes:gsub(".", function(char) return string.format("%02x", char:byte()) end))
end

---Whether a root could be made in a folder.
---@param folder string|nil
---@return boolean|nil ok
---@return string|nil message
function root.check(folder)
  local base, problem = root.folder(folder)
  if not base then return nil, problem end
  local path = base .. "/" .. PREFIX .. random_name()
  local ok, message = native.fs_mkdir(path, 448)
  if not ok then return nil, "cannot make folders for sandboxes in " .. base .. ": " .. tostring(message) end
  os.remove(path)
  return true
end

---Makes a root of one's own and listens in it. Nobody but the server's user may look into it: a sandbox's own files
---may be programs that run as their owner.
---@param cq table the cqueues controller
---@param folder string|nil
---@return string|nil path
---@return string|nil message
function root.make(cq, folder)
  local base, problem = root.folder(folder)
  if not base then return nil, problem end
  local path = base .. "/" .. PREFIX .. random_name()
  local ok, message = native.fs_mkdir(path, 448)
  if not ok then return nil, "cannot make " .. path .. ": " .. tostring(message) end
  local fine, socket = pcall(cs.listen, { path = path .. "/alive" })
  if fine and socket then fine, message = socket:listen(1) end
  if not fine or not socket then return nil, "cannot listen in " .. path .. ": " .. tostring(message or socket) end
  cq:wrap(function()
    socket:onerror(function(_, _, why) return why end)
    while true do
      local asker, errno = socket:accept({}, 0)
      if asker then
        asker:close()
      elseif errno == ce.ETIMEDOUT then
        cqueues.poll(socket)
      else
        cqueues.sleep(1)
      end
    end
  end)
  return path
end

-- Whether a living server listens in it.
local function is_owned(path)
  local ok, socket = pcall(cs.connect, { path = path .. "/alive" })
  if not ok or not socket then return false end
  socket:onerror(function(_, _, why) return why end)
  local connected, errno = socket:connect(1)
  socket:close()
  -- A backlog that is full is one of somebody alive.
  return connected ~= nil and connected ~= false or (errno ~= ce.ECONNREFUSED and errno ~= ce.ENOENT)
end

-- ---------------------------------------------------------------- processes

local function environment_of(pid)
  local file = io.open("/proc/" .. pid .. "/environ", "rb")
  if not file then return nil end
  local text = file:read("*a")
  file:close()
  return text
end

---Kills every process of some sandboxes, found by the id in its environment.
---@param ids table set of sandbox ids
---@return integer killed
function root.kill_processes(ids)
  local mine, killed = native.pid(), 0
  -- Until a look finds nothing: a process may fork while it is being looked for.
  for _ = 1, 10 do
    local found = false
    for _, name in ipairs(native.fs_readdir("/proc") or {}) do
      local environment = name:find("^%d+$") and tonumber(name) ~= mine and environment_of(name)
      local id = environment and ("\0" .. environment):match("%zE2B_SANDBOX_ID=([^%z]*)")
      if id and ids[id] and native.kill(tonumber(name), KILL) then
        found, killed = true, killed + 1
      end
    end
    if not found then break end
  end
  return killed
end

-- ---------------------------------------------------------------- removing

---Removes a tree, in steps in which the other coroutines go on.
---@param path string
function root.remove(path)
  local remover = native.fs_remover(path, true)
  if not remover then return end
  while true do
    local done = remover:step(200)
    if done ~= false then break end
    cqueues.sleep(0)
  end
end

local function is_stale(path, uid)
  local facts = native.fs_lstat(path)
  if not facts or facts.type ~= "dir" or facts.uid ~= uid then return false end
  if native.fs_lstat(path .. "/alive") then return not is_owned(path) end
  return os.time() - facts.mtime > NEWBORN
end

---Removes what servers that are no more left behind: their processes, then their directories.
---@param folder string|nil
function root.sweep(folder)
  local base, uid = root.folder(folder), (native.ids())
  if not base then return end
  for _, name in ipairs(native.fs_readdir(base) or {}) do
    local path = base .. "/" .. name
    if name:sub(1, #PREFIX) == PREFIX and is_stale(path, uid) then
      local ids = {}
      for _, id in ipairs(native.fs_readdir(path) or {}) do
        if id:find("^i[a-z0-9]+$") then ids[id] = true end
      end
      if next(ids) then root.kill_processes(ids) end
      root.remove(path)
    end
  end
end

return root
