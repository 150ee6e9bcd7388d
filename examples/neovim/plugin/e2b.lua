-- :E2B run     the range (or the buffer) runs in a sandbox, its output streams into a split
-- :E2B list    the sandboxes of this account
-- :E2B kill    ends the sandbox of this Neovim, or the one whose id is given
-- A file for ~/.config/nvim/plugin/; change it as you like. The sandbox is made by the first run, ends with Neovim, and
-- by itself LIFE seconds after the last run.
local LIFE = 300

-- What reads a program from its standard input, by file type; others go to the shell.
local READERS = {
  python = { "python3", "-" }, javascript = { "node", "-" }, lua = { "lua", "-" }, ruby = { "ruby", "-" },
  perl = { "perl", "-" }, php = { "php" },
}
local SHELL = { "bash", "-s" }

local sandbox, making

local function notify(text, level)
  vim.notify("E2B: " .. text, level or vim.log.levels.INFO)
end

-- Runs fn beside the editor. Whatever goes wrong in there is a notification.
local function background(fn)
  require("e2b").spawn(fn, function(ok, message, err)
    if not ok then notify(err and err.traceback or tostring(message), vim.log.levels.ERROR) end
  end)
end

local output = {}

function output.open(title)
  if not (output.buffer and vim.api.nvim_buf_is_valid(output.buffer)) then
    output.buffer = vim.api.nvim_create_buf(false, true)
    vim.api.nvim_buf_set_name(output.buffer, "E2B output")
  end
  if #vim.fn.win_findbuf(output.buffer) == 0 then
    local here = vim.api.nvim_get_current_win()
    vim.cmd("botright 10split")
    vim.api.nvim_win_set_buf(0, output.buffer)
    vim.api.nvim_set_current_win(here)
  end
  vim.api.nvim_buf_set_lines(output.buffer, 0, -1, false, { title, "" })
end

-- Puts bytes behind what is there; they may end in the middle of a line.
function output.add(bytes)
  if not vim.api.nvim_buf_is_valid(output.buffer) then return end
  local lines = vim.split(bytes:gsub("\r", ""):gsub("%z", ""), "\n", { plain = true })
  local last = vim.api.nvim_buf_line_count(output.buffer)
  lines[1] = vim.api.nvim_buf_get_lines(output.buffer, last - 1, last, false)[1] .. lines[1]
  vim.api.nvim_buf_set_lines(output.buffer, last - 1, last, false, lines)
  for _, window in ipairs(vim.fn.win_findbuf(output.buffer)) do
    vim.api.nvim_win_set_cursor(window, { vim.api.nvim_buf_line_count(output.buffer), 0 })
  end
end

function output.line(text)
  if not vim.api.nvim_buf_is_valid(output.buffer) then return end
  local last = vim.api.nvim_buf_get_lines(output.buffer, -2, -1, false)[1]
  output.add((last == "" and "" or "\n") .. text)
end

local function is_making() return making ~= nil and making.state == "running" end

-- The sandbox of this Neovim, with a full life before it. In a task.
local function ready()
  if sandbox then
    local ok, message, err = sandbox:set_timeout(LIFE)
    if ok then return sandbox end
    if err.kind ~= "not_found" then return nil, message, err end -- it may well be there: no second one
    sandbox = nil
  end
  -- One for two runs that begin at the same time.
  if not is_making() then
    making = require("e2b").spawn(function()
      local message, err
      sandbox, message, err = require("e2b").Sandbox.create("base", { timeout = LIFE, metadata = { editor = "nvim" } })
      return sandbox, message, err
    end)
  end
  return making:wait()
end

local commands = {}

function commands.run(args)
  local program = vim.api.nvim_buf_get_lines(0, args.line1 - 1, args.line2, false)
  local reader = READERS[vim.bo.filetype] or SHELL
  output.open(("[%d lines to %s]"):format(#program, reader[1]))
  background(function()
    local one, message, err = ready()
    if not one then return nil, message, err end
    local handle
    handle, message, err = one.commands:start(reader, { stdin = table.concat(program, "\n") .. "\n" })
    if not handle then return nil, message, err end
    for _, bytes in handle:output() do output.add(bytes) end
    local result
    result, message, err = handle:wait()
    if not result then return nil, message, err end
    output.line(("[exit code %d]"):format(result.exit_code))
    return true
  end)
end

function commands.list()
  background(function()
    local rows, message, err = require("e2b").Sandbox.list():all()
    if not rows then return nil, message, err end
    notify(#rows == 0 and "no sandboxes" or tostring(rows))
    return true
  end)
end

function commands.kill(args)
  local id = args.fargs[2] or sandbox and sandbox.sandbox_id
  if not id then return notify("no sandbox was started here") end
  background(function()
    local ok, existed, err = require("e2b").Sandbox.kill(id)
    if not ok then return nil, existed, err end
    if sandbox and sandbox.sandbox_id == id then sandbox = nil end
    notify(id .. (existed and " was killed" or " was gone already"))
    return true
  end)
end

local names = { "kill", "list", "run" }

vim.api.nvim_create_user_command("E2B", function(args)
  local command = commands[args.fargs[1]]
  if not command then return notify(":E2B " .. table.concat(names, ", "), vim.log.levels.ERROR) end
  local loaded, why = pcall(require, "e2b")
  if not loaded then return notify(why, vim.log.levels.ERROR) end
  command(args)
end, {
  nargs = "+", range = "%", desc = "run, list, kill: E2B sandboxes",
  complete = function(lead)
    return vim.tbl_filter(function(name) return name:sub(1, #lead) == lead end, names)
  end,
})

vim.api.nvim_create_autocmd("VimLeavePre", {
  callback = function()
    local last = is_making() and making:wait(3) or sandbox
    if last then last:kill({ request_timeout = 3 }) end
  end,
})
