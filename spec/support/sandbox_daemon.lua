-- The daemon of one local sandbox, alone and in plain mode, spoken to over its Unix socket with code of its own.
--
--   local daemon = require("spec.support.sandbox_daemon")
--   local one = daemon.start({ access_token = "t" })       -- options of the daemon's first line
--   one:call("/process.Process/List", {})                  -- -> answer: status, headers, body, json
--   local stream = one:open("/process.Process/Start", { process = { cmd = "true" } })
--   stream:event()                                         -- -> message (table) | nil, end of stream (table) | raises
--   stream:rest()                                          -- -> { pid, stdout, stderr, pty, exit (end event), ending }
--   stream:close()
--   one:command({ command = "pause" })                     -- the answer of its control pipe
--   one:stop()                                             -- as when the server ends; answers how long it took
--
-- one.root is the sandbox's folder, one.pid the daemon. It ends with this process, however this one ends.
--
-- `daemon.through(server, id, token)` is the same for a sandbox of a whole local server, through its proxy.
local socket = require("socket")
local unix = require("socket.unix")
local json = require("e2b.server.json")
local support = require("spec.support.support")

local daemon = {}
local methods = {}
local meta = { __index = methods }
local stream_methods = {}
local stream_meta = { __index = stream_methods }

local running = {}

---@param options? table beside those of the daemon: `wrap` (shell words before the interpreter)
function daemon.start(options)
  local folder = support.tmpdir()
  local root = folder .. "/root"
  assert(support.shell("mkdir -p " .. root .. "/home/user " .. root .. "/root " .. root .. "/tmp"))
  local line = {
    socket = folder .. "/s", sandbox_id = "isandbox", template_id = "base", default_user = "user", plain_root = root,
    version = "0.6.13",
  }
  options = options or {}
  for name, value in pairs(options) do line[name] = value or nil end
  line.wrap = nil
  assert(os.execute("mkfifo " .. folder .. "/answers"))
  local code = "os.exit(require('e2b.server.envd.main').main())"
  local pipe = assert(io.popen(string.format("{ echo $$; ulimit -t 600; exec %s %s -e %s; } > %s/answers",
    options.wrap or "", support.lua_command(), support.quote(code), folder), "w"))
  pipe:write(json.encode(line), "\n")
  pipe:flush()
  local input = assert(io.open(folder .. "/answers", "r"))
  local self = setmetatable({ folder = folder, root = root, pipe = pipe, input = input, socket = line.socket }, meta)
  self.pid = tonumber(input:read("*l"))
  local ready = input:read("*l")
  if ready ~= "ready" then
    self:stop()
    error("the daemon did not start: " .. tostring(ready), 2)
  end
  running[self] = true
  return self
end

--- Ends those that a failing spec has left; raises when one of them does not end by itself.
function daemon.stop_all()
  for one in pairs(running) do one:stop() end
end

function methods:command(message)
  self.pipe:write(json.encode(message), "\n")
  self.pipe:flush()
  return json.plain(json.decode(assert(self.input:read("*l"), "the daemon is gone")))
end

--- Closes its standard input and waits for its end.
---@return number seconds it took
function methods:stop()
  if not running[self] then return 0 end
  running[self] = nil
  local seconds = support.timed(function() self.pipe:close() end)
  self.input:close()
  support.cleanup(self.folder)
  return seconds
end

--- What the sandbox calls a path, on this machine.
function methods:path(path)
  return self.root .. path
end

--- The daemon of a sandbox behind a local server.
---@param server table of e2b.server.start
---@param id string
---@param token? string
---@param port? integer of another service in the sandbox
function daemon.through(server, id, token, port)
  local host, server_port = server.url:match("^http://(.-):(%d+)$")
  return setmetatable({
    host = host, port = tonumber(server_port), id = id,
    headers = { ["E2b-Sandbox-Id"] = id, ["E2b-Sandbox-Port"] = tostring(port or 49983), ["X-Access-Token"] = token },
  }, meta)
end

function methods:connect()
  if self.host then
    local connection = assert(socket.connect(self.host, self.port))
    connection:settimeout(20 * support.slack)
    return connection
  end
  local connection = assert((unix.stream or unix)())
  assert(connection:connect(self.socket))
  connection:settimeout(20 * support.slack)
  return connection
end

local function envelope(text)
  local size = #text
  return string.char(0, math.floor(size / 16777216), math.floor(size / 65536) % 256, math.floor(size / 256) % 256,
    size % 256) .. text
end

daemon.envelope = envelope

local function head(method, path, headers, length)
  local lines = { method .. " " .. path .. " HTTP/1.1", "Host: sandbox" }
  if length then lines[#lines + 1] = "Content-Length: " .. length end
  for name, value in pairs(headers) do lines[#lines + 1] = name .. ": " .. value end
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

local function read_head(connection)
  local line = assert(connection:receive("*l"))
  local answer = { status = tonumber(line:match("^HTTP/1%.1 (%d%d%d)")), headers = {} }
  while true do
    line = assert(connection:receive("*l"))
    if line == "" then return answer end
    local name, value = line:match("^([^:]+): ?(.*)$")
    answer.headers[name:lower()] = value
  end
end

local function read_chunk(connection)
  local size = tonumber(assert(connection:receive("*l")), 16)
  local chunk = size > 0 and assert(connection:receive(size)) or nil
  assert(connection:receive("*l"))
  return chunk
end

local function with(headers, more)
  local all = {}
  for name, value in pairs(headers) do all[name] = value end
  for name, value in pairs(more or {}) do all[name] = value or nil end
  return all
end

--- Any request.
---@param options? table `headers`, `body`
function methods:request(method, path, options)
  options = options or {}
  local connection = self:connect()
  local headers = with(with({ Connection = "close" }, self.headers), options.headers)
  assert(connection:send(head(method, path, headers, options.body and #options.body) .. (options.body or "")))
  local answer = read_head(connection)
  if answer.headers["transfer-encoding"] then
    local parts = {}
    repeat
      local chunk = read_chunk(connection)
      parts[#parts + 1] = chunk
    until not chunk
    answer.body = table.concat(parts)
  else
    answer.body = connection:receive("*a") or ""
  end
  connection:close()
  local is_json = (answer.headers["content-type"] or ""):find("^application/json")
  if is_json and not answer.headers["content-encoding"] and answer.body ~= "" then
    answer.json = json.plain(assert(json.decode(answer.body)))
  end
  return answer
end

--- A unary call.
---@param message table|string
---@param headers? table<string, string|false>
function methods:call(path, message, headers)
  return self:request("POST", path, {
    headers = with({ ["Content-Type"] = "application/json" }, headers),
    body = type(message) == "string" and message or json.encode(message),
  })
end

--- A call whose answer is a stream. The head is read when the first event is.
---@param message table|string|nil nil: the body is `raw`
---@param raw? string the body instead of one envelope
function methods:open(path, message, headers, raw)
  local connection = self:connect()
  local body = raw or envelope(type(message) == "string" and message or json.encode(message))
  headers = with(with({ ["Content-Type"] = "application/connect+json" }, self.headers), headers)
  assert(connection:send(head("POST", path, headers, #body) .. body))
  return setmetatable({ connection = connection, buffer = "" }, stream_meta)
end

--- A call whose request is a stream: `stream:send(message)` … `stream:finish()`, then as `open`.
function methods:open_input(path)
  local connection = self:connect()
  assert(connection:send(head("POST", path, with({
    ["Content-Type"] = "application/connect+json", ["Transfer-Encoding"] = "chunked",
  }, self.headers))))
  return setmetatable({ connection = connection, buffer = "" }, stream_meta)
end

function stream_methods:send(message)
  local text = envelope(json.encode(message))
  assert(self.connection:send(string.format("%x\r\n", #text) .. text .. "\r\n"))
end

function stream_methods:finish()
  assert(self.connection:send("0\r\n\r\n"))
end

--- Reads the head of the answer, once.
function stream_methods:head()
  if not self.answer then
    self.answer = read_head(self.connection)
    assert(self.answer.status == 200, "status " .. self.answer.status)
  end
  return self.answer
end

--- The next event; nil and the end-of-stream message after the last one.
function stream_methods:event()
  self:head()
  while true do
    local flags, a, b, c, d = self.buffer:byte(1, 5)
    local size = d and ((a * 256 + b) * 256 + c) * 256 + d
    if size and #self.buffer >= 5 + size then
      local message = json.plain(assert(json.decode(self.buffer:sub(6, 5 + size))))
      self.buffer = self.buffer:sub(6 + size)
      if flags == 0 then return message.event or message end
      assert(flags == 2, "flags " .. flags)
      assert(self.buffer == "" and read_chunk(self.connection) == nil, "more after the end of the stream")
      self.connection:close()
      return nil, message
    end
    local chunk = read_chunk(self.connection)
    assert(chunk, "the body ended without an end of the stream")
    self.buffer = self.buffer .. chunk
  end
end

local native

--- Everything until the end, put together.
function stream_methods:rest()
  native = native or require("e2b.server.native")
  local all = { stdout = {}, stderr = {}, pty = {}, keepalives = 0, chunks = 0, largest = 0 }
  while true do
    local event, ending = self:event()
    if not event then
      all.ending = ending
      break
    end
    if event.start then all.pid = event.start.pid end
    if event["end"] then all.exit = event["end"] end
    if event.keepalive then all.keepalives = all.keepalives + 1 end
    for kind, text in pairs(event.data or {}) do
      local bytes = assert(native.base64_decode(text))
      assert(bytes ~= "", "an empty chunk")
      all.chunks = all.chunks + 1
      all.largest = math.max(all.largest, #bytes)
      table.insert(all[kind], bytes)
    end
  end
  for _, kind in ipairs({ "stdout", "stderr", "pty" }) do all[kind] = table.concat(all[kind]) end
  return all
end

function stream_methods:close()
  self.connection:close()
end

--- Runs a shell command to its end: what `rest` says.
---@param command string
---@param fields? table more of the request
function methods:shell(command, fields, headers)
  return self:start(command, fields, headers):rest()
end

--- Starts a shell command: the stream.
function methods:start(command, fields, headers)
  local message = { process = { cmd = "/bin/sh", args = json.array({ "-c", command }) }, stdin = false }
  for name, value in pairs(fields or {}) do message[name] = value end
  return self:open("/process.Process/Start", message, headers)
end

--- Is there such a process?
function daemon.is_alive(pid)
  local stat = support.read_file("/proc/" .. pid .. "/stat")
  return stat ~= nil and stat:match("%) (%a)") ~= "Z"
end

return daemon
