--- One attempt: a transfer from its start to its result.
local core = require("e2b.core")
local driver = require("e2b.loop.driver")
local hook = require("e2b.wait")

local M = {}

-- The core keeps the clocks and knows what was sent when one ends; this much later (seconds) the wait ends without it.
local GRACE = 0.05

local watch, unwatch = driver.watch, driver.unwatch

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

return M
