-- Runs in a headless Neovim: the file that spec/support/neovim.lua names, and then the end.
local function say(...)
  local words = { ... }
  for i = 1, select("#", ...) do words[i] = tostring(words[i]) end
  io.stdout:write(table.concat(words, "\t"), "\n")
  io.stdout:flush()
end
print = say -- luacheck: ignore 121

local ok, message = xpcall(dofile, debug.traceback, os.getenv("E2B_SPEC_FILE"))
if not ok then
  io.stderr:write(message, "\n")
  vim.cmd("cquit 1")
elseif not os.getenv("E2B_SPEC_STAYS") then
  vim.cmd("qall!")
end
