--- An HTTP/1.1 server: reads requests within bounds, writes replies. TCP or a Unix socket.
--
-- A request is `{ method, path, query_string, headers (names in lower case, first value), fields (name, value, …, all
-- of them as they came), version, body, connection, gone() }`. With the option `stream`, `body` is a function instead:
--
-- - `request.read()`: the next piece of the body; nil at its end; nil and a message when the client is gone or lied
-- - `request.body()`: all of it; nil and a reply that refuses it, or nil alone when the client is gone
-- - `request.on_gone()`: a condition that is signalled when the client closes while it waits for its answer
--
-- A reply is `{ status, headers, body }` (e2b.server.reply), or has instead of a body
--
-- - `stream = function(write)`: `write(piece)` answers nil once the client is gone; chunked, unless `length` is given
-- - `takeover = function(wire)`: the connection after the head; it is closed afterwards
-- - `exchange = function(wire, request)`: writes its own head too; true as result keeps the connection
-- - `drop = true`: the connection is cut
-- @module e2b.server.http

local ce = require("cqueues.errno")
local cqueues = require("cqueues")
local condition = require("cqueues.condition")
local cs = require("cqueues.socket")
local protect = require("e2b.server.protect")
local reasons = require("http.h1_reason_phrases")
local reply = require("e2b.server.reply")
local wire = require("e2b.server.wire")

local http = {}

local monotime = cqueues.monotime

local MAX_BODY = 16 * 1024 * 1024
local READ_TIMEOUT = 10 -- seconds for a head, or for a body that is read as a whole
local WRITE_TIMEOUT = 70
local IDLE_TIMEOUT = 640 -- seconds between two pieces of a streamed body, either way
local LINGER = 2 -- seconds a refused client may go on sending
local SMALL_REST = 256 * 1024 -- an unread rest of a body that is read rather than cut off

-- ---------------------------------------------------------------- the request

local function status_line(version, status)
  return string.format("HTTP/%.1f %d %s", version, status, reasons[tostring(status)])
end

local function refusal_of(problem)
  if problem == "too_large" then return reply.failure(413, "request too large") end
  if problem == ce.ETIMEDOUT then return reply.failure(408, "request timeout") end
  if problem == "malformed" then return reply.failure(400, "malformed request body") end
end

local function add_body(connection, head, request, kind, length)
  local pull, left = connection:body(kind, length)
  local asked = (request.headers.expect or ""):lower() ~= "100-continue" or head.version == 1.0
  local failed
  local function piece(timeout, most)
    if failed then return nil, failed end
    if not asked then
      asked = true
      connection:write("HTTP/1.1 100 Continue\r\n\r\n", WRITE_TIMEOUT)
    end
    local data, problem = pull(timeout, most)
    failed = problem
    return data, problem
  end

  request.left = function()
    -- A client that was never asked for its body does not send it, but might.
    return not asked and math.huge or left()
  end

  request.read = function()
    local data, problem = piece(IDLE_TIMEOUT)
    if problem then return nil, type(problem) == "number" and ce.strerror(problem) or problem end
    return data
  end

  request.body = function(deadline)
    deadline = deadline or monotime() + READ_TIMEOUT
    if length and length > MAX_BODY then return nil, reply.failure(413, "request too large") end
    local parts, size = {}, 0
    while true do
      local data, problem = piece(math.max(deadline - monotime(), 0), MAX_BODY - size)
      if problem then return nil, refusal_of(problem) end
      if not data then return table.concat(parts) end
      size = size + #data
      if size > MAX_BODY then return nil, reply.failure(413, "request too large") end
      parts[#parts + 1] = data
    end
  end
end

-- Waits beside the handler for the client to close. Bytes of a next request end the waiting: they hide the close.
local function watch(connection, request, ended)
  local gone = condition.new()
  local socket = connection.socket
  cqueues.running():wrap(function()
    while not request.ended and connection.socket == socket do
      if connection:gone() then
        gone:signal()
        return
      end
      if socket:pending() > 0 then return end
      cqueues.poll({ pollfd = socket:pollfd(), events = "r" }, ended)
    end
  end)
  return gone
end

-- On a Unix socket the peer is trusted, and may ask for a tunnel.
local function read_head(connection, may_connect)
  local head, problem, partial = connection:read_request(READ_TIMEOUT)
  if not head then
    if problem == "malformed" then return nil, reply.failure(400, "Bad Request"), partial end
    if problem == "too_large" then return nil, reply.failure(431, "Request Header Fields Too Large"), partial end
    return nil
  end
  local headers, hosts = {}, 0
  for i = 1, #head.fields, 2 do
    local name = head.fields[i]:lower()
    if name == "host" then hosts = hosts + 1 end
    headers[name] = headers[name] or head.fields[i + 1]
  end
  local authority, rest = head.target:match("^https?://([^/?#]*)(.*)$")
  headers[":authority"] = authority or headers.host
  headers.host = nil
  local target = rest or head.target
  local path, query = target:match("^([^?#]*)%??([^#]*)")
  head.request = {
    method = head.method, path = path, query_string = query, headers = headers, fields = head.fields,
    version = head.version,
  }
  if path:sub(1, 1) ~= "/" and not (may_connect and head.method == "CONNECT") then
    return nil, reply.failure(400, "invalid request target"), head
  end
  if hosts > 1 then return nil, reply.failure(400, "more than one Host"), head end
  local kind, length = wire.framing(head)
  if not kind then return nil, reply.failure(400, length), head end
  return head, kind, length
end

-- ---------------------------------------------------------------- the reply

local function head_of(head, answer, closing, more)
  local fields, typed = {}, false
  for i = 1, #answer.headers do fields[i] = answer.headers[i] end
  for i = 1, #fields, 2 do typed = typed or fields[i] == "content-type" end
  if answer.body and answer.body ~= "" and not typed then
    fields[#fields + 1], fields[#fields + 2] = "content-type", "application/json; charset=utf-8"
  end
  for i = 1, #more do fields[#fields + 1] = more[i] end
  if closing then
    fields[#fields + 1], fields[#fields + 2] = "connection", "close"
  elseif head.version == 1.0 then
    fields[#fields + 1], fields[#fields + 2] = "connection", "keep-alive"
  end
  return wire.head(status_line(head.version, answer.status), fields)
end

local function write_stream(connection, head, answer, closing)
  local length = answer.length
  local chunked = not length and head.version == 1.1
  closing = closing or (not length and not chunked)
  local more = length and { "content-length", string.format("%d", length) }
    or chunked and { "transfer-encoding", "chunked" } or {}
  if not connection:write(head_of(head, answer, closing, more), WRITE_TIMEOUT) then return false end
  if head.method == "HEAD" then return not closing end
  local sent, gone = 0, false
  local function write(piece)
    if gone then return nil end
    if piece == "" then return true end
    sent = sent + #piece
    if length and sent > length then error("more was written than the length says", 2) end
    gone = not connection:write(chunked and wire.chunk(piece) or piece, IDLE_TIMEOUT)
    return not gone or nil
  end
  local ok, raised = protect(answer.stream, write)
  if not ok then
    io.stderr:write("e2b-server: ", tostring(raised), "\n")
    return false -- an answer that was cut must not look whole
  end
  if gone or (length and sent < length) then return false end
  if chunked and not connection:write(wire.LAST_CHUNK, WRITE_TIMEOUT) then return false end
  return not closing
end

-- Writes a reply; false when the connection cannot be used again.
local function write(connection, head, answer, closing)
  if answer.stream then return write_stream(connection, head, answer, closing) end
  if answer.takeover then
    if connection:write(head_of(head, answer, false, {}), WRITE_TIMEOUT) then answer.takeover(connection) end
    return false
  end
  local body, more = answer.body or "", {}
  if answer.status ~= 204 and answer.status ~= 304 and answer.status >= 200 then
    more = { "content-length", string.format("%d", answer.length or #body) }
  else
    body = ""
  end
  if head.method == "HEAD" then body = "" end
  local text = head_of(head, answer, closing, more)
  return connection:write(text .. body, WRITE_TIMEOUT) and not closing
end

-- ---------------------------------------------------------------- connections

local function refuse(connection, head, answer)
  write(connection, head or { version = 1.1, method = "GET" }, answer, true)
  connection:linger(LINGER, MAX_BODY)
  return false
end

-- Reads what is left of a small body, so that the connection lives on; false when it must end.
local function drain(request)
  local left = request.left()
  if left == 0 then return true end
  if left and left > SMALL_REST then return false end
  local deadline, bytes = monotime() + 1, 0
  repeat
    local piece, problem = request.read()
    if problem then return false end
    bytes = bytes + #(piece or "")
  until not piece or bytes > SMALL_REST or monotime() > deadline
  return request.left() == 0
end

-- One request and its reply; true when the connection stays.
local function serve(self, connection)
  local head, kind, length = read_head(connection, self.options.path ~= nil)
  if not head then
    if kind then return refuse(connection, length, kind) end
    return false
  end
  local closing = wire.closes(head)
  local request = head.request
  request.connection = connection.number
  add_body(connection, head, request, kind, length)
  request.gone = function() return request.left() == 0 and connection:gone() end
  local ended = condition.new()
  if self.options.stream then
    request.on_gone = function() return watch(connection, request, ended) end
  else
    local body, refusal = request.body()
    if not body then
      if refusal then return refuse(connection, head, refusal) end
      return false
    end
    request.body = body
  end
  local answer = self.app:handle(request)
  local keep
  if answer.drop then
    keep = false
  elseif answer.exchange then
    keep = answer.exchange(connection, request)
  else
    -- The rest of a body first: a client that is still sending may not read its answer.
    local whole = drain(request)
    keep = write(connection, head, answer, closing or not whole)
    if not whole and connection.socket then connection:linger(LINGER, MAX_BODY) end
  end
  request.ended = true
  ended:signal()
  return keep and not closing and connection.socket ~= nil
end

local function serve_all(self, socket)
  local connection = wire.new(socket)
  self.count = self.count + 1
  connection.number = self.count
  local ok, again
  repeat
    if not connection:wait(self.options.keep_alive or IDLE_TIMEOUT) then break end
    ok, again = protect(serve, self, connection)
    if not ok then io.stderr:write("e2b-server: ", tostring(again), "\n") end
  until not ok or not again
  connection:close()
end

local function accept_all(self)
  local socket = self.socket
  while self.socket do
    local client, errno = socket:accept({ nodelay = not self.options.path }, 0)
    if client then
      self.cq:wrap(serve_all, self, client)
    elseif errno == ce.ETIMEDOUT then
      cqueues.poll(socket)
    elseif errno == ce.EMFILE or errno == ce.ENFILE then
      collectgarbage()
      cqueues.sleep(0.05)
    elseif errno ~= ce.ECONNABORTED then
      if self.socket then io.stderr:write("e2b-server: accept: ", ce.strerror(errno), "\n") end
      cqueues.sleep(0.05)
    end
  end
end

local server_methods = {}
local server_meta = { __index = server_methods }

---@return integer family
---@return string host
---@return integer port
function server_methods:localname()
  return self.socket:localname()
end

---Takes no more connections; those there are go on.
function server_methods:close()
  local socket = self.socket
  self.socket = nil
  if socket then socket:close() end
end

---Makes the server; it runs in the coroutines of `cq`.
---@param cq table a cqueues controller
---@param app table what answers: `app:handle(request)`; must not raise
---@param options table `host` and `port`, or `path` of a Unix socket; `keep_alive` seconds an idle connection stays
---  open; `stream` (true: bodies are read by the app)
---@return table|nil server that listens; `localname()`, `close()`
---@return string|nil message
function http.listen(cq, app, options)
  local ok, socket, errno
  if options.path then
    ok, socket, errno = pcall(cs.listen, { path = options.path, unlink = true, mode = options.mode or "rw-------" })
  else
    ok, socket, errno = pcall(cs.listen, { host = options.host, port = options.port, reuseaddr = true })
  end
  if not ok then return nil, tostring(socket) end
  if not socket then return nil, ce.strerror(errno) end
  socket:onerror(function(_, _, why) return why end)
  ok, errno = socket:listen(1)
  if not ok then
    socket:close()
    return nil, ce.strerror(errno)
  end
  local self = setmetatable({ cq = cq, app = app, options = options, socket = socket, count = 0 }, server_meta)
  cq:wrap(accept_all, self)
  return self
end

return http
