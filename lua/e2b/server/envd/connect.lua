--- The Connect protocol over HTTP/1.1, JSON only: unary calls, streams from the server, streams from the client.
-- envd: section "Connect" of its protocol; a handler leaves with `connect.raise`.
-- @module e2b.server.envd.connect

local monotime = require("cqueues").monotime
local protect = require("e2b.server.protect")
local json = require("e2b.server.json")
local message = require("e2b.server.envd.message")
local packing = require("e2b.server.envd.packing")

local connect = {}

local STATUS = {
  canceled = 499, unknown = 500, invalid_argument = 400, deadline_exceeded = 504, not_found = 404,
  already_exists = 409, permission_denied = 403, resource_exhausted = 429, failed_precondition = 400, aborted = 409,
  out_of_range = 400, unimplemented = 501, internal = 500, unavailable = 503, data_loss = 500, unauthenticated = 401,
}

local UNARY = "application/json"
local STREAM = "application/connect+json"
local DEFAULT_KEEPALIVE = 90 -- seconds
local MAX_KEEPALIVE = 600
local MAX_MESSAGE = 16 * 1024 * 1024

local failure_meta = { __name = "e2b.server.connect" }

function failure_meta:__tostring()
  return self.code .. ": " .. self.message
end

---@class e2b.server.failure an error of the protocol
---@field code string "not_found" …
---@field message string

---@param code string one of the protocol's words
---@param text string
---@return e2b.server.failure failure to be raised with `error(failure, 0)`
function connect.failure(code, text)
  assert(STATUS[code], code)
  return setmetatable({ code = code, message = text }, failure_meta)
end

---Leaves the handler with a failure.
---@param code string
---@param text string
function connect.raise(code, text)
  error(connect.failure(code, text), 0)
end

---Leaves the handler when the time the client gave is over.
---@param request table
function connect.check_deadline(request)
  if request.deadline and monotime() >= request.deadline then
    connect.raise("deadline_exceeded", "context deadline exceeded")
  end
end

-- What a handler raised, as a failure; anything but a failure is a fault of this program and is told on stderr.
local function failure_of(raised, request)
  if getmetatable(raised) == failure_meta then return raised end
  io.stderr:write("e2b-server: ", request.path, ": ", tostring(raised), "\n")
  return connect.failure("internal", "internal error")
end

local function body_of(failure)
  return { code = failure.code, message = failure.message ~= "" and json.clean(failure.message) or nil }
end

---@param flags integer 0, or 2 for the end of the stream
---@param payload string
---@return string envelope
function connect.envelope(flags, payload)
  local size = #payload
  return string.char(flags, math.floor(size / 16777216), math.floor(size / 65536) % 256, math.floor(size / 256) % 256,
    size % 256) .. payload
end

local function end_of_stream(failure)
  return connect.envelope(2, json.encode({ error = failure and body_of(failure) }))
end

---@param failure e2b.server.failure
---@return table reply of a unary call, or of a request that is no call at all
function connect.unary_failure(failure)
  return { status = STATUS[failure.code], headers = { "content-type", UNARY }, body = json.encode(body_of(failure)) }
end

---@param failure e2b.server.failure
---@return table reply of a streaming call: its status is 200
function connect.stream_failure(failure)
  return {
    status = 200, headers = { "content-type", STREAM },
    stream = function(write) write(end_of_stream(failure)) end,
  }
end

---A failure in the form that the request's content type asks for, as middleware before the handlers gives it.
---@param request table
---@param failure e2b.server.failure
---@return table reply
function connect.failure_for(request, failure)
  local kind = (request.headers["content-type"] or ""):lower()
  if request.method == "POST" and kind:find("^application/connect%+") then return connect.stream_failure(failure) end
  return connect.unary_failure(failure)
end

-- ---------------------------------------------------------------- requests

local function media_type(request)
  local kind = (request.headers["content-type"] or ""):lower():gsub("%s", "")
  return (kind:gsub(";charset=utf%-8$", ""))
end

local function unsupported(accepted)
  return { status = 415, headers = { "accept-post", accepted } }
end

-- What the headers say about every kind of call; raises.
local function read_headers(request)
  local version = request.headers["connect-protocol-version"]
  if version and version ~= "1" then
    connect.raise("invalid_argument", string.format('connect-protocol-version must be "1": got "%s"', version))
  end
  local timeout = request.headers["connect-timeout-ms"]
  if timeout then
    if not timeout:find("^%d+$") or #timeout > 10 then
      connect.raise("invalid_argument", string.format('invalid timeout "%s": at most 10 digits', timeout))
    end
    request.timeout = tonumber(timeout) / 1000
    request.deadline = monotime() + request.timeout
    connect.check_deadline(request)
  end
end

-- Whether messages come packed with gzip; raises when with something else.
local function is_packed(encoding)
  if encoding and encoding ~= "identity" and encoding ~= "gzip" then
    connect.raise("unimplemented", string.format('unknown compression "%s": supported encodings are gzip', encoding))
  end
  return encoding == "gzip"
end

local function unpack_message(packed)
  local bytes, problem = packing.unpack(packed, MAX_MESSAGE)
  if not bytes then connect.raise("invalid_argument", problem) end
  return bytes
end

local function decode(fields, text)
  -- Unlike Go's other reader of JSON, that of protobuf refuses these. A path with bytes replaced would be another path.
  if json.clean(text) ~= text then connect.raise("invalid_argument", "unmarshal message: invalid UTF-8 in string") end
  local value, problem = message.decode(fields, text)
  if not value then connect.raise("invalid_argument", "unmarshal message: " .. problem) end
  return value
end

---Adds a unary call.
---@param router table e2b.server.router
---@param path string "/package.Service/Method"
---@param handler fun(request: table, message: table): table|nil answers a message in JSON's names; nil is the empty one
---@param fields table the request's message (e2b.server.envd.message)
function connect.service(router, path, handler, fields)
  local function call(request)
    read_headers(request)
    local packed = is_packed(request.headers["content-encoding"])
    local body, refusal = request.body()
    if not body then return refusal or { drop = true, headers = {} } end
    if packed then body = unpack_message(body) end
    if body == "" then connect.raise("invalid_argument", "zero-length payload is not a valid JSON object") end
    local answer = json.encode(handler(request, decode(fields, body)) or {})
    local headers = { "content-type", UNARY, "accept-encoding", "gzip" }
    if packed or packing.is_accepted(request.headers["accept-encoding"]) then
      headers[#headers + 1], headers[#headers + 2] = "content-encoding", "gzip"
      answer = packing.pack(answer)
    end
    return { status = 200, headers = headers, body = answer }
  end
  router:add("POST", path, function(request)
    if media_type(request) ~= UNARY then return unsupported("application/json, application/json; charset=utf-8") end
    local ok, answer = protect(call, request)
    if ok then return answer end
    return connect.unary_failure(failure_of(answer, request))
  end)
end

-- ---------------------------------------------------------------- streams

-- Splits what arrives into envelopes: `push(piece)`, then `next()` -> payload | nil; raises.
local function splitter(packed)
  local buffer, at = "", 1
  local pieces, size, wanted = {}, 0, 5
  local function push(piece)
    pieces[#pieces + 1] = piece
    size = size + #piece
  end
  local function next_payload()
    if size < wanted then return nil end
    if pieces[1] then
      buffer, at, pieces = buffer:sub(at) .. table.concat(pieces), 1, {}
    end
    local flags, a, b, c, d = buffer:byte(at, at + 4)
    local length = ((a * 256 + b) * 256 + c) * 256 + d
    if flags ~= 0 and not (flags == 1 and packed) then
      connect.raise("invalid_argument", "invalid envelope flags " .. flags)
    end
    if length > MAX_MESSAGE then connect.raise("resource_exhausted", "message is larger than the limit") end
    wanted = 5 + length
    if size < wanted then return nil end
    local payload = buffer:sub(at + 5, at + wanted - 1)
    at, size, wanted = at + wanted, size - wanted, 5
    return flags == 1 and unpack_message(payload) or payload
  end
  return push, next_payload, function() return size end
end

-- The one message of a call whose answer is a stream; raises.
local function single(body, fields, packed)
  local push, next_payload, left = splitter(packed)
  push(body)
  local payload = next_payload()
  if not payload then
    if left() > 0 then connect.raise("invalid_argument", "incomplete envelope") end
    connect.raise("unimplemented", "unary request has zero messages")
  end
  if left() > 0 then connect.raise("unimplemented", "unary request has multiple messages") end
  return decode(fields, payload == "" and "{}" or payload)
end

local function stream_headers(request)
  read_headers(request)
  local interval = (request.headers["keepalive-ping-interval"] or ""):match("^%d+$")
  interval = interval and tonumber(interval) or 0
  -- A ping is also how a client that has left is noticed.
  request.keepalive = interval > 0 and math.min(interval, MAX_KEEPALIVE) or DEFAULT_KEEPALIVE
  return is_packed(request.headers["connect-content-encoding"])
end

-- Runs what makes the stream and ends it as it should end.
local function finish(request, write, run)
  local gone = false
  local function send(value)
    if gone then return false end
    if type(value) ~= "string" then value = connect.envelope(0, json.encode(value)) end
    gone = not write(value)
    return not gone
  end
  local ok, raised = protect(run, send)
  if not gone then write(end_of_stream(not ok and failure_of(raised, request) or nil)) end
end

---Adds a call whose answer is a stream.
---@param router table
---@param path string
---@param handler fun(request: table, message: table, send: fun(event: table|string): boolean) `send` takes a message,
---  or envelopes as they go out, and answers false once the client is gone. `request.deadline` (monotime or nil) and
---  `request.keepalive` (s) are the handler's to keep
---@param fields table the request's message
function connect.stream(router, path, handler, fields)
  router:add("POST", path, function(request)
    if media_type(request) ~= STREAM then return unsupported(STREAM) end
    local body, refusal = request.body()
    if not body then return refusal or { drop = true, headers = {} } end
    return {
      status = 200, headers = { "content-type", STREAM, "connect-accept-encoding", "gzip" },
      stream = function(write)
        finish(request, write, function(send)
          local packed = stream_headers(request)
          handler(request, single(body, fields, packed), send)
        end)
      end,
    }
  end)
end

---Adds a call whose request is a stream; it is answered when the client ends it, or when it fails.
---@param router table
---@param path string
---@param handler fun(request: table, next_message: fun(): table|nil): table|nil
---@param fields table the message of each envelope
function connect.client_stream(router, path, handler, fields)
  local function call(request)
    local push, next_payload, left = splitter(stream_headers(request))
    return handler(request, function()
      while true do
        local payload = next_payload()
        if payload then return decode(fields, payload == "" and "{}" or payload) end
        local piece, problem = request.read()
        if problem then connect.raise("canceled", problem) end
        if not piece then
          if left() > 0 then connect.raise("invalid_argument", "incomplete envelope") end
          return nil
        end
        push(piece)
        connect.check_deadline(request)
      end
    end) or {}
  end
  router:add("POST", path, function(request)
    if media_type(request) ~= STREAM then return unsupported(STREAM) end
    local ok, answer = protect(call, request)
    if not ok then return connect.stream_failure(failure_of(answer, request)) end
    return {
      status = 200, headers = { "content-type", STREAM, "connect-accept-encoding", "gzip" },
      stream = function(write) write(connect.envelope(0, json.encode(answer)) .. end_of_stream()) end,
    }
  end)
end

return connect
