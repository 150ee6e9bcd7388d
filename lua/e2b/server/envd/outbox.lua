--- What one client still has to be sent: a bounded queue between what makes events and the connection.
-- @module e2b.server.envd.outbox

local cqueues = require("cqueues")
local condition = require("cqueues.condition")
local connect = require("e2b.server.envd.connect")

local outbox = {}
local methods = {}
local meta = { __index = methods, __name = "e2b.server.outbox" }

local FULL = 128 * 1024 -- bytes from which on the maker has to wait
local KEEPALIVE = connect.envelope(0, '{"event":{"keepalive":{}}}')

local monotime = cqueues.monotime

---@param on_room function|nil called when a full queue was emptied, and when the client has left
---@return table outbox
function outbox.new(on_room)
  return setmetatable({ parts = {}, count = 0, bytes = 0, news = condition.new(), on_room = on_room }, meta)
end

---@return boolean
function methods:is_full()
  return self.bytes >= FULL
end

---Takes envelopes; never waits and never refuses: the maker asks `is_full` first.
---@param envelope string
function methods:push(envelope)
  if self.left then return end
  self.count = self.count + 1
  self.parts[self.count] = envelope
  self.bytes = self.bytes + #envelope
  if self.count == 1 then self.news:signal() end
end

---Looks at the clock anew.
function methods:wake()
  self.news:signal()
end

---Nothing more will come.
function methods:finish()
  self.finished = true
  self.news:signal()
end

local function take(self)
  local all = self.count == 1 and self.parts[1] or table.concat(self.parts, "", 1, self.count)
  local was_full = self:is_full()
  self.parts, self.count, self.bytes = {}, 0, 0
  if was_full and self.on_room then self.on_room() end
  return all
end

local function deadline_of(self)
  local clock = self.clock
  return clock and not clock.paused and clock.deadline
end

-- Waits for news, for the next keepalive, for the deadline or for the client to leave.
local function wait(self, request, gone, send, last)
  local now = monotime()
  local ping = last + request.keepalive
  if now >= ping then
    return send(KEEPALIVE), now
  end
  local timeout = math.min(ping, deadline_of(self) or ping) - now
  cqueues.poll(self.news, gone, math.max(timeout, 0))
  return self.count > 0 or not request.gone(), last
end

local function run(self, request, send)
  local gone = request.on_gone()
  local last = monotime()
  local ok = true
  while ok do
    local deadline = deadline_of(self)
    if deadline and monotime() >= deadline then
      connect.raise("deadline_exceeded", "context deadline exceeded")
    end
    if self.count > 0 then
      ok = send(take(self))
      last = monotime()
    elseif self.finished then
      return
    else
      ok, last = wait(self, request, gone, send, last)
    end
  end
end

---Sends what comes until it is finished or the client is gone; raises when the time is over.
---@param request table
---@param send fun(envelopes: string): boolean
---@param clock table|nil `deadline` (monotime) of the stream, `paused`; `wake` makes a change of them known
function methods:run(request, send, clock)
  self.clock = clock
  return run(self, request, send)
end

---The client is gone: frees what waits for room.
function methods:leave()
  self.left = true
  self.parts, self.count, self.bytes = {}, 0, 0
  if self.on_room then self.on_room() end
end

return outbox
