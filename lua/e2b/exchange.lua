--- One attempt: a transfer from its making to its result.
local core = require("e2b.core")
local driver = require("e2b.loop.driver")
local hook = require("e2b.wait")

local M = {}

-- The core keeps the clocks and knows what was sent when one ends; this much later (seconds) the wait ends without it.
local GRACE = 0.05

local now, watch, unwatch = core.now, driver.watch, driver.unwatch

-- The options of one call's transfer over those of all. What isn't collected in memory has no size that is too large.
local function laid_over(name_of_row, plan, transfer)
  local own = {}
  for name, value in pairs(plan) do own[name] = value end
  for name, value in pairs(transfer) do
    if name ~= "timeout" then own[name] = value end
  end
  if own.idle_timeout == 0 then own.idle_timeout = nil end
  if transfer.stream or transfer.sink or core.calls[name_of_row].stream then own.max_bytes = transfer.max_bytes end
  return own
end

--- The transfer of an attempt. The fields of `plan` are read before anything can be suspended, so there is one table
--- for all calls of a client.
---@param state table of the client
---@param target userdata
---@param name string row of the table of calls
---@param args table
---@param opts table connect_timeout, idle_timeout
---@param deadline number? on the clock of core.now()
---@param headers string[]? of this call: name, value, name, value …
---@param transfer_opts table? options of this call's transfer, over those that every call has
---@return userdata? transfer
---@return table? facts why nothing can be sent
function M.prepare(state, target, name, args, opts, deadline, headers, transfer_opts)
  local cfg, plan = state.config, state.plan
  local connect, between = opts.connect_timeout or cfg.connect_timeout, opts.idle_timeout or cfg.idle_timeout
  local left = deadline and deadline - now() or nil
  if left and left <= 0 then return nil, { cause = "deadline", deadline = "request_timeout", sent = "no" } end
  plan.timeout = left
  plan.connect_timeout = connect > 0 and connect or nil
  plan.idle_timeout = between > 0 and between or nil
  plan.headers = headers
  if transfer_opts then plan = laid_over(name, plan, transfer_opts) end
  local transfer, wrong = core.transfer(target, name, args, plan)
  if not transfer then return nil, { cause = "argument", text = wrong, sent = "no" } end
  -- Each time: the engine may be another one by now (after a fork) or have been closed.
  if cfg.connections then core.engine():connections(cfg.connections) end
  return transfer
end

-- How often (seconds) somebody is told how far a transfer is.
local TICK = 0.1

local function unwatched(transfer, done)
  watch(transfer, function(_, event)
    if event == "done" then done("done") end
  end)
  return function() unwatch(transfer) end
end

-- Waits for the end and tells how far it is meanwhile.
local function tell(transfer, last, loop, progress)
  local why
  local function start(done) return unwatched(transfer, done) end
  core.engine():start(transfer)
  repeat
    local tick = now() + TICK
    if core.engine():wait(0, transfer) then
      why = "done"
    else
      local got
      got, why = hook.await(start, last and last < tick and last or tick, loop)
      if got then why = got end
      if why == "deadline" and not (last and now() >= last) then why = nil end
    end
    progress(transfer)
  until why
  return why
end

-- A raise (Ctrl-C, the caller's own function) must not leave the transfer running.
local function run_and_tell(transfer, last, loop, progress)
  local ok, why = hook.pcall(tell, transfer, last, loop, progress)
  if not ok or why ~= "done" then
    unwatch(transfer)
    transfer:cancel()
  end
  if not ok then error(why, 0) end
  return why
end

--- Tells a caller's function how far a transfer is: bytes done, and bytes in all where that is known.
---@param fn fun(done: integer, total: integer?)
---@param up boolean the request's body counts, not the answer's
---@return fun(transfer: userdata)
function M.teller(fn, up)
  return function(transfer)
    local down, sent, total_down, total_up = transfer:progress()
    if up then return fn(sent, total_up) end
    return fn(down, total_down)
  end
end

-- What a wait for a transfer begins with, and whether it did. Made in here: a coroutine that its host ends (nginx)
-- takes along the variables of the functions it was in, and the orphan's turn is after that.
local function sending(transfer, orphan)
  local sent = {}
  local function cancel()
    unwatch(transfer)
    transfer:cancel()
  end
  local function orphaned(_, event)
    if event == "done" then return orphan(transfer:result()) end
  end
  return function(done)
    core.engine():start(transfer)
    sent.started = true
    watch(transfer, done)
    return cancel, orphan and orphaned
  end, sent
end

--- Sends a prepared transfer and waits for its end.
---@param transfer userdata
---@param deadline number? on the clock of core.now()
---@param loop table?
---@param progress fun(transfer: userdata)? called about ten times a second, and at the end
---@param orphan fun(ok: boolean, ...)? called with the result, where one may wait, when nobody waits for it any more
---  (in nginx: the request has ended)
---@return boolean ok
---@return any ... of transfer:result()
function M.run(transfer, deadline, loop, progress, orphan)
  local last, _, why = deadline and deadline + GRACE
  local exchange = loop and loop.exchange
  if progress then
    why = run_and_tell(transfer, last, loop, progress)
  elseif exchange and hook.alone() then
    why = exchange(transfer, last)
  else
    local start, sent = sending(transfer, orphan)
    _, why = hook.await(start, last, loop)
    if not sent.started then
      transfer:cancel()
      return false, { cause = "cancelled", sent = "no" }
    end
  end
  if why == "done" then return transfer:result() end
  local ok, facts = transfer:result()
  if not ok and why == "deadline" then facts.cause, facts.deadline = "deadline", "request_timeout" end
  return ok, facts
end

--- What a call that succeeded returns.
---@return any value
---@return table meta
function M.succeed(attempts, value, date, status, next_token, total_running, request_id)
  return value, {
    date = date, status = status, next_token = next_token, total_running = total_running, request_id = request_id,
    attempts = attempts,
  }
end

return M
