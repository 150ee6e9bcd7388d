-- The sandbox's daemon by itself, for specs: a process of its own, in plain mode below a temporary folder, spoken to
-- over its Unix socket by a client that shares no code with it.
--
--   local daemon = daemon_process.start({ access_token = "t" })
--   local answer = daemon:request("GET", "/files?path=a")     -- status, headers, body, json
--   local answer = daemon:rpc("Stat", { path = "a" })         -- of the filesystem service
--   local stream = daemon:stream("WatchDir", { path = "" })   -- stream:next(seconds) -> message, flags
--   daemon.root .. "/home/user/a"                             -- where the sandbox's file lies
--   daemon:stop()
local unix = require("socket.unix")
local json = require("e2b.server.json")
local support = require("spec.support.support")

local daemon_process = {}

local methods = {}
methods.__index = methods

daemon_process.is_root = support.shell("id -u"):match("%d+") == "0"

--- Starts one. As root its `user` is somebody else than its `root`, as everybody else they are the same.
---@param options? table more fields of its options
function daemon_process.start(options)
  local self = setmetatable({ root = support.tmpdir() }, methods)
  self.path = self.root .. ".sock"
  os.execute("cd " .. support.quote(self.root) .. " && mkdir -p home/user root tmp")
  local given = { socket = self.path, sandbox_id = "isandbox", default_user = "user", plain_root = self.root }
  if daemon_process.is_root then
    given.users = json.array({
      { name = "root", uid = 0, gid = 0, home = "/root" },
      { name = "user", uid = 1000, gid = 1000, home = "/home/user" },
    })
    os.execute("chown 1000:1000 " .. support.quote(self.root .. "/home/user"))
  end
  for name, value in pairs(options or {}) do
    given[name] = value
  end
  self.token = given.access_token
  local program = self.root .. ".lua"
  support.write_file(program, "os.exit(require('e2b.server.envd.main').main())")
  -- It ends when its input does: with stop(), or with this process.
  local quote = support.quote
  self.pipe = assert(io.popen("echo $$ >" .. quote(self.root .. ".pid") .. "; exec " .. support.lua_command() .. " "
    .. quote(program) .. " >/dev/null 2>" .. quote(self.root .. ".err"), "w"))
  self.pipe:setvbuf("no")
  self.pipe:write(json.encode(given), "\n")
  support.wait_for(function()
    local connection = unix()
    local ok = connection:connect(self.path)
    connection:close()
    return ok
  end, 20, "the daemon")
  return self
end

function methods:stop()
  self.pipe:close()
  os.remove(self.path)
  os.remove(self.root .. ".lua")
  os.remove(self.root .. ".err")
  os.remove(self.root .. ".pid")
  support.cleanup(self.root)
end

--- What it wrote on its standard error, which should be nothing.
function methods:complaints()
  return support.read_file(self.root .. ".err")
end

function methods:pid()
  return (support.read_file(self.root .. ".pid"):match("%d+"))
end

function methods:connect()
  local connection = unix()
  connection:settimeout(20 * support.slack)
  assert(connection:connect(self.path))
  return connection
end

local function receive(connection, what)
  local data, problem = connection:receive(what)
  return data or error("the connection ended early: " .. tostring(problem), 3)
end

local function read_head(connection)
  local line = receive(connection, "*l")
  local answer = { status = tonumber(line:match("^HTTP/1%.1 (%d%d%d)")), headers = {} }
  while true do
    line = receive(connection, "*l")
    if line == "" then
      return answer
    end
    local name, value = line:match("^([^:]+): ?(.*)$")
    answer.headers[name:lower()] = value
  end
end

local function read_chunk(connection)
  local size = tonumber(receive(connection, "*l"), 16)
  local data = size > 0 and receive(connection, size) or nil
  receive(connection, "*l")
  return data
end

--- Reads one answer. options: to (a function that gets the body's pieces instead of answer.body)
function daemon_process.read(connection, method, options)
  local answer = read_head(connection)
  while answer.status == 100 do
    answer = read_head(connection)
  end
  local parts = {}
  local keep = options and options.to or function(piece)
    parts[#parts + 1] = piece
  end
  local left = tonumber(answer.headers["content-length"] or "0")
  if answer.headers["transfer-encoding"] == "chunked" then
    for piece in read_chunk, connection do
      keep(piece)
    end
  elseif method ~= "HEAD" and answer.status ~= 204 and answer.status ~= 304 then
    while left > 0 do
      local size = math.min(left, 65536)
      keep(receive(connection, size))
      left = left - size
    end
  end
  answer.body = table.concat(parts)
  if answer.body:find("^[%[{]") then
    answer.json = json.plain((json.decode(answer.body)))
  end
  return answer
end

local function head_of(method, target, fields, more)
  local lines = { method .. " " .. target .. " HTTP/1.1", "Host: x" }
  for _, list in ipairs({ fields or {}, more }) do
    for name, value in pairs(list) do
      -- A list of values is a header that comes several times.
      for _, one in ipairs(type(value) == "table" and value or { value }) do
        lines[#lines + 1] = name .. ": " .. one
      end
    end
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

--- options: headers (name = value or values), body, token (false: none), chunks (list, sent chunked), to
function methods:request(method, target, options)
  options = options or {}
  local more = { ["Content-Length"] = options.body and #options.body or nil }
  local token = options.token
  if token == nil then
    token = self.token
  end
  more["X-Access-Token"] = token or nil
  if options.chunks then
    more["Transfer-Encoding"] = "chunked"
  end
  local connection = self:connect()
  connection:send(head_of(method, target, options.headers, more))
  if options.chunks then
    for _, chunk in ipairs(options.chunks) do
      connection:send(string.format("%x\r\n%s\r\n", #chunk, chunk))
    end
    connection:send("0\r\n\r\n")
  elseif options.body then
    connection:send(options.body)
  end
  local answer = daemon_process.read(connection, method, options)
  connection:close()
  return answer
end

--- One call of the filesystem service.
---@param user? string the name in the Authorization header
function methods:rpc(call, message, user)
  local headers = { ["Content-Type"] = "application/json" }
  if user then
    headers.Authorization = "Basic " .. require("e2b.server.native").base64_encode(user .. ":")
  end
  return self:request("POST", "/filesystem.Filesystem/" .. call, { headers = headers, body = json.encode(message) })
end

--- Writes a file through the daemon.
---@return table info what it says about the file
function methods:write(path, content, headers)
  local fields = { ["Content-Type"] = "application/octet-stream" }
  for name, value in pairs(headers or {}) do
    fields[name] = value
  end
  local target = "/files?path=" .. daemon_process.escape(path)
  local answer = self:request("POST", target, { headers = fields, body = content })
  assert(answer.status == 200, answer.body)
  return answer.json[1]
end

--- Percent-encodes a part of a query.
function daemon_process.escape(text)
  return (text:gsub("[^%w._~-]", function(char)
    return string.format("%%%02X", char:byte())
  end))
end

local stream = {}
stream.__index = stream

function daemon_process.envelope(payload)
  local size = #payload
  return string.char(0, math.floor(size / 16777216), math.floor(size / 65536) % 256, math.floor(size / 256) % 256,
    size % 256) .. payload
end

--- A call whose answer is a stream.
function methods:stream(call, message, fields)
  local body = daemon_process.envelope(json.encode(message))
  local connection = self:connect()
  local headers = { ["Content-Type"] = "application/connect+json" }
  for name, value in pairs(fields or {}) do
    headers[name] = value
  end
  connection:send(head_of("POST", "/filesystem.Filesystem/" .. call, headers, {
    ["Content-Length"] = #body, ["X-Access-Token"] = self.token,
  }) .. body)
  local answer = read_head(connection)
  answer.connection, answer.buffer = connection, ""
  return setmetatable(answer, stream)
end

--- The next envelope.
---@return table|nil message nil when the body has ended; false when nothing came in time
---@return integer|nil flags 2: the end of the stream
function stream:next(seconds)
  self.connection:settimeout((seconds or 10) * support.slack)
  while true do
    if #self.buffer >= 5 then
      local flags, a, b, c, d = self.buffer:byte(1, 5)
      local size = ((a * 256 + b) * 256 + c) * 256 + d
      if #self.buffer >= 5 + size then
        local payload = self.buffer:sub(6, 5 + size)
        self.buffer = self.buffer:sub(6 + size)
        return json.plain((json.decode(payload))), flags
      end
    end
    local line, problem = self.connection:receive("*l")
    if not line then
      return problem ~= "timeout" and nil, nil
    end
    local size = tonumber(line, 16)
    local piece = size > 0 and receive(self.connection, size) or ""
    receive(self.connection, "*l")
    self.buffer = self.buffer .. piece
    if size == 0 then
      return nil
    end
  end
end

function stream:close()
  self.connection:close()
end

return daemon_process
