--- HTTP/1.1 on a socket: reads heads and bodies within bounds, frames what is written. Both ends of the proxy use it.
-- Errors are error numbers of cqueues.errno, or one of the words below.
-- @module e2b.server.wire

local ce = require("cqueues.errno")
local cqueues = require("cqueues")

local monotime = cqueues.monotime

local wire = {}
local methods = {}
local meta = { __index = methods }

local MAX_HEAD = 1024 * 1024 -- bytes of one line, and of a whole head
local MAX_LINES = 100
local PIECE = 65536 -- bytes read at once
local READS = 32 -- of one connection; then the others get their turn, for a fast peer never lets a read wait

local function return_errno(_, _, why)
  return why
end

---@class e2b.server.wire a connection
---@field socket table the cqueues socket; nil once it was given away or closed

---Takes over a connected socket.
---@param socket table a cqueues socket
---@return e2b.server.wire
function wire.new(socket)
  socket:onerror(return_errno)
  socket:setmode("b", "b")
  socket:setmaxline(MAX_HEAD)
  socket:setbufsiz(PIECE, PIECE)
  return setmetatable({ socket = socket, reads = 0 }, meta)
end

-- A read that timed out leaves its mark on the socket; later reads may succeed.
local function read(self, what, timeout)
  self.reads = self.reads + 1
  if self.reads % READS == 0 then cqueues.sleep(0) end
  local socket = self.socket
  if not socket then return nil, ce.EPIPE end
  local data, errno = socket:xread(what, timeout)
  if data == nil and errno == ce.ETIMEDOUT then socket:clearerr("r") end
  return data, errno or ce.EPIPE
end

---Waits for the first byte of something.
---@param timeout number seconds
---@return boolean|nil arrived nil when the peer closed first, or the time ran out
---@return integer|nil errno
function methods:wait(timeout)
  local ok, errno = self.socket:fill(1, timeout)
  if ok then return true end
  if errno == ce.ETIMEDOUT then self.socket:clearerr("r") end
  return nil, errno or ce.EPIPE
end

-- ---------------------------------------------------------------- heads

-- One line without its end; "too_large" or "malformed" for what is none.
local function read_line(self, deadline)
  local line, errno = read(self, "*L", math.max(deadline - monotime(), 0))
  if not line then return nil, errno end
  if line:sub(-2) ~= "\r\n" then
    if #line >= MAX_HEAD then return nil, "too_large" end
    -- Without an end of line the peer has closed in the middle of it.
    return nil, line:sub(-1) == "\n" and "malformed" or ce.EPIPE
  end
  return line:sub(1, -3)
end

-- Header lines as a flat list, name, value, …; folded lines and blanks before the colon are what smuggling is made of.
local function read_fields(self, deadline)
  local fields, bytes = {}, 0
  for n = 0, MAX_LINES do
    local line, problem = read_line(self, deadline)
    if not line then return nil, problem end
    if line == "" then return fields end
    bytes = bytes + #line
    if n == MAX_LINES or bytes > MAX_HEAD then return nil, "too_large" end
    local name, value = line:match("^([%w!#$%%&'*+.^_`|~-]+):[ \t]*(.-)[ \t]*$")
    if not name or value:find("[%z\r\n]") then return nil, "malformed" end
    fields[2 * n + 1], fields[2 * n + 2] = name, value
  end
end

---Reads the head of a request.
---@param timeout number seconds
---@return table|nil head `method`, `target`, `version` (1.0 or 1.1), `fields` (name, value, …)
---@return string|integer|nil problem "malformed", "too_large" or an errno
function methods:read_request(timeout)
  local deadline = monotime() + timeout
  local line, problem = read_line(self, deadline)
  if line == "" then line, problem = read_line(self, deadline) end
  if not line then return nil, problem end
  local method, target, version = line:match("^([%w-]+) (%S+) HTTP/(1%.[01])$")
  if not method then return nil, "malformed" end
  local head = { method = method, target = target, version = version == "1.0" and 1.0 or 1.1 }
  head.fields, problem = read_fields(self, deadline)
  if not head.fields then return nil, problem, head end
  return head
end

---Reads the head of an answer.
---@param timeout number seconds
---@return table|nil head `status`, `reason`, `version`, `fields` (name, value, …)
---@return string|integer|nil problem
function methods:read_answer(timeout)
  local deadline = monotime() + timeout
  local line, problem = read_line(self, deadline)
  if not line then return nil, problem end
  local version, status, reason = line:match("^HTTP/(1%.[01]) (%d%d%d) ?(.*)$")
  if not status then return nil, "malformed" end
  local head = { version = version == "1.0" and 1.0 or 1.1, status = tonumber(status), reason = reason }
  head.fields, problem = read_fields(self, deadline)
  if not head.fields then return nil, problem end
  return head
end

---How the body after a head is framed. Two lengths, or a length beside chunks, are refused: two readers might disagree.
---@param head table
---@return string|nil kind "none", "length", "chunked" or, of an answer, "close"
---@return number|string|nil length of kind "length"; what is wrong when there is no kind
function wire.framing(head)
  local length, encoding
  for i = 1, #head.fields, 2 do
    local name, value = head.fields[i]:lower(), head.fields[i + 1]
    if name == "content-length" then
      if not value:find("^%d+$") or (length and length ~= value) then return nil, "invalid content-length" end
      length = value
    elseif name == "transfer-encoding" then
      if encoding or value:lower() ~= "chunked" then return nil, "invalid transfer-encoding" end
      encoding = true
    end
  end
  if encoding then
    if length then return nil, "content-length and transfer-encoding exclude each other" end
    return "chunked"
  elseif length then
    length = #length <= 15 and tonumber(length) or math.huge
    return length > 0 and "length" or "none", length
  end
  return head.status and "close" or "none"
end

---Whether the sender of a head wants the connection to end after this exchange.
---@param head table
---@return boolean
function wire.closes(head)
  local keep
  for i = 1, #head.fields, 2 do
    if head.fields[i]:lower() == "connection" then
      for word in head.fields[i + 1]:lower():gmatch("[^%s,]+") do
        if word == "close" then return true end
        keep = keep or word == "keep-alive"
      end
    end
  end
  return head.version == 1.0 and not keep
end

-- ---------------------------------------------------------------- bodies

-- The next chunk's size; 0 ends the body (its trailers are read and dropped).
local function chunk_size(self, deadline)
  local line, problem = read_line(self, deadline)
  if not line then return nil, problem end
  local digits, rest = line:match("^(%x+)[ \t]*(.*)$")
  if not digits or (rest ~= "" and rest:sub(1, 1) ~= ";") then return nil, "malformed" end
  if #digits > 12 then return nil, "too_large" end
  local size = tonumber(digits, 16)
  if size == 0 then
    local fields
    fields, problem = read_fields(self, deadline)
    if not fields then return nil, problem end
  end
  return size
end

---Makes the reader of one body.
---@param kind string as `wire.framing` says
---@param length number|nil
---@return fun(timeout: number, most?: number): string|nil, string|integer|nil next a piece, nil at the end, or nil and
---  the problem; a chunk that announces more than `most` is one ("too_large")
---@return fun(): number|nil left bytes still to come, as far as known; 0 at the end
function methods:body(kind, length)
  local left = kind == "length" and length or 0
  local ended = kind == "none"
  local function next_piece(timeout, largest)
    if ended then return nil end
    local deadline = monotime() + timeout
    if kind == "chunked" and left == 0 then
      local size, problem = chunk_size(self, deadline)
      if not size then return nil, problem end
      if largest and size > largest then return nil, "too_large" end
      if size == 0 then
        ended = true
        return nil
      end
      left = size
    end
    local most = kind == "close" and PIECE or math.min(left, PIECE)
    local piece, errno = read(self, -most, math.max(deadline - monotime(), 0))
    if not piece or piece == "" then
      if kind == "close" and errno == ce.EPIPE then
        ended = true
        return nil
      end
      return nil, errno or ce.EPIPE
    end
    if kind ~= "close" then
      left = left - #piece
      if left == 0 then
        if kind == "length" then
          ended = true
        else
          local line, problem = read_line(self, deadline)
          if line ~= "" then return nil, line and "malformed" or problem end
        end
      end
    end
    return piece
  end
  return next_piece, function()
    if ended then return 0 end
    return kind == "length" and left or nil
  end
end

-- ---------------------------------------------------------------- writing

---Writes and flushes.
---@param data string
---@param timeout number seconds
---@return boolean|nil ok
---@return integer|nil errno
function methods:write(data, timeout)
  if not self.socket then return nil, ce.EPIPE end
  local ok, errno = self.socket:xwrite(data, "n", timeout)
  if ok then return true end
  return nil, errno or ce.EPIPE
end

---@param first string the request or status line
---@param fields string[] name, value, …; must be free of line ends
---@return string
function wire.head(first, fields)
  local lines = { first }
  for i = 1, #fields, 2 do lines[#lines + 1] = fields[i] .. ": " .. fields[i + 1] end
  lines[#lines + 1] = "\r\n"
  return table.concat(lines, "\r\n")
end

---@param piece string not empty
---@return string
function wire.chunk(piece)
  return string.format("%x\r\n", #piece) .. piece .. "\r\n"
end

wire.LAST_CHUNK = "0\r\n\r\n"

---Whether the peer has closed. Asks the system, so that it is known before the next write fails.
---@return boolean
function methods:gone()
  local socket = self.socket
  if not socket then return true end
  local ok, errno = socket:fill(1, 0)
  if ok then return false end
  if errno == ce.ETIMEDOUT then
    socket:clearerr("r")
    return false
  end
  return true
end

---Ends the connection from another coroutine than the one that uses it: that one wakes and sees the end.
function methods:shut()
  if self.socket then self.socket:shutdown("rw") end
end

---Ends the connection at once.
function methods:close()
  local socket = self.socket
  if socket then
    self.socket = nil
    socket:shutdown("rw")
    socket:close()
  end
end

---Ends the connection after an answer to a request that was not read to its end: what the peer still sends is thrown
---away for a while. Closing at once would reset the connection, and the answer might be lost with it.
---@param seconds number
---@param bytes number the most that is thrown away
function methods:linger(seconds, bytes)
  local socket = self.socket
  if socket then
    socket:shutdown("w")
    socket:clearerr()
    local deadline = monotime() + seconds
    while bytes > 0 do
      local piece = socket:xread(-PIECE, "b", math.max(deadline - monotime(), 0))
      if not piece or piece == "" then break end
      bytes = bytes - #piece
    end
  end
  self:close()
end

return wire
