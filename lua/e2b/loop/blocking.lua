--- The loop of a plain script: the caller waits inside the engine, and everything in flight moves on meanwhile.
local core = require("e2b.core")
local compat = require("e2b.compat")
local driver = require("e2b.loop.driver")

local M = {}

-- All coroutines of the process wait here together, so the tasks of one are carried on by the wait of any other.
M.shared = true

local now, drain, watch, unwatch = core.now, driver.drain, driver.watch, driver.unwatch

-- Back in Lua at least this often (seconds), so that a signal handler's hook (Ctrl-C) gets its turn.
local SLICE = 1

--- Waiting is possible everywhere.
---@return boolean
function M.may_wait()
  return true
end

local function wait(engine, over, key, deadline)
  local late = false
  while true do
    local seconds = SLICE
    if deadline then
      seconds = deadline - now()
      if seconds <= 0 then
        seconds, late = 0, true
      elseif seconds > SLICE then
        seconds = SLICE
      end
    end
    engine:wait(seconds)
    drain(engine)
    if over[key] or late then return end
  end
end

--- Calls `start(done)` and returns what `done` gets. At the deadline: cancels and returns nil, "deadline". An error out
--- of the wait (Ctrl-C's "interrupted!") cancels too and goes on to the caller.
---@param start fun(done: fun(...)): fun() cancel
---@param deadline number? on the clock of core.now()
---@return any ...
function M.await(start, deadline)
  local state = { over = false }
  local cancel = start(function(a, b, ...)
    state.over, state.a, state.b = true, a, b
    if select("#", ...) > 0 then state.more = compat.pack(...) end
  end)
  local ok, raised = pcall(wait, core.engine(), state, "over", deadline)
  if not ok then
    cancel()
    error(raised, 0)
  end
  if state.over then
    if state.more then return state.a, state.b, compat.unpack(state.more, 1, state.more.n) end
    return state.a, state.b
  end
  cancel()
  return nil, "deadline"
end

local ended = {}

local function note(transfer, event)
  if event == "done" then ended[transfer] = true end
end

--- Sends a transfer and waits for its end: what nearly all waits are, so this makes no functions for it.
---@param transfer userdata
---@param deadline number? on the clock of core.now()
---@return "done"|"deadline" why cancelled at the deadline
function M.exchange(transfer, deadline)
  local engine = core.engine()
  engine:start(transfer)
  watch(transfer, note)
  local ok, raised = pcall(wait, engine, ended, transfer, deadline)
  local over = ended[transfer]
  ended[transfer] = nil
  if over and ok then return "done" end
  unwatch(transfer)
  transfer:cancel()
  if not ok then error(raised, 0) end
  return "deadline"
end

return M
