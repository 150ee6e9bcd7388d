--- HTTP/1.1 on lua-http: reads requests within bounds, writes replies.
-- @module e2b.server.http

local ce = require("cqueues.errno")
local monotime = require("cqueues").monotime
local new_headers = require("http.headers").new
local h1_connection = require("http.h1_connection")
local http_server = require("http.server")
local http_util = require("http.util")
local reply = require("e2b.server.reply")

local http = {}

local MAX_BODY = 16 * 1024 * 1024
local MAX_HEADERS = 1024 * 1024 -- bytes of one line, and of all header lines together
local READ_TIMEOUT = 10 -- seconds for headers and body
local WRITE_TIMEOUT = 70
local LINGER = 2 -- seconds a refused client may go on sending

-- lua-http trusts the peer with the size of lines, headers and chunks. Replaces what reads them on this one connection.
local function bound(connection)
  connection:setmaxline(MAX_HEADERS)
  local methods = h1_connection.methods
  local header_bytes = 0

  function connection.read_request_line(self, timeout)
    header_bytes = 0
    return methods.read_request_line(self, timeout)
  end

  function connection.read_header(self, timeout)
    local key, value, errno = methods.read_header(self, timeout)
    if key then
      header_bytes = header_bytes + #key + #value
      if header_bytes > MAX_HEADERS then return nil, ce.strerror(ce.E2BIG), ce.E2BIG end
    end
    return key, value, errno
  end

  function connection.read_body_chunk(self, timeout)
    -- The original waits until a whole chunk is there: look at its size first.
    local line, err, errno = self.socket:xread("*L", timeout)
    if line == nil then return nil, err, errno end
    local size = line:match("^(%x+)")
    if size and (#size > 8 or tonumber(size, 16) > MAX_BODY) then
      return nil, ce.strerror(ce.E2BIG), ce.E2BIG
    end
    local ok, unget_errno = self.socket:unget(line)
    if not ok then return nil, ce.strerror(unget_errno), unget_errno end
    return methods.read_body_chunk(self, timeout)
  end

  function connection.write_header(self, key, value, timeout)
    -- lua-http adds a length to every answer without a body; a 204 has none.
    if self.without_length and key == "content-length" then return true end
    return methods.write_header(self, key, value, timeout)
  end
end

local TEXT = { [400] = "Bad Request", [431] = "Request Header Fields Too Large" }

-- Before the request line is read there is no stream state to answer through.
local function refuse_raw(socket, status)
  local text = status .. " " .. TEXT[status]
  socket:clearerr()
  socket:xwrite(string.format("HTTP/1.1 %s\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
    .. "connection: close\r\n\r\n%s", text, #text, text), "n", 1)
end

-- Ends the connection under a stream whose request was not read to its end. lua-http would go on reading it, in some
-- cases for ever. What the client still sends is thrown away for a while: closing at once would reset the connection,
-- and the answer might be lost with it.
local function abandon(stream, answered)
  local socket = stream.connection.socket
  if socket and answered then
    socket:shutdown("w")
    socket:clearerr()
    local deadline, left = monotime() + LINGER, MAX_BODY
    while left > 0 do
      local chunk = socket:xread(-65536, "b", math.max(deadline - monotime(), 0))
      if not chunk or chunk == "" then break end
      left = left - #chunk
    end
  end
  -- A connection that keeps its dead socket would be polled for ever: take it away.
  stream.connection:take_socket()
  if socket then
    socket:shutdown("rw")
    socket:close()
  end
end

local function write(stream, answer, method, closing)
  local headers = new_headers()
  headers:append(":status", tostring(answer.status))
  local body = answer.body or ""
  local typed = false
  for i = 1, #answer.headers, 2 do
    typed = typed or answer.headers[i] == "content-type"
    headers:append(answer.headers[i], answer.headers[i + 1])
  end
  local bodiless = answer.status == 204 or answer.status == 304 or method == "HEAD"
  if body ~= "" and not typed then headers:append("content-type", "application/json; charset=utf-8") end
  if closing then headers:append("connection", "close") end
  stream.connection.without_length = answer.status == 204
  if bodiless or body == "" then
    return stream:write_headers(headers, true, WRITE_TIMEOUT)
  end
  headers:append("content-length", tostring(#body))
  if stream:write_headers(headers, false, WRITE_TIMEOUT) then
    stream:write_chunk(body, true, WRITE_TIMEOUT)
  end
end

-- Reads the body; second result: a reply that refuses it.
local function read_body(stream, headers, deadline)
  local length = headers["content-length"]
  if length and not headers["transfer-encoding"] then
    if not length:find("^%d+$") then return nil, reply.failure(400, "invalid content-length") end
    if #length > 15 or tonumber(length) > MAX_BODY then return nil, reply.failure(413, "request too large") end
  end
  if (headers.expect or ""):lower() == "100-continue" then stream:write_continue(deadline - monotime()) end
  local parts, size = {}, 0
  while true do
    local chunk, err, errno = stream:get_next_chunk(math.max(deadline - monotime(), 0))
    if chunk == nil then
      if err == nil then
        -- lua-http reports a body that was cut short like one that has ended, but stays open for more.
        if stream.state == "open" then return nil, nil end
        return table.concat(parts)
      end
      if errno == ce.E2BIG then return nil, reply.failure(413, "request too large") end
      if errno == ce.ETIMEDOUT then return nil, reply.failure(408, "request timeout") end
      if errno == ce.EILSEQ then return nil, reply.failure(400, "malformed request body") end
      return nil, nil -- the client is gone
    end
    size = size + #chunk
    if size > MAX_BODY then return nil, reply.failure(413, "request too large") end
    parts[#parts + 1] = chunk
  end
end

local function different(list)
  for i = 2, list.n do
    if list[i] ~= list[1] then return true end
  end
  return false
end

-- The headers could not be read: says why, as far as somebody may still listen.
local function refuse_headers(stream, errno)
  local socket = stream.connection.socket
  local gone = errno == ce.ETIMEDOUT or errno == ce.EPIPE or errno == ce.ECONNRESET or not socket
  if not gone then
    local too_large = errno == ce.E2BIG or socket:pending() >= MAX_HEADERS
    local status = too_large and 431 or 400
    if stream.state == "idle" then
      refuse_raw(socket, status)
    else
      write(stream, reply.failure(status, TEXT[status]), "GET", true)
    end
  end
  abandon(stream, not gone)
end

local function serve(app, stream)
  local connection = stream.connection
  if not rawget(connection, "write_header") then
    bound(connection)
    app.connections = (app.connections or 0) + 1
    connection.number = app.connections
  end
  local deadline = monotime() + READ_TIMEOUT
  local raw, _, errno = stream:get_headers(READ_TIMEOUT)
  if not raw then
    refuse_headers(stream, errno)
    return
  end
  local headers = {}
  for name, value in raw:each() do
    headers[name] = headers[name] or value
  end
  local target = headers[":path"] or ""
  target = target:match("^https?://[^/?]*(.*)$") or target
  local path, query = target:match("^([^?#]*)%??([^#]*)")
  local method = headers[":method"]
  local body, refusal
  if path:sub(1, 1) ~= "/" then
    refusal = reply.failure(400, "invalid request target")
  elseif different(raw:get_as_sequence("content-length")) then
    refusal = reply.failure(400, "invalid content-length")
  else
    body, refusal = read_body(stream, headers, deadline)
  end
  if not body then
    if refusal then write(stream, refusal, method, true) end
    abandon(stream, refusal)
    return
  end
  local answer = app:handle({
    method = method, path = path, query_string = query, headers = headers, body = body, connection = connection.number,
  })
  if answer.drop then
    abandon(stream)
  else
    write(stream, answer, method, false)
  end
end

---Makes the server; it runs in the coroutines of `cq`.
---@param cq table a cqueues controller
---@param app table what answers: `app:handle(request)`
---@param options table `host`, `port`, `keep_alive` seconds an idle connection stays open
---@return table|nil server a lua-http server that listens
---@return string|nil message
function http.listen(cq, app, options)
  local server, err = http_server.listen({
    cq = cq, host = options.host, port = options.port, tls = false, version = 1.1, reuseaddr = true,
    connection_setup_timeout = READ_TIMEOUT, intra_stream_timeout = options.keep_alive,
    onstream = function(_, stream)
      local ok, problem = http_util.yieldable_pcall(serve, app, stream)
      if not ok then
        -- lua-http raises on some malformed headers; what it has read so far it can still answer.
        if options.log then io.stderr:write("e2b-server: ", tostring(problem), "\n") end
        http_util.yieldable_pcall(write, stream, reply.failure(400, "malformed request"), "GET", true)
        abandon(stream, true)
      end
    end,
    onerror = function(_, _, operation, problem)
      -- Clients that vanish are no news.
      if options.log then io.stderr:write("e2b-server: ", tostring(operation), ": ", tostring(problem), "\n") end
    end,
  })
  if not server then return nil, tostring(err) end
  local ok, problem = server:listen(1)
  if not ok then
    server:close()
    return nil, tostring(problem)
  end
  return server
end

return http
