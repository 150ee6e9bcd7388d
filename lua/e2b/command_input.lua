--- What is sent to a process: input, the end of it, signals, the size of its terminal.
local options = require("e2b.options")
local base = require("e2b.sandbox_base")
local lazy = require("e2b.lazy")

local tasks = lazy("e2b.tasks")

local M = {}

local raise = options.raise

--- What the pipe to a process takes whether or not it reads.
M.FITS = 65536

-- One request has no more input than this.
local MOST = 1024 * 1024

--- What a pid or a tag is to the daemon.
---@param value any
---@param operation string
---@return table selector
function M.selector(value, operation)
  if type(value) == "number" then
    if value ~= math.floor(value) or value < 1 or value > 4294967295 then
      raise(("%s: a pid is a whole number from 1 on, got %s"):format(operation, tostring(value)))
    end
    return { pid = value }
  end
  if type(value) == "string" then
    if value == "" then raise(operation .. ": the tag is empty") end
    if value:find("^%d+$") then raise(("%s: a pid is a number: write %s, without quotes"):format(operation, value)) end
    if value:find("\0", 1, true) then raise(operation .. ": the tag has a NUL in it") end
    return { tag = value }
  end
  local what = type(value) == "table" and value.pid and "a handle: it has these methods itself" or type(value)
  return raise(("%s needs a pid or a tag, got %s"):format(operation, what))
end

local function context(operation, deadline)
  return { operation = operation, resource = "process", deadline = deadline }
end

--- Ends a process.
---@param link e2b.Link
---@param process any
---@param opts table?
---@param operation string
---@return true? ok
---@return boolean|string existed_or_message
---@return e2b.Error? err
function M.kill(link, process, opts, operation)
  local done, message, err = link:call("process_signal", {
    body = { process = M.selector(process, operation), signal = "SIGNAL_SIGKILL" },
  }, opts, context(operation))
  if done ~= nil then return true, true end
  -- It may as well have ended while the signal was on its way.
  if err.kind == "not_found" and err.resource == "process" then return true, false end
  if err.kind == "server" and (err.server_message or ""):find("already finished", 1, true) then return true, false end
  return nil, message, err
end

--- Ends a process without waiting for it, and nobody hears how that went.
---@param link e2b.Link
---@param process any
---@param seconds number the longest it may take
---@param operation string
function M.kill_beside(link, process, seconds, operation)
  local stream = link:open("process_signal", {
    body = { process = M.selector(process, operation), signal = "SIGNAL_SIGKILL" },
  }, { request_timeout = seconds }, { operation = operation, timeout = seconds })
  if stream then stream:let_go() end
end

local function with_how_far(message, err, sent, all)
  if all <= MOST then return nil, message, err end
  err.message = ("%s (%d of %d bytes had been sent)"):format(message, sent, all)
  return nil, err.message, err
end

--- Sends input, in as many requests as it takes, within one time.
---@param link e2b.Link
---@param process any
---@param data string
---@param opts table?
---@param operation string
---@param pty boolean? to the terminal
---@return true? ok
---@return string? message
---@return e2b.Error? err
function M.send(link, process, data, opts, operation, pty)
  if type(data) ~= "string" then
    raise(("%s needs a string to send, got %s"):format(operation, type(data)))
  end
  local selector, key = M.selector(process, operation), pty and "pty" or "stdin"
  local deadline = #data > MOST and base.deadline_of(link.client, opts) or nil
  for at = 1, math.max(#data, 1), MOST do
    local piece = #data > MOST and data:sub(at, at + MOST - 1) or data
    local ok, message, err = link:call("process_input", { body = { process = selector, input = { [key] = piece } } },
      opts, context(operation, deadline))
    if ok == nil then return with_how_far(message, err, at - 1, #data) end
  end
  return true
end

--- Ends the input.
---@param link e2b.Link
---@param process any
---@param opts table?
---@param operation string
---@return true? ok
---@return string? message
---@return e2b.Error? err
function M.close(link, process, opts, operation)
  local selector = M.selector(process, operation)
  local possible, message, err = link:gate(operation, "closing the standard input", 0, 5, 2)
  if not possible then return nil, message, err end
  local ok
  ok, message, err = link:call("process_close_stdin", { body = { process = selector } }, opts, context(operation))
  if ok == nil then return nil, message, err end
  return true
end

--- Columns and rows, however they are written: (cols, rows, opts) or ({ cols = …, rows = … }, opts).
---@param operation string
---@return any cols
---@return any rows
---@return table? opts
function M.size(operation, cols, rows, opts)
  if type(cols) ~= "table" then return cols, rows, opts end
  options.check(cols, { "cols", "rows" }, operation)
  return cols.cols, cols.rows, rows
end

--- Tells a terminal its size.
---@param link e2b.Link
---@param process any
---@param cols integer
---@param rows integer
---@param opts table?
---@param operation string
---@return true? ok
---@return string? message
---@return e2b.Error? err
function M.resize(link, process, cols, rows, opts, operation)
  for name, value in pairs({ cols = cols or false, rows = rows or false }) do
    if type(value) ~= "number" or value ~= math.floor(value) or value < 1 or value > 65535 then
      raise(("%s: %s must be a whole number from 1 to 65535, got %s"):format(operation, name, tostring(value or nil)))
    end
  end
  local ok, message, err = link:call("process_update", {
    body = { process = M.selector(process, operation), pty = { size = { cols = cols, rows = rows } } },
  }, opts, context(operation))
  if ok == nil then return nil, message, err end
  return true
end

-- Input that goes along with a command -------------------------------------------------------------------------------

-- It takes as long as the process takes to read it; the end of the stream ends it as well.
local UNBOUNDED = { request_timeout = 0, idle_timeout = 0 }

--- Sends all input of a process and ends it.
---@param link e2b.Link
---@param pid integer
---@param data string
---@param operation string
---@param opts table?
---@return true? ok
---@return string? message
---@return e2b.Error? err
function M.send_all(link, pid, data, operation, opts)
  if data ~= "" then
    local ok, message, err = M.send(link, pid, data, opts, operation)
    if not ok then return nil, message, err end
  end
  return M.close(link, pid, nil, operation)
end

--- Whether input could not be sent because the process doesn't want any more: it has ended or closed its end, and what
--- becomes of it is told by its exit code.
---@param err e2b.Error
---@return boolean
function M.gone(err)
  -- The daemon's own word. A 500 of something in between says nothing about the process.
  return err.kind == "not_found" and err.resource == "process" or err.error_code == "internal"
end

--- Sends all input beside whatever the caller does. When that fails, the process is killed: half of an input must not
--- pass for the whole.
---@param link e2b.Link
---@param pid integer
---@param data string
---@param operation string
---@param failed fun(err: e2b.Error)
---@return e2b.Task feeder
function M.feed(link, pid, data, operation, failed)
  return tasks.spawn(function()
    local ok, _, err = M.send_all(link, pid, data, operation, UNBOUNDED)
    if ok or err.kind == "cancelled" or M.gone(err) then return true end
    failed(err)
    M.kill(link, pid, nil, operation)
    return true
  end)
end

--- Ends the sending: the process is over, or nobody is interested any more.
---@param feeder e2b.Task
function M.stop(feeder)
  feeder:cancel()
end

return M
