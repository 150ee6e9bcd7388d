--- How a process begins: the request, the event with the pid, the input that goes along; and how a command that was
--- waited for is given up, which leaves no process behind.
local core = require("e2b.core")
local handles = require("e2b.command_handle")
local lazy = require("e2b.lazy")
local hook = require("e2b.wait")

local inputs, tasks = lazy("e2b.command_input"), lazy("e2b.tasks")

local M = {}

local now = core.now

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

local function kill(handle, state)
  if not handle.pid then
    local kind, pid = state.stream:event(now() + PID_SECONDS)
    if kind == "start" then handle.pid = pid end
  end
  if not handle.pid then return nil end
  return inputs.kill(state.link, handle.pid, { retries = 0 }, state.operation)
end

--- Ends a process that nobody will hear of any more, and its stream. A cancel is not seen in here.
---@param handle e2b.CommandHandle
---@return string? message why the process may still run
function M.abandon(handle)
  local state = handles.private(handle, "kill")
  if state.over == "ended" or state.over == "failed" then return nil end
  local ok, done, message = tasks.pcall(tasks.shield, kill, M.KILL_SECONDS, handle, state)
  handle:disconnect()
  if not ok then error(done, 0) end
  return done == nil and message or nil
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
  if row == "process_start" then
    M.abandon(handle)
  else
    handle:disconnect()
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
  if result == nil and state.over == nil then
    local left = M.abandon(handle)
    if left then
      message = ("%s; its process (pid %s) may go on: %s"):format(message, tostring(handle.pid), left)
      err.message = message
    end
  end
  return result, message, err
end

return M
