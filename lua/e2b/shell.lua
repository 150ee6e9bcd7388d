--- sandbox:shell(): this terminal, attached to one in the sandbox. Four tasks do it: what comes is shown, what is typed
--- is read and sent in order, a new size of the window is told. Whatever ends first ends all.
local core = require("e2b.core")
local envd = require("e2b.envd")
local errors = require("e2b.errors")
local input = require("e2b.input")
local keys = require("e2b.shell_keys")
local options = require("e2b.options")
local pty = require("e2b.pty")
local screen = require("e2b.shell_screen")
local tasks = require("e2b.tasks")

local M = {}

local OPERATION = "sandbox:shell"

local LOOK = 0.25        -- seconds between two looks at the size of the window
local TURN = 0.02        -- seconds of output after which the keys get their turn
local STALLED = 0.01     -- seconds until a terminal that takes nothing is tried again
local BATCH = 65536      -- bytes of one request
local TYPED = 1048576    -- bytes that are kept for sending; then the terminal has to wait
local LAST_KEYS = 1      -- seconds for sending what was typed before the end
local GRACE = 5          -- seconds for ending what was begun

local UNBOUNDED = { request_timeout = 0 } -- a program that doesn't read its input is not a failure

-- Terminals that every sandbox knows. Others are called by the name of what they are like.
local KNOWN = {
  xterm = true, ["xterm-256color"] = true, screen = true, ["screen-256color"] = true, tmux = true,
  ["tmux-256color"] = true, linux = true, vt100 = true, vt220 = true, rxvt = true, ["rxvt-256color"] = true,
}

---@class e2b.ShellOptions: e2b.CallOptions
---@field cmd string|string[]|nil another program than the shell
---@field cwd string?
---@field envs table<string, string>?
---@field user string?
---@field pid integer? of a terminal that is there already
---@field escape string|false|nil another character than "~"; false: none

---@class e2b.ShellSession
---@field terminal e2b.core.terminal
---@field handle e2b.CommandHandle
---@field keys e2b.ShellKeys
---@field screen e2b.ShellScreen
---@field typed string[] what is to be sent
---@field typed_bytes integer
---@field sending boolean? a request is on its way
---@field wake table<string, fun(...)?> who waits: "over", "typed", "room", "sent"
---@field outcome table? how it ended

-- Waits within the session -------------------------------------------------------------------------------------------

local function wake(session, what)
  local done = session.wake[what]
  session.wake[what] = nil
  if done then done(true) end
end

-- Waits for another task of the session.
local function wait_for(session, what, loop, deadline)
  return tasks.await(function(done)
    session.wake[what] = done
    return function() session.wake[what] = nil end
  end, deadline, loop, true)
end

local function idle() return function() end end

-- false: the session is over for this task.
local function pause(seconds)
  local _, why = tasks.await(idle, core.now() + seconds)
  return why ~= "cancelled"
end

-- Only the first end counts.
local function finish(session, outcome)
  if session.outcome then return end
  session.outcome = outcome
  wake(session, "over")
end

local function failed(session, message, err)
  if err.kind ~= "cancelled" then finish(session, { message = message, err = err }) end
end

local function terminal_gone(session, why)
  local _, message, err = errors.new("cancelled", {
    message = ("%s: this terminal is gone%s"):format(OPERATION, why and " (" .. why .. ")" or ""),
    operation = OPERATION, sandbox_id = session.sandbox_id, retryable = false,
  })
  finish(session, { message = message, err = err, kill = true })
end

-- The tasks ----------------------------------------------------------------------------------------------------------

local function show(session, bytes)
  local at = 0
  while at < #bytes do
    local taken, why = session.terminal:write(bytes, at)
    if not taken then
      terminal_gone(session, why)
      return false
    end
    at = at + taken
    if taken == 0 and not pause(STALLED) then return false end
  end
  return true
end

local function output(session)
  local handle, turn = session.handle, core.now()
  while true do
    local kind, bytes, err = handle:read()
    if kind == nil then
      if err then return failed(session, bytes, err) end
      return finish(session, { code = handle.exit_code })
    end
    screen.feed(session.screen, bytes)
    if not show(session, bytes) then return end
    -- A flood of output comes without a wait; the keys must get through it.
    if core.now() - turn > TURN then
      if not pause(0) then return end
      turn = core.now()
    end
  end
end

local function read_keys(session)
  local terminal = session.terminal
  local fd = terminal:fd()
  while true do
    local ready = input.wait(fd)
    if not ready then return end
    local bytes = terminal:read()
    if bytes == nil then return terminal_gone(session) end
    if bytes then
      local typed, action = keys.feed(session.keys, bytes)
      if typed ~= "" then
        session.typed[#session.typed + 1] = typed
        session.typed_bytes = session.typed_bytes + #typed
        wake(session, "typed")
      end
      if action == "detach" then
        if session.typed_bytes > 0 or session.sending then
          wait_for(session, "sent", nil, core.now() + LAST_KEYS)
        end
        return finish(session, { detached = true })
      end
      if action == "help" and not show(session, keys.help(session.keys)) then return end
      while session.typed_bytes > TYPED do
        if not wait_for(session, "room") then return end
      end
    end
  end
end

-- All that was typed meanwhile, as one request; requests follow one another, so its order is kept.
local function take_typed(session)
  local text = table.concat(session.typed)
  local batch = text:sub(1, BATCH)
  session.typed = #text > BATCH and { text:sub(BATCH + 1) } or {}
  session.typed_bytes = #text - #batch
  if session.typed_bytes <= TYPED then wake(session, "room") end
  return batch
end

local function send_keys(session)
  while true do
    session.sending = false
    while session.typed_bytes == 0 do
      wake(session, "sent")
      if not wait_for(session, "typed") then return end
    end
    session.sending = true
    local ok, message, err = session.handle:send_stdin(take_typed(session), UNBOUNDED)
    -- That the process is gone, the output tells better.
    if not ok and err.kind ~= "not_found" and err.kind ~= "server" then return failed(session, message, err) end
  end
end

local function watch_size(session)
  local cols, rows = session.cols, session.rows
  while pause(LOOK) do
    session.terminal:raw() -- it is not any more when this process was stopped meanwhile
    local new_cols, new_rows = session.terminal:size()
    if new_cols ~= cols or new_rows ~= rows then
      -- When it could not be told, it is told with the next look.
      if session.handle:resize(new_cols, new_rows) then cols, rows = new_cols, new_rows end
    end
  end
end

-- The session --------------------------------------------------------------------------------------------------------

local function spawn_all(session)
  for _, fn in ipairs({ output, read_keys, send_keys, watch_size }) do
    session.tasks[#session.tasks + 1] = tasks.spawn(function()
      local ok, raised = tasks.pcall(fn, session)
      if not ok then finish(session, { raised = raised }) end
      return true
    end)
  end
end

local function attend(session, opts, loop)
  local terminal = session.terminal
  local message, err
  session.cols, session.rows = terminal:size()
  if opts.pid ~= nil then
    session.handle, message, err = pty.attach(session.link, OPERATION, opts.pid, opts)
  else
    local own = options.copy(opts)
    own.cols, own.rows = session.cols, session.rows
    own.envs = {}
    local here = os.getenv("TERM")
    if here and KNOWN[here] then own.envs.TERM = here end
    for name, value in pairs(opts.envs or {}) do own.envs[name] = value end
    session.handle, message, err = pty.start(session.link, OPERATION, own)
  end
  if not session.handle then return nil, message, err end
  if opts.pid ~= nil then session.handle:resize(session.cols, session.rows) end
  local ok, why = terminal:raw()
  if not ok then
    session.outcome = { kill = true }
    return errors.new("unsupported", {
      message = OPERATION .. ": " .. why, operation = OPERATION, sandbox_id = session.sandbox_id, retryable = false,
    })
  end
  spawn_all(session)
  if not session.outcome then
    why = select(2, wait_for(session, "over", loop))
    if why then
      session.outcome = session.outcome or { kill = true }
      return errors.new(why == "cancelled" and "cancelled" or "timeout", {
        message = OPERATION .. ": " .. (why == "cancelled" and "cancelled" or "the time for this was over"),
        operation = OPERATION, sandbox_id = session.sandbox_id, retryable = false,
        deadline = why == "deadline" and "timeout" or nil,
      })
    end
  end
  return true
end

-- Where nobody can reach the program any more, it ends; one that was there before goes on.
local function clean_up(session, own)
  for _, task in ipairs(session.tasks) do task:cancel() end
  for _, task in ipairs(session.tasks) do task:wait(GRACE) end
  local handle, outcome = session.handle, session.outcome
  if not handle then return end
  handle:disconnect()
  if own and (not outcome or outcome.kill or outcome.raised) and not handle.exit_code then
    handle:kill({ request_timeout = GRACE, retries = 0 })
  end
end

local NAMES = { "cmd", "cwd", "envs", "user", "pid", "escape" }

local function check(opts)
  if opts == nil then return {} end
  options.call(opts, NAMES, OPERATION)
  local escape = opts.escape
  if escape ~= nil and escape ~= false and (type(escape) ~= "string" or #escape ~= 1 or escape:find("[%c.?]")) then
    options.raise(("bad option 'escape' for %s (one character, or false for none, expected)"):format(OPERATION))
  end
  if opts.pid ~= nil then
    for _, name in ipairs({ "cmd", "cwd", "envs", "user" }) do
      if opts[name] ~= nil then
        options.raise(("bad option '%s' for %s (with pid, what runs is there already)"):format(name, OPERATION))
      end
    end
  end
  return opts
end

local function refuse(session, text)
  return errors.new("unsupported", {
    message = OPERATION .. ": " .. text, operation = OPERATION, sandbox_id = session.sandbox_id, sent = "no",
    attempts = 0, retryable = false,
  })
end

local function conclude(session)
  local outcome, handle = session.outcome, session.handle
  if outcome.raised ~= nil then error(outcome.raised, 0) end
  if outcome.code then return outcome.code end
  if outcome.detached then return false, handle.pid end
  outcome.err.pid = handle.pid
  return nil, outcome.message, outcome.err
end

--- Attaches this terminal to a shell in the sandbox until that ends.
---@param sandbox e2b.Sandbox
---@param opts { cmd: string|string[]?, cwd: string?, envs: table<string, string>?, user: string?, pid: integer?,
---  escape: string|false|nil }? and e2b.CallOptions
---@return integer|false|nil exit_code false: detached
---@return string|integer|nil message_or_pid
---@return e2b.Error? err
function M.shell(sandbox, opts)
  opts = check(opts)
  local link = envd.link(sandbox)
  local session = {
    link = link, sandbox_id = sandbox.sandbox_id, keys = keys.new(opts.escape), screen = screen.new(), typed = {},
    typed_bytes = 0, wake = {}, tasks = {},
  }
  local loop = link.client:input_loop()
  if not loop then return refuse(session, "this loop can't wait for a terminal; a plain script can") end
  if input.is_taken() then return refuse(session, "this terminal is attached already") end
  local why
  session.terminal, why = core.terminal(0, 1)
  if not session.terminal then return refuse(session, why .. "; for a program there is sandbox.pty:create") end

  local ok, result, message, err = tasks.pcall(attend, session, opts, loop)
  local terminal = session.terminal
  terminal:restore()
  local outcome = session.outcome
  -- A shell that ended well may have left things on as well; what it switched off itself is not switched off again.
  local reset = screen.reset(session.screen)
  if reset ~= "" then terminal:write(reset) end
  if outcome and outcome.detached then
    terminal:write(("\r\n[detached; sandbox:shell({ pid = %d }) comes back]\r\n"):format(session.handle.pid))
  end
  terminal:close()
  tasks.shield(clean_up, GRACE, session, opts.pid == nil)
  if not ok then error(result, 0) end
  if not result then return nil, message, err end
  return conclude(session)
end

return M
