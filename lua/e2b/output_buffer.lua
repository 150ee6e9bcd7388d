--- What a process wrote, as far as it is kept: the newest bytes up to a limit, and how many were dropped before them.
--- The bytes are the core's until somebody wants them, and then one string.
local core = require("e2b.core")

local M = {}

--- An empty buffer.
---@param most integer bytes to keep
---@return table buffer
function M.new(most)
  return { most = most, text = "" }
end

--- Adds bytes; drops the oldest that are too many.
---@param buffer table
---@param data string
function M.add(buffer, data)
  local bytes, text = buffer.bytes, buffer.text
  if not bytes then
    bytes = core.output(buffer.most)
    buffer.bytes = bytes
  end
  if text then
    buffer.text = nil
    if text ~= "" then bytes:add(text) end -- it was read before this came
  end
  bytes:add(data)
end

--- What is kept.
---@param buffer table
---@return string text
function M.text(buffer)
  local text = buffer.text
  if not text then
    text = buffer.bytes:take()
    buffer.text = text
  end
  return text
end

--- How many bytes are not kept.
---@param buffer table
---@return integer bytes
function M.dropped(buffer)
  local bytes = buffer.bytes
  return bytes and bytes:dropped() or 0
end

return M
