--- A `pcall` that can be waited in on every Lua: on PUC 5.1 the built-in one cannot be yielded across.
-- @module e2b.server.protect

local function pcall_yields()
  local co = coroutine.create(function() pcall(coroutine.yield) end)
  coroutine.resume(co)
  return coroutine.status(co) == "suspended"
end

local go_on

local function settle(co, ok, ...)
  if coroutine.status(co) == "dead" then return ok, ... end
  return go_on(co, coroutine.yield(...))
end

function go_on(co, ...)
  return settle(co, coroutine.resume(co, ...))
end

-- Runs it in a coroutine of its own, which passes its yields outward.
local function run(fn, ...)
  return go_on(coroutine.create(fn), ...)
end

---@type fun(fn: function, ...: any): boolean, ...
return pcall_yields() and pcall or run
