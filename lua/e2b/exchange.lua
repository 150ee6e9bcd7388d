--- One attempt: a transfer from its start to its result.
local core = require("e2b.core")
local driver = require("e2b.loop.driver")
local tasks = require("e2b.tasks")

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
  local started = false
  local _, why = tasks.await(function(done)
    core.engine():start(transfer)
    started = true
    watch(transfer, done)
    return function()
      unwatch(transfer)
      transfer:cancel()
    end
  end, deadline and deadline + GRACE, loop)
  if why == "done" then return transfer:result() end
  if not started then
    transfer:cancel()
    return false, { cause = "cancelled", sent = "no" }
  end
  local ok, facts = transfer:result()
  if not ok and why == "deadline" then facts.cause, facts.deadline = "deadline", "request_timeout" end
  return ok, facts
end

return M
