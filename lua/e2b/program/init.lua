--- What `bin/e2b` runs: its first word names a module beside this one, and no word is the REPL.
local M = {}

-- In the order of the help.
local COMMANDS = {
  { "repl", "a Lua prompt with the library ready (also without a word)" },
  { "guard", "kills the sandboxes of a program that has ended; the library starts it" },
  { "reap", "kills the sandboxes that programs of yours left behind" },
}

local function names()
  local list = {}
  for i, command in ipairs(COMMANDS) do list[i] = command[1] end
  return table.concat(list, ", ")
end

local function help()
  local lines = { "usage: e2b [COMMAND] [ARGUMENT ...]", "" }
  for _, command in ipairs(COMMANDS) do lines[#lines + 1] = ("  %-6s  %s"):format(command[1], command[2]) end
  lines[#lines + 1] = ""
  lines[#lines + 1] = "e2b COMMAND --help tells more."
  return table.concat(lines, "\n")
end

-- Another Lua than the one the library is built for: a machine has several, and `lua` is any of them.
local function not_built(why)
  local version = rawget(_G, "jit") and "luajit" or _VERSION:match("%d+%.%d+")
  if why:find("module 'e2b.core' not found", 1, true) then
    why = ("the library's C part is not built for this Lua, %s. In its source tree `make LUA_VERSION=%s` builds it; or "
      .. "start e2b with the Lua it is built for, as in: lua5.4 bin/e2b"):format(version, version)
  end
  io.stderr:write("e2b: ", why, "\n")
  return 1
end

--- Runs a command. Each is a module `e2b.program.NAME` with `main(args)`, which takes the words after the name and
--- answers the program's exit status.
---@param args string[] as the command line has them
---@return integer status
function M.main(args)
  local word = args[1]
  if word == "--help" or word == "-h" or word == "help" then
    print(help())
    return 0
  elseif word == "--version" then
    print("e2b " .. require("e2b.version"))
    return 0
  end
  local name, from = word, 2
  if word == nil or word:sub(1, 1) == "-" then name, from = "repl", 1 end
  for _, command in ipairs(COMMANDS) do
    if command[1] == name then
      local rest = {}
      for i = from, #args do rest[#rest + 1] = args[i] end
      local built, why = pcall(require, "e2b.core")
      if not built then return not_built(why) end
      return require("e2b.program." .. name).main(rest)
    end
  end
  io.stderr:write(("e2b: no command is called '%s'; there are %s (e2b --help)\n"):format(
    (word:gsub("%c", "?")), names()))
  return 2
end

return M
