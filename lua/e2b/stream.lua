--- A call whose answer is read, or whose request is written, while it runs: events and bytes, one after the other.
--- Nothing is made for an event; where the loop can do it, nothing is made for a wait either.
local core = require("e2b.core")
local access = require("e2b.access")
local exchange = require("e2b.exchange")
local driver = require("e2b.loop.driver")
local lazy = require("e2b.lazy")
local loops = require("e2b.loop.init")
local hook = require("e2b.wait")

local attempts, errors, retry = lazy("e2b.attempts"), lazy("e2b.errors"), lazy("e2b.retry")
local writing = lazy("e2b.stream_write")

local M = {}

local now, unwatch = core.now, driver.unwatch

-- The core keeps the clock of the whole; this much later (seconds) the wait ends without it.
local GRACE = 0.05
-- How often (seconds) somebody is told how far a stream is.
local TICK = 0.1
-- Bytes of an answer that are handed over at once, at most. LuaJIT has every string of 128 KiB and more mapped and
-- unmapped by the system, which costs more than all the rest.
local PIECE = 65536

---@class e2b.Stream
local methods = {}
local mt = { __name = "e2b.Stream", __index = methods }

-- Ends ---------------------------------------------------------------------------------------------------------------

local function release(self)
  if self.guard then
    self.guard:release()
    self.guard = nil
  end
end

local function wake_all(self)
  local done, more = self.waiting, self.more
  self.waiting, self.more = nil, nil
  if done then done(true) end
  if more then
    for other in pairs(more) do other(true) end
  end
end

local function tell(self, last)
  if self.progress_fn then
    local time = now()
    if last or time >= self.tell_at then
      self.tell_at = time + TICK
      self.progress_fn(self.transfer)
    end
  end
end

-- One line for the logger, when a stream is over: `...` is what transfer:result() says.
local function log(self, ...)
  if not self.state.config.logger then return end
  attempts.log_attempt(self.state, core.calls[self.name], self.args, self.attempts, self.sent_at,
    self.context.target ~= nil, ...)
end

local function over(self)
  self.ended = true
  release(self)
  wake_all(self)
end

local function fail(self, message, err)
  self.message, self.err = message, err
  over(self)
  return nil, message, err
end

local function ended(self)
  if self.message then return nil, self.message, self.err end
  return nil
end

-- What the core calls request_timeout is the time of the whole.
local function of_the_whole(facts)
  if facts.cause == "deadline" and facts.deadline == "request_timeout" then facts.deadline = "timeout" end
  return facts
end

local function cancelled(self)
  local context = self.context
  return errors.new("cancelled", {
    message = (context.operation or self.name) .. ": cancelled", operation = context.operation,
    sandbox_id = context.sandbox_id, sent = self.begun and "yes" or "maybe", retryable = false,
  })
end

-- Runs what may be suspended between the taking of a transfer's result and what comes of it: whoever else uses the
-- stream meanwhile leaves the transfer alone and waits for that.
local function concluding(self, fn, ...)
  self.concluding = true
  local ok, more, message, err = hook.pcall(fn, self, ...)
  self.concluding = nil
  if ok then
    if not self.ended then wake_all(self) end -- it is sent again
    return more, message, err
  end
  if not self.ended then -- Ctrl-C
    local _, text, why = cancelled(self)
    fail(self, text, why)
  end
  return error(more, 0)
end

-- The failure of a stream, from what its transfer says.
local function give_up(self, facts)
  local work = {
    attempts = self.attempts, idempotent = false, began = self.began, deadline = self.deadline,
    request_timeout = self.first_seconds, idle_timeout = self.transfer_opts and self.transfer_opts.idle_timeout,
  }
  if not self.begun and self.first and not (work.deadline and work.deadline < self.first) then
    work.deadline = self.first
  end
  local _, message, err = attempts.give_up(self.state, core.calls[self.name], self.args, self.opts, self.context,
    facts, work)
  if self.ended then return ended(self) end -- closed while the sandbox was asked how it is
  return fail(self, message, err)
end

local function stop(self, cause, clock)
  local transfer = self.transfer
  unwatch(transfer)
  transfer:cancel()
  local ok, facts = transfer:result()
  -- It may have ended at the same moment; what the caller waits for has not come all the same.
  if ok then facts = { sent = "yes" } end
  facts.cause, facts.deadline = cause, clock
  log(self, false, facts)
  return concluding(self, give_up, facts)
end

-- Waits --------------------------------------------------------------------------------------------------------------

local send

-- The time of a shield around the caller: the stream itself may go on.
local function shield_is_over(self)
  local context = self.context
  return errors.new("timeout", {
    message = (context.operation or self.name) .. ": the time for this was over first", operation = context.operation,
    sandbox_id = context.sandbox_id, deadline = "request_timeout", retryable = false,
  })
end

-- Waits until somebody else has found out how the stream goes on. As await_news.
local function await_other(self, deadline)
  local _, why = hook.await(self.start, deadline, loops.choose(self.state.config.loop), true)
  if why == "cancelled" then return cancelled(self) end
  if why ~= "deadline" then return true end
  if deadline and now() >= deadline then return false end
  return shield_is_over(self)
end

-- What is always there, or taken, needs no wait; all the same a cancel is seen now and then and others have their turn.
local function breathe(self)
  self.streak = self.streak + 1
  if self.streak < 64 or hook.alone() then return true end
  self.streak = 0
  return select(2, hook.await(self.pause, now(), loops.choose(self.state.config.loop))) ~= "cancelled"
end

-- Waits for news. true: look again; false: the caller's deadline is over; nil, message, err: so is the stream.
local function await_news(self, deadline)
  if self.concluding then return await_other(self, deadline) end
  local last = self.deadline and self.deadline + GRACE
  local first = not self.begun and self.first or nil
  if first and not (last and last < first) then last = first end
  if deadline and not (last and last < deadline) then last = deadline end
  local loop = loops.choose(self.state.config.loop)
  local possible, why_not = loop.may_wait()
  if not possible then return access.refuse("unsupported", why_not, self.context, self.args) end
  local news = loop.news
  if news and hook.alone() then
    if news(self.transfer, last) then return true end
  else
    local _, why = hook.await(self.start, last, loop)
    if why == "cancelled" then return cancelled(self) end
    if why ~= "deadline" then return true end
  end
  if self.ended or self.concluding then return true end -- by another task
  local time = now()
  if deadline and time >= deadline then return false end
  if first and time >= first then
    -- Into a file it goes by itself: the head is all there is to see of it here.
    local laid = self.context.transfer
    if not (laid and laid.sink and self.transfer:status()) then return stop(self, "deadline", "request_timeout") end
    self.begun = true
    return true
  end
  if self.deadline and time >= self.deadline then return stop(self, "deadline", "timeout") end
  return shield_is_over(self)
end

local function try_again(self, facts, wait)
  -- Whoever closes the stream meanwhile wakes this up.
  local _, why = hook.await(self.start, now() + wait, loops.choose(self.state.config.loop))
  if self.ended then return ended(self) end
  if why == "cancelled" then return give_up(self, { cause = "cancelled", sent = facts.sent }) end
  return send(self)
end

-- The transfer has ended: true when it is made again, else how the stream ends.
local function conclude(self, deadline)
  if self.concluding then return await_other(self, deadline) end
  local ok, a, date, status, next_token, total_running, request_id = self.transfer:result()
  log(self, ok, a, date, status, next_token, total_running, request_id)
  if ok then
    self.value, self.meta = exchange.succeed(self.attempts, a, date, status, next_token, total_running, request_id)
    tell(self, true)
    over(self)
    return nil
  end
  -- Only what was surely not sent: nothing is gone from a source then.
  local reason, wait = retry.decide(a, self.attempts, self.opts.retries or self.state.config.retries, false, false)
  if reason then
    local again = now() + wait
    local limit = hook.limit()
    if again >= (self.first or again + 1) or again >= (self.deadline or again + 1) or limit and again >= limit then
      reason = nil
    end
  end
  if reason then return concluding(self, try_again, a, wait) end
  return concluding(self, give_up, of_the_whole(a))
end

-- For the other files of streams.
M.tell, M.ended, M.await_news, M.conclude, M.TICK = tell, ended, await_news, conclude, TICK

-- Methods ------------------------------------------------------------------------------------------------------------

--- The next event. Suspends like every call; the wait ends at the stream's own clocks too.
---@param deadline number? on the clock of core.now()
---@return string|false|nil kind false: the deadline is over; nil: the stream has ended, or failed
---@return any value of the event; the message after a failure
---@return e2b.Error? err
function methods:event(deadline)
  if self.kept then
    local kind, value = self.kept, self.kept_value
    self.kept, self.kept_value = nil, nil
    return kind, value
  end
  if not breathe(self) then return cancelled(self) end
  while not self.ended do
    local kind, value = self.transfer:event()
    if kind then
      self.begun = true
      return kind, value
    end
    local more, message, err
    if kind == nil then
      more, message, err = conclude(self, deadline)
    else
      more, message, err = await_news(self, deadline)
    end
    if not more then return more, message, err end
  end
  return ended(self)
end

--- The next bytes of the answer.
---@param deadline number? on the clock of core.now()
---@return string|false|nil bytes false: the deadline is over; nil: the stream has ended, or failed
---@return string? message
---@return e2b.Error? err
function methods:read(deadline)
  local bytes = self.kept
  if bytes then
    self.kept = nil
    return bytes
  end
  if not breathe(self) then return cancelled(self) end
  while not self.ended do
    bytes = self.transfer:read(PIECE)
    if bytes then
      self.begun = true
      tell(self)
      return bytes
    end
    local more, message, err
    if bytes == nil then
      more, message, err = conclude(self, deadline)
    else
      more, message, err = await_news(self, deadline)
    end
    if not more then return more, message, err end
  end
  return ended(self)
end

--- Waits for the head of the answer.
---@return true? ok
---@return integer|string status_or_message
---@return e2b.Error? err
function methods:headers()
  while not self.ended do
    local status = self.transfer:status()
    if status and status >= 200 and status < 300 then
      self.begun = true
      return true, status
    end
    -- The head is news to whoever asks for the body.
    local kind, value
    if self.is_events then
      kind, value = self.transfer:event()
    else
      kind = self.transfer:read(PIECE)
    end
    if kind then
      self.kept, self.kept_value = kind, value
    else
      local more, message, err
      if kind == nil then
        more, message, err = conclude(self)
      else
        more, message, err = await_news(self)
      end
      if not more and message then return nil, message, err end
    end
  end
  if self.message then return ended(self) end
  return true, self.meta.status
end

--- Gives bytes of the request's body; suspends while there is no room for them.
---@param bytes string
---@return true? ok
---@return string? message
---@return e2b.Error? err
function methods:write(bytes)
  return writing.write(self, bytes)
end

--- Ends the request's body and waits for the answer.
---@return any value
---@return table|string meta_or_message
---@return e2b.Error? err
function methods:finish()
  return writing.finish(self)
end

--- Ends the stream here and now; what was not read is dropped. Closing twice is nothing.
function methods:close()
  if self.ended then return end
  if not self.concluding then
    unwatch(self.transfer)
    self.transfer:cancel()
    log(self, self.transfer:result())
  end
  local _, message, err = cancelled(self)
  fail(self, message, err)
end

--- Leaves the stream to itself: it goes on to its end, or that of its time, whenever anything else waits.
function methods:let_go()
  release(self)
end

--- How far the transfer is.
---@return integer bytes_down of the answer
---@return integer bytes_up of the request
---@return integer? total_down as announced
---@return integer? total_up
function methods:progress()
  return self.transfer:progress()
end

-- Sending ------------------------------------------------------------------------------------------------------------

-- Sends the request, the first time or again.
function send(self)
  local transfer, facts = exchange.prepare(self.state, self.context.target or self.state.target, self.name, self.args,
    self.opts, self.deadline, self.headers_out, self.transfer_opts)
  if not transfer then
    if facts.cause == "argument" then
      local _, message, err = access.refuse("invalid_argument", facts.text, self.context, self.args)
      return fail(self, message, err)
    end
    return give_up(self, of_the_whole(facts))
  end
  self.transfer = transfer
  self.guard = core.guard(transfer)
  self.attempts = self.attempts + 1
  self.sent_at = now()
  if self.early then writing.again(self) end
  core.engine():start(transfer)
  return true
end

M.send, M.wake_all, M.mt, M.breathe, M.cancelled = send, wake_all, mt, breathe, cancelled

return M
