--- For an interactive session without bin/e2b: `lua -i -l e2b.repl`. Required by a program it does nothing.
local M = {}

--- Makes e2b, Sandbox and Template global, which nothing else in this library does.
---@param to table where the names go
---@return table e2b
function M.names(to)
  local e2b = require("e2b")
  to.e2b, to.Sandbox, to.Template = e2b, e2b.Sandbox, e2b.Template
  return e2b
end

--- Makes the names global, and says how to go on.
---@param to table? where the names go; the session's globals if not given
---@param write fun(text: string)? print if not given
function M.start(to, write)
  write = write or print
  local e2b = M.names(to or _G)
  write(("e2b %s on %s: e2b.help(), e2b.help(Sandbox), e2b.check()"):format(e2b.version, _VERSION))
  if os.getenv("E2B_API_KEY") then
    write("try:  =Sandbox.list():next_items()  or  s = Sandbox.create() s:shell()")
  else
    write("E2B_API_KEY is not set; e2b.check() says what to do, and bin/e2b-server is a service to try things on")
  end
end

-- With -l on the command line there is no Lua function below this file and `require`.
local function is_command_line()
  local level = 2
  while true do
    local info = debug.getinfo(level, "S")
    if not info then return true end
    if info.what ~= "C" and level > 2 then return false end
    level = level + 1
  end
end

if is_command_line() then M.start() end

return M
