--- Lines out of pieces that end anywhere.
local M = {}

local concat, find, sub = table.concat, string.find, string.sub

--- An empty buffer.
---@param most integer bytes; a longer line is given in parts of that length
---@return table buffer
function M.new(most)
  return { most = most, at = 1, parts = {}, count = 0, size = 0 }
end

--- Adds a piece. What was there before must have been taken with next().
---@param buffer table
---@param data string
function M.put(buffer, data)
  buffer.data, buffer.at = data, 1
end

local function take(buffer, piece)
  local count = buffer.count
  if count == 0 then return piece end
  buffer.parts[count + 1] = piece
  local line = concat(buffer.parts, "", 1, count + 1)
  buffer.parts, buffer.count, buffer.size = {}, 0, 0
  return line
end

--- The next line, without its end.
---@param buffer table
---@return string? line nil: there is no whole one
function M.next(buffer)
  local data, at = buffer.data, buffer.at
  if not data then return nil end
  local newline = find(data, "\n", at, true)
  if newline and buffer.count == 0 and newline - at <= buffer.most then -- nearly always
    buffer.at = newline + 1
    return sub(data, at, newline - 1)
  end
  local last, room = (newline or #data + 1) - 1, buffer.most - buffer.size
  if last - at + 1 > room then
    buffer.at = at + room
    return take(buffer, sub(data, at, at + room - 1))
  end
  if newline then
    buffer.at = newline + 1
    return take(buffer, sub(data, at, last))
  end
  if last >= at then
    local count = buffer.count + 1
    buffer.parts[count] = at == 1 and data or sub(data, at)
    buffer.count, buffer.size = count, buffer.size + last - at + 1
  end
  buffer.data = nil
  return nil
end

--- What is left when nothing comes any more: the last line, when it has no end.
---@param buffer table
---@return string? line
function M.rest(buffer)
  if buffer.count == 0 then return nil end
  return take(buffer, "")
end

return M
