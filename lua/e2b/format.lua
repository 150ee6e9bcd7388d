--- How values are shown to people: short ids, spans of time, points in time. Pure text, no I/O.
local M = {}

local floor = math.floor

--- Text from a server or a caller made safe for a terminal: control characters become "?".
---@param text any
---@return string
function M.clean(text)
  return (tostring(text):gsub("%c", "?"))
end

--- A value as a program writes it, for messages about a wrong one: a string in quotes, else it would look like a number
--- or like the word that was expected.
---@param value any
---@return string
function M.value(value)
  if type(value) ~= "string" then return M.clean(value) end
  value = M.clean(value)
  if #value > 64 then value = value:sub(1, 64) .. "…" end
  return '"' .. value .. '"'
end

--- The start of an id, as much as a person needs to tell two apart: `i1a2b3…`.
---@param id string
---@return string
function M.short_id(id)
  id = M.clean(id)
  if #id <= 8 then return id end
  return id:sub(1, 6) .. "…"
end

--- A span of time in at most two units: `45s`, `4m59s`, `1h05m`, `2d3h`.
---@param seconds number not negative
---@return string
function M.span(seconds)
  seconds = floor(seconds)
  if seconds < 60 then return ("%ds"):format(seconds) end
  if seconds < 3600 then return ("%dm%02ds"):format(floor(seconds / 60), seconds % 60) end
  if seconds < 86400 then return ("%dh%02dm"):format(floor(seconds / 3600), floor(seconds % 3600 / 60)) end
  return ("%dd%dh"):format(floor(seconds / 86400), floor(seconds % 86400 / 3600))
end

--- A point in time as the local clock shows it; "" for nil.
---@param epoch number? seconds since the epoch
---@return string
function M.time(epoch)
  if not epoch then return "" end
  return os.date("%Y-%m-%d %H:%M:%S", floor(epoch))
end

return M
