-- A real terminal with a program in it, by tmux: what it shows is looked at as a person would see it.
--
--   local one = tmux.run("nvim ...", { cols = 80, rows = 24 })
--   one:screen()               -- the text that is shown
--   one:expect("text")         -- waits until it is shown; answers the screen
--   one:keys("i", "hello", "Escape"), one:type("text as it is")
--   one:alive(), one:stop()
local support = require("spec.support.support")

local tmux = {}
local methods = {}
local meta = { __index = methods }

local quote, shell = support.quote, support.shell

local function command(self, words)
  -- The server's socket lies in a folder of its own, and nobody's configuration is read.
  local output, code = shell("env -u TMUX -u TMUX_PANE TMUX_TMPDIR=" .. self.folder
    .. " LC_ALL=C.UTF-8 tmux -u -f /dev/null " .. words)
  return output, code
end

--- Runs a shell command in a terminal of its own, for two minutes at most: then it is gone whatever became of the spec.
---@param program string shell words
---@param options? table cols (80), rows (24)
function tmux.run(program, options)
  options = options or {}
  local self = setmetatable({ folder = support.tmpdir() }, meta)
  local file = self.folder .. "/program.sh"
  local seconds = math.ceil(120 * support.slack)
  support.write_file(file, "exec timeout --foreground -k 2 " .. seconds .. " " .. program .. "\n")
  local output, code = command(self, ("new-session -d -x %d -y %d %s"):format(options.cols or 80, options.rows or 24,
    quote("exec sh " .. file .. " 2>" .. self.folder .. "/err")))
  if code ~= 0 then error("tmux did not start: " .. output, 2) end
  return self
end

--- The text on the screen, without the blanks at the ends of lines.
---@return string
function methods:screen()
  return (command(self, "capture-pane -p"))
end

--- Whether the program still runs.
---@return boolean
function methods:alive()
  return select(2, command(self, "has-session")) == 0
end

--- Waits until the screen matches.
---@param what string|fun(screen: string): any a plain text, or a function that is given the screen
---@param seconds? number
---@return string screen
function methods:expect(what, seconds)
  local screen
  local ok = pcall(support.wait_for, function()
    screen = self:screen()
    if type(what) == "function" then return what(screen) end
    return screen:find(what, 1, true)
  end, seconds or 10)
  if not ok then error(("waited in vain for %s on the screen, which shows:\n%s"):format(tostring(what), screen), 2) end
  return screen
end

--- Sends keys by tmux's names: "C-c", "Escape", "Enter"; other words are typed.
function methods:keys(...)
  local words = {}
  for i, key in ipairs({ ... }) do words[i] = quote(key) end
  command(self, "send-keys " .. table.concat(words, " "))
end

--- Waits until the program has ended by itself.
---@param seconds? number
function methods:wait(seconds)
  support.wait_for(function() return not self:alive() end, seconds or 10, "the end of the program in the terminal")
end

--- Raises when the library has written to the terminal, or an error was. (A new Neovim asks the terminal for its
--- colours through standard error.)
function methods:assert_quiet()
  local text = support.read_file(self.folder .. "/err") or ""
  if text:find("e2b", 1, true) or text:find("rror", 1, true) then
    error("on standard error: " .. text, 2)
  end
end

--- Ends what still runs.
function methods:stop()
  command(self, "kill-server")
  support.cleanup(self.folder)
end

return tmux
