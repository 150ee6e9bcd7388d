--- Test switches: what arrived, and answers made to order. Only in a server started with `control`.
-- The same commands come over HTTP (`/_control/…`) and over the pipe of `e2b.server.start`.
-- @module e2b.server.control

local cqueues = require("cqueues")
local clock = require("e2b.server.clock")
local json = require("e2b.server.json")
local reply = require("e2b.server.reply")

local control = {}
control.__index = control

local MAX_ENTRIES = 5000
local MAX_BODY = 64 * 1024
local MAX_BYTES = 16 * 1024 * 1024

-- Never written down: the log is printed by failing specs.
local SECRET = {
  ["x-api-key"] = true, authorization = true, ["x-access-token"] = true, cookie = true,
  ["e2b-traffic-access-token"] = true,
}

---@param owner table the app
---@return table control
function control.new(owner)
  return setmetatable({ app = owner, entries = {}, first = 1, last = 0, bytes = 0, overrides = {} }, control)
end

local function forget_oldest(self)
  local entry = self.entries[self.first]
  self.entries[self.first] = nil
  local captured = entry.captured
  if captured then captured.forgotten = true end
  self.first, self.bytes = self.first + 1, self.bytes - (captured and captured.kept or #entry.body)
end

---Keeps the beginning of a body that is streamed, as it passes.
---@param request table
function control:capture(request)
  local captured = { parts = {}, kept = 0, size = 0 }
  local read = request.read
  request.captured = captured
  function request.read()
    local piece, problem = read()
    if piece then
      captured.size = captured.size + #piece
      if captured.kept < MAX_BODY and not captured.forgotten then
        local part = piece:sub(1, MAX_BODY - captured.kept)
        captured.parts[#captured.parts + 1], captured.kept = part, captured.kept + #part
        if captured.counted then self.bytes = self.bytes + #part end
      end
    end
    return piece, problem
  end
end

---Remembers a request.
---@param request table
---@param answer table
---@return table entry its status may change as long as the exchange goes on
function control:record(request, answer)
  local headers = {}
  for name, value in pairs(request.headers) do
    if name:sub(1, 1) ~= ":" then headers[name] = SECRET[name] and "(hidden)" or value end
  end
  self.last = self.last + 1
  local captured = request.captured
  local body = captured and "" or json.clean(request.body:sub(1, MAX_BODY))
  local entry = {
    method = request.method, path = request.path, query = request.query_string, headers = headers, body = body,
    body_bytes = #body, status = answer.status or 0, connection = request.connection,
    at = clock.now() / clock.SECOND, captured = captured,
  }
  if captured then captured.counted = true else entry.body_bytes = #request.body end
  self.entries[self.last] = entry
  self.bytes = self.bytes + (captured and captured.kept or #body)
  while self.last - self.first >= MAX_ENTRIES or self.bytes > MAX_BYTES do forget_oldest(self) end
  return entry
end

local function shown(entry)
  local captured = entry.captured
  if not captured then return entry end
  local row = {}
  for name, value in pairs(entry) do row[name] = value end
  row.body, row.body_bytes, row.captured = json.clean(table.concat(captured.parts)), captured.size, nil
  return row
end

---What arrived since the start or the last `clear`, oldest first.
---@return table
function control:log()
  local list = json.array({})
  for i = self.first, self.last do list[#list + 1] = shown(self.entries[i]) end
  return { requests = list, total = self.last }
end

function control:clear()
  for i = self.first, self.last do
    if self.entries[i].captured then self.entries[i].captured.forgotten = true end
  end
  self.entries, self.first, self.last, self.bytes = {}, 1, 0, 0
end

local function matches(override, request)
  return (not override.method or override.method == request.method)
    and (not override.path or request.path:find(override.path, 1, true) == 1)
end

---@param request table
---@return table|nil reply an answer made to order
function control:override(request)
  if request.path:find("^/_control/") then return nil end
  for i, override in ipairs(self.overrides) do
    if matches(override, request) then
      override.count = override.count - 1
      if override.count <= 0 then table.remove(self.overrides, i) end
      if override.delay then cqueues.sleep(override.delay) end
      if override.drop then return { drop = true, headers = {} } end
      request.cut_after = override.cut_after
      if not override.status then return nil end
      local headers = { "content-type", override.content_type or "application/json" }
      for name, value in pairs(override.headers or {}) do
        headers[#headers + 1] = name:lower()
        headers[#headers + 1] = tostring(value)
      end
      local body = override.body
      if body == nil then
        body = { code = override.status, message = override.message or "made to order" }
      end
      if type(body) ~= "string" then body = json.encode(body) end
      return { status = override.status, body = body, headers = headers }
    end
  end
end

local setters = {}

function setters.latency(self, value) self.app.options.latency = value or nil end
function setters.transition(self, value) self.app.options.transition = value or 0 end
function setters.max_sandboxes(self, value) self.app.options.max_sandboxes = value or nil end
function setters.max_timeout(self, value) self.app.options.max_timeout = value end
function setters.ignore_filters(self, value) self.app.options.ignore_filters = value end
function setters.no_v2(self, value) self.app.options.missing.v2 = value == true and 404 or value end
function setters.no_resume(self, value) self.app.options.missing.resume = value == true and 405 or value end
function setters.clock_skew(_, value) clock.set_skew(value or 0) end

function setters.rate_limit(self, value)
  self.app.limiter:set(value and { value[1], value[2] } or nil)
end

function setters.fail_next(self, value)
  if not value then
    self.overrides = {}
    return
  end
  value.count = value.count or 1
  self.overrides[#self.overrides + 1] = value
end

---Changes switches; `false` or `null` turns one off.
---@param settings table
---@return table answer `{ ok = true }` or `{ error = message }`
function control:set(settings)
  for name in pairs(settings) do
    if not setters[name] then return { error = "unknown switch: " .. name } end
  end
  for name, value in pairs(settings) do
    local plain = json.plain(value) or false
    -- A body made to order goes out as it came in: `[]` stays an array.
    if name == "fail_next" and plain then plain.body = value.body end
    setters[name](self, plain)
  end
  return { ok = true }
end

local function obey(self, line)
  local message, problem = json.decode(line)
  if not json.is_object(message) then return { error = problem or "not an object" } end
  if message.command == "requests" then
    return self:log()
  elseif message.command == "clear" then
    self:clear()
    return { ok = true }
  elseif message.command == "set" then
    return self:set(message.settings or {})
  end
  return { error = "unknown command" }
end

---Runs one command that came over the pipe. There is always an answer: the other side waits for it.
---@param line string JSON: `{ command, settings? }`
---@return string answer one line of JSON
function control:command(line)
  local ok, answer = pcall(obey, self, line)
  return json.encode(ok and answer or { error = tostring(answer) })
end

---@param routes table
function control:routes(routes)
  local open = { open = true }
  routes:add("GET", "/_control/requests", function() return reply.json(200, self:log()) end, open)
  routes:add("DELETE", "/_control/requests", function()
    self:clear()
    return reply.empty()
  end, open)
  routes:add("POST", "/_control/set", function(request)
    local settings, problem = json.decode(request.body)
    if not json.is_object(settings) then return reply.failure(400, problem or "not an object") end
    local answer = self:set(settings)
    return answer.error and reply.failure(400, answer.error) or reply.json(200, answer)
  end, open)
end

return control
