--- First in, first out.
local M = {}

--- An empty queue.
function M.new()
  return { first = 1, last = 0 }
end

--- Adds an entry at the end.
---@param queue table
---@param entry any
function M.put(queue, entry)
  local last = queue.last + 1
  queue[last], queue.last = entry, last
end

--- Removes the first entry of a queue that is not empty.
---@param queue table
---@return any entry
function M.take(queue)
  local first = queue.first
  local entry = queue[first]
  queue[first], queue.first = nil, first + 1
  return entry
end

return M
