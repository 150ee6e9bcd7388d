--- The sandboxes of the local server and what happens to them as time passes.
-- States: `running`, `snapshotting` (a running one being copied), `pausing`, `paused`. A killed sandbox is forgotten.
-- @module e2b.server.platform.store

local cqueues = require("cqueues")
local condition = require("cqueues.condition")
local clock = require("e2b.server.clock")

local store = {}
store.__index = store

local SECOND = clock.SECOND

---@param options table `transition` seconds a pause or snapshot takes
---@param spawn fun(fn: function) runs a function as a coroutine of the server
---@param places table where sandboxes run (e2b.server.sandbox)
---@return table store
function store.new(options, spawn, places)
  local self = setmetatable({
    options = options, spawn = spawn, places = places, all = {}, teams = {}, wake = condition.new(),
    next_end = math.huge,
  }, store)
  spawn(function() self:watch() end)
  return self
end

-- Tells those who wait for the end of a transition.
local function settle(sandbox)
  local settled = sandbox.settled
  sandbox.settled = nil
  if settled then settled:signal() end
end

local function alive(sandbox)
  return sandbox.state == "running" or sandbox.state == "snapshotting"
end

---@param team string
---@return table sandboxes of the team, by id
function store:of_team(team)
  local now = clock.now()
  local mine = self.teams[team] or {}
  for _, sandbox in pairs(mine) do
    if alive(sandbox) and sandbox.end_at <= now then
      -- Expiring edits the table being walked: collect first.
      local due = {}
      for _, each in pairs(mine) do
        if alive(each) and each.end_at <= now then due[#due + 1] = each end
      end
      for _, each in ipairs(due) do self:expire(each) end
      return self.teams[team] or {}
    end
  end
  return mine
end

---@param team string
---@param id string
---@return table|nil sandbox nil when unknown, killed, or another team's
function store:find(team, id)
  local sandbox = self.all[id]
  if not sandbox or sandbox.team ~= team then return nil end
  if alive(sandbox) and sandbox.end_at <= clock.now() then
    self:expire(sandbox)
    return self.all[id]
  end
  return sandbox
end

---@param id string
---@return table|nil sandbox whosever it is: traffic into a sandbox has no team
function store:find_any(id)
  local sandbox = self.all[id]
  return sandbox and self:find(sandbox.team, id)
end

---@param team string
---@return integer count sandboxes that take a slot of the team's quota
function store:running(team)
  local count = 0
  for _, sandbox in pairs(self:of_team(team)) do
    if sandbox.state ~= "paused" then count = count + 1 end
  end
  return count
end

---@param sandbox table
function store:add(sandbox)
  self.all[sandbox.id] = sandbox
  local mine = self.teams[sandbox.team]
  if not mine then
    mine = {}
    self.teams[sandbox.team] = mine
  end
  mine[sandbox.id] = sandbox
  self:set_end(sandbox, sandbox.end_at)
end

---Kills and forgets a sandbox, whatever its state.
---@param sandbox table
function store:kill(sandbox)
  if self.all[sandbox.id] ~= sandbox then return end
  self.all[sandbox.id] = nil
  local mine = self.teams[sandbox.team]
  mine[sandbox.id] = nil
  if next(mine) == nil then self.teams[sandbox.team] = nil end
  sandbox.state = "killed"
  self.places:remove(sandbox)
  settle(sandbox)
end

---@param sandbox table
---@param micros number when it is to end
function store:set_end(sandbox, micros)
  sandbox.end_at = micros
  if micros < self.next_end then
    self.next_end = micros
    self.wake:signal()
  end
end

-- ---------------------------------------------------------------- transitions

local function begin(sandbox, state)
  sandbox.state, sandbox.settled = state, condition.new()
end

-- Stays in the transition for as long as it takes; false when the sandbox was killed meanwhile.
local function hold(self, sandbox)
  local state, seconds = sandbox.state, self.options.transition or 0
  if seconds > 0 then cqueues.sleep(seconds) end
  return sandbox.state == state
end

local function finish_pause(self, sandbox, with_memory)
  self.places:pause(sandbox, with_memory)
  if sandbox.state == "pausing" and hold(self, sandbox) then
    sandbox.state, sandbox.end_at, sandbox.has_memory = "paused", clock.now(), with_memory
    settle(sandbox)
  end
end

---Waits until a sandbox has left its transition.
---@param sandbox table
function store.wait(sandbox)
  if sandbox.settled then sandbox.settled:wait() end
end

---Pauses a running sandbox.
---@param sandbox table
---@param with_memory boolean
function store:pause(sandbox, with_memory)
  begin(sandbox, "pausing")
  finish_pause(self, sandbox, with_memory)
end

---Holds a running sandbox in the state `snapshotting` for as long as a copy takes.
---@param sandbox table
---@return boolean done false when it was killed meanwhile
---@return table|nil saved its files, if it has any (e2b.server.sandbox.saved)
function store:snapshot(sandbox)
  begin(sandbox, "snapshotting")
  local saved = self.places:save(sandbox)
  if sandbox.state ~= "snapshotting" or not hold(self, sandbox) then
    if saved then saved:release() end
    return false
  end
  sandbox.state = "running"
  settle(sandbox)
  -- Its time may have run out while it was held.
  self:set_end(sandbox, sandbox.end_at)
  return true, saved
end

---Starts a paused sandbox again.
---@param sandbox table
---@param seconds integer
---@param afresh boolean|nil true: without what ran in it
function store:resume(sandbox, seconds, afresh)
  sandbox.state, sandbox.started = "running", clock.now()
  self:set_end(sandbox, sandbox.started + seconds * SECOND)
  if afresh then self.places:forget(sandbox) else self.places:resume(sandbox) end
end

-- ---------------------------------------------------------------- expiry

---Ends a sandbox whose time is over: killed, or paused if it was made so.
---@param sandbox table
function store:expire(sandbox)
  if sandbox.state ~= "running" then return end
  if not sandbox.auto_pause then
    self:kill(sandbox)
  elseif (self.options.transition or 0) > 0 or self.places:is_started(sandbox) then
    begin(sandbox, "pausing")
    self.spawn(function() finish_pause(self, sandbox, sandbox.auto_pause_memory) end)
  else
    self:pause(sandbox, sandbox.auto_pause_memory)
  end
end

function store:watch()
  while true do
    local now = clock.now()
    local due = {}
    self.next_end = math.huge
    for _, sandbox in pairs(self.all) do
      if sandbox.state == "running" then
        if sandbox.end_at <= now then
          due[#due + 1] = sandbox
        elseif sandbox.end_at < self.next_end then
          self.next_end = sandbox.end_at
        end
      end
    end
    for _, sandbox in ipairs(due) do self:expire(sandbox) end
    -- An hour at most: a machine that slept has another clock then.
    local seconds = math.min((self.next_end - now) / SECOND, 3600)
    self.wake:wait(math.max(seconds, 0.001))
  end
end

return store
