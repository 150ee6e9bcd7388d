--- Pages of newest-first (or oldest-first) lists, and their cursors.
-- @module e2b.server.platform.page

local clock = require("e2b.server.clock")
local reply = require("e2b.server.reply")
local text = require("e2b.server.text")
local validation = require("e2b.server.validation")

local page = {}

local MAX_LIMIT = 100

local function cursor_of(micros, id, ascending)
  return text.base64url(clock.format(micros) .. "__" .. id .. (ascending and "__asc" or ""))
end

-- A cursor is bound to the order it was made for: in the other one it would serve the same rows again.
local function parse(token, ascending)
  local plain = text.unbase64url(token)
  local time, id, order = (plain or ""):match("^(.-)__([%w-]+)(.*)$")
  local micros = time and clock.parse(time)
  if not micros or (order ~= "" and order ~= "__asc") then
    reply.raise(400, "Invalid next token: the cursor cannot be read")
  end
  if (order == "__asc") ~= ascending then
    reply.raise(400, "Invalid next token: cursor was issued for a different sort order")
  end
  return micros, id
end

---Sorts by time, newest first, then by id; ascending is the exact reverse.
---@param list table
---@param keys table names of the fields: `{ time, id, id_descending? }`
---@param ascending boolean|nil
function page.sort(list, keys, ascending)
  local time, id, flip = keys.time, keys.id, keys.id_descending or false
  table.sort(list, function(a, b)
    if ascending then a, b = b, a end
    if a[time] ~= b[time] then return a[time] > b[time] end
    if flip then return a[id] > b[id] end
    return a[id] < b[id]
  end)
end

---Cuts the page out that `limit` and `nextToken` ask for.
---@param request table
---@param list table sorted
---@param keys table as for `sort`
---@param ascending boolean|nil
---@return table items
---@return string[] headers `X-Next-Token` when there is more
function page.of(request, list, keys, ascending)
  local limit = validation.query_integer(request, "limit", 1, MAX_LIMIT) or MAX_LIMIT
  local first, token = 1, request.query.nextToken
  ascending = ascending == true
  if token and token ~= "" then
    local micros, id = parse(token, ascending)
    local mark = { [keys.time] = micros, [keys.id] = id }
    local function passed(item)
      local a, b = item, mark
      if ascending then a, b = mark, item end
      if a[keys.time] ~= b[keys.time] then return a[keys.time] > b[keys.time] end
      if keys.id_descending then return (item[keys.id] == id) or a[keys.id] > b[keys.id] end
      return item[keys.id] == id or a[keys.id] < b[keys.id]
    end
    while list[first] and passed(list[first]) do first = first + 1 end
  end
  local items = {}
  for i = first, math.min(first + limit - 1, #list) do items[#items + 1] = list[i] end
  local last = items[#items]
  if last and list[first + limit] then
    return items, { "x-next-token", cursor_of(last[keys.time], last[keys.id], ascending) }
  end
  return items, {}
end

return page
