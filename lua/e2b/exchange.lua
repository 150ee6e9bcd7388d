--- One attempt: a transfer from its making to its result.
local core = require("e2b.core")
local driver = require("e2b.loop.driver")
local hook = require("e2b.wait")

local M = {}

-- The core keeps the clocks and knows what was sent when one ends; this much later (seconds) the wait ends without it.
local GRACE = 0.05

local now, watch, unwatch = core.now, driver.watch, driver.unwatch

--- The transfer of an attempt. The fields of `plan` are read before anything can be suspended, so there is one table
--- for all calls of a client.
---@param state table of the client
---@param target userdata
---@param name string row of the table of calls
---@param args table
---@param opts table connect_timeout, idle_timeout
---@param deadline number? on the clock of core.now()
---@return userdata? transfer
---@return table? facts why nothing can be sent
function M.prepare(state, target, name, args, opts, deadline)
  local cfg, plan = state.config, state.plan
  local connect, between = opts.connect_timeout or cfg.connect_timeout, opts.idle_timeout or cfg.idle_timeout
  local left = deadline and deadline - now() or nil
  if left and left <= 0 then return nil, { cause = "deadline", deadline = "request_timeout", sent = "no" } end
  plan.timeout = left
  plan.connect_timeout = connect > 0 and connect or nil
  plan.idle_timeout = between > 0 and between or nil
  local transfer, wrong = core.transfer(target, name, args, plan)
  if not transfer then return nil, { cause = "argument", text = wrong, sent = "no" } end
  -- Each time: the engine may be another one by now (after a fork) or have been closed.
  if cfg.connections then core.engine():connections(cfg.connections) end
  return transfer
end

--- Sends a prepared transfer and waits for its end.
---@param transfer userdata
---@param deadline number? on the clock of core.now()
---@param loop table?
---@return boolean ok
---@return any ... of transfer:result()
function M.run(transfer, deadline, loop)
  local last, _, why = deadline and deadline + GRACE
  local exchange = loop and loop.exchange
  if exchange and hook.alone() then
    why = exchange(transfer, last)
  else
    local started = false
    _, why = hook.await(function(done)
      core.engine():start(transfer)
      started = true
      watch(transfer, done)
      return function()
        unwatch(transfer)
        transfer:cancel()
      end
    end, last, loop)
    if not started then
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
