--- sandbox.commands: programs in a sandbox.
local envd = require("e2b.envd")
local lazy = require("e2b.lazy")
local options = require("e2b.options")
local starts = require("e2b.command_start")

local inputs, requests = lazy("e2b.command_input"), require("e2b.command_request")

local M = {}

local NONE = {}

---@class e2b.Commands
local methods = {}
M.methods = methods

local mt = { __name = "e2b.Commands" }

function mt.__index(_, key)
  local method = methods[key]
  if method then return method end
  local text = type(key) == "string" and require("e2b.suggest").method(key, methods)
  if text then options.raise(text) end
  return nil
end

function mt.__tostring(commands)
  return ("Commands(%s)"):format(require("e2b.format").short_id(commands.link.sandbox_id))
end

--- The commands of a sandbox.
---@param sandbox e2b.Sandbox
---@return e2b.Commands
function M.new(sandbox)
  return setmetatable({ link = envd.link(sandbox) }, mt)
end

---@class e2b.RunOptions: e2b.CallOptions
---@field cwd string? the user's home, or the template's own folder, if not given
---@field envs table<string, string>? on top of the sandbox's
---@field user string? who runs it; the template's user if not given
---@field stdin boolean|string|nil true: it can be sent input; a string: that is its input; else it has none
---@field timeout number? seconds it may run (run: 60, start: no limit); 0 = no limit
---@field on_stdout fun(data: string)? called with what it writes, as it is read
---@field on_stderr fun(data: string)?
---@field max_output integer? bytes of each stream that are kept, the newest (run: 10 MiB; start: 1 MiB)
---@field check boolean? a code other than 0 is a failure of the kind `exit`
---@field tag string? a label to find the process by

---Runs a command and waits for its end. A string goes to `/bin/bash -l -c`; a list is a program and its arguments, and
---no shell is between. A code other than 0 is a result, too, unless `check = true`. When the wait is given up (a
---cancel, Ctrl-C) the process is killed. envd: POST /process.Process/Start.
---Errors: timeout (deadline "timeout": it was killed), exit (with check: err.result, exit_code, stdout, stderr),
---invalid_argument (cwd), authentication (user), network (err.pid: it may still run), sandbox_gone, busy.
---@param cmd string|string[]
---@param opts e2b.RunOptions?
---@return e2b.CommandResult? result
---@return string? message
---@return e2b.Error? err
function methods:run(cmd, opts)
  envd.self(self, mt, "sandbox.commands:run")
  local request, message, err = requests.start(self.link, cmd, opts or NONE, "sandbox.commands:run", 60)
  if not request then return nil, message, err end
  return starts.run(self.link, request.body, opts, request.spec, opts and opts.check)
end

---Starts a command and returns its handle as soon as it runs. Without `timeout` it may run for ever.
---envd: POST /process.Process/Start. Errors: as of run.
---@param cmd string|string[]
---@param opts e2b.RunOptions?
---@return e2b.CommandHandle? handle
---@return string? message
---@return e2b.Error? err
function methods:start(cmd, opts)
  envd.self(self, mt, "sandbox.commands:start")
  local request, message, err = requests.start(self.link, cmd, opts or NONE, "sandbox.commands:start", nil)
  if not request then return nil, message, err end
  return starts.open(self.link, "process_start", request.body, opts, request.spec)
end

---The handle of a process that runs, or has ended in the last half minute. What it wrote before is lost.
---envd: POST /process.Process/Connect. Errors: not_found.
---@param process integer|string pid or tag
---@param opts { timeout: number?, on_stdout: fun(data: string)?, on_stderr: fun(data: string)?, max_output: integer?,
---  check: boolean? }? and e2b.CallOptions; timeout: seconds after which the handle ends, not the process; max_output:
---  bytes of each stream that are kept, the newest (1 MiB)
---@return e2b.CommandHandle? handle
---@return string? message
---@return e2b.Error? err
function methods:connect(process, opts)
  envd.self(self, mt, "sandbox.commands:connect")
  local request = requests.connect(process, opts or NONE, "sandbox.commands:connect")
  return starts.open(self.link, "process_connect", request.body, opts, request.spec)
end

---@class e2b.ProcessInfo
---@field pid integer
---@field tag string?
---@field cmd string
---@field args string[]
---@field envs table<string, string> as given when it was started
---@field cwd string?

-- A command line as it might be typed.
local function line_of(process)
  local shell = #process.args == 3 and process.args[2] == "-c" and process.args[1] == "-l"
  if shell and process.cmd == "/bin/bash" then return process.args[3] end
  if #process.args == 0 then return process.cmd end
  return process.cmd .. " " .. table.concat(process.args, " ")
end

local COLUMNS = {
  { title = "PID", value = function(process) return ("%d"):format(process.pid) end, right = true },
  { title = "TAG", value = function(process) return process.tag end },
  { title = "COMMAND", value = line_of },
  { title = "CWD", value = function(process) return process.cwd end },
}

local list_mt = {
  __name = "e2b.Processes",
  __tostring = function(list) return require("e2b.table_view").render(COLUMNS, list) end,
}

local LIST = { operation = "sandbox.commands:list" }

---The processes that were started through the daemon and run: commands and terminals of all users.
---The list prints as a table. envd: POST /process.Process/List.
---@param opts e2b.CallOptions?
---@return e2b.ProcessInfo[]? processes
---@return string? message
---@return e2b.Error? err
function methods:list(opts)
  envd.self(self, mt, "sandbox.commands:list")
  if opts ~= nil then options.call(opts, nil, "sandbox.commands:list") end
  local rows, message, err = self.link:call("process_list", { body = {} }, opts, LIST)
  if rows == nil then return nil, message, err end
  for i, row in ipairs(rows) do
    local config = row.config or NONE
    rows[i] = {
      pid = row.pid, tag = not starts.is_own(row.tag) and row.tag or nil, cmd = config.cmd or "",
      args = config.args or {}, envs = config.envs or {}, cwd = config.cwd,
    }
  end
  return setmetatable(rows, list_mt)
end

---Ends a process at once (SIGKILL): it alone, not what it started. envd: POST /process.Process/SendSignal.
---@param process integer|string pid or tag
---@param opts e2b.CallOptions?
---@return true? ok
---@return boolean|string existed false when there was none; the message after a failure
---@return e2b.Error? err
function methods:kill(process, opts)
  envd.self(self, mt, "sandbox.commands:kill")
  if opts ~= nil then options.call(opts, nil, "sandbox.commands:kill") end
  return inputs.kill(self.link, process, opts, "sandbox.commands:kill")
end

---Gives a process input, which it must have been started for (stdin = true). It takes as long as the process takes to
---read it, but not longer than request_timeout. envd: POST /process.Process/SendInput.
---Errors: not_found, server (its input is closed).
---@param process integer|string pid or tag
---@param data string
---@param opts e2b.CallOptions?
---@return true? ok
---@return string? message
---@return e2b.Error? err
function methods:send_stdin(process, data, opts)
  envd.self(self, mt, "sandbox.commands:send_stdin")
  if opts ~= nil then options.call(opts, nil, "sandbox.commands:send_stdin") end
  return inputs.send(self.link, process, data, opts, "sandbox.commands:send_stdin")
end

---Ends the standard input of a process. envd: POST /process.Process/CloseStdin.
---Errors: not_found, unsupported (envd < 0.5.2).
---@param process integer|string pid or tag
---@param opts e2b.CallOptions?
---@return true? ok
---@return string? message
---@return e2b.Error? err
function methods:close_stdin(process, opts)
  envd.self(self, mt, "sandbox.commands:close_stdin")
  if opts ~= nil then options.call(opts, nil, "sandbox.commands:close_stdin") end
  return inputs.close(self.link, process, opts, "sandbox.commands:close_stdin")
end

return M
