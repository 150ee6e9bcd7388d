--- A loop of the user's: their function suspends the caller (a coroutine of async.nvim or plenary, a scheduler of their
--- own), and the host's loop brings the news. Where the host has none of ours, the user's program takes the turns.
local compat = require("e2b.compat")
local loops = require("e2b.loop.init")
local waits = require("e2b.loop.waits")

local M = {}

local NOT_HERE = "a client with an await of its own can't be used in this host (nginx), which suspends calls by "
  .. "itself: leave the option out"

-- The waits that nobody but the user's own loop takes turns for.
local own
local on_wake

local function own_waits()
  own = own or waits.new(function()
    if on_wake then on_wake() end
  end)
  return own
end

local function call(start, deadline, done)
  local host = loops.choose()
  if host.call then return host.call(start, deadline, done) end
  return own_waits():begin(start, deadline, done)
end

--- A loop of `suspend(start, deadline)`: it calls `start(done)` when the caller is as good as suspended, and returns
--- what `done` is called with, once. The deadline is kept here. When it returns before that, the wait is cancelled.
---@param suspend fun(start: (fun(done: fun(...)): fun()), deadline: number?): ...
---@return table loop
function M.new(suspend)
  local loop = {}

  --- Not where calls can be suspended by the host only (nginx): nobody would take the turns.
  function loop.may_wait()
    local host = loops.choose()
    if host.spawn and not host.call then return nil, NOT_HERE end
    return true
  end

  local function after(state, ...)
    if state.over then return ... end
    state.over = true
    if state.cancel then state.cancel() end
    return nil, "cancelled"
  end

  local function after_call(state, ok, ...)
    if ok then return after(state, ...) end
    if not state.over then
      state.over = true
      if state.cancel then state.cancel() end
    end
    error((...), 0)
  end

  function loop.await(start, deadline)
    local state = { over = false }
    local function begin(done)
      state.cancel = call(start, deadline, function(...)
        state.over = true
        return done(...)
      end)
      return state.cancel
    end
    -- On Lua 5.1 nothing can be suspended inside of a pcall.
    if compat.puc51 then return after(state, suspend(begin, deadline)) end
    return after_call(state, pcall(suspend, begin, deadline))
  end

  return loop
end

--- What a loop that is not one of ours waits on, with cqueues' own names: when `pollfd()` is readable or `timeout()`
--- seconds are over, `step()` has to be called. `wake` is told when that has become sooner than it was; the last
--- one given.
---@param wake fun()?
---@return { pollfd: (fun(): integer), events: (fun(): string), timeout: (fun(): number?), step: fun() }
function M.pollable(wake)
  on_wake = wake or on_wake -- whoever only looks takes nothing from whoever waits
  local list = own_waits()
  return {
    pollfd = function() return list:pollfd() end,
    events = function() return "r" end,
    timeout = function() return list:timeout() end,
    step = function() list:turn() end,
  }
end

return M
