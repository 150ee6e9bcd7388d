-- A small HTTP/1.1 client for the specs of the local server: it shows what is on the wire and shares no code with it.
--
--   local client = http_client.new(server)            -- server.url and server.api_key
--   local answer = client:post("/v2/sandboxes", { templateID = "base" })
--   answer.status, answer.headers["x-next-token"], answer.body (text), answer.json (decoded, when it is JSON)
--
-- Every request has a connection of its own unless it is made through `client:keep()`.
local socket = require("socket")
local support = require("spec.support.support")
local json = require("e2b.server.json")

local http_client = {}

local client = {}
client.__index = client

---@param server table `url` and, for authentication, `api_key`
function http_client.new(server)
  local host, port = server.url:match("^http://(.-):(%d+)$")
  return setmetatable({ host = host, port = tonumber(port), key = server.api_key }, client)
end

--- A plain TCP connection to the server.
function client:connect()
  local connection = assert(socket.connect(self.host, self.port))
  connection:settimeout(10 * support.slack)
  return connection
end

--- A client whose requests all go over one connection.
function client:keep()
  return setmetatable({ host = self.host, port = self.port, key = self.key, connection = self:connect() }, client)
end

--- The same client with another key; `false` sends none.
function client:with_key(key)
  return setmetatable({ host = self.host, port = self.port, key = key }, client)
end

function client:close()
  if self.connection then
    self.connection:close()
  end
end

--- Reads one answer from a connection.
---@return table|nil answer nil when the connection was closed before a status line
function http_client.read(connection, method)
  local line = connection:receive("*l")
  if not line then
    return nil
  end
  local answer = { line = line, status = tonumber(line:match("^HTTP/1%.[01] (%d%d%d)")), headers = {}, body = "" }
  while true do
    line = assert(connection:receive("*l"))
    if line == "" then
      break
    end
    local name, value = line:match("^([^:]+): ?(.*)$")
    name = name:lower()
    assert(answer.headers[name] == nil, "header twice: " .. name)
    answer.headers[name] = value
  end
  local length = tonumber(answer.headers["content-length"] or "")
  if method ~= "HEAD" and length and length > 0 then
    answer.body = assert(connection:receive(length))
  elseif method ~= "HEAD" and not length and answer.status ~= 204 and answer.status >= 200 then
    answer.body = connection:receive("*a") or ""
  end
  if (answer.headers["content-type"] or ""):find("^application/json") and answer.body ~= "" then
    answer.raw = assert(json.decode(answer.body), answer.body)
    answer.json = json.plain(answer.raw)
  end
  return answer
end

--- Sends a text as it is and reads what comes back until the connection is closed.
function client:raw(text)
  local connection = self:connect()
  connection:send(text)
  local all, _, partial = connection:receive("*a")
  connection:close()
  return all or partial
end

---@param options? table `headers` (name = value), `body` (text or table), `chunked`
function client:request(method, target, options)
  options = options or {}
  local headers, body = {}, options.body
  if type(body) == "table" then
    body = json.encode(body)
    headers["Content-Type"] = "application/json"
  end
  headers.Host = self.host .. ":" .. self.port
  headers["X-API-Key"] = self.key or nil
  if not self.connection then
    headers.Connection = "close"
  end
  if body and options.chunked then
    headers["Transfer-Encoding"] = "chunked"
    body = string.format("%x\r\n%s\r\n0\r\n\r\n", #body, body)
  elseif body then
    headers["Content-Length"] = #body
  end
  for name, value in pairs(options.headers or {}) do
    headers[name] = value
  end
  local lines = { method .. " " .. target .. " HTTP/1.1" }
  for name, value in pairs(headers) do
    lines[#lines + 1] = name .. ": " .. value
  end
  local connection = self.connection or self:connect()
  assert(connection:send(table.concat(lines, "\r\n") .. "\r\n\r\n" .. (body or "")))
  local answer = http_client.read(connection, method)
  if connection ~= self.connection then
    connection:close()
  end
  return answer
end

function client:get(target, headers)
  return self:request("GET", target, { headers = headers })
end

function client:delete(target)
  return self:request("DELETE", target)
end

function client:post(target, body, headers)
  return self:request("POST", target, { body = body or {}, headers = headers })
end

--- Creates a sandbox and returns its id and the answer.
function client:create(fields)
  local body = { templateID = "base" }
  for name, value in pairs(fields or {}) do
    body[name] = value
  end
  local answer = self:post("/v2/sandboxes", body)
  assert(answer.status == 201, answer.body)
  return answer.json.sandboxID, answer
end

--- What the server shows of a sandbox.
function client:info(id)
  return self:get("/sandboxes/" .. id).json
end

return http_client
