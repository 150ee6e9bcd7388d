--- What stands before an operation after a 429: its calls queue. When the wait that the limiter asked for is over,
--- one goes through; each call that got past the limiter lets two more follow, another 429 closes the gate again. So a
--- burst of calls spends few of its attempts on finding out that it is still too early.
--- No polling: the head of the queue has the timer, and whoever changes the gate wakes whom it concerns.
local core = require("e2b.core")
local tasks = require("e2b.tasks")

local M = {}

local now = core.now

---@class e2b.Gate
---@field opens number on the clock of core.now(): the limiter's wait is over
---@field queue table[] entries, in order
---@field out integer calls let through whose answer is not there yet
---@field credit integer calls that may follow at once
local methods = {}
local mt = { __index = methods }

--- A closed gate.
---@param opens number
---@return e2b.Gate
function M.new(opens)
  return setmetatable({ opens = opens, queue = {}, out = 0, credit = 0 }, mt)
end

local function wake(entry)
  local done = entry.done
  entry.done = nil
  if done then done("look") end
end

local function remove(gate, entry)
  for i, other in ipairs(gate.queue) do
    if other == entry then
      table.remove(gate.queue, i)
      return
    end
  end
end

local function release(gate, entry)
  remove(gate, entry)
  gate.out = gate.out + 1
  entry.released = true
  wake(entry)
end

local function advance(gate)
  if gate.queue[1] and now() >= gate.opens then
    if gate.out == 0 and gate.credit == 0 then release(gate, gate.queue[1]) end
    while gate.queue[1] and gate.credit > 0 do
      gate.credit = gate.credit - 1
      release(gate, gate.queue[1])
    end
  elseif gate.queue[1] and gate.out == 0 then
    wake(gate.queue[1]) -- it has the timer now
  end
end

--- Whether nobody waits and nobody is on the way: then the gate can be forgotten.
---@return boolean
function methods:idle()
  return self.out == 0 and not self.queue[1]
end

--- Another 429: closed until then, for all that have not gone through.
---@param opens number
function methods:close(opens)
  if opens > self.opens then self.opens = opens end
  self.credit = 0
  for _, entry in ipairs(self.queue) do
    if entry.limit <= self.opens then wake(entry) end -- for them it is too late
  end
end

--- A call that went through has its outcome: "passed" (the limiter let it by), "refused" (429), "unknown".
---@param outcome "passed"|"refused"|"unknown"
function methods:answer(outcome)
  self.out = self.out - 1
  if outcome == "passed" then self.credit = self.credit + 2 end
  advance(self)
end

-- Leaves the queue without having gone through.
local function leave(gate, entry)
  if entry.released then return gate:answer("unknown") end
  remove(gate, entry)
  return advance(gate)
end

-- See exchange.lua for why this is made in a function of its own.
local function waiting(gate, entry)
  local function cancel() entry.done = nil end
  local function orphaned() return leave(gate, entry) end
  return function(done)
    entry.done = done
    return cancel, orphaned
  end
end

local function pass(gate, entry, loop)
  local start = waiting(gate, entry)
  -- While it waits, no other call gets on: it needs to wait for none.
  local jumps = tasks.holds_up()
  while not entry.released do
    if gate.opens >= entry.limit then return "too_long" end
    local head = jumps or gate.queue[1] == entry and gate.out == 0
    if jumps and now() >= gate.opens then
      release(gate, entry)
    elseif head and now() >= gate.opens then
      advance(gate)
    else
      local until_then = head and gate.opens or entry.limit
      local _, why = tasks.await(start, until_then, loop)
      if why == "cancelled" then return "cancelled" end
      if why == "deadline" and not head and not entry.released then return "deadline" end
    end
  end
  return "through"
end

--- Waits for the turn of a call. After "through" the caller owes the gate an answer().
---@param limit number on the clock of core.now(): the call's deadline
---@param first boolean in front of the others: it has been refused before
---@param loop table?
---@return "through"|"too_long"|"deadline"|"cancelled" result too_long: the gate opens after the deadline
function methods:wait(limit, first, loop)
  local entry = { limit = limit }
  if first then
    table.insert(self.queue, 1, entry)
  else
    self.queue[#self.queue + 1] = entry
  end
  advance(self)
  -- An error out of the wait (Ctrl-C) must not leave the entry in the others' way.
  local ok, result = tasks.pcall(pass, self, entry, loop)
  if ok and result == "through" then return result end
  leave(self, entry)
  if not ok then error(result, 0) end
  return result
end

return M
