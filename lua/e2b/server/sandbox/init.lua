--- The places of sandboxes: a directory tree and, from the first thing asked of it on, a daemon for each.
-- A sandbox nobody asks anything of costs nothing here: no directory, no process.
-- @module e2b.server.sandbox

local cqueues = require("cqueues")
local condition = require("cqueues.condition")
local json = require("e2b.server.json")
local protect = require("e2b.server.protect")

local places = {}
places.__index = places

local ENDING = 3 -- seconds the program waits at its end for the processes of its sandboxes

---@param options table `isolation` (false: never), `directory` (where the trees are kept)
---@param cq table the cqueues controller
---@return table places
function places.new(options, cq)
  local self = setmetatable({
    options = options, cq = cq, all = setmetatable({}, { __mode = "k" }), wanted = options.isolation ~= false,
    leaving = 0, left = condition.new(), -- sandboxes that are being removed
  }, places)
  -- Without the native module there is no data plane, and nothing of one to clean up.
  local ok, problem = pcall(require, "e2b.server.native")
  if ok then
    self.native, self.root = problem, require("e2b.server.sandbox.root")
    -- Many exchanges at once need many; each sandbox starts with as many as there were.
    self.descriptors = self.native.raise_descriptors()
    cq:wrap(self.root.sweep, options.directory)
  else
    self.problem = "the local server cannot run sandboxes: " .. tostring(problem):match("^[^\n]*"):gsub(":$", "")
      .. " (it is built and installed with the library)"
  end
  return self
end

---Finds out before anybody asks for a sandbox whether there will be one; a missing native module is said on standard
---error, for the platform API works without.
---@return boolean|nil ok
---@return string|nil message why this server is of no use as it was started
function places:check()
  if self.problem then
    io.stderr:write("e2b-server: ", self.problem, "\n")
    return true
  end
  if not self.options.directory then return true end
  return self.root.check(self.options.directory)
end

-- ---------------------------------------------------------------- once a server

local function find_root(self)
  if self.path then return self.path end
  local path, message = self.root.make(self.cq, self.options.directory)
  if not path then return nil, message end
  self.path = path
  return path
end

---Finds out, once, whether sandboxes can have walls here; without them it says so on standard error.
---@return boolean isolated
---@return string|nil reason why not
function places:isolated()
  if self.has_walls ~= nil then return self.has_walls, self.reason end
  if self.problem then return false, self.problem end
  local path, message = find_root(self)
  if not path then return false, message end
  self.runtime = require("e2b.server.sandbox.runtime").find()
  if not self.wanted then
    require("e2b.server.sandbox.daemon").adopt()
    self.has_walls, self.reason = false, "it was told to do without"
    return false, self.reason
  end
  local check = path .. "/check"
  self.native.fs_mkdir(check, 448)
  self.has_walls, self.reason = require("e2b.server.sandbox.isolation").works(check, self.runtime)
  self.root.remove(check)
  if not self.has_walls then
    require("e2b.server.sandbox.daemon").adopt()
    io.stderr:write("e2b-server: sandboxes are not isolated, what runs in them sees this machine: ", self.reason, "\n")
  end
  return self.has_walls, self.reason
end

-- ---------------------------------------------------------------- one sandbox

-- Whether what runs in it may reach anything outside.
local function may_reach_out(sandbox)
  if sandbox.allow_internet == false then return false end
  local network = sandbox.network
  if not network or (network.allowOut and network.allowOut[1]) then return true end
  for _, denied in ipairs(network.denyOut or {}) do
    if denied == "0.0.0.0/0" then return false end
  end
  return true
end

-- Without walls everybody is who this process is: other users of the machine have nothing to do with it.
local function users(uid)
  local isolation = require("e2b.server.sandbox.isolation")
  local user = { name = "user", uid = isolation.USER_ID, gid = isolation.USER_ID, home = "/home/user",
    shell = "/bin/bash" }
  local root = { name = "root", uid = 0, gid = 0, home = "/root", shell = "/bin/bash" }
  if uid ~= 0 then
    -- One identity is all there is to be had.
    root.uid, root.gid = user.uid, user.gid
  end
  return json.array({ root, user })
end

local function plan(self, sandbox, place)
  local isolated, runtime = self.has_walls, self.runtime
  local argv
  if isolated then
    local isolation = require("e2b.server.sandbox.isolation")
    local options = { network = may_reach_out(sandbox), binds = runtime.binds, hostname = sandbox.id }
    isolation.prepare(place.path, options)
    argv = isolation.command(place.path, options)
  else
    argv = {}
  end
  argv[#argv + 1] = runtime.program
  argv[#argv + 1] = "-e"
  argv[#argv + 1] = isolated and runtime.isolated or runtime.direct
  local socket = place.path .. "/run/envd.sock"
  return {
    argv = argv, made = socket, socket = place.path .. "/envd.sock", id = sandbox.id, descriptors = self.descriptors,
    setup = {
      socket = isolated and "/run/e2b/envd.sock" or socket, sandbox_id = sandbox.id, template_id = sandbox.template_id,
      envs = sandbox.env or {}, access_token = sandbox.token, default_user = "user", version = sandbox.envd,
      users = isolated and users((self.native.ids())) or nil, isolated = isolated,
      plain_root = not isolated and place.path .. "/root" or nil, run = not isolated and place.path .. "/run" or nil,
    },
  }
end

local function make_place(self, sandbox)
  local place = self.all[sandbox]
  if place and place.path then return place end
  if sandbox.state == "killed" then return nil, "the sandbox is gone" end
  local path, message = find_root(self)
  if not path then return nil, message end
  self:isolated()
  place = place or { cuts = {} }
  place.path = path .. "/" .. sandbox.id
  local ok, problem = self.native.fs_mkdir(place.path, 448)
  if ok and not sandbox.seed then
    ok, problem = pcall(require("e2b.server.sandbox.isolation").fill, place.path, self.has_walls)
  end
  if not ok then return nil, "cannot make the sandbox's directory: " .. tostring(problem) end
  self.all[sandbox] = place
  return place
end

-- The files of one that begins with a copy of another's.
local function plant(sandbox, place)
  local seed = sandbox.seed
  if not seed then return true end
  local ok = seed:fill(place.path)
  if sandbox.seed then
    sandbox.seed = nil
    seed:release()
  end
  return ok
end

-- A new daemon among the files that an earlier one, or what ran in there, has left.
local function launch(self, sandbox, place)
  local run = place.path .. "/run"
  self.root.remove(run)
  local ok, problem = self.native.fs_mkdir(run, 493)
  if ok then
    ok, problem = pcall(require("e2b.server.sandbox.isolation").sign, run, sandbox.id, sandbox.template_id)
  end
  local start
  if ok then ok, start = protect(plan, self, sandbox, place) end
  if not ok then return nil, "the sandbox cannot be started: " .. tostring(start or problem) end
  if place.removed then return nil, "the sandbox is gone" end
  return require("e2b.server.sandbox.daemon").start(start)
end

---Whether something runs, or could run, in a sandbox.
---@param sandbox table
---@return boolean
function places:is_started(sandbox)
  local place = self.all[sandbox]
  return place ~= nil and (place.daemon ~= nil or place.starting ~= nil)
end

---The daemon of a sandbox; it is started when there is none. Waits until it serves.
---@param sandbox table
---@return table|nil daemon
---@return string|nil message
function places:daemon(sandbox)
  if self.problem then return nil, self.problem end
  local place, message = make_place(self, sandbox)
  if not place then return nil, message end
  while true do
    if place.removed then return nil, "the sandbox is gone" end
    if place.daemon and place.daemon.alive then return place.daemon end
    if not place.starting then break end
    place.starting:wait()
  end
  local previous = place.daemon
  place.starting = condition.new()
  -- What a daemon that crashed has left must not meet its successor.
  if previous then previous:wait() end
  local daemon
  if not plant(sandbox, place) then
    message = "the sandbox's files could not be copied"
  else
    daemon, message = launch(self, sandbox, place)
  end
  local starting = place.starting
  place.starting, place.daemon = nil, daemon
  starting:signal()
  if daemon and place.removed then
    daemon:stop()
    return nil, "the sandbox is gone"
  end
  if not daemon and not place.removed then
    io.stderr:write("e2b-server: ", sandbox.id, ": ", tostring(message), "\n")
  end
  return daemon, message
end

---Remembers how to end an exchange with a sandbox that is paused or killed meanwhile.
---@param sandbox table
---@param cut fun()
---@return fun() forget to be called when the exchange is over
function places:track(sandbox, cut)
  local place = self.all[sandbox]
  if not place then return function() end end
  place.cuts[cut] = true
  return function() place.cuts[cut] = nil end
end

local function cut_all(place)
  local cuts = place.cuts
  place.cuts = {}
  for cut in pairs(cuts) do cut() end
end

---Stops everything that runs in a sandbox, to go on later, or ends it. Its files stay.
---@param sandbox table
---@param with_memory boolean
function places:pause(sandbox, with_memory)
  local place = self.all[sandbox]
  if not place then return end
  while place.starting do place.starting:wait() end
  local daemon = place.daemon
  cut_all(place)
  if not daemon or not daemon.alive then return end
  if with_memory and daemon:command("pause") then
    place.paused = true
  else
    self:forget(sandbox)
  end
end

---Copies the files of a sandbox, while what runs in it stands still.
---@param sandbox table
---@return table|nil saved (e2b.server.sandbox.saved); nil when there is nothing to copy
function places:save(sandbox)
  local place = self.all[sandbox]
  if not place then return sandbox.seed and sandbox.seed:share() end
  while place.starting do place.starting:wait() end
  local daemon = place.daemon
  local stopped = daemon and daemon.alive and daemon:command("pause")
  local saved, message = require("e2b.server.sandbox.saved").new(place.path, self.path)
  if stopped then daemon:command("resume") end
  if not saved and not place.removed then io.stderr:write("e2b-server: ", sandbox.id, ": ", tostring(message), "\n") end
  return saved
end

---Lets everything in a sandbox go on after a pause.
---@param sandbox table
function places:resume(sandbox)
  local place = self.all[sandbox]
  if not place or not place.paused then return end
  place.paused = nil
  if place.daemon and place.daemon.alive and not place.daemon:command("resume") then place.daemon:stop() end
end

---Ends everything that runs in a sandbox; its files stay. Waits until that is done.
---@param sandbox table
function places:forget(sandbox)
  local place = self.all[sandbox]
  if not place then return end
  place.paused = nil
  local daemon = place.daemon
  if not daemon then return end
  daemon:stop()
  daemon:wait()
end

-- ---------------------------------------------------------------- the end

local function remove(self, place)
  place.removed = true
  cut_all(place)
  while place.starting do place.starting:wait() end
  if place.daemon then
    place.daemon:stop()
    place.daemon:wait()
  end
  -- The last of the processes may still be writing.
  for _ = 1, 20 do
    self.root.remove(place.path)
    if not self.native.fs_lstat(place.path) then break end
    cqueues.sleep(0.05)
  end
end

local function leave(self, place)
  self.leaving = self.leaving + 1
  self.cq:wrap(function()
    local ok, raised = protect(remove, self, place)
    if not ok then io.stderr:write("e2b-server: ", tostring(raised), "\n") end
    self.leaving = self.leaving - 1
    self.left:signal()
  end)
end

---Ends everything that runs in a sandbox and removes its files; does not wait for that.
---@param sandbox table
function places:remove(sandbox)
  if sandbox.seed then
    self.cq:wrap(sandbox.seed.release, sandbox.seed)
    sandbox.seed = nil
  end
  local place = self.all[sandbox]
  if not place then return end
  self.all[sandbox] = nil
  place.removed = true
  -- At once what can be done at once: nothing may still answer in its name.
  if place.daemon then place.daemon:stop() end
  leave(self, place)
end

---Ends and removes everything; waits for it, but not for long.
function places:close()
  if not self.path or self.closed then return end
  self.closed = true
  for _, place in pairs(self.all) do leave(self, place) end
  local deadline = cqueues.monotime() + ENDING
  while self.leaving > 0 and cqueues.monotime() < deadline do cqueues.poll(self.left, deadline - cqueues.monotime()) end
  self.root.remove(self.path)
end

return places
