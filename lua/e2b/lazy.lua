--- Modules that are loaded when something of theirs is first used. Parsing the whole library takes longer than a call
--- does, and most programs need little of it.

-- Every file of the library lies beside this one.
local own = (debug.getinfo(1, "S").source:match("^@(.*)lazy%.lua$"))

-- Where a module of ours is, as text for the message or as what opened: a program that has changed its directory since
-- (with a relative LUA_PATH) is not lost while PWD says where it was started.
local function open(path)
  local text = "\n\tno file '" .. path .. "'"
  local chunk = loadfile(path)
  if chunk then return chunk, path end
  local started = path:find("^[^/\\]") and not path:find("^%a:") and os.getenv("PWD")
  if not started then return text end
  path = started .. "/" .. path
  chunk = loadfile(path)
  if chunk then return chunk, path end
  return text .. "\n\tno file '" .. path .. "'"
end

-- The last of the searchers, for our own names only: what is loaded late must be found late as well, whatever became of
-- package.path meanwhile. A failing call that can't load its message would raise; a closing that can't load would leave
-- a sandbox behind.
local function beside(name)
  local path = type(name) == "string" and name:match("^e2b%.([%w_.]+)$")
  if not path then return nil end
  path = own .. path:gsub("%.", "/")
  local chunk, found = open(path .. ".lua")
  if type(chunk) == "function" then return chunk, found end
  return chunk
end

local searchers = rawget(package, "searchers") or rawget(package, "loaders")
if own and type(searchers) == "table" then searchers[#searchers + 1] = beside end

--- A stand-in for a module.
---@param name string
---@return table module
return function(name)
  return setmetatable({}, {
    __index = function(module, key)
      local loaded = require(name)
      setmetatable(module, { __index = loaded })
      return loaded[key]
    end,
  })
end
