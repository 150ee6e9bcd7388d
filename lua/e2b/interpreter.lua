--- Which program runs a Lua file beside this process: the one that runs this process, where that is a Lua, or one of
--- the same version. Inside of an editor or a web server there is only the latter.
local core = require("e2b.core")
local compat = require("e2b.compat")

local M = {}

-- What systems call the Luas that may load a core which this one has loaded. LuaJIT and 5.1 load the same.
local NAMES = {
  luajit = { "luajit", "luajit-2.1", "lua5.1", "lua-5.1", "lua51", "lua" },
  ["5.1"] = { "lua5.1", "lua-5.1", "lua51", "luajit", "luajit-2.1", "lua" },
}

-- Looked into after PATH, which a web server takes away from its workers.
local FOLDERS = { "/usr/local/bin", "/usr/bin", "/bin", "/usr/local/openresty/luajit/bin", "/opt/homebrew/bin" }

local function version()
  return compat.jit and "luajit" or _VERSION:match("%d+%.%d+")
end

local function is_file(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

--- A path that means the same in every folder.
---@param path string
---@return string
function M.absolute(path)
  if path:sub(1, 1) == "/" then return path end
  local folder = core.place()
  return folder and folder .. "/" .. path or path
end

local absolute = M.absolute

-- A list of templates (package.path) that means the same in every folder.
local function everywhere(templates)
  return (templates:gsub("[^;]+", absolute))
end

-- The folder that holds e2b/: an editor finds its plugins in other ways than by package.path.
local function home()
  local source = debug.getinfo(1, "S").source
  local folder = source:match("^@(.*)/?e2b/interpreter%.lua$")
  return folder and absolute(folder == "" and "." or (folder:gsub("/$", "")))
end

--- What another Lua needs to find the modules that this one has found.
---@return string path
---@return string cpath
function M.paths()
  local path, cpath, folder = everywhere(package.path), everywhere(package.cpath), home()
  if not folder then return path, cpath end
  return ("%s/?.lua;%s/?/init.lua;%s"):format(folder, folder, path), ("%s/?.so;%s"):format(folder, cpath)
end

local function search(name)
  if name:find("/", 1, true) then
    name = absolute(name)
    return is_file(name) and name or nil
  end
  for folder in (os.getenv("PATH") or ""):gmatch("[^:]+") do
    local path = folder:sub(1, 1) == "/" and folder .. "/" .. name
    if path and is_file(path) then return path end
  end
  for _, folder in ipairs(FOLDERS) do
    if is_file(folder .. "/" .. name) then return folder .. "/" .. name end
  end
  return nil
end

-- Anything else may do who knows what when it is started with -e.
local function is_lua(path)
  local name = path:match("[^/]*$")
  return name:find("^lua[%d.-]*$") ~= nil or name:find("^luajit[%w.-]*$") ~= nil
end

-- The first word of this process's command line.
local function first_word()
  local words = rawget(_G, "arg")
  if type(words) ~= "table" then return nil end
  local first = 0
  while words[first - 1] ~= nil do first = first - 1 end
  return first < 0 and type(words[first]) == "string" and words[first] or nil
end

--- What to try, best first. Whether one of them can load e2b.core, only it can tell.
---@param named string? the one to take, whatever there is else
---@return string[] programs paths
---@return string[] names what was looked for, for the message
function M.candidates(named)
  if named then return { search(named) }, { named } end
  local found, seen, names = {}, {}, {}
  local function add(path)
    if path and not seen[path] then
      seen[path] = true
      found[#found + 1] = path
    end
  end
  local _, own = core.place()
  for _, path in ipairs({ own or "", first_word() or "" }) do
    if is_lua(path) then add(search(path)) end
  end
  local this = version()
  local known = NAMES[this] or { "lua" .. this, "lua-" .. this, "lua" .. this:gsub("%.", ""), "lua" }
  for _, name in ipairs(known) do
    names[#names + 1] = name
    add(search(name))
  end
  return found, names
end

--- A Lua, as a person calls it.
---@return string
function M.wanted()
  return compat.jit and "LuaJIT" or _VERSION
end

return M
