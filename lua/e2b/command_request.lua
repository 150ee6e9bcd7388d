--- What a caller wants run, checked: the request for it, and what its handle has to know. All that is wrong here is the
--- caller's mistake and raises.
local lazy = require("e2b.lazy")
local options = require("e2b.options")

local create, describe, inputs = lazy("e2b.sandbox_create"), lazy("e2b.describe"), lazy("e2b.command_input")

local M = {}

local raise, types = options.raise, options.types

local function no_nul(value, what)
  if value:find("\0", 1, true) then raise(("%s has a NUL in it, and no process can be given that"):format(what)) end
  return value
end

local TYPES = {
  cwd = types.string, tag = types.string, timeout = types.seconds, max_output = types.count, check = types.boolean,
  on_stdout = types["function"], on_stderr = types["function"],
}

local function check_types(opts, operation)
  for name, value in pairs(opts) do
    local check = TYPES[name]
    local wrong = check and check(value)
    if wrong then raise(("bad option '%s' for %s (%s)"):format(name, operation, wrong)) end
  end
end

-- A program's name, for messages, if it is nothing but that.
local function plain(word)
  return #word <= 64 and word:find("^[%w_./+-]+$") and describe.clean(word) or "the command"
end

-- Of a command line, the word that is the program: what stands before it may be NAME=secret.
local function program_of(line)
  for word in line:gmatch("%S+") do
    if not word:find("^[%a_][%w_]*%+?=") then return plain(word) end
    if word:find("[\"'`$(]") then break end -- the value goes on behind the next blank, perhaps
  end
  return "the command"
end

local function words(cmd, operation)
  for key in pairs(cmd) do
    if type(key) ~= "number" then
      local hint = key == "background" and "write sandbox.commands:start, which returns a handle"
        or ("options are the second argument: %s({ \"ls\", \"-l\" }, { cwd = \"/tmp\" })"):format(operation)
      raise(("%s: a list of words has no names, got '%s' (%s)"):format(operation, tostring(key):gsub("%c", "?"), hint))
    end
  end
  if cmd[1] == nil then raise(operation .. ": the list is empty: the program is its first word") end
  local args, count = {}, 0
  for _ in pairs(cmd) do count = count + 1 end
  for i = 1, count do
    local word = cmd[i]
    if type(word) == "number" then word = ("%.14g"):format(word) end
    if type(word) ~= "string" then
      raise(("%s: word %d of the list must be a string, got %s"):format(operation, i, type(word)))
    end
    args[i] = no_nul(word, ("%s: word %d of the list"):format(operation, i))
  end
  local program = table.remove(args, 1)
  if program == "" then raise(operation .. ": the program is an empty string") end
  return program, args
end

local function command(cmd, operation)
  if type(cmd) == "string" then
    no_nul(cmd, operation .. ": the command")
    return "/bin/bash", { "-l", "-c", cmd }, program_of
  end
  if type(cmd) == "table" then
    local program, args = words(cmd, operation)
    return program, args
  end
  return raise(("%s needs a command, a string or a list of words, got %s"):format(operation, type(cmd)))
end

local function environment(envs, operation)
  local copy = create.strings(envs, operation .. ": envs")
  for name, value in pairs(copy) do
    if name == "" or name:find("=", 1, true) then
      raise(("%s: envs has the name %s, which no variable can have"):format(operation, describe.show(name)))
    end
    no_nul(name, operation .. ": envs")
    no_nul(value, operation .. ": envs." .. name)
  end
  return copy
end

local START = {
  "cwd", "envs", "user", "stdin", "timeout", "on_stdout", "on_stderr", "check", "max_output", "tag",
}

-- How the input of a process is asked for: nothing, some that comes later, or this.
local function input(link, opts, operation)
  local stdin = opts.stdin
  if stdin == nil then return true, false end
  local kind = type(stdin)
  if kind ~= "boolean" and kind ~= "string" then
    raise(("bad option 'stdin' for %s (true, or a string to be sent, expected, got %s)"):format(operation, kind))
  end
  local ok, message, err = true, nil, nil
  if stdin == false then
    ok, message, err = link:gate(operation, "stdin = false", 0, 3, 0)
  elseif kind == "string" then
    ok, message, err = link:gate(operation, "stdin = \"…\", which ends the input,", 0, 5, 2)
  end
  if not ok then return nil, message, err end
  return true, stdin ~= false, kind == "string" and stdin or nil
end

---@class e2b.CommandRequest
---@field body table of POST /process.Process/Start or Connect
---@field spec e2b.HandleSpec

--- The request that starts a process.
---@param link e2b.Link
---@param cmd any
---@param opts table
---@param operation string
---@param timeout number? seconds, when the caller says nothing
---@return e2b.CommandRequest? request
---@return string? message
---@return e2b.Error? err
function M.start(link, cmd, opts, operation, timeout)
  local program, args, name_of = command(cmd, operation)
  local envs
  if type(opts) ~= "table" or next(opts) ~= nil then
    options.call(opts, START, operation)
    check_types(opts, operation)
    if opts.envs ~= nil then envs = environment(opts.envs, operation) end
    if opts.cwd then no_nul(opts.cwd, operation .. ": cwd") end
    if opts.tag then no_nul(opts.tag, operation .. ": tag") end
    if opts.timeout then timeout = opts.timeout end
  end
  local possible, stdin, text = input(link, opts, operation)
  if not possible then return nil, stdin, text end
  return {
    body = {
      process = { cmd = program, args = args, envs = envs, cwd = opts.cwd }, tag = opts.tag, stdin = stdin,
    },
    spec = {
      operation = operation, resource = "sandbox.commands", name = name_of and name_of(cmd) or plain(program),
      timeout = timeout, max_output = opts.max_output, on_stdout = opts.on_stdout, on_stderr = opts.on_stderr,
      check = opts.check, stdin = text,
    },
  }
end

local CONNECT = { "timeout", "on_stdout", "on_stderr", "max_output", "check" }

--- The request that connects to a process.
---@param process any pid or tag
---@param opts table
---@param operation string
---@return e2b.CommandRequest request
function M.connect(process, opts, operation)
  options.call(opts, CONNECT, operation)
  check_types(opts, operation)
  local selector = inputs.selector(process, operation)
  return {
    body = { process = selector },
    spec = {
      operation = operation, resource = "sandbox.commands", name = "the command", timeout = opts.timeout,
      max_output = opts.max_output, on_stdout = opts.on_stdout, on_stderr = opts.on_stderr, check = opts.check,
    },
  }
end

return M
