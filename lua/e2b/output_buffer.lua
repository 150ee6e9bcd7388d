--- What a process wrote, as far as it is kept: the newest bytes up to a limit, and how many were dropped before them.
--- Small pieces are joined to blocks as they come, so that a million of them doesn't cost a million strings.
local M = {}

local BLOCK = 65536

local concat = table.concat

--- An empty buffer.
---@param most integer bytes to keep
---@return table buffer
function M.new(most)
  return { most = most, blocks = {}, first = 1, last = 0, parts = {}, count = 0, open = 0, size = 0, gone = 0 }
end

local function seal(buffer)
  local count, last = buffer.count, buffer.last + 1
  buffer.blocks[last] = count == 1 and buffer.parts[1] or concat(buffer.parts, "", 1, count)
  buffer.last = last
  if count > 1 then buffer.parts = {} end
  buffer.count, buffer.open = 0, 0
end

--- Adds bytes; drops the oldest blocks that nothing of is to be kept.
---@param buffer table
---@param data string
function M.add(buffer, data)
  local count, length = buffer.count + 1, #data
  buffer.parts[count] = data
  buffer.count, buffer.open, buffer.size, buffer.text = count, buffer.open + length, buffer.size + length, nil
  if buffer.open < BLOCK then return end
  seal(buffer)
  local blocks, first = buffer.blocks, buffer.first
  while first <= buffer.last and buffer.size - #blocks[first] >= buffer.most do
    local dropped = #blocks[first]
    buffer.size, buffer.gone = buffer.size - dropped, buffer.gone + dropped
    blocks[first] = nil
    first = first + 1
  end
  buffer.first = first
end

--- What is kept.
---@param buffer table
---@return string text
function M.text(buffer)
  local text = buffer.text
  if text then return text end
  text = ""
  if buffer.size > 0 then
    if buffer.count > 0 then seal(buffer) end
    text = concat(buffer.blocks, "", buffer.first, buffer.last)
    if buffer.size > buffer.most then
      text = text:sub(buffer.size - buffer.most + 1)
      buffer.gone, buffer.size = buffer.gone + buffer.size - buffer.most, buffer.most
    end
    buffer.blocks, buffer.first, buffer.last = { text }, 1, 1
  end
  buffer.text = text
  return text
end

--- How many bytes are not kept.
---@param buffer table
---@return integer bytes
function M.dropped(buffer)
  local over = buffer.size - buffer.most
  return buffer.gone + (over > 0 and over or 0)
end

return M
