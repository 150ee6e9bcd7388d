--- What differs between the Luas, in one place. The globals that not every Lua has are read here and nowhere else.
local M = {}

local find = rawget
local G = _G

---@type fun(list: table, i?: integer, j?: integer): ...
M.unpack = table.unpack or find(G, "unpack") -- luacheck: ignore 143

--- A list that keeps nils: `n` is the count.
---@param ... any
---@return table
function M.pack(...)
  return { n = select("#", ...), ... }
end

M.jit = find(G, "jit")

-- PUC 5.1 can't yield across pcall, metamethods and for-iterators; LuaJIT can, whatever its _VERSION says.
M.puc51 = _VERSION == "Lua 5.1" and not M.jit

-- The one main coroutine, for which 5.1 and LuaJIT have no thread value.
M.MAIN = {}

local running = coroutine.running

--- The coroutine that runs, or MAIN.
---@return thread|table
function M.running()
  local co, main = running()
  if co == nil or main then return M.MAIN end
  return co
end

local isyieldable = coroutine.isyieldable -- luacheck: ignore 143

--- Whether a yield would get through to who resumed this coroutine. Where Lua can't say (5.1, 5.2): true.
---@return boolean
function M.yieldable()
  if isyieldable then return isyieldable() end
  return true
end

--- Calls `fn` when the Lua state is closed (not after an os.exit that doesn't close it). The result must be kept.
---@param fn fun()
---@return any sentinel
function M.at_close(fn)
  local newproxy = find(G, "newproxy")
  if newproxy then
    local sentinel = newproxy(true)
    getmetatable(sentinel).__gc = fn
    return sentinel
  end
  return setmetatable({}, { __gc = fn })
end

return M
