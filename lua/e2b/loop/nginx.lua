--- The loop of an nginx worker with Lua (OpenResty): the caller waits on a semaphore, and one driver a worker takes the
--- engine's turns, in a timer, so that it outlives the request that started it. nginx waits for sockets of its own
--- only: the engine's descriptor is bridged to one (csrc/bridge.c), and where that can't be had the driver looks every
--- few milliseconds.
local core = require("e2b.core")
local compat = require("e2b.compat")
local blocking = require("e2b.loop.blocking")
local loops = require("e2b.loop.init")
local links = require("e2b.loop.nginx_link")
local waits = require("e2b.loop.waits")

local M = {}

local now = core.now
local ngx = rawget(_G, "ngx") or {}

-- Without a bridge (seconds): the first look after anything happened, each next one that much later, up to the last.
local FIRST, GROWTH, LAST = 0.001, 1.25, 0.010
-- The driver stays this much longer than the last wait: the next call of a handler comes right after the last.
local LINGER = 0.1
-- Semaphores are posted and waited for without nginx looking at its sockets in between: while output pours in, the
-- driver and those who read could go on like that for ever. After so many turns and seconds everybody else has one.
local TURNS, STRETCH = 4, 0.005
-- A driver that has not come after this much won't: nginx drops timers beyond lua_max_running_timers, and tells its log
-- only. It is asked for again after a while.
local PATIENCE, AGAIN = 0.1, 1
-- No wait on a semaphore is longer, so that nothing depends on a single wake-up.
local LONGEST = 60

-- Semaphores that nobody waits on, for the next waits.
local spare, MOST_SPARE = {}, 100

local function new_semaphore()
  local n = #spare
  local semaphore = spare[n]
  if semaphore then
    spare[n] = nil
    return semaphore
  end
  return assert(require("ngx.semaphore").new(0))
end

-- nginx counts milliseconds, and a wait of 0 would not let anybody else run.
local function pause(semaphore, seconds)
  return semaphore:wait(seconds < 0.001 and 0.001 or math.ceil(seconds * 1000) / 1000)
end

-- The driver --------------------------------------------------------------------------------------------------------

---@class e2b.NginxDriver
---@field state "off"|"asked"|"on" "asked": its timer has not run yet
---@field asked_at number
---@field missed boolean it was asked for in vain
---@field waits e2b.Waits
---@field bell table the semaphore it sleeps on
---@field rung boolean
---@field handed table results given to waits whose coroutines have not gone on yet
---@field unwanted boolean nobody was there for one of them
---@field orphans table functions that are to run because nobody waited any more
---@field stand_in_at number when a waiting request last took a turn, for want of a driver
---@field link table? the bridge
---@field woken_by "bridge"|"steps"|nil
---@field why string?
local driver

local function ring()
  if driver.rung then return end
  driver.rung = true
  driver.bell:post(1)
end

local function make_driver()
  driver = {
    state = "off", missed = false, bell = new_semaphore(), rung = false, handed = {}, unwanted = false, orphans = {},
    stand_in_at = 0,
  }
  driver.waits = waits.new(ring)
end

--- Where the socket of a bridge may lie, if not where it usually does.
---@type string[]?
M.folders = nil

local function close_link()
  local link = driver.link
  driver.link = nil
  if link then link.bridge:close() end -- its thread sees the end of the connection
end

local function choose_way()
  close_link() -- of a driver that was ended half way
  core.engine():pollfd()
  local why
  driver.link, why = links.open(M.folders, ring)
  local way = driver.link and "bridge" or "steps"
  if way == "steps" and driver.why ~= why then
    ngx.log(ngx.WARN, "e2b: no bridge to the engine (", why, "): looking for answers every 1 to 10 ms instead")
  end
  driver.woken_by, driver.why = way, why
end

local function run_orphan(fn, values)
  local ok, raised = pcall(fn, compat.unpack(values, 1, values.n))
  if not ok then ngx.log(ngx.ERR, "e2b: ", tostring(raised)) end
end

-- Of a semaphore that was posted the count is 0 while its waiter is on its way, and 1 when there is none: it was dead
-- already, or was ended in between.
local function look_for_orphans()
  local handed = driver.handed
  if #handed == 0 then return end
  driver.handed, driver.unwanted = {}, false
  for _, state in ipairs(handed) do
    if not state.taken then
      local list = state.semaphore:count() > 0 and driver.orphans or driver.handed
      list[#list + 1] = state
    end
  end
end

local function turn()
  driver.rung = false
  look_for_orphans()
  local ok, seconds = pcall(driver.waits.turn, driver.waits)
  if ok then return seconds end
  ngx.log(ngx.ERR, "e2b: ", tostring(seconds))
  driver.waits:cancel_all() -- whoever waits is told so in the next turn
  return 0
end

-- Seconds until the next turn, or nil: nobody has waited for a while.
local function sleep_for(seconds, idle_since)
  if not seconds then
    local left = idle_since + (ngx.worker.exiting() and 0 or LINGER) - now()
    if left > 0 then seconds = left end
  end
  if #driver.handed == 0 then return seconds end
  -- Most have gone on by then, and what the others were given is looked at.
  local soon = driver.unwanted and 0 or LINGER
  return seconds and seconds < soon and seconds or soon
end

local function take_turns()
  local step, idle_since, turns, looked_at = FIRST, now(), 0, now()
  while true do
    if turns >= TURNS and now() - looked_at > STRETCH then
      ngx.sleep(0.001)
      turns, looked_at = 0, now()
    end
    turns = turns + 1
    local busy = #driver.handed > 0 or driver.rung
    local seconds = turn()
    local link = driver.link
    if link and link.rung then
      link.rung = false
      link.socket:send("a")
    end
    local orphans = driver.orphans
    if #orphans > 0 then
      driver.orphans = {}
      for _, state in ipairs(orphans) do
        if state.orphan then ngx.thread.spawn(run_orphan, state.orphan, state.values) end
      end
      seconds = driver.waits:timeout()
    end
    if seconds then idle_since = now() end
    local rest = sleep_for(seconds, idle_since)
    if not rest then return end
    if link and not link.open then
      close_link()
      driver.woken_by, driver.why = "steps", "the bridge broke"
    end
    if not driver.link and seconds then
      step = (busy or #driver.handed > 0) and FIRST or math.min(step * GROWTH, LAST)
      if step < rest then rest = step end
    end
    local rung = pause(driver.bell, rest)
    -- These come by way of nginx's own wait for its sockets and timers.
    if not rung or link and link.rung then turns, looked_at = 0, now() end
  end
end

-- The timer. That it may be called early, because the worker is about to exit, is all the same: somebody waits. When
-- the worker was held up and the first looked missing, a second was asked for, which is one too many.
local function drive()
  if driver.state == "on" then return end
  driver.state, driver.missed = "on", false
  local ok, raised = pcall(choose_way)
  if ok then ok, raised = pcall(take_turns) end
  if not ok then ngx.log(ngx.ERR, "e2b: the driver ended: ", tostring(raised)) end
  close_link()
  driver.state = "off"
  -- Whoever waits still has nobody else to ask for the next one; not at once, for what went wrong may do so again.
  if not ok and driver.waits:timeout() then
    driver.state, driver.asked_at = ngx.timer.at(PATIENCE, drive) and "asked" or "off", now()
  end
end

local function ensure_driver()
  if driver.state == "on" then return end
  local time = now()
  if driver.state == "asked" then
    if time - driver.asked_at < (driver.missed and AGAIN or PATIENCE) then return end
    driver.missed = true
  end
  driver.state = ngx.timer.at(0, drive) and "asked" or "off"
  driver.asked_at, driver.missed = time, driver.missed or driver.state == "off"
end

-- A request that waits takes turns itself where there is no driver to be had, because there are too many timers.
local function stand_in(state)
  local semaphore = state.semaphore
  if now() - driver.stand_in_at < PATIENCE then
    -- Another one does so already. It may have died.
    return semaphore:wait(PATIENCE)
  end
  local step = FIRST
  repeat
    driver.stand_in_at = now()
    state.awake = true
    local seconds = turn() or LAST
    state.awake = false
    pause(semaphore, math.min(seconds, step))
    step = math.min(step * GROWTH, LAST)
    ensure_driver()
  until state.over or driver.state == "on"
end

-- Requests ----------------------------------------------------------------------------------------------------------

local BOOK = {}

local function of_request()
  local context = ngx.ctx
  local book = context[BOOK]
  if not book then
    book = { task_of = {}, ids = setmetatable({}, { __mode = "k" }) }
    context[BOOK] = book
  end
  return book
end

function loops.book()
  local ok, book = pcall(of_request) -- there is no request while a master or worker starts or ends
  return ok and book or nil
end

-- The callers -------------------------------------------------------------------------------------------------------

local probe

-- Whether nginx suspends here is for nginx to say: other versions allow other phases.
local function suspends()
  local found, library = pcall(require, "ngx.semaphore")
  if not found then return false end
  if not probe then
    local ok, made = pcall(library.new, 0)
    if not ok or not made then return false end
    probe = made
  end
  local ok, _, why = pcall(probe.wait, probe, 0)
  return ok and why == "timeout"
end

local BLOCKING = { init = true, exit_worker = true }

--- The loop of this phase: while a worker is not serving yet, or not any more, a call may as well block.
---@return table loop
function M.here()
  return BLOCKING[ngx.get_phase()] and blocking or M
end

--- Whether the phase is one in which nginx can suspend the caller.
---@return boolean? possible
---@return string? sentence
function M.may_wait()
  if suspends() then return true end
  return nil, ("nginx can't wait in the phase %s: make this call in a timer, ngx.timer.at(0, function() … end), "
    .. "or in rewrite, access or content"):format(ngx.get_phase())
end

local function hand_over(state, ...)
  state.values = compat.pack(...)
  state.over = true
  local handed = driver.handed
  handed[#handed + 1] = state
  if state.semaphore:count() >= 0 then driver.unwanted = true end
  state.semaphore:post(1)
end

-- In here, and not in await: a coroutine that nginx ends takes along the variables of the functions it was in, also for
-- closures that know them; not those of functions that have returned. So nothing else of a dead coroutine is called any
-- more; its transfers have clocks of their own.
local function begin(start, deadline)
  local state = { semaphore = new_semaphore(), over = false, taken = false, awake = false }
  driver.waits:begin(function(report)
    local cancel
    cancel, state.orphan = start(report)
    return function()
      if state.awake or state.semaphore:count() < 0 then return cancel() end
    end
  end, deadline, function(...) return hand_over(state, ...) end)
  return state
end

--- Suspends the caller, calls `start(done)`, and returns what `done` gets; at the deadline cancels and returns nil,
--- "deadline". When the request ends meanwhile, what was started goes on to its end, and the second function that
--- `start` may return gets what the caller would have got. It is called where one may wait.
---@param start fun(done: fun(...)): fun(), (fun(...))? cancel, orphan
---@param deadline number? on the clock of core.now()
---@return any ...
function M.await(start, deadline)
  local possible, why_not = M.may_wait()
  if not possible then error(why_not, 0) end
  if not driver then make_driver() end
  local state = begin(start, deadline)
  local semaphore = state.semaphore
  while not state.over do
    ensure_driver()
    if driver.state == "on" then
      semaphore:wait(LONGEST)
    elseif not driver.missed then
      semaphore:wait(PATIENCE)
    else
      stand_in(state)
    end
  end
  state.taken = true
  if #spare < MOST_SPARE and semaphore:count() == 0 then spare[#spare + 1] = semaphore end
  return compat.unpack(state.values, 1, state.values.n)
end

--- Runs `fn` in a light thread of this request (or timer), which doesn't end before it.
---@param fn fun()
function M.spawn(fn)
  local possible, why_not = M.may_wait()
  if not possible then error(why_not, 0) end
  ngx.thread.spawn(fn)
end

--- Says what no call can return, in the log.
---@param text string
function M.report(text)
  ngx.log(ngx.ERR, "e2b: ", text)
end

--- How the driver of this worker learns of answers, for whoever wants to know: "bridge", without any polling; or
--- "steps", every 1 to 10 milliseconds while something is waited for, and why there is no bridge.
---@return "bridge"|"steps"|nil way nil: nothing has waited yet
---@return string? why
function M.woken_by()
  if not driver then return nil end
  return driver.woken_by, driver.why
end

return M
