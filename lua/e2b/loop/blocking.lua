--- The loop of a plain script: the caller waits inside the engine, and everything in flight moves on meanwhile.
local core = require("e2b.core")
local compat = require("e2b.compat")
local driver = require("e2b.loop.driver")

local M = {}

-- All coroutines of the process wait here together, so the tasks of one are carried on by the wait of any other.
M.shared = true

-- A terminal can be waited for beside the transfers.
M.watches_input = true

local now, drain = core.now, driver.drain

-- Back in Lua at least this often (seconds), so that a signal handler's hook (Ctrl-C) gets its turn.
local SLICE = 1

--- Waiting is possible everywhere.
---@return boolean
function M.may_wait()
  return true
end

-- Seconds of the next wait, and whether it is the last one.
local function slice(deadline)
  if not deadline then return SLICE, false end
  local seconds = deadline - now()
  if seconds <= 0 then return 0, true end
  return seconds < SLICE and seconds or SLICE, false
end

local function wait(engine, state, deadline)
  repeat
    local seconds, late = slice(deadline)
    local fd = driver.input_fd
    if fd then
      local _, _, readable = engine:wait(seconds, nil, fd)
      if readable then driver.input() end
    else
      engine:wait(seconds)
    end
    drain(engine)
  until state.over or late
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
  local ok, raised = pcall(wait, core.engine(), state, deadline)
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

local function send_and_wait(engine, transfer, deadline)
  engine:start(transfer)
  while true do
    local left = deadline and deadline - now() or SLICE
    local done, news = engine:wait(left < SLICE and left or SLICE, transfer)
    if news then drain(engine) end
    if done or left <= 0 then return done end
  end
end

--- Sends a transfer and waits for its end: what nearly all waits are, so nothing is made and kept for it.
---@param transfer userdata
---@param deadline number? on the clock of core.now()
---@return "done"|"deadline" why cancelled at the deadline
function M.exchange(transfer, deadline)
  local ok, done = pcall(send_and_wait, core.engine(), transfer, deadline)
  if ok and done then return "done" end
  transfer:cancel()
  if not ok then error(done, 0) end
  return "deadline"
end

--- Waits until there may be news of a transfer that runs: what nearly all waits of a stream are, so nothing is made and
--- kept for it.
---@param transfer userdata
---@param deadline number? on the clock of core.now()
---@return boolean news false at the deadline
function M.news(transfer, deadline)
  local engine = core.engine()
  while true do
    local left = deadline and deadline - now() or SLICE
    local done, news = engine:wait(left < SLICE and left or SLICE, transfer)
    if news then drain(engine) end
    if done or news then return true end
    if left <= 0 then return false end
  end
end

return M
