--- How a process begins: the request, the event with the pid, the input that goes along; and how a command that was
--- waited for is given up, which leaves no process behind.
local core = require("e2b.core")
local handles = require("e2b.command_handle")
local lazy = require("e2b.lazy")
local hook = require("e2b.wait")

local inputs, tasks, unique = lazy("e2b.command_input"), lazy("e2b.tasks"), lazy("e2b.unique")

local M = {}

local now = core.now

-- By its tag a process is found whose pid never came. One that the caller doesn't name gets one that nobody sees.
local OWN = "e2b-"
local DIGITS = 24

local prefix, owner, count

local function own_tag()
  if owner ~= core.getpid() then prefix, owner, count = OWN .. unique.hex(DIGITS - 8), core.getpid(), 0 end
  count = count + 1
  return ("%s%08x"):format(prefix, count % 4294967296)
end

--- Whether a tag is not the caller's, nor another program's.
---@param tag string?
---@return boolean
function M.is_own(tag)
  return tag ~= nil and #tag == #OWN + DIGITS and tag:find("^e2b%-%x+$") ~= nil
end

--- Sends the request; the handle has no pid before M.begin.
---@param link e2b.Link
---@param row "process_start"|"process_connect"
---@param body table
---@param opts table?
---@param spec e2b.HandleSpec
---@return e2b.CommandHandle? handle
---@return string? message
---@return e2b.Error? err
function M.send(link, row, body, opts, spec)
  if row == "process_start" then
    if not body.tag then
      spec.tag = own_tag()
      body.tag = spec.tag
    end
  end
  local stream, message, err = link:open(row, { body = body }, opts, {
    operation = spec.operation, resource = "process", timeout = spec.timeout,
  })
  if not stream then return nil, message, err end
  return handles.new(link, stream, spec)
end

-- Input that may not fit into the pipe is sent beside the reading: a process that writes while it reads would wait for
-- its reader, and the input for the process.
local function feed(handle, state, stdin)
  if #stdin <= inputs.FITS then
    local ok, message, err = inputs.send_all(state.link, handle.pid, stdin, state.operation)
    if ok or inputs.gone(err) then return handle end
    return nil, message, err
  end
  state.feeder = inputs.feed(state.link, handle.pid, stdin, state.operation, function(err) state.input_failed = err end)
  return handle
end

--- Waits for the first event, which has the pid, and sends the input that goes along.
---@param handle e2b.CommandHandle
---@param stdin string?
---@return e2b.CommandHandle? handle
---@return string? message
---@return e2b.Error? err
function M.begin(handle, stdin)
  local state = handles.private(handle, "wait")
  local kind, value, err = state.stream:event()
  if kind == "start" then
    handle.pid = value
    if stdin then return feed(handle, state, stdin) end
    return handle
  end
  if kind then return handles.protocol(handle, state, "the stream doesn't begin with the start of a process") end
  if not err then return handles.protocol(handle, state, "the stream ended before the process began") end
  if err.kind == "cancelled" and not state.stream.ended then return nil, value, err end
  return handles.fail(state, value, err)
end

--- The longest that giving up a command takes, in seconds, and of that the longest until its pid is known.
M.KILL_SECONDS = 5
local PID_SECONDS = 2

local ONCE = { retries = 0 }
local UNKNOWN = "nothing was heard of it yet"

local function kill(handle, state)
  if not handle.pid and not state.over then
    local kind, pid, err = state.stream:event(now() + PID_SECONDS)
    if kind == "start" then handle.pid = pid end
    if kind == nil and not M.may_run(err) then return true end
  end
  local process = handle.pid or state.tag
  if not process then return nil, UNKNOWN end
  local done, existed, err = inputs.kill(state.link, process, ONCE, state.operation)
  if done and not existed and not handle.pid then return nil, UNKNOWN end -- it may begin yet
  return done, existed, err
end

--- Whether a process may run although the stream failed before it was heard of.
---@param err e2b.Error?
---@return boolean
function M.may_run(err)
  if not err or err.sent == "no" or err.server_message or err.error_code then return false end
  -- With its own timeout the daemon ends it by itself.
  return err.kind == "network" or err.kind == "cancelled" or err.kind == "busy" or err.kind == "protocol"
    or err.kind == "timeout" and err.deadline ~= "timeout"
end

--- Ends a process that nobody will hear of any more, and its stream. A cancel is not seen in here.
---@param handle e2b.CommandHandle
---@return string? message why the process may still run
function M.abandon(handle)
  local state = handles.private(handle, "kill")
  if state.over == "ended" then return nil end
  local ok, done, message = tasks.pcall(tasks.shield, kill, M.KILL_SECONDS, handle, state)
  handle:disconnect()
  if not ok then error(done, 0) end
  return done == nil and message or nil
end

-- What is said of a start that failed before the pid was known. A call whose time is over takes no more of it: what it
-- may have begun is ended beside whatever the program does next.
local function in_doubt(handle, state, message, err)
  if handle.pid or not M.may_run(err) then return message end
  if state.tag then inputs.kill_beside(state.link, state.tag, M.KILL_SECONDS, state.operation) end
  err.message = message .. "; a process may have been started all the same"
  return err.message
end

local function left_behind(handle, message, err)
  local left = M.abandon(handle)
  if not left then return message end
  local which = handle.pid and (" (pid %d)"):format(handle.pid) or ""
  err.message = ("%s; its process%s may go on: %s"):format(message, which, left)
  return err.message
end

--- Sends the request and waits for the first event. What is given up before that leaves no process behind.
---@param link e2b.Link
---@param row "process_start"|"process_connect"
---@param body table
---@param opts table?
---@param spec e2b.HandleSpec
---@return e2b.CommandHandle? handle
---@return string? message
---@return e2b.Error? err
function M.open(link, row, body, opts, spec)
  local handle, message, err = M.send(link, row, body, opts, spec)
  if not handle then return nil, message, err end
  local ok, begun
  ok, begun, message, err = hook.pcall(M.begin, handle, spec.stdin)
  if ok and begun then return handle end
  local state = handles.private(handle, "wait")
  if row ~= "process_start" then
    handle:disconnect()
  elseif not ok then
    M.abandon(handle)
  elseif state.over then
    message = in_doubt(handle, state, message, err)
  else
    message = left_behind(handle, message, err)
  end
  if not ok then error(begun, 0) end
  return nil, message, err
end

--- Starts a process and waits for its end. When that is given up (a cancel, Ctrl-C, a raise of the caller's own
--- functions), the process is killed.
---@param link e2b.Link
---@param body table
---@param opts table?
---@param spec e2b.HandleSpec
---@param check boolean?
---@return e2b.CommandResult? result
---@return string? message
---@return e2b.Error? err
function M.run(link, body, opts, spec, check)
  spec.foreground = true
  local handle, message, err = M.send(link, "process_start", body, opts, spec)
  if not handle then return nil, message, err end
  local state = handles.private(handle, "wait")
  local function whole()
    local begun, why, trouble = M.begin(handle, spec.stdin)
    if not begun then return nil, why, trouble end
    return handles.drain(handle, state, check)
  end
  local ok, result
  ok, result, message, err = hook.pcall(whole)
  if not ok then
    M.abandon(handle)
    error(result, 0)
  end
  if result then return result end
  if state.over == nil or handle.pid and err.deadline == "idle_timeout" then -- it was given up here, and only here
    message = left_behind(handle, message, err)
  elseif state.over == "failed" then
    message = in_doubt(handle, state, message, err)
  end
  return nil, message, err
end

return M
