-- A headless Neovim with this tree: a Lua file runs in it, and says on standard output what it has to say.
--
--   local result = neovim.run([[ print(vim.version().minor) ]], { env = server.env })
--   result.out, result.err, result.code, result.seconds
--
-- print() goes to standard output; on standard error is what Neovim has to complain of. An error ends it with the
-- code 1.
local support = require("spec.support.support")

local neovim = {}

local quote = support.quote

--- Whether the core under test is one for Neovim's Lua. There is one Neovim, so the specs in it run once, with LuaJIT.
neovim.here = rawget(_G, "jit") ~= nil

local here = debug.getinfo(1, "S").source:match("^@(.*)neovim%.lua$") or "spec/support/"

--- The shell words that start a Neovim with this tree and nobody's configuration.
---@param options? table headless (true), env (map; false unsets), args (words), rtp (folders put before this tree),
---  bare (true: without this tree)
---@return string
function neovim.command(options)
  options = options or {}
  local words = { "env", "-u NVIM -u NVIM_LISTEN_ADDRESS -u VIM -u VIMRUNTIME" }
  local sets = { LUA_PATH = package.path, LUA_CPATH = package.cpath, NVIM_LOG_FILE = "/dev/null" }
  for _, what in ipairs({ "CONFIG", "DATA", "STATE", "CACHE" }) do sets["XDG_" .. what .. "_HOME"] = "/nonexistent" end
  for name, value in pairs(options.env or {}) do sets[name] = value end
  for name, value in pairs(sets) do
    if value == false then
      table.insert(words, 2, "-u " .. name)
    else
      words[#words + 1] = name .. "=" .. quote(value)
    end
  end
  words[#words + 1] = "nvim -u NONE -i NONE -n" .. (options.headless == false and "" or " --headless")
  local paths = {}
  for _, path in ipairs(options.rtp or {}) do paths[#paths + 1] = path end
  paths[#paths + 1] = (support.shell("pwd"):match("[^\n]+"))
  if not options.bare then
    words[#words + 1] = "--cmd " .. quote("set runtimepath^=" .. table.concat(paths, ","))
    -- Not the core that somebody's `make neovim` has left in lua/.
    words[#words + 1] = "--cmd " .. quote("lua package.preload['e2b.core'] = "
      .. "package.loadlib(package.searchpath('e2b.core', package.cpath) or '', 'luaopen_e2b_core')")
  end
  for _, word in ipairs(options.args or {}) do words[#words + 1] = quote(word) end
  return table.concat(words, " ")
end

--- Runs Lua source in a headless Neovim and waits for its end.
--- options: as for command; file (run this file instead), timeout (s, 30), stays (the source ends Neovim itself, from
--- Neovim's own loop), wrap (shell words put before it)
---@param source string|nil
---@param options? table
---@return { out: string, err: string, code: integer, seconds: number } result code 124: it hung and was ended
function neovim.run(source, options)
  options = options or {}
  local folder = support.tmpdir()
  local file = options.file
  if not file then
    file = folder .. "/script.lua"
    support.write_file(file, source)
  end
  local env = { E2B_SPEC_FILE = file, E2B_SPEC_STAYS = options.stays and "1" or false }
  for name, value in pairs(options.env or {}) do env[name] = value end
  local command = neovim.command({
    env = env, rtp = options.rtp, args = { "-S", here .. "neovim_main.lua" },
  })
  local begin = support.now()
  os.execute("timeout -k 2 " .. (options.timeout or 30) * support.slack .. " " .. (options.wrap or "") .. " "
    .. command .. " </dev/null >"
    .. folder .. "/out 2>" .. folder .. "/err; echo $? >" .. folder .. "/code")
  local result = {
    seconds = support.now() - begin,
    out = support.read_file(folder .. "/out") or "",
    err = support.read_file(folder .. "/err") or "",
    code = tonumber(support.read_file(folder .. "/code") or "") or -1,
  }
  support.cleanup(folder)
  return result
end

return neovim
