--- Carries one exchange between a client and a service inside a sandbox: HTTP/1.1 on both sides, streamed both ways.
-- Bodies are never parsed or kept. Framing is written anew on both hops, so that no two readers can see different
-- requests in the same bytes.
-- @module e2b.server.proxy

local cqueues = require("cqueues")
local condition = require("cqueues.condition")
local ce = require("cqueues.errno")
local cs = require("cqueues.socket")
local protect = require("e2b.server.protect")
local reply = require("e2b.server.reply")
local wire = require("e2b.server.wire")

local proxy = {}

local IDLE = 640 -- seconds without a byte
local HEAD_TIMEOUT = 640 -- until a service answers
local SMALL = 65536 -- bodies up to this are sent in one piece with their head
local MAX_HEADS = 16 -- interim ones and the answer's own
local LINGER = 2
local LINGER_BYTES = 16 * 1024 * 1024

-- What belongs to one connection, not to the message (and Expect, which this end has answered).
local HOP = {
  connection = true, ["keep-alive"] = true, ["proxy-authenticate"] = true, ["proxy-authorization"] = true,
  ["proxy-connection"] = true, te = true, trailer = true, ["transfer-encoding"] = true, upgrade = true,
  ["content-length"] = true, expect = true,
}

-- Fields without those of the connection, also those that `Connection` names.
local function end_to_end(fields, drop)
  local named, kept = {}, {}
  for i = 1, #fields, 2 do
    if fields[i]:lower() == "connection" then
      for word in fields[i + 1]:lower():gmatch("[^%s,]+") do named[word] = true end
    end
  end
  for i = 1, #fields, 2 do
    local name = fields[i]:lower()
    if not HOP[name] and not named[name] and not (drop and drop[name]) then
      kept[#kept + 1], kept[#kept + 2] = fields[i], fields[i + 1]
    end
  end
  return kept
end

local function find(fields, wanted)
  for i = 1, #fields, 2 do
    if fields[i]:lower() == wanted then return fields[i + 1] end
  end
end

local function add(fields, name, value)
  fields[#fields + 1], fields[#fields + 2] = name, value
end

-- ---------------------------------------------------------------- the request

local function request_head(request, target, kind, length)
  local fields = end_to_end(request.fields, target.drop)
  if target.host then
    for i = 1, #fields, 2 do
      if fields[i]:lower() == "host" then fields[i + 1] = target.host end
    end
  end
  if kind == "chunked" then
    add(fields, "Transfer-Encoding", "chunked")
  elseif kind == "length" or find(request.fields, "content-length") then
    add(fields, "Content-Length", string.format("%d", length or 0))
  end
  local upgrade = find(request.fields, "upgrade")
  if upgrade and kind == "none" and target.may_upgrade then
    add(fields, "Upgrade", upgrade)
    add(fields, "Connection", "Upgrade")
  else
    upgrade = nil
    add(fields, "Connection", "close")
  end
  local path = request.path .. (request.query_string ~= "" and "?" .. request.query_string or "")
  return wire.head(request.method .. " " .. path .. " HTTP/1.1", fields), upgrade
end

-- Sends what is left of the body; runs beside the reading of the answer, which may come before the body has ended.
local function pump_body(state, request, service, kind)
  while true do
    local piece, problem = request.read()
    if problem then
      -- The client is gone, or its framing is a lie: the service must not take what it got for the whole.
      state.malformed = problem == "malformed" or problem == "too_large"
      state.cut = true
      if not state.answered then service:shut() end
      break
    end
    if not piece then
      if kind == "chunked" then service:write(wire.LAST_CHUNK, IDLE) end
      break
    end
    if not service:write(kind == "chunked" and wire.chunk(piece) or piece, IDLE) then break end
  end
  state.pumping = false
  state.pumped:signal()
end

-- Sends head and body; true, or nil when the client went away.
local function send(state, request, target, service)
  local kind, length = wire.framing(request)
  local head, upgrade = request_head(request, target, kind, length)
  state.upgrade = upgrade
  if kind == "none" then
    service:write(head, IDLE)
    return true
  end
  if kind == "length" and length <= SMALL then
    local parts = { head }
    while true do
      local piece, problem = request.read()
      if problem then return nil end
      if not piece then break end
      parts[#parts + 1] = piece
    end
    service:write(table.concat(parts), IDLE)
    return true
  end
  service:write(head, IDLE)
  state.pumping = true
  cqueues.running():wrap(function()
    protect(pump_body, state, request, service, kind)
    state.pumping = false
    state.pumped:signal()
  end)
  return true
end

-- A client that closes ends the exchange at the service too, however long that is silent.
local function watch_client(state, request, client, service)
  cqueues.running():wrap(function()
    if state.pumping then state.pumped:wait() end
    if state.ended then return end
    local gone = request.on_gone()
    state.gone = gone
    if cqueues.poll(gone, state.done) == gone and not state.ended and client:gone() then service:shut() end
  end)
end

-- ---------------------------------------------------------------- the answer

local function copy(from, to)
  while true do
    local piece = from.socket and from.socket:xread(-SMALL, IDLE)
    if not piece or piece == "" or not to:write(piece, IDLE) then break end
  end
  -- One side that has ended ends both: nothing here needs a half-open tunnel.
  from:shut()
  to:shut()
end

---Joins two connections until one of them ends.
---@param one table wire
---@param other table wire
function proxy.tunnel(one, other)
  local ended, running = condition.new(), true
  cqueues.running():wrap(function()
    protect(copy, other, one)
    running = false
    ended:signal()
  end)
  copy(one, other)
  if running then ended:wait() end
end

local function answer_fields(answer, request, kind, length)
  local fields = end_to_end(answer.fields)
  local bodiless = request.method == "HEAD" or answer.status == 204 or answer.status == 304
  local chunked
  if bodiless then
    local announced = find(answer.fields, "content-length")
    if announced and announced:find("^%d+$") and answer.status ~= 204 then add(fields, "Content-Length", announced) end
  elseif kind == "length" or kind == "none" then
    add(fields, "Content-Length", string.format("%d", length or 0))
  elseif request.version == 1.1 then
    chunked = true
    add(fields, "Transfer-Encoding", "chunked")
  end
  return fields, bodiless, chunked
end

local function body_of(state, request, client, service, kind, length, chunked)
  local pull = service:body(kind, length)
  local budget = request.cut_after
  while true do
    local piece, problem = pull(IDLE)
    if problem then return false end
    if not piece then break end
    if budget then
      -- A test asked for an answer that breaks off.
      piece = piece:sub(1, budget)
      budget = budget - #piece
    end
    if piece ~= "" and not client:write(chunked and wire.chunk(piece) or piece, IDLE) then return false end
    if budget == 0 then return false end
    if state.ended then return false end
  end
  return not chunked or client:write(wire.LAST_CHUNK, IDLE) ~= nil
end

local function pass_answer(state, request, client, service)
  local answer
  local heads = 0
  repeat
    answer = service:read_answer(HEAD_TIMEOUT)
    heads = heads + 1
    if not answer or heads > MAX_HEADS then return nil end
  until answer.status >= 200 or answer.status == 101
  -- What the service says to half a body is no answer to this request.
  if state.cut then return nil end
  if answer.status == 101 then
    if not state.upgrade then return nil end
    state.answered, state.status = true, answer.status
    local fields = end_to_end(answer.fields)
    add(fields, "Upgrade", find(answer.fields, "upgrade") or state.upgrade)
    add(fields, "Connection", "Upgrade")
    state.done:signal()
    if client:write(wire.head("HTTP/1.1 101 Switching Protocols", fields), IDLE) then proxy.tunnel(client, service) end
    return false
  end
  local kind, length = wire.framing(answer)
  if not kind then return nil end
  state.answered, state.status = true, answer.status
  local fields, bodiless, chunked = answer_fields(answer, request, kind, length)
  local unsent = request.left() ~= 0
  local keep = not unsent and (chunked or bodiless or kind ~= "close")
  if not keep or wire.closes(request) then
    keep = false
    add(fields, "Connection", "close")
  elseif request.version == 1.0 then
    add(fields, "Connection", "keep-alive")
  end
  local line = string.format("HTTP/%.1f %d %s", request.version, answer.status, answer.reason)
  if not client:write(wire.head(line, fields), IDLE) then return false end
  if not bodiless and not body_of(state, request, client, service, kind, length, chunked) then return false end
  if unsent then
    -- Answered before the body had ended: nobody wants the rest.
    service:shut()
    client:linger(LINGER, LINGER_BYTES)
  end
  return keep
end

-- ---------------------------------------------------------------- both

local REASONS = { [400] = "Bad Request", [502] = "Bad Gateway" }

-- One answer of the proxy's own, in place of the service's.
local function own_answer(client, request, answer)
  local fields = { "Content-Type", "application/json; charset=utf-8", "Content-Length",
    string.format("%d", #answer.body), "Connection", "close" }
  for i = 1, #answer.headers, 2 do add(fields, answer.headers[i], answer.headers[i + 1]) end
  local line = string.format("HTTP/%.1f %d %s", request.version, answer.status, REASONS[answer.status])
  client:write(wire.head(line, fields) .. (request.method == "HEAD" and "" or answer.body), IDLE)
  client:linger(LINGER, LINGER_BYTES)
end

---The reply (see e2b.server.http) that carries an exchange to a service.
---@param target table `service` (a connected e2b.server.wire), `broken` (fun(): reply, when the service closed without
---  an answer), `host` (string|nil, replaces Host), `drop` (set of names of fields that are not passed on),
---  `may_upgrade`, `track` (fun(cut): forget; told how to end the exchange, its result is called at the end)
---@return table reply
function proxy.reply(target)
  return { headers = {}, status = 0, exchange = function(client, request)
    local service = target.service
    local state = { done = condition.new(), pumped = condition.new() }
    local function cut()
      service:shut()
      client:shut()
    end
    local untrack = target.track and target.track(cut)
    local ok, keep = protect(function()
      if not send(state, request, target, service) then return false end
      watch_client(state, request, client, service)
      return pass_answer(state, request, client, service)
    end)
    state.ended = true
    state.done:signal()
    if not ok then
      io.stderr:write("e2b-server: ", tostring(keep), "\n")
      keep = false
    elseif keep == nil then
      if not state.answered and not client:gone() then
        local answer = state.malformed and reply.failure(400, "malformed request body") or target.broken()
        state.status = answer.status
        own_answer(client, request, answer)
      end
      keep = false
    end
    service:close()
    if untrack then untrack() end
    if request.on_done then request.on_done(state.status or 0) end
    if not keep and client.socket then client:close() end
    if state.pumping then state.pumped:wait() end
    return keep
  end }
end

---Connects to a Unix socket.
---@param path string
---@return table|nil wire
---@return boolean|nil dead nobody listens there
function proxy.dial(path)
  local ok, socket = pcall(cs.connect, { path = path })
  if not ok or not socket then return nil, true end
  local service = wire.new(socket)
  local connected, errno = socket:connect(5)
  if connected then return service end
  service:close()
  return nil, errno == ce.ECONNREFUSED or errno == ce.ENOENT
end

return proxy
