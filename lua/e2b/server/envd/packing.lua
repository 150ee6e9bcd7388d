--- gzip of whole messages of the Connect protocol.
-- @module e2b.server.envd.packing

local native = require("e2b.server.native")

local packing = {}

local PIECE = 65536

---@param bytes string
---@return string gzip
function packing.pack(bytes)
  local deflate = native.deflate(1)
  local packed = deflate:write(bytes, true)
  deflate:close()
  return packed
end

---@param packed string
---@param most integer bytes; more are refused, however few they were packed into
---@return string|nil bytes
---@return string|nil message
function packing.unpack(packed, most)
  local inflate = native.inflate()
  inflate:push(packed)
  local parts, size = {}, 0
  local piece, problem
  repeat
    piece, problem = inflate:pull(PIECE)
    if piece then
      parts[#parts + 1] = piece
      size = size + #piece
      if size > most then
        piece, problem = nil, "message is larger than the limit"
      end
    elseif piece == false and not inflate:at_end() then
      piece, problem = nil, "gzip: unexpected end"
    end
  until not piece
  inflate:close()
  if problem then return nil, problem end
  return table.concat(parts)
end

---Whether gzip is among the encodings of a header.
---@param header string|nil
---@return boolean
function packing.is_accepted(header)
  for name in (header or ""):lower():gmatch("[^%s,;]+") do
    if name == "gzip" then return true end
  end
  return false
end

return packing
