--- Taking turns: whoever moves many bytes lets the others of this one thread go on now and then.
-- @module e2b.server.envd.turns

local sleep = require("cqueues").sleep

local turns = {}

local PIECES = 4
-- LuaJIT's collector counts allocations, not their bytes, and falls behind where each has many of these.
local STEP = rawget(_G, "jit") and 40

---@return function turn to be called after each piece of 64 to 256 KiB
function turns.new()
  local count = 0
  return function()
    count = count + 1
    if count % PIECES ~= 0 then return end
    sleep(0)
    if STEP then collectgarbage("step", STEP) end
  end
end

return turns
