-- The little of HTTP/2 that a raw peer needs in order to break it: frames, and header blocks that need no compression
-- state. Runs in the peer's process, on top of the `conn` of peer_main.lua.
local http2 = {}
http2.__index = http2

local PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
local DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
local END_STREAM, ACK, END_HEADERS = 1, 1, 4

http2.REFUSED_STREAM, http2.INTERNAL_ERROR = 7, 2

local function number(bytes)
  local n = 0
  for i = 1, #bytes do
    n = n * 256 + bytes:byte(i)
  end
  return n
end

local function bytes_of(n, count)
  local out = {}
  for i = count, 1, -1 do
    out[i] = string.char(n % 256)
    n = math.floor(n / 256)
  end
  return table.concat(out)
end

--- Sends one frame.
function http2:frame(kind, flags, stream, payload)
  payload = payload or ""
  return self.conn:send(bytes_of(#payload, 3) .. string.char(kind, flags) .. bytes_of(stream, 4) .. payload)
end

--- Sends a complete answer on a stream.
function http2:respond(stream, status, body)
  -- 0x08: literal, name :status of the static table; 0x0f 0x10: content-type
  local block = "\8\3" .. status .. "\15\16\16application/json"
  self:frame(HEADERS, END_HEADERS, stream, block)
  self:frame(DATA, END_STREAM, stream, body)
end

--- Refuses or breaks a stream.
function http2:reset(stream, code)
  self:frame(RST_STREAM, 0, stream, bytes_of(code, 4))
end

--- Says that streams after `last` were not looked at, and no more may come.
function http2:goaway(last)
  self:frame(GOAWAY, 0, 0, bytes_of(last, 4) .. bytes_of(0, 4))
end

-- The first field of a block is :method, which the static table has for GET and POST.
local function method_of(block)
  local byte = block:byte(1)
  while byte and byte >= 0x20 and byte < 0x40 do -- a change of the table's size
    block = block:sub(2)
    byte = block:byte(1)
  end
  return byte == 0x82 and "GET" or byte == 0x83 and "POST" or "other"
end

--- Talks HTTP/2 on a connection until it ends. `on_request(h, stream, method)` is called for every complete request,
--- which is also written down as "stream".
function http2.serve(conn, on_request)
  local self = setmetatable({ conn = conn }, http2)
  if conn.socket:read(#PREFACE) ~= PREFACE then
    return conn:note({ what = "no http2" })
  end
  self:frame(SETTINGS, 0, 0)
  local methods = {}
  while not conn.closed do
    local head = conn.socket:read(9)
    if not head or #head < 9 then
      return
    end
    local size, kind, flags, stream = number(head:sub(1, 3)), head:byte(4), head:byte(5), number(head:sub(6, 9))
    local payload = size > 0 and conn.socket:read(size) or ""
    if kind == SETTINGS and flags % 2 == 0 then
      self:frame(SETTINGS, ACK, 0)
    elseif kind == PING and flags % 2 == 0 then
      self:frame(PING, ACK, 0, payload)
    elseif kind == HEADERS then
      local block = payload
      if math.floor(flags / 32) % 2 == 1 then -- with a priority
        block = payload:sub(6)
      end
      methods[stream] = method_of(block)
      conn:note({ what = "headers", method = methods[stream] })
    end
    if (kind == HEADERS or kind == DATA) and flags % 2 == END_STREAM then
      conn:note({ what = "stream", stream = stream, method = methods[stream] })
      on_request(self, stream, methods[stream])
    end
  end
end

return http2
