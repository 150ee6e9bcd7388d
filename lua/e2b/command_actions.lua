--- What a handle does to its process: the methods that need no stream.
local lazy = require("e2b.lazy")
local options = require("e2b.options")

local inputs = lazy("e2b.command_input")

local M = {}

---@class e2b.CommandHandle
local methods = {}

local private

--- Ends the process at once (SIGKILL): it alone, not what it started. envd: POST /process.Process/SendSignal.
---@param opts e2b.CallOptions?
---@return true? ok
---@return boolean|string existed false when there was none any more; the message after a failure
---@return e2b.Error? err
function methods:kill(opts)
  local state = private(self, "kill")
  if opts ~= nil then options.call(opts, nil, "handle:kill") end
  return inputs.kill(state.link, self.pid, opts, state.resource .. ":kill")
end

--- Gives the process input: its standard input, or what is typed at its terminal.
--- envd: POST /process.Process/SendInput. Errors: not_found (it has ended), server (its input is closed).
---@param data string
---@param opts e2b.CallOptions?
---@return true? ok
---@return string? message
---@return e2b.Error? err
function methods:send_stdin(data, opts)
  local state = private(self, "send_stdin")
  if opts ~= nil then options.call(opts, nil, "handle:send_stdin") end
  return inputs.send(state.link, self.pid, data, opts, state.resource .. ":send_stdin", state.pty)
end

--- Ends the standard input of the process. envd: POST /process.Process/CloseStdin. Errors: unsupported (envd < 0.5.2).
---@param opts e2b.CallOptions?
---@return true? ok
---@return string? message
---@return e2b.Error? err
function methods:close_stdin(opts)
  local state = private(self, "close_stdin")
  if state.pty then options.raise("a terminal's input can't be closed: send it \"\\4\" (Ctrl-D)") end
  if opts ~= nil then options.call(opts, nil, "handle:close_stdin") end
  return inputs.close(state.link, self.pid, opts, state.resource .. ":close_stdin")
end

--- Makes the terminal of a process another size: resize(120, 40) or resize({ cols = 120, rows = 40 }).
--- envd: POST /process.Process/Update.
---@param cols integer|{ cols: integer, rows: integer }
---@param rows integer|e2b.CallOptions|nil the options, after a table
---@param opts e2b.CallOptions?
---@return true? ok
---@return string? message
---@return e2b.Error? err
function methods:resize(cols, rows, opts)
  local state = private(self, "resize")
  if not state.pty then options.raise("only a terminal has a size: this process was started without one") end
  cols, rows, opts = inputs.size("handle:resize", cols, rows, opts)
  if opts ~= nil then options.call(opts, nil, "handle:resize") end
  return inputs.resize(state.link, self.pid, cols, rows, opts, state.resource .. ":resize")
end

--- Adds the methods to those of handles.
---@param to table
---@param state_of fun(handle: any, name: string): table what a handle keeps
function M.add(to, state_of)
  private = state_of
  for name, method in pairs(methods) do to[name] = method end
end

return M
