--- What the loops of hosts with an event loop of their own share: the waits that are on, their deadlines, and a turn of
--- the engine. A host adds only how it is woken: by the engine's one descriptor, and by the clock.
local core = require("e2b.core")
local compat = require("e2b.compat")
local driver = require("e2b.loop.driver")
local timers = require("e2b.loop.timers")

local M = {}

-- No turn is further away than this (seconds), so that nothing depends on a single wake-up.
local LONGEST = 60

local now, pack, unpack = core.now, compat.pack, compat.unpack

---@class e2b.Waits
---@field count integer waits that are on
local methods = {}
local mt = { __index = methods }

--- The waits of one driver.
---@param wake fun() a wait began or ended outside of a turn: the next turn has to come soon
---@return e2b.Waits
function M.new(wake)
  return setmetatable({ count = 0, on = {}, timers = timers.new(), due = {}, wake = wake, turning = false }, mt)
end

local function forget(self, wait)
  wait.over = true
  self.on[wait] = nil
  self.count = self.count - 1
  if wait.place then self.timers:remove(wait) end
end

-- Its turn comes at the end of one: whoever reports may be in the middle of something.
local function report(self, wait, ...)
  if wait.over then return end
  forget(self, wait)
  wait.values = pack(...)
  self.due[#self.due + 1] = wait
  if not self.turning then self.wake() end
end

local function give_up(self, wait, why)
  if wait.over then return end
  report(self, wait, nil, why) -- first: should the cancel raise (no memory), this is over all the same
  wait.cancel()
end

--- Begins a wait: calls `start(report)`, and `done` with what is reported: once, from a turn, and not before this has
--- returned. At the deadline calls what `start` returned, and then done(nil, "deadline").
---@param start fun(report: fun(...)): fun() cancel
---@param deadline number? on the clock of core.now()
---@param done fun(...)
---@return fun() cancel ends it without a word
function methods:begin(start, deadline, done)
  local wait = { deadline = deadline, done = done, over = false }
  self.count = self.count + 1
  self.on[wait] = true
  if deadline then self.timers:push(wait) end
  local ok, cancel = pcall(start, function(...) return report(self, wait, ...) end)
  if not ok then
    if not wait.over then forget(self, wait) end
    wait.done = nil
    error(cancel, 0)
  end
  wait.cancel = cancel
  if not self.turning then self.wake() end
  return function()
    wait.done = nil
    if wait.over then return end
    forget(self, wait)
    cancel()
    if not self.turning then self.wake() end
  end
end

--- The descriptor that is readable when a turn is due before its time. Another one after a fork.
---@return integer fd
function methods:pollfd() -- luacheck: ignore 212
  return core.engine():pollfd()
end

--- Seconds until the next turn has to be taken at the latest; nil: there is no wait to take it for.
---@return number?
function methods:timeout()
  if #self.due > 0 then return 0 end
  if self.count == 0 then return nil end
  local seconds, first = core.engine():timeout(), self.timers:first()
  if first then
    local left = first.deadline - now()
    if left < 0 then left = 0 end
    if not seconds or left < seconds then seconds = left end
  end
  return seconds and seconds < LONGEST and seconds or LONGEST
end

local function advance(self)
  local engine = core.engine()
  engine:step()
  driver.drain(engine)
  local heap, time = self.timers, now()
  local wait = heap:first()
  while wait and wait.deadline <= time do
    give_up(self, wait, "deadline")
    wait = heap:first()
  end
end

-- An error of one is raised when all have been told.
local function deliver(self)
  local due, ok, raised = self.due, true, nil
  self.due = {}
  for _, wait in ipairs(due) do
    local done, values = wait.done, wait.values
    if done then
      local fine, why = pcall(done, unpack(values, 1, values.n))
      if not fine and ok then ok, raised = false, why end
    end
  end
  if not ok then error(raised, 0) end
end

--- Moves on whatever can move, and says so to those who waited for it. An error in here (no memory) cancels all waits
--- and goes on to the caller.
---@return number? seconds as timeout()
function methods:turn()
  if self.turning then return self:timeout() end
  self.turning = true
  local ok, raised = pcall(advance, self)
  if not ok then pcall(self.cancel_all, self) end
  self.turning = false
  deliver(self)
  if not ok then error(raised, 0) end
  return self:timeout()
end

--- Ends all waits with done(nil, "cancelled"), in the next turn: the host goes away.
function methods:cancel_all()
  local list = {}
  for wait in pairs(self.on) do list[#list + 1] = wait end
  for _, wait in ipairs(list) do give_up(self, wait, "cancelled") end
end

return M
