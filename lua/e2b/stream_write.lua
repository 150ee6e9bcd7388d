--- The half of a stream that goes to the server: a request's body, written while it is sent.
local core = require("e2b.core")
local stream = require("e2b.stream")

local M = {}

local now = core.now
local tell, ended, TICK = stream.tell, stream.ended, stream.TICK
local await_news, conclude = stream.await_news, stream.conclude

-- Larger pieces are handed over in parts, so that only so much of them is kept twice.
local PIECE = 262144

-- What was handed over before anything was sent is kept, for a connection that can't be made is tried again.
local function keep(self, bytes)
  local _, up = self.transfer:progress()
  if up > 0 or not self.early then
    self.early, self.moved = nil, up > 0
    if self.moved then return end
    self.early = {}
  end
  self.early[#self.early + 1] = bytes
end

--- Hands over once more what the transfer before was given.
---@param self e2b.Stream not started
function M.again(self)
  for _, bytes in ipairs(self.early) do self.transfer:write(bytes) end
  if self.closed then self.transfer:close_write() end
end

local function write_piece(self, bytes)
  if not stream.breathe(self) then return stream.cancelled(self) end
  while not self.ended do
    local taken = self.transfer:write(bytes)
    if taken then
      if not self.moved then keep(self, bytes) end
      tell(self)
      return true
    end
    local more, message, err
    if taken == nil then
      more, message, err = conclude(self)
    else
      more, message, err = await_news(self)
    end
    if not more then
      -- An answer before the request was whole is not what the caller is after.
      if self.value ~= nil then return true end
      return more, message, err
    end
    tell(self)
  end
  if self.message then return ended(self) end
  return true
end

--- Gives bytes of the request's body; suspends while there is no room for them.
---@param self e2b.Stream
---@param bytes string
---@return true? ok
---@return string? message
---@return e2b.Error? err
function M.write(self, bytes)
  if #bytes <= PIECE then return write_piece(self, bytes) end
  for at = 1, #bytes, PIECE do
    local ok, message, err = write_piece(self, bytes:sub(at, at + PIECE - 1))
    if not ok then return nil, message, err end
  end
  return true
end

--- Ends the request's body and waits for the answer.
---@param self e2b.Stream
---@return any value
---@return table|string meta_or_message
---@return e2b.Error? err
function M.finish(self)
  if not self.ended and self.chunks then
    self.early, self.closed = self.early or {}, true
    self.transfer:close_write()
  end
  while not self.ended do
    local more, message, err
    if core.engine():wait(0, self.transfer) then
      more, message, err = conclude(self)
    else
      more, message, err = await_news(self, self.progress_fn and now() + TICK)
      if more == false then more = true end
      tell(self)
    end
    if not more and message then return nil, message, err end
  end
  if self.message then return ended(self) end
  return self.value, self.meta
end

return M
