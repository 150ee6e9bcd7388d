--- Waits ordered by their deadlines: a binary heap in which each wait knows its place, so that one that ends early goes
--- at once (a million finished calls must not leave a million timers behind).
local M = {}

local methods = {}
local mt = { __index = methods }

--- An empty heap.
function M.new()
  return setmetatable({ n = 0, seq = 0 }, mt)
end

local function before(a, b)
  if a.deadline ~= b.deadline then return a.deadline < b.deadline end
  return a.seq < b.seq
end

local function up(heap, i, wait)
  while i > 1 do
    local parent = (i - i % 2) / 2
    local other = heap[parent]
    if not before(wait, other) then break end
    heap[i], other.place = other, i
    i = parent
  end
  heap[i], wait.place = wait, i
end

local function down(heap, i, wait)
  local n = heap.n
  while true do
    local child = i * 2
    if child > n then break end
    if child < n and before(heap[child + 1], heap[child]) then child = child + 1 end
    local other = heap[child]
    if not before(other, wait) then break end
    heap[i], other.place = other, i
    i = child
  end
  heap[i], wait.place = wait, i
end

--- Adds a wait that has a `deadline`.
---@param wait table
function methods:push(wait)
  self.seq = self.seq + 1
  wait.seq = self.seq
  self.n = self.n + 1
  up(self, self.n, wait)
end

--- Takes a wait out, wherever it is; one that is not in here is left alone.
---@param wait table
function methods:remove(wait)
  local i = wait.place
  if not i then return end
  wait.place = nil
  local last = self[self.n]
  self[self.n] = nil
  self.n = self.n - 1
  if last == wait then return end
  local parent = (i - i % 2) / 2
  if i > 1 and before(last, self[parent]) then
    up(self, i, last)
  else
    down(self, i, last)
  end
end

--- The wait that is due first.
---@return table?
function methods:first()
  return self[1]
end

return M
