--- all and map: tasks that are waited for together.
local core = require("e2b.core")
local errors = require("e2b.errors")
local loops = require("e2b.loop.init")
local scheduler = require("e2b.scheduler")

local M = {}

local now = core.now

-- Members that were cancelled get this long to clean up (two sandboxes are killed in it, at 10 s each), then they are
-- left to themselves: every wait has an end.
local GRACE = 30
M.GRACE = GRACE

local STOPPED = {
  deadline = "the %.4g s given (timeout) were over",
  cancelled = "the task that waits for it was cancelled",
}

-- A member that ran was told "cancelled": whose clock that was, only the group knows.
local function name_clock(entry, timeout)
  local err = entry.err
  if not errors.is(err) or err.kind ~= "cancelled" or err.deadline then return end
  local why = ", " .. STOPPED.deadline:format(timeout)
  err.deadline, err.message, entry.message = "timeout", err.message .. why, tostring(entry.message) .. why
end

local function stopped_entry(what, why, timeout)
  local _, message, err = errors.new("cancelled", {
    message = what .. ": cancelled, " .. (STOPPED[why] or "an error came first"):format(timeout or 0), operation = what,
    deadline = why == "deadline" and "timeout" or nil, retryable = false,
  })
  return { ok = false, message = message, err = err }
end

local function member(list, fn, i)
  if not fn then return list[i] end
  local item = list[i]
  return function() return fn(item, i) end
end

--- The function behind all and map.
---@param spawn function of tasks.lua
---@return fun(n: integer, list: table, fn: function?, limit: integer?, timeout: number?, what: string): table, integer
function M.new(spawn)
  return function(n, list, fn, limit, timeout, what)
    local results, failed = {}, 0
    if n == 0 then return results, failed end
    local loop = loops.choose()
    local s = scheduler.here()
    local deadline = timeout and now() + timeout
    local active, index, open = {}, 0, n
    local stopped, wake

    local function put(i, entry)
      if results[i] then return end
      results[i] = entry
      if not entry.ok then failed = failed + 1 end
      open = open - 1
      if open == 0 and wake then wake(true) end
    end

    local function launch()
      index = index + 1
      local i = index
      local function ended(task, entry)
        active[task] = nil
        if stopped == "deadline" then name_clock(entry, timeout) end
        put(i, entry)
        if not stopped and index < n then launch() end
      end
      active[spawn(s, member(list, fn, i), nil, ended, fn or list[i])] = true
    end

    local function join(last)
      if open == 0 then return true end
      return scheduler.await(function(done)
        wake = done
        return function() wake = nil end
      end, last, loop, true)
    end

    -- Cancels what runs, gives up what hasn't begun, and lets the cancelled ones clean up.
    local function stop(why)
      stopped = why
      local list_of_active = {}
      for task in pairs(active) do list_of_active[#list_of_active + 1] = task end
      table.sort(list_of_active, function(a, b) return a.number < b.number end)
      for _, task in ipairs(list_of_active) do task:cancel() end
      for i = index + 1, n do put(i, stopped_entry(what, why, timeout)) end
      scheduler.shield(join, GRACE, now() + GRACE)
      for i = 1, n do
        if not results[i] then put(i, stopped_entry(what, why, timeout)) end
      end
    end

    for _ = 1, math.min(limit or n, n) do launch() end
    local ok, result, why = scheduler.pcall(join, deadline)
    if not ok then
      -- Ctrl-C, or a deadlock: the members must not be left behind with what they hold.
      scheduler.pcall(stop, "raised")
      error(result, 0)
    end
    if open > 0 then stop(why) end
    return results, failed
  end
end

return M
