-- A terminal that a spec sits at: a program runs there, the spec types, looks at the screen and at the settings.
--
--   local one = terminal.run("source of a Lua script", { cols = 80, rows = 24, env = {}, args = {} })
--   one:expect("text")           -- waits until that has been shown; answers all that has
--   one:type("ls\r")
--   one:is_raw(), one:settings() -- one.before: how they were before the program ran
--   one:wait()                   -- -> exit code, or 128 + signal
local posix = require("spec.support.posix")
local support = require("spec.support.support")

local terminal = {}
local methods = {}
local meta = { __index = methods }

local open = {}

--- Runs a Lua script at a terminal of its own. It ends with the terminal, that is with this process at the latest.
---@param source string
---@param options? table cols, rows, env, args, shell (a line for sh, in which %s is the program; "exec %s")
function terminal.run(source, options)
  options = options or {}
  local fd, path = posix.terminal(options.cols or 80, options.rows or 24)
  local folder = support.tmpdir()
  support.write_file(folder .. "/script.lua", source)
  -- The settings of a terminal that nobody has open are lost.
  local other = posix.open(path, 524288 + 258) -- close on exec, no controlling one
  local self = setmetatable({ fd = fd, other = other, folder = folder, shown = "", path = path }, meta)
  self.before = self:settings()
  local command = support.lua_command(options.env) .. " " .. support.quote(folder .. "/script.lua")
  for _, word in ipairs(options.args or {}) do command = command .. " " .. support.quote(word) end
  local line = (options.shell or "exec %s"):gsub("%%s", function() return command end)
  self.pid = posix.run_at(path, "/bin/sh", "-c", line)
  open[self] = true
  return self
end

function methods:look()
  while true do
    local bytes = posix.read(self.fd)
    if not bytes then return self.shown end
    self.shown = self.shown .. bytes
  end
end

--- Waits for a text on the screen, after what an earlier expect() found.
function methods:expect(text, seconds)
  local from = self.seen or 1
  local ok = pcall(support.wait_for, function()
    local ended = self.code or posix.ended(self.pid)
    self:look()
    local _, stop = self.shown:find(text, from, true)
    if stop then self.seen = stop + 1 end
    self.code = ended
    assert(stop or not ended)
    return stop
  end, seconds or 20)
  if not ok then
    error(("waited in vain for %q on the screen, which shows %q"):format(text, self.shown:sub(from)), 2)
  end
  return self.shown
end

function methods:type(text)
  local at = 0
  support.wait_for(function()
    at = at + posix.write(self.fd, text:sub(at + 1))
    self:look()
    return at == #text
  end, 20, "a terminal that takes what is typed")
end

function methods:settings()
  return (posix.settings(self.other))
end

function methods:is_raw()
  return (select(2, posix.settings(self.other)))
end

function methods:resize(cols, rows)
  assert(posix.resize(self.fd, cols, rows))
end

--- Waits for the end of the program.
---@return integer code 128 + the signal's number when one ended it
function methods:wait(seconds)
  if not self.code then
    self.code = support.wait_for(function()
      self:look()
      return posix.ended(self.pid)
    end, seconds or 30, "the end of the program at the terminal")
    self:look()
  end
  return self.code
end

--- Pids of the processes that have this terminal open, or were started at it.
function methods:processes()
  local output = support.shell("for p in /proc/[0-9]*; do readlink $p/fd/* 2>/dev/null | grep -qx "
    .. support.quote(self.path) .. " && echo ${p#/proc/}; done; true")
  local pids = {}
  local own = tostring(support.core().getpid())
  for pid in output:gmatch("%d+") do
    if pid ~= own then pids[#pids + 1] = tonumber(pid) end
  end
  return pids
end

function methods:close()
  if not open[self] then return end
  open[self] = nil
  if not self.code and not posix.ended(self.pid) then
    for _, pid in ipairs(self:processes()) do posix.kill(pid, 9) end
    posix.kill(self.pid, 9)
    self.code = posix.wait(self.pid)
  end
  posix.close(self.other)
  posix.close(self.fd)
  support.cleanup(self.folder)
end

--- Ends what a failing spec has left.
function terminal.close_all()
  for one in pairs(open) do one:close() end
end

return terminal
