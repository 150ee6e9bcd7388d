--- Where the lines of a session come from: a terminal with readline, a terminal without, or a pipe. At a terminal the
--- wait for a key is one like any other, so tasks go on meanwhile, and Ctrl-C ends it.
local core = require("e2b.core")
local history = require("e2b.program.history")
local input = require("e2b.input")

local M = {}

---@class e2b.Prompt
---@field read fun(prompt: string): string? the next line; nil at the end
---@field drop fun() forget what is being typed
---@field keep fun(line: string) into the history
---@field width fun(): integer columns of the terminal
---@field interactive boolean
---@field editing boolean a line can be edited, there are completion and history

-- Readline talks to the terminal that controls this process, whatever standard input is.
local function has_terminal()
  local file = io.open("/dev/tty", "r+")
  if file then file:close() end
  return file ~= nil
end

local function find_readline()
  local ok, readline = pcall(require, "readline")
  if ok and type(readline) == "table" and readline.handler_install and readline.read_char and has_terminal() then
    return readline
  end
  return nil
end

local function no_op() end

-- A pipe or a file.
local function of_pipe()
  return {
    interactive = false, editing = false, drop = no_op, keep = no_op,
    read = function() return (io.read("*l")) end,
    width = function() return 80 end,
  }
end

local function of_terminal(terminal)
  -- What stdio has read ahead nobody could wait for.
  io.stdin:setvbuf("no")
  return {
    interactive = true, editing = false, drop = function() io.stdout:write("\n") end, keep = no_op,
    read = function(prompt)
      io.stdout:write(prompt)
      io.stdout:flush()
      input.wait(0)
      local line = io.read("*l")
      if not line then io.stdout:write("\n") end
      return line
    end,
    width = function() return (terminal:size()) end,
  }
end

local function of_readline(readline, terminal, complete, getenv)
  local path = history.path(getenv)
  if path and not history.open(path) then path = nil end
  -- The module has read a history that is everybody's; this takes it out again, and reads ours.
  readline.set_options({ histfile = path or "", auto_add = false })
  if readline.set_readline_name then readline.set_readline_name("e2b") end
  readline.set_complete_function(function(text, from, to)
    readline.set_completion_append_character("")
    local ok, found = pcall(complete, text, from, to)
    return ok and found or {}
  end)

  local line, over, last
  local function take(text)
    line, over = text, true
    readline.handler_remove()
  end
  return {
    interactive = true, editing = true,
    -- The handler stays: the module closes the terminal before it takes away a handler that is in the middle of a line,
    -- and readline then asks the closed one. Installed again, it begins a new line.
    drop = function()
      if readline.sigcleanup then readline.sigcleanup() end
      io.stdout:write("\n")
      io.stdout:flush()
    end,
    keep = function(text)
      if text ~= last and text:find("%S") then
        readline.add_history(text)
        if path then history.add(path, text) end
      end
      last = text
    end,
    read = function(prompt)
      io.stdout:flush()
      line, over = nil, false
      readline.handler_install(prompt, take)
      while not over do
        input.wait(0)
        readline.read_char()
      end
      if not line then io.stdout:write("\n") end
      return line
    end,
    width = function() return (terminal:size()) end,
  }
end

--- The prompt that fits what standard input is.
---@param complete fun(text: string, from: integer, to: integer): string[] what may stand in the place of text[from, to]
---@param getenv fun(name: string): string?
---@return e2b.Prompt
function M.new(complete, getenv)
  local terminal = core.terminal(0, 0)
  if not terminal then return of_pipe() end
  local readline = find_readline()
  if not readline then return of_terminal(terminal) end
  return of_readline(readline, terminal, complete, getenv)
end

return M
