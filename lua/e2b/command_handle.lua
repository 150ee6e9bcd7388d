--- A process in a sandbox and the stream of what it writes. The stream moves on while somebody reads it or waits; what
--- nobody reads stays in the sandbox once a small buffer is full, and the process waits for its reader.
local core = require("e2b.core")
local compat = require("e2b.compat")
local lazy = require("e2b.lazy")
local line_buffer = require("e2b.line_buffer")
local options = require("e2b.options")
local output_buffer = require("e2b.output_buffer")
local hook = require("e2b.wait")

local errors, inputs, results = lazy("e2b.errors"), lazy("e2b.command_input"), lazy("e2b.command_result")
local starts = lazy("e2b.command_start")

local M = {}

local now = core.now

-- The key under which a handle keeps what isn't for users.
local PRIVATE = {}

-- Bytes of each stream that are kept when nothing else is said: in a result that was waited for; in a handle, whose
-- output is there to be read; in a line.
local OF_RUN, OF_HANDLE, OF_LINE = 10 * 1024 * 1024, 1024 * 1024, 10 * 1024 * 1024

-- After a process has ended, so long (seconds) for the end of the stream, which lets the connection be used again.
local LAST_WORD = 1

---@class e2b.CommandHandle
---@field pid integer
---@field stdout string what was read so far; the newest max_output bytes
---@field stderr string likewise
---@field stdout_dropped integer bytes that are not kept
---@field stderr_dropped integer
---@field exit_code integer? nil while it runs
---@field error string? the daemon's word for how it ended badly
---@field err e2b.Error? of a loop over output() or lines() that failed
local methods = {}
M.methods = methods

local getters = {
  stdout = function(state) return output_buffer.text(state.out) end,
  stderr = function(state) return output_buffer.text(state.errors) end,
  stdout_dropped = function(state) return output_buffer.dropped(state.out) end,
  stderr_dropped = function(state) return output_buffer.dropped(state.errors) end,
}

local mt = { __name = "e2b.CommandHandle" }

-- All that a handle may have, for whoever writes it in another way.
local KNOWN = setmetatable({ exit_code = true, pid = true, error = true }, {
  __index = function(_, key) return methods[key] or getters[key] end,
})

function mt.__index(handle, key)
  local method = methods[key]
  if method then return method end
  local getter = getters[key]
  if getter then return getter(handle[PRIVATE]) end
  local text = type(key) == "string" and key:find("%u") and require("e2b.suggest").method(key, KNOWN)
  if text then options.raise(text) end
  return nil
end

local function private(self, name)
  local state = type(self) == "table" and rawget(self, PRIVATE)
  if not state then
    options.raise(("handle.%s needs a handle, got %s: write handle:%s(…)"):format(name, type(self), name))
  end
  return state
end
M.private = private

--- Whether a value is a handle.
---@param value any
---@return boolean
function M.is(value)
  return type(value) == "table" and rawget(value, PRIVATE) ~= nil
end

-- Events -------------------------------------------------------------------------------------------------------------

-- Sticky: what every later read finds.
local function fail(state, message, err)
  state.over, state.message, state.err = "failed", message, err
  state.stream:close()
  if state.feeder then inputs.stop(state.feeder) end
  return nil, message, err
end

M.fail = fail

local function broken(self, state, message, err)
  if err.kind == "cancelled" and not state.stream.ended then return nil, message, err end -- the waiter, not the stream
  err.pid = self.pid
  if self.pid and (err.kind == "network" or err.deadline == "idle_timeout" and not state.foreground) then
    message = ("%s; connect(%d) finds the process again if it still runs"):format(message, self.pid)
    err.message = message
  end
  return fail(state, message, err)
end

--- A stream that isn't as it has to be.
---@param self e2b.CommandHandle
---@param state table
---@param text string
---@return nil
---@return string message
---@return e2b.Error err
local function protocol(self, state, text)
  local message = ("%s: %s"):format(state.operation, text)
  local _, _, err = errors.new("protocol", {
    message = message, operation = state.operation, sandbox_id = state.link.sandbox_id, pid = self.pid, sent = "yes",
    retryable = false,
  })
  return fail(state, message, err)
end

M.protocol = protocol

local function is_over(state)
  if state.over == "failed" then return nil, state.message, state.err end
  if state.over == "disconnected" then
    options.raise(("%s: the handle was disconnected; connect(pid) makes another"):format(state.operation))
  end
  return nil
end

-- A raise of the caller's function ends the reading: what came before it is known, what comes after it is not wanted.
local function tell(state, callback, data)
  local ok, raised = hook.pcall(callback, data)
  if ok then return end
  if not state.over then
    state.over = "disconnected"
    state.stream:close()
    if state.feeder then inputs.stop(state.feeder) end
  end
  error(raised, 0)
end

local function finished(self, state, ending)
  self.exit_code, self.error = ending.exit_code or 0, ending.error
  state.over = "ended"
  state.stream:event(now() + LAST_WORD)
  state.stream:close()
  if state.feeder then inputs.stop(state.feeder) end
  return nil
end

-- The next output. false: the deadline is over; nil: the process has ended; nil, message, err: the stream failed.
local function step(self, state, deadline)
  while not state.over do
    local kind, value, err = state.stream:event(deadline)
    if state.over then break end -- by another task, meanwhile
    if kind == "stdout" then
      output_buffer.add(state.out, value)
      if state.on_stdout then tell(state, state.on_stdout, value) end
      return kind, value
    elseif kind == "stderr" then
      output_buffer.add(state.errors, value)
      if state.on_stderr then tell(state, state.on_stderr, value) end
      return kind, value
    elseif kind == "pty" then
      if state.on_pty then tell(state, state.on_pty, value) end
      return kind, value
    elseif kind == "end" then
      return finished(self, state, value)
    elseif kind == false then
      return false
    elseif kind == nil then
      if err then return broken(self, state, value, err) end
      return protocol(self, state, "the stream ended and didn't say how the process did")
    end
  end
  return is_over(state)
end

-- Waiting for the end ------------------------------------------------------------------------------------------------

local function result_of(self, state)
  local result = state.result
  if not result then
    result = results.new({
      exit_code = self.exit_code, error = self.error, stdout = self.stdout, stderr = self.stderr,
      stdout_dropped = self.stdout_dropped, stderr_dropped = self.stderr_dropped,
    })
    state.result = result
  end
  return result
end

local function timed_out(self, state, seconds)
  return errors.new("timeout", {
    message = ("%s: the process (pid %d) goes on after %.4g s (timeout)"):format(state.operation, self.pid, seconds),
    operation = state.operation, sandbox_id = state.link.sandbox_id, pid = self.pid, deadline = "timeout",
    retryable = true,
  })
end

--- Reads until the process has ended; for M.run and wait.
---@param self e2b.CommandHandle
---@param state table
---@param check boolean?
---@param seconds number?
---@return e2b.CommandResult? result
---@return string? message
---@return e2b.Error? err
local function drain(self, state, check, seconds)
  local deadline = seconds and now() + seconds
  repeat
    local kind, message, err = step(self, state, deadline)
    if kind == false then return timed_out(self, state, seconds) end
    if kind == nil and err then return nil, message, err end
  until kind == nil
  if state.input_failed then return nil, state.input_failed.message, state.input_failed end
  local result = result_of(self, state)
  if check and not result.ok then
    return results.failure(result, {
      operation = state.operation, name = state.name, sandbox_id = state.link.sandbox_id, pid = self.pid,
    })
  end
  return result
end
M.drain = drain

local WAIT = {
  timeout = options.types.seconds, on_stdout = options.types["function"], on_stderr = options.types["function"],
  on_pty = options.types["function"], check = options.types.boolean,
}

--- Waits until the process has ended, reading what it writes. A code other than 0 is a result like every other.
--- envd: the end event of POST /process.Process/Start. Errors: timeout, network, sandbox_gone; `exit` with `check`.
---@param opts { timeout: number?, on_stdout: fun(data: string)?, on_stderr: fun(data: string)?, check: boolean? }?
---  timeout: seconds to wait; the process goes on after them; check: if not given, that of `start`
---@return e2b.CommandResult? result
---@return string? message
---@return e2b.Error? err
function methods:wait(opts)
  local state = private(self, "wait")
  if opts == nil then return drain(self, state, state.check) end
  options.read(opts, WAIT, "handle:wait")
  local out, err_, pty = state.on_stdout, state.on_stderr, state.on_pty
  state.on_stdout, state.on_stderr = opts.on_stdout or out, opts.on_stderr or err_
  state.on_pty = opts.on_pty or pty
  local check = opts.check == nil and state.check or opts.check
  local result, message, err = drain(self, state, check, opts.timeout)
  state.on_stdout, state.on_stderr, state.on_pty = out, err_, pty
  if result then return result end
  return nil, message, err
end

-- Reading ------------------------------------------------------------------------------------------------------------

--- What the process writes next: "stdout" or "stderr" ("pty" of a terminal) and some bytes, of any length.
---@return string? stream nil: the process has ended, or the stream failed
---@return string? data the message after a failure
---@return e2b.Error? err
function methods:read()
  return step(self, private(self, "read"))
end

local ORDER = { "stdout", "stderr", "pty" }

local function next_line(self, state)
  local buffers, from = state.lines, state.lines_of
  while true do
    if from then
      local line = line_buffer.next(buffers[from])
      if line then return line, from end
    end
    local kind, data, err = step(self, state)
    if kind == nil then
      if err then return nil, data, err end
      for _, name in ipairs(ORDER) do
        local line = buffers[name] and line_buffer.rest(buffers[name])
        if line then return line, name end
      end
      return nil
    end
    if not buffers[kind] then buffers[kind] = line_buffer.new(state.longest_line) end
    line_buffer.put(buffers[kind], data)
    from, state.lines_of = kind, kind
  end
end

--- The next whole line of either stream, without its end; a last line without one as well.
---@return string? line nil: nothing comes any more, or the stream failed
---@return string? stream "stdout" or "stderr"; the message after a failure
---@return e2b.Error? err
function methods:read_line()
  return next_line(self, private(self, "read_line"))
end

local function or_raise(self, first, second, err)
  if first == nil and err then
    self.err = err
    error(second, 0)
  end
  return first, second
end

-- Nothing can be suspended inside a for-iterator of PUC 5.1: there it waits without yielding.
local function in_loop(self, state, fn)
  if compat.puc51 then return or_raise(self, hook.block(fn, self, state)) end
  return or_raise(self, fn(self, state))
end

--- for stream, data in handle:output() do … end. Raises when the stream fails, and leaves the table in handle.err.
---@return fun(): string?, string? iterator
function methods:output()
  local state = private(self, "output")
  return function() return in_loop(self, state, step) end
end

--- for line, stream in handle:lines() do … end. Raises when the stream fails, and leaves the table in handle.err.
---@return fun(): string?, string? iterator
function methods:lines()
  local state = private(self, "lines")
  local buffers = state.lines
  return function()
    local from = state.lines_of
    if from then -- a line that is there costs no more than it must
      local line = line_buffer.next(buffers[from])
      if line then return line, from end
    end
    return in_loop(self, state, next_line)
  end
end

-- Letting go ---------------------------------------------------------------------------------------------------------

--- Lets go of the stream; the process goes on. Twice is nothing.
---@return true ok
function methods:disconnect()
  local state = private(self, "disconnect")
  if not state.over then state.over = "disconnected" end
  state.stream:close()
  if state.feeder then inputs.stop(state.feeder) end
  return true
end

function mt.__tostring(handle)
  local state = rawget(handle, PRIVATE)
  local how = state.over or "running"
  if handle.exit_code then how = handle.exit_code == -1 and handle.error or "exit code " .. handle.exit_code end
  return ("%s(pid %s, %s)"):format(state.pty and "Terminal" or "Command", tostring(handle.pid or "?"), how)
end

function mt.__close(handle) methods.disconnect(handle) end

require("e2b.command_actions").add(methods, private)

-- Making handles -----------------------------------------------------------------------------------------------------

---@class e2b.HandleSpec
---@field operation string the call, for messages: "sandbox.commands:run"
---@field resource string whose methods it is like: "sandbox.commands"
---@field name string what the command is called in messages
---@field timeout number? seconds for the whole stream, and for a process that is started with it; 0 = none
---@field max_output integer? bytes of each stream that are kept; the default is larger for `foreground`
---@field pty boolean? the process has a terminal
---@field tag string? of the process, when it is only ours
---@field foreground boolean? who started it waits for its end
---@field on_stdout fun(data: string)?
---@field on_stderr fun(data: string)?
---@field on_pty fun(data: string)?
---@field check boolean? of wait() without options
---@field stdin string? sent when it runs, and then closed

--- The handle of a stream; without a pid until the stream has told it.
---@param link e2b.Link
---@param stream e2b.Stream
---@param spec e2b.HandleSpec
---@return e2b.CommandHandle handle
function M.new(link, stream, spec)
  local most = spec.max_output or (spec.foreground and OF_RUN or OF_HANDLE)
  local line = spec.max_output or OF_LINE
  return setmetatable({
    [PRIVATE] = {
      link = link, stream = stream, operation = spec.operation, resource = spec.resource or "handle", name = spec.name,
      pty = spec.pty, on_stdout = spec.on_stdout, on_stderr = spec.on_stderr, on_pty = spec.on_pty, check = spec.check,
      tag = spec.tag, foreground = spec.foreground, out = output_buffer.new(most), errors = output_buffer.new(most),
      lines = {}, longest_line = line > 0 and line or OF_LINE,
    },
  }, mt)
end

--- Starts a process or connects to one: sends the request and waits for the first event.
---@param link e2b.Link
---@param row "process_start"|"process_connect"
---@param body table
---@param opts table? user, request_timeout, connect_timeout, idle_timeout, retries
---@param spec e2b.HandleSpec
---@return e2b.CommandHandle? handle
---@return string? message
---@return e2b.Error? err
function M.open(link, row, body, opts, spec)
  return starts.open(link, row, body, opts, spec)
end

return M
