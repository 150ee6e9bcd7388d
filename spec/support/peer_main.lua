-- The process behind peer.lua: listens, runs the handler for each connection, writes down what arrives.
local cqueues = require("cqueues")
local socket = require("cqueues.socket")
local errno = require("cqueues.errno")
local support = require("spec.support.support")

local folder = assert(arg[1])
local config = support.deserialize(assert(support.read_file(folder .. "/config.lua")))
local records = assert(io.open(folder .. "/records", "wb"))

local function record(entry)
  entry.time = cqueues.monotime()
  local text = support.serialize(entry)
  records:write(#text, "\n", text, "\n")
  records:flush()
end

local context
if config.tls then
  local ssl = require("openssl.ssl.context")
  local x509 = require("openssl.x509")
  local pkey = require("openssl.pkey")
  context = ssl.new("TLS", true)
  context:setCertificate(x509.new(assert(support.read_file(config.tls.certificate))))
  context:setPrivateKey(pkey.new(assert(support.read_file(config.tls.key))))
  if config.alpn then
    context:setAlpnSelect(function(_, offered)
      for _, protocol in ipairs(offered) do
        if protocol == config.alpn then
          return protocol
        end
      end
      return nil
    end)
  end
end

local shared = {}
local requests = 0

local conn = {}
conn.__index = conn

--- Reads the request line and the header fields. nil when the client went away.
---@return table|nil request method, path, version, headers (lower-case names, repeated ones joined), header_list
function conn:read_head()
  local line = self.socket:read("*L")
  if not line then
    return nil
  end
  local method, path, version = line:match("^(%S+) (%S+) (HTTP/%S+)\r?\n$")
  if not method then
    record({ what = "malformed", connection = self.number, line = line })
    return nil
  end
  local request = { method = method, path = path, version = version, headers = {}, header_list = {} }
  while true do
    line = self.socket:read("*L")
    if not line then
      return nil
    end
    if line == "\r\n" then
      break
    end
    local name, value = line:match("^([^:]+):%s*(.-)\r?\n$")
    if not name then
      record({ what = "malformed", connection = self.number, line = line })
      return nil
    end
    local key = name:lower()
    request.headers[key] = request.headers[key] and request.headers[key] .. ", " .. value or value
    request.header_list[#request.header_list + 1] = { name, value }
  end
  return request
end

--- Reads the body that a head announces.
---@return string|nil body
function conn:read_body(request)
  if (request.headers["transfer-encoding"] or ""):lower() == "chunked" then
    local parts = {}
    while true do
      local line = self.socket:read("*L")
      local size = line and tonumber(line:match("^%x+"), 16)
      if not size then
        return nil
      end
      if size > 0 then
        parts[#parts + 1] = self.socket:read(size)
      end
      self.socket:read("*L")
      if size == 0 then
        return table.concat(parts)
      end
    end
  end
  local size = tonumber(request.headers["content-length"] or "0")
  if size == 0 then
    return ""
  end
  local body = self.socket:read(size)
  return body and #body == size and body or nil
end

--- Reads a whole request and writes it down. nil when the client went away.
---@return table|nil request as read_head, with body, connection and number (of all requests to this peer)
function conn:read_request()
  local request = self:read_head()
  if not request then
    return nil
  end
  if request.headers.expect then
    self:send("HTTP/1.1 100 Continue\r\n\r\n")
  end
  request.body = self:read_body(request)
  if not request.body then
    return nil
  end
  self:log_request(request)
  return request
end

--- Writes a request down (read_request does it by itself).
function conn:log_request(request)
  requests = requests + 1
  self.requests = self.requests + 1
  request.what, request.connection, request.number = "request", self.number, requests
  record(request)
end

--- Writes something down for the spec.
function conn:note(entry)
  entry.what, entry.connection = entry.what or "note", self.number
  record(entry)
end

--- Sends bytes as they are.
---@return boolean sent
function conn:send(bytes)
  return self.socket:xwrite(bytes, "bn") and true or false
end

local REASONS = {
  [200] = "OK", [201] = "Created", [204] = "No Content", [302] = "Found", [400] = "Bad Request", [401] = "Unauthorized",
  [403] = "Forbidden", [404] = "Not Found", [409] = "Conflict", [429] = "Too Many Requests",
  [500] = "Internal Server Error", [502] = "Bad Gateway", [503] = "Service Unavailable", [504] = "Gateway Timeout",
}

--- The text of an answer. headers may switch Content-Type off with false; Content-Length is added when there is a body.
function conn.text_of(_, status, body, headers)
  local lines = { string.format("HTTP/1.1 %d %s", status, REASONS[status] or "Status") }
  local function add(name, value)
    lines[#lines + 1] = name .. ": " .. tostring(value)
  end
  local given = {}
  for name, value in pairs(headers or {}) do
    given[name:lower()] = true
    if value ~= false then
      add(name, value)
    end
  end
  if not given["content-type"] and body and body ~= "" then
    add("Content-Type", "application/json")
  end
  if not given["content-length"] and not given["transfer-encoding"] and status ~= 204 then
    add("Content-Length", #(body or ""))
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n" .. (body or "")
end

--- Sends a complete answer.
function conn:respond(status, body, headers)
  return self:send(self:text_of(status, body, headers))
end

--- Sends the head of a chunked answer; chunks follow with `chunk`, "" ends it.
function conn:begin_chunked(status, headers)
  local all = { ["Transfer-Encoding"] = "chunked", ["Content-Type"] = "application/json" }
  for name, value in pairs(headers or {}) do
    all[name] = value
  end
  return self:send(self:text_of(status, nil, all))
end

function conn:chunk(bytes)
  return self:send(string.format("%x\r\n", #bytes) .. bytes .. "\r\n") -- 5.1 formats no zeros
end

--- One entry of peer.answers.
function conn:answer(entry)
  if entry.delay then
    self:sleep(entry.delay)
  end
  local text = self:text_of(entry.status or 200, entry.body, entry.headers)
  if entry.cut == "before" then
    self:close()
  elseif entry.cut == "headers" then
    self:send(text:sub(1, text:find("\r\n", 1, true) + 8))
    self:close()
  elseif entry.cut == "body" then
    self:send(text:sub(1, -2))
    self:close()
  else
    self:send(text)
    if entry.close then
      self:close()
    end
  end
end

--- Reads request after request and hands each to fn, until the client goes away or the connection is closed here.
---@param fn fun(request: table)
function conn:serve(fn)
  while not self.closed do
    local request = self:read_request()
    if not request then
      return
    end
    fn(request)
  end
end

function conn.sleep(_, seconds)
  cqueues.sleep(seconds)
end

--- Waits for `server:signal(name)` of the spec.
function conn.wait_signal(_, name)
  local path = folder .. "/signal-" .. name
  while true do
    local file = io.open(path)
    if file then
      file:close()
      return
    end
    cqueues.sleep(0.005)
  end
end

--- Waits until the client closes its end and writes that down ("closed"); bytes that come until then are dropped.
function conn:wait_closed()
  while self.socket:read(-4096) do -- luacheck: ignore 542
  end
  record({ what = "closed", connection = self.number })
end

--- Says goodbye properly (FIN; on TLS close_notify first).
function conn:close()
  if not self.closed then
    self.closed = true
    self.socket:shutdown("w")
    self.socket:close()
  end
end

--- Closes with a reset (SO_LINGER 0), as a crashed server or a balancer does.
function conn:reset()
  self.closed = true
  local luasocket = require("socket")
  local handle = luasocket.tcp()
  handle:setfd(self.socket:pollfd())
  assert(handle:setoption("linger", { on = true, timeout = 0 }))
  handle:setfd(-1)
  self.socket:close()
end

-- The client may go away at any time: that is an answer here (nil), never a raise.
local function on_error(_, _, code)
  return code
end

local load_text = loadstring or load -- luacheck: ignore 113
local source = "local conn, shared = ...\n" .. support.read_file(folder .. "/handler.lua")
local handler = assert(load_text(source, "=handler"))
local listener

local function listen()
  listener = assert(socket.listen({ host = config.host, port = config.port, reuseaddr = true, nodelay = true }))
  assert(listener:listen())
end

local queue = cqueues.new()
local connections = 0
local running = {}

local function run(client)
  connections = connections + 1
  local self = setmetatable({ socket = client, number = connections, requests = 0 }, conn)
  running[coroutine.running()] = self
  client:onerror(on_error)
  client:setmode("bn", "bn")
  client:setmaxline(64 * 1024 * 1024)
  record({ what = "connection", connection = self.number })
  if context then
    local ok, why = client:starttls(context)
    if not ok then
      record({ what = "tls_error", connection = self.number, message = tostring(errno.strerror(why) or why) })
      return client:close()
    end
  end
  handler(self, shared)
  self:close()
  running[coroutine.running()] = nil
end

queue:wrap(function()
  if config.listen_after then
    cqueues.sleep(config.listen_after) -- until then connections are refused
    listen()
  end
  while true do
    local client = listener:accept({ nodelay = true })
    if client then
      queue:wrap(run, client)
    end
  end
end)

-- The other end of standard input is held by the spec's process alone: its end is ours.
queue:wrap(function()
  cqueues.poll({ pollfd = 0, events = "r" })
  -- Ended without a word: nobody is left to read or remove what is in the folder.
  if not support.read_file(folder .. "/stopping") then
    os.execute("rm -rf " .. support.quote(folder))
  end
  os.exit(0)
end)

local function announce(port)
  support.write_file(folder .. "/port.new", tostring(port))
  assert(os.rename(folder .. "/port.new", folder .. "/port"))
end

if config.listen_after then
  announce(config.port)
else
  listen()
  local _, _, port = listener:localname()
  announce(port)
end
-- No pcall around a handler: 5.1 can't yield across one. The loop returns when a coroutine has raised.
while true do
  local ok, why, _, thread = queue:loop()
  if ok then
    os.exit(0)
  end
  record({ what = "error", message = thread and debug.traceback(thread, tostring(why)) or tostring(why) })
  if thread and running[thread] then
    running[thread]:close()
    running[thread] = nil
  end
end
