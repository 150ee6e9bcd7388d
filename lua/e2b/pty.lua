--- sandbox.pty: terminals in a sandbox, each with a shell or another program in it.
local envd = require("e2b.envd")
local lazy = require("e2b.lazy")
local options = require("e2b.options")

local handles, inputs = lazy("e2b.command_handle"), lazy("e2b.command_input")

local M = {}

---@class e2b.Pty
local methods = {}
M.methods = methods

local mt = {
  __name = "e2b.Pty",
  __tostring = function(self) return ("Pty(%s)"):format(require("e2b.format").short_id(self.link.sandbox_id)) end,
}

function mt.__index(_, name)
  local method = methods[name]
  local text = method == nil and type(name) == "string" and require("e2b.suggest").method(name, methods)
  if text then options.raise(text) end
  return method
end

--- The terminals of a sandbox.
---@param sandbox e2b.Sandbox
---@return e2b.Pty
function M.new(sandbox)
  return setmetatable({ link = envd.link(sandbox) }, mt)
end

local raise = options.raise

local NONE = {}
local LARGEST = 65535

-- Columns or rows; the terminal has 16 bits for each.
local function extent(operation, value, what)
  if type(value) ~= "number" or value ~= math.floor(value) or value < 1 or value > LARGEST then
    raise(("bad option '%s' for %s (a whole number from 1 to %d expected, got %s)"):format(
      what, operation, LARGEST, type(value) == "number" and tostring(value) or type(value)))
  end
  return value
end

local CREATE = { "cols", "rows", "user", "cwd", "envs", "timeout", "on_data", "cmd" }
local TYPES = {
  user = options.types.string, cwd = options.types.string, timeout = options.types.seconds,
  on_data = options.types["function"], envs = options.types.table,
}

local function check_types(operation, opts)
  for what, check in pairs(TYPES) do
    local wrong = opts[what] ~= nil and check(opts[what])
    if wrong then raise(("bad option '%s' for %s (%s)"):format(what, operation, wrong)) end
  end
end

-- What makes programs draw and speak UTF-8, unless the caller says otherwise.
local DEFAULTS = { TERM = "xterm-256color", LANG = "C.UTF-8", LC_ALL = "C.UTF-8" }

local function environment(operation, given)
  local envs = {}
  for name, value in pairs(DEFAULTS) do envs[name] = value end
  for name, value in pairs(given or NONE) do
    if type(name) ~= "string" or type(value) ~= "string" then
      raise(("bad option 'envs' for %s (names and values must be strings; tostring() makes them so)"):format(operation))
    end
    envs[name] = value
  end
  return envs
end

-- The program in the terminal: a login shell, a line for one, or a list that no shell sees.
local function program(operation, cmd)
  if cmd == nil then return "/bin/bash", { "-i", "-l" } end
  if type(cmd) == "string" and cmd ~= "" then return "/bin/bash", { "-l", "-c", cmd } end
  if type(cmd) ~= "table" or #cmd == 0 then
    raise(("bad option 'cmd' for %s (a command line or a list of words expected)"):format(operation))
  end
  local args = {}
  for i, word in ipairs(cmd) do
    if type(word) ~= "string" then
      raise(("bad option 'cmd' for %s (word %d is a %s, not a string)"):format(operation, i, type(word)))
    end
    args[i] = word
  end
  return table.remove(args, 1), args
end

local function spec(operation, opts)
  return {
    operation = operation, resource = "sandbox.pty", name = "the terminal's program", timeout = opts.timeout,
    pty = true, on_pty = opts.on_data,
  }
end

--- Starts a terminal for a public call.
---@param link e2b.Link
---@param operation string
---@param opts table of pty:create
---@return e2b.CommandHandle? handle
---@return string? message
---@return e2b.Error? err
function M.start(link, operation, opts)
  check_types(operation, opts)
  local cols = extent(operation, opts.cols == nil and 80 or opts.cols, "cols")
  local rows = extent(operation, opts.rows == nil and 24 or opts.rows, "rows")
  local cmd, args = program(operation, opts.cmd)
  local body = {
    process = { cmd = cmd, args = args, envs = environment(operation, opts.envs), cwd = opts.cwd },
    pty = { size = { cols = cols, rows = rows } },
  }
  return handles.open(link, "process_start", body, opts, spec(operation, opts))
end

--- Attaches to a terminal for a public call.
---@param link e2b.Link
---@param operation string
---@param pid any
---@param opts table of pty:connect
---@return e2b.CommandHandle? handle
---@return string? message
---@return e2b.Error? err
function M.attach(link, operation, pid, opts)
  check_types(operation, opts)
  return handles.open(link, "process_connect", { process = inputs.selector(pid, operation) }, opts,
    spec(operation, opts))
end

---Starts a terminal with an interactive login shell in it. The handle is that of a command, its output is "pty"; it
---also has `resize`. It runs until the program ends: there is no hidden limit. TERM, LANG and LC_ALL are set unless
---`envs` has them. envd: POST /process.Process/Start. Errors: invalid_argument (cwd), authentication (user).
---@param opts { cols: integer?, rows: integer?, user: string?, cwd: string?, envs: table<string, string>?,
---  timeout: number?, on_data: fun(data: string)?, cmd: string|string[]? }? and e2b.CallOptions; 80 columns and 24 rows
---  if not given; timeout in seconds (none); on_data is called by whoever reads, handle:wait() for one; cmd: another
---  program than the shell
---@return e2b.CommandHandle? handle
---@return string? message
---@return e2b.Error? err
function methods:create(opts)
  local operation = "sandbox.pty:create"
  envd.self(self, mt, operation)
  return M.start(self.link, operation, opts == nil and NONE or options.call(opts, CREATE, operation))
end

local CONNECT = { "timeout", "on_data" }

---Attaches to a terminal that runs; its output comes from now on. envd: POST /process.Process/Connect.
---Errors: not_found.
---@param pid integer
---@param opts { timeout: number?, on_data: fun(data: string)? }? and e2b.CallOptions; timeout in seconds (none), after
---  which the handle ends, not the terminal
---@return e2b.CommandHandle? handle
---@return string? message
---@return e2b.Error? err
function methods:connect(pid, opts)
  local operation = "sandbox.pty:connect"
  envd.self(self, mt, operation)
  return M.attach(self.link, operation, pid, opts == nil and NONE or options.call(opts, CONNECT, operation))
end

---Types into a terminal. "\r" is the return key, "\3" Ctrl-C, "\4" Ctrl-D. envd: POST /process.Process/SendInput.
---Errors: not_found.
---@param pid integer
---@param data string bytes
---@param opts e2b.CallOptions?
---@return true? ok
---@return string? message
---@return e2b.Error? err
function methods:send_stdin(pid, data, opts)
  local operation = "sandbox.pty:send_stdin"
  envd.self(self, mt, operation)
  if opts ~= nil then options.call(opts, nil, operation) end
  return inputs.send(self.link, pid, data, opts, operation, true)
end

---Tells a terminal its size: resize(pid, { cols = 120, rows = 40 }) or resize(pid, 120, 40).
---envd: POST /process.Process/Update. Errors: not_found.
---@param pid integer
---@param size { cols: integer, rows: integer }|integer the columns, when it is a number
---@param rows integer|e2b.CallOptions|nil the options, after a table
---@param opts e2b.CallOptions?
---@return true? ok
---@return string? message
---@return e2b.Error? err
function methods:resize(pid, size, rows, opts)
  local operation = "sandbox.pty:resize"
  envd.self(self, mt, operation)
  if type(size) ~= "table" and (type(size) ~= "number" or rows == nil) then
    raise(("bad argument 'size' to %s ({ cols = …, rows = … } expected, got %s)"):format(operation, type(size)))
  end
  local cols
  cols, rows, opts = inputs.size(operation, size, rows, opts)
  if opts ~= nil then options.call(opts, nil, operation) end
  return inputs.resize(self.link, pid, cols, rows, opts, operation)
end

---Ends the program in a terminal with SIGKILL. envd: POST /process.Process/SendSignal.
---@param pid integer
---@param opts e2b.CallOptions?
---@return true? ok
---@return boolean|string existed false when it was gone before this call; the message after a failure
---@return e2b.Error? err
function methods:kill(pid, opts)
  local operation = "sandbox.pty:kill"
  envd.self(self, mt, operation)
  if opts ~= nil then options.call(opts, nil, operation) end
  return inputs.kill(self.link, pid, opts, operation)
end

return M
