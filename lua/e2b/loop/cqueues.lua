--- The loop of a coroutine that runs in a cqueues controller (lua-http's servers among them): the caller waits on a
--- condition, and one coroutine of the same controller takes the engine's turns while anything is waited for.
local compat = require("e2b.compat")
local loops = require("e2b.loop.init")
local waits = require("e2b.loop.waits")

local M = {}

-- Found where the program put it: a library of ours must not choose its version.
local function cqueues() return package.loaded["cqueues"] end

-- Coroutines inside of a controller's that hand every yield on to it.
local passing = setmetatable({}, { __mode = "k" })

--- Whether the caller is a coroutine of a controller, which can be suspended. One that was made inside of such a
--- coroutine can't: its consumer would be handed what is meant for the controller.
---@return boolean
function M.is_here()
  local library = cqueues()
  if not library then return false end
  local controller, direct = library.running()
  return controller ~= nil and (direct == true or passing[compat.running()] == true)
end

--- A coroutine will hand every yield on to the caller: what can be suspended here can be in there.
---@param co thread
function M.hands_on(co)
  if M.is_here() then passing[co] = true end
end

--- Waiting is possible wherever this loop is chosen.
---@return boolean
function M.may_wait()
  return true
end

-- One driver a controller, made by its first wait and gone after its last.
local drivers = setmetatable({}, { __mode = "k" })

local run

local function ensure(driver, controller)
  if driver.runs then return end
  driver.runs = true
  controller:wrap(run, driver)
end

-- What a turn raises is of one that was told; turn() has seen to the others.
local function raised_in_turn(driver, raised)
  if tostring(raised):find("interrupted!", 1, true) then
    -- Ctrl-C: for whoever runs the controller, and may run it again.
    driver.runs = false
    ensure(driver, (cqueues().running()))
    error(raised, 0)
  end
  loops.report(tostring(raised))
end

function run(driver)
  local library = cqueues()
  local pollable = { events = "r" }
  while true do
    local ok, seconds = pcall(driver.waits.turn, driver.waits)
    if ok and not seconds then break end
    if not ok then
      raised_in_turn(driver, seconds)
      seconds = 0
    end
    pollable.pollfd = driver.waits:pollfd()
    library.poll(pollable, driver.condition, seconds)
  end
  driver.runs = false
end

local function driver_here()
  local controller = cqueues().running()
  local driver = drivers[controller]
  if not driver then
    driver = { condition = require("cqueues.condition").new() }
    driver.waits = waits.new(function()
      if driver.runs then driver.condition:signal() end
    end)
    drivers[controller] = driver
  end
  return driver, controller
end

--- Calls `start(report)` now and `done` with what is reported, from the controller; done(nil, "deadline") at the
--- deadline.
---@param start fun(report: fun(...)): fun() cancel
---@param deadline number? on the clock of core.now()
---@param done fun(...)
---@return fun() cancel
function M.call(start, deadline, done)
  local driver, controller = driver_here()
  local cancel = driver.waits:begin(start, deadline, done)
  ensure(driver, controller)
  return cancel
end

--- Suspends the coroutine, calls `start(done)`, and returns what `done` gets; at the deadline cancels and returns nil,
--- "deadline".
---@param start fun(done: fun(...)): fun() cancel
---@param deadline number? on the clock of core.now()
---@return any ...
function M.await(start, deadline)
  local woken = require("cqueues.condition").new()
  local values
  M.call(start, deadline, function(...)
    values = compat.pack(...)
    woken:signal()
  end)
  while not values do woken:wait() end
  return compat.unpack(values, 1, values.n)
end

--- Runs `fn` in a coroutine of its own of this controller.
---@param fn fun()
function M.spawn(fn)
  cqueues().running():wrap(fn)
end

return M
