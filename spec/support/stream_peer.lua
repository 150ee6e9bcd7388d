-- Bodies of any size whose every byte is known by its place, and a peer that serves and checks them piece by piece.
local stream = {}

-- A prime, so that no buffer size divides it: bytes lost, doubled or swapped show.
local PERIOD = 1000003
local block
do
  local pieces = {}
  local n = 17
  for i = 1, math.ceil(PERIOD / 8) do
    n = (n * 16807 + i) % 2147483647
    pieces[i] = string.format("%08x", n)
  end
  block = table.concat(pieces):sub(1, PERIOD)
  block = block .. block .. block
end

--- How much the big specs move: E2B_SPEC_STREAM_BYTES, else 1 GB.
stream.size = math.floor(tonumber(os.getenv("E2B_SPEC_STREAM_BYTES") or "") or 1e9)

--- The bytes from `at` (0-based) on; at most 2 MB.
function stream.bytes(at, length)
  local from = at % PERIOD
  return block:sub(from + 1, from + length)
end

--- Are these the bytes that belong at `at`?
function stream.matches(at, data)
  while #data > PERIOD do
    if data:sub(1, PERIOD) ~= stream.bytes(at, PERIOD) then
      return false
    end
    data = data:sub(PERIOD + 1)
    at = at + PERIOD
  end
  return data == stream.bytes(at, #data)
end

--- Raises where data differs from what belongs at `at`; returns the place after it.
function stream.check(at, data)
  if not stream.matches(at, data) then
    error("wrong bytes after byte " .. string.format("%.0f", at), 2)
  end
  return at + #data
end

--- Writes the first `size` bytes into a file.
function stream.write_file(path, size)
  local file = assert(io.open(path, "wb"))
  local at = 0
  while at < size do
    local n = math.min(PERIOD, size - at)
    assert(file:write(stream.bytes(at, n)))
    at = at + n
  end
  assert(file:close())
end

--- Checks a file that should hold the first `size` bytes.
function stream.check_file(path, size)
  local file = assert(io.open(path, "rb"))
  local at = 0
  while true do
    local data = file:read(PERIOD)
    if not data then
      break
    end
    at = stream.check(at, data)
  end
  file:close()
  assert(at == size, "the file has " .. string.format("%.0f", at) .. " bytes")
end

--- For peer.start: GET /<size> answers with that many bytes (chunked when the path ends in "c"); PUT and POST answer
--- with the count of the body's bytes, and fail the spec where one of them is wrong.
stream.handler = [[
  local stream = require("spec.support.stream_peer")
  local function send(size, chunked)
    local at = 0
    if chunked then
      conn:begin_chunked(200)
    else
      conn:send(("HTTP/1.1 200 OK\r\nContent-Length: %.0f\r\n\r\n"):format(size))
    end
    while at < size do
      local n = math.min(262144, size - at)
      if not conn[chunked and "chunk" or "send"](conn, stream.bytes(at, n)) then
        return
      end
      at = at + n
    end
    if chunked then
      conn:chunk("")
    end
  end
  local function receive(request)
    local socket, at = conn.socket, 0
    local function take(size)
      while size > 0 do
        local data = socket:read(-math.min(size, 262144))
        if not data then
          return false
        end
        at = stream.check(at, data)
        size = size - #data
      end
      return true
    end
    if request.headers["content-length"] then
      return take(tonumber(request.headers["content-length"])) and at
    end
    while true do
      local line = socket:read("*L")
      local size = line and tonumber(line:match("^%x+"), 16)
      if not size or not take(size) then
        return nil
      end
      socket:read("*L")
      if size == 0 then
        return at
      end
    end
  end
  while true do
    local request = conn:read_head()
    if not request then
      return
    end
    conn:log_request(request)
    if request.method == "GET" then
      send(tonumber(request.path:match("%d+")), request.path:match("c$"))
    else
      local size = receive(request)
      if not size then
        return conn:close()
      end
      conn:respond(200, ("[%.0f]"):format(size))
    end
  end
]]

return stream
