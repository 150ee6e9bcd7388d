--- How a stream begins: its clocks, and what is asked of the other side so that it never goes quiet.
local core = require("e2b.core")
local access = require("e2b.access")
local driver = require("e2b.loop.driver")
local exchange = require("e2b.exchange")
local loops = require("e2b.loop.init")
local stream = require("e2b.stream")

local M = {}

local now, watch, unwatch = core.now, driver.watch, driver.unwatch
local NONE = {}

-- Seconds between the signs of life that are asked of a stream of events. When twice that is over without one, the
-- stream has gone quiet.
local KEEPALIVE = 50
-- They come no more often than that; an idle_timeout from here to twice this would end every process that is silent.
local SHORTEST = 1

-- What is asked of a stream of events so that it never goes quiet, and ends when it should on the other side too.
local function clocks(self, context, timeout)
  local laid = context.transfer or NONE
  local quiet = laid.idle_timeout or self.opts.idle_timeout or self.state.config.idle_of_events or 2 * KEEPALIVE
  if quiet >= SHORTEST and quiet < 2 * SHORTEST then quiet = 2 * SHORTEST end
  local headers = {}
  for i, text in ipairs(context.headers or NONE) do headers[i] = text end
  if timeout then
    local milliseconds = math.min(math.max(math.ceil(timeout * 1000), 1), 9999999999)
    headers[#headers + 1] = "Connect-Timeout-Ms"
    headers[#headers + 1] = ("%.0f"):format(milliseconds)
  end
  local interval = quiet > 0 and math.max(SHORTEST, math.min(KEEPALIVE, math.floor(quiet / 2))) or KEEPALIVE
  headers[#headers + 1] = "Keepalive-Ping-Interval"
  headers[#headers + 1] = ("%d"):format(interval)
  self.headers_out, self.transfer_opts = headers, { idle_timeout = quiet }
  for name, value in pairs(laid) do
    if name ~= "idle_timeout" then self.transfer_opts[name] = value end
  end
end

local function nothing() end

-- What a wait of this stream calls; made once, for there may be many waits.
local function waits_of(self)
  function self.wake(_, event)
    if event ~= "done" then unwatch(self.transfer) end
    stream.wake_all(self)
  end
  local function cancel()
    self.waiting = nil
    if not (self.more and next(self.more)) then unwatch(self.transfer) end
  end
  -- Nobody reads on who waited here (a request of nginx has ended): full of what nobody takes, the transfer would never
  -- end.
  local function orphaned()
    if not (self.waiting or self.concluding or self.more and next(self.more)) then self:close() end
  end
  function self.pause() return nothing, orphaned end
  function self.start(done)
    -- While the result is taken already there is nothing to watch: stream.wake_all ends the wait.
    if self.waiting or self.concluding then
      self.more = self.more or {}
      self.more[done] = true
      return function()
        if not self.more then return end
        self.more[done] = nil
        if not self.waiting and not self.concluding and not next(self.more) then unwatch(self.transfer) end
      end
    end
    self.waiting = done
    watch(self.transfer, self.wake)
    return cancel, orphaned
  end
end

--- Sends a call and doesn't wait. Its answer is read with event() or read(), its request written with write().
---@param state table of the client
---@param name string row of the table of calls
---@param args table?
---@param opts table? request_timeout, connect_timeout, idle_timeout, retries
---@param context table? as for calls; `timeout`: seconds for the whole; `first`: seconds until the first event or byte
---  (request_timeout; false: none)
---@return e2b.Stream? stream
---@return string? message
---@return e2b.Error? err
function M.open(state, name, args, opts, context)
  opts, context, args = opts or NONE, context or NONE, args or NONE
  local loop = loops.choose(state.config.loop)
  local possible, why_not = loop.may_wait()
  if not possible then return access.refuse("unsupported", why_not, context, args) end
  if not (context.target or state.target) then
    local target, message, err = access.target(state, context, args)
    if not target then return nil, message, err end
  end
  local began, laid = now(), context.transfer or NONE
  local timeout = context.timeout and context.timeout > 0 and context.timeout or nil
  local first = context.first
  if first == nil and laid.source == nil then first = opts.request_timeout or state.config.request_timeout end
  local self = setmetatable({
    state = state, name = name, args = args, opts = opts, context = context, began = began, attempts = 0, begun = false,
    streak = 0, deadline = timeout and began + timeout, first = first and first > 0 and began + first or nil,
    first_seconds = first or nil, chunks = laid.source == "chunks", is_events = core.calls[name].stream,
  }, stream.mt)
  if self.is_events then
    clocks(self, context, timeout)
  else
    self.headers_out, self.transfer_opts = context.headers, context.transfer
  end
  if context.progress then
    self.progress_fn, self.tell_at = exchange.teller(context.progress, core.calls[name].method ~= "GET"), 0
  end
  waits_of(self)
  local sent, message, err = stream.send(self)
  if not sent then return nil, message, err end
  return self
end

return M
