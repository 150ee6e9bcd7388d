--- The loop of Neovim and of luv scripts: one poll handle on the engine's descriptor and one timer. They are there
--- while something waits and closed after that, so that the host may end. Nothing is raised out of a callback of
--- libuv's: it would end a script, and be a message on an editor's screen for each event.
local core = require("e2b.core")
local compat = require("e2b.compat")
local blocking = require("e2b.loop.blocking")
local loops = require("e2b.loop.init")
local waiting = require("e2b.loop.waits")

local M = {}

-- All coroutines of the process wait together: whoever waits runs the one loop there is.
M.shared = true

local now, pack, unpack = core.now, compat.pack, compat.unpack

-- Neovim's table. Its uv runs all the time, and somebody sits before its screen.
local vim = rawget(_G, "vim")

-- Seconds. A timer is never set further ahead: in a script the hook of a signal (Ctrl-C) needs Lua to run.
local SLICE = 1
-- Seconds between two looks at the descriptor where it can't be watched.
local STEP = 0.01
-- The screen is drawn that often (seconds) while the main coroutine waits.
local REDRAW = 0.1
-- Milliseconds; vim.wait takes a C integer.
local LONG = 2 ^ 30

local FAST = "this is a callback of libuv (a fast event), in which Neovim can't wait: go through vim.schedule, or put "
  .. "the calls into e2b.spawn(function() … end)"
local INSIDE = "this is a callback of luv's loop, in which nothing can wait: put the calls into "
  .. "e2b.spawn(function() … end)"

local library

local function uv()
  library = library or vim and (vim.uv or vim.loop) or require("luv")
  return library
end

-- What watches for us. In a forked child they are the parent's: libuv shares even its epoll with it, so there they are
-- neither touched nor made again.
local waits, poll, poll_fd, timer, owner

local function forked()
  return owner ~= nil and owner ~= core.getpid()
end

--- Whether nothing goes on here by itself: in a forked child.
M.gone = forked

-- Callbacks ----------------------------------------------------------------------------------------------------------

if vim then
  --- Tells the user what no call can return, as a message: what is written to the terminal would stand in the middle of
  --- the screen.
  ---@param text string
  function M.report(text)
    vim.schedule(function() vim.notify("e2b: " .. text, vim.log.levels.ERROR) end)
  end
end

-- Ctrl-C in a script, which came while a callback ran; for the wait that runs the loop.
local interrupt
local pumps = 0

local function traced(value)
  if type(value) == "string" and value:find("interrupted!", 1, true) then return { interrupt = value } end
  return debug.traceback(tostring(value), 2)
end

local function protected(fn, ...)
  local ok, raised = xpcall(fn, traced, ...)
  if ok then return true end
  if type(raised) ~= "table" then
    pcall(loops.report, raised)
  elseif pumps > 0 then
    interrupt = raised.interrupt
  else
    error(raised.interrupt, 0) -- nobody waits: it ends the script, as it was meant to
  end
  return false
end

if _VERSION == "Lua 5.1" and not compat.jit then
  -- This xpcall hands on no arguments.
  local with_arguments = protected
  function protected(fn, ...)
    local args = pack(...)
    return with_arguments(function() return fn(unpack(args, 1, args.n)) end)
  end
end

-- The driver ---------------------------------------------------------------------------------------------------------

-- luv (1.44) crashes when a Lua state is closed while its loop has not finished with a handle that was. So in a script
-- they are closed where the loop runs, and whoever has run it sees to the end of that.
local closing = 0

local function closed()
  closing = closing - 1
end

local function close(handle)
  if handle and not handle:is_closing() then
    handle:stop()
    closing = closing + 1
    handle:close(closed)
  end
end

local turn

local function on_event() protected(turn) end

local function close_both()
  close(poll)
  close(timer)
  poll, poll_fd, timer = nil, nil, nil
end

local function rest()
  if vim or uv().loop_mode() ~= nil then
    close_both()
  elseif timer then
    timer:start(1, 0, on_event)
  end
end

-- Watches the descriptor there is. A watcher must be gone before its descriptor is: libuv aborts otherwise. It does not
-- go while this process has it (engine:close() keeps it).
local function watch(fd)
  close(poll)
  poll, poll_fd = uv().new_poll(fd), fd
  if poll and not poll:start("r", on_event) then
    close(poll)
    poll = nil
  end
end

local function milliseconds(seconds)
  if seconds > SLICE then seconds = SLICE end
  if not poll and seconds > STEP then seconds = STEP end
  -- At 0 libuv would call it again before it looks at anything else.
  return seconds <= 0.001 and 1 or math.ceil(seconds * 1000)
end

-- Sees to it that the next turn comes in time, or that nothing is left behind when none has to come.
local function arm()
  if owner == nil then owner = core.getpid() end
  local seconds = waits:timeout()
  if not seconds then return rest() end
  local fd = waits:pollfd()
  if fd ~= poll_fd then watch(fd) end
  timer = timer or uv().new_timer()
  timer:start(milliseconds(seconds), 0, on_event)
end

function turn()
  local ok = protected(waits.turn, waits)
  arm()
  return ok
end

local function wake()
  if not forked() then protected(arm) end
end

local function all_waits()
  waits = waits or waiting.new(wake)
  return waits
end

-- Waiting ------------------------------------------------------------------------------------------------------------

-- Calls of `done`: tasks run in there, and those can be suspended.
local telling = 0

--- Not in Neovim's fast events, nor in a callback of luv's loop: there only tasks wait, because they can be suspended.
---@return boolean? possible
---@return string? why_not
function M.may_wait()
  if vim then
    if vim.in_fast_event() then return nil, FAST end
  elseif uv().loop_mode() ~= nil and telling == 0 and not forked() then
    return nil, INSIDE
  end
  return true
end

local function is_interrupt(raised)
  return tostring(raised):find("nterrupt") ~= nil -- "Keyboard interrupt", "Vim:Interrupt"
end

-- Runs Neovim's loop: timers, jobs and scheduled functions go on, keys are kept until it is over. Whether it was.
local function wait_in_editor(state)
  local command = vim.api.nvim_command
  local draw_at, stopped = now() + REDRAW, false
  local function over()
    if state.over then return true end
    local time, what = now(), ""
    if time >= draw_at then what, draw_at = "redraw", time + REDRAW end
    -- An empty command is asked for its error: with a function to call, vim.wait (0.7) doesn't look for Ctrl-C itself.
    local ok, raised = pcall(command, what)
    stopped = not ok and is_interrupt(raised)
    return stopped
  end
  while not state.over do
    local ok, done, why = pcall(vim.wait, LONG, over, REDRAW * 1000)
    if not ok and not is_interrupt(done) then loops.report(tostring(done)) end
    if stopped or not ok or why == -2 then return state.over end
  end
  return true
end

-- From this version on uv_backend_timeout knows of descriptors that are not in libuv's epoll yet.
local EMBEDDABLE = 0x12C00 -- 1.44.0

-- One round of luv's loop. It doesn't sleep in libuv: that sleeps on when a signal comes, and then the hook of Ctrl-C
-- runs in a callback, where luv ends the program.
local function round(lib, engine, state)
  if lib.version() < EMBEDDABLE then
    lib.run("once")
    return
  end
  lib.run("nowait")
  if state.over then return end
  lib.update_time()
  local seconds = lib.backend_timeout() / 1000
  if seconds < 0 or seconds > SLICE then seconds = SLICE end
  engine:wait(seconds, nil, lib.backend_fd())
  turn()
end

-- What is closed now is done with before the caller goes on.
local function finish(lib)
  if waits:timeout() then return end
  close_both()
  while closing > 0 do lib.run("nowait") end
end

local function wait_in_script(state)
  local lib, engine = uv(), core.engine()
  pumps = pumps + 1
  local ok, raised = pcall(function()
    while not state.over and not interrupt do round(lib, engine, state) end
    finish(lib)
  end)
  pumps = pumps - 1
  if ok then raised = interrupt end
  interrupt = nil
  return state.over, raised
end

--- Calls `start(done)` and returns what `done` gets. At the deadline: cancels and returns nil, "deadline"; at Ctrl-C in
--- Neovim nil, "cancelled". In a script Ctrl-C cancels too and goes on to the caller.
---@param start fun(done: fun(...)): fun() cancel
---@param deadline number? on the clock of core.now()
---@return any ...
function M.await(start, deadline)
  if vim and vim.in_fast_event() then error(FAST, 0) end
  -- A task that can't be suspended here, in a callback: libuv's loop doesn't run inside of itself.
  if not vim and (forked() or uv().loop_mode() ~= nil) then return blocking.await(start, deadline) end
  local state = { over = false }
  local cancel = all_waits():begin(start, deadline, function(...)
    state.over, state.values = true, pack(...)
  end)
  local over, raised
  if vim then
    over = wait_in_editor(state)
  else
    over, raised = wait_in_script(state)
  end
  if raised or not over then cancel() end
  if raised then error(raised, 0) end
  if not over then return nil, "cancelled" end
  return unpack(state.values, 1, state.values.n)
end

local function tell(done, ...)
  telling = telling + 1
  local ok, raised = pcall(protected, done, ...)
  telling = telling - 1
  if not ok then error(raised, 0) end
end

--- Calls `start(done)`, and `done` with its values or with nil, "deadline": once, and not before this has returned; in
--- Neovim where vim.api may be used, in luv in a callback.
---@param start fun(done: fun(...)): fun() cancel
---@param deadline number? on the clock of core.now()
---@param done fun(...)
---@return fun() cancel ends it; `done` is not called then
function M.call(start, deadline, done)
  if forked() then error("the loop of libuv belongs to the parent process", 0) end
  local gone = false
  local cancel = all_waits():begin(start, deadline, function(...)
    if not vim then
      tell(done, ...)
      return
    end
    local values = pack(...)
    vim.schedule(function()
      if not gone then tell(done, unpack(values, 1, values.n)) end
    end)
  end)
  return function()
    gone = true
    cancel()
  end
end

return M
