--- The guard: a process beside this one that kills what this one leaves behind. It learns which sandboxes there are
--- over a leash, and at the end of that (the end of this process, whichever way it comes) it kills those that were not
--- released. One for a process: all clients share it, and a forked child makes its own. What runs there is
--- e2b.program.guard.
local core = require("e2b.core")
local access = require("e2b.access")
local interpreter = require("e2b.interpreter")
local loops = require("e2b.loop.init")
local waits = require("e2b.wait")

local M = {}

local now, report = core.now, loops.report

-- Seconds for a guard to say that it is there; an interpreter that can't load the library says nothing and ends.
local START_SECONDS = 20
-- Seconds for one that doesn't read what it is told (it is stopped, say).
local DEAF_SECONDS = 5
-- A guard that ends again and again is not started for ever.
local MOST_STARTS = 3

local INSTALL = "kill_on_exit needs a process of its own, and no Lua was found that can run it (%s): install %s as a "
  .. "program, with lua-cjson, or name one in the variable E2B_LUA"

-- Nothing here may show in the list of processes but this text; the search paths come over the leash.
local PROGRAM = 'if _VERSION==%q then package.path,package.cpath=io.read("*l"),io.read("*l") '
  .. 'os.exit(require("e2b.program.guard").main()) end'

local current                     -- the guard of this process: leash, pid, known (client's state -> number), count
local starting                    -- one that hasn't said yet that it is there
local owner                       -- the process whose all this is
local held, expected = {}, {}     -- sandbox id -> state of its client; token -> { state, ends }

-- After a fork: all of that is the parent's. Closing the child's copy ends nothing.
local function check_process()
  local pid = core.getpid()
  if owner == pid then return end
  owner = pid
  if current then current.leash:close() end
  if starting and starting.leash then starting.leash:close() end
  current, starting, held, expected = nil, nil, {}, {}
end

-- Telling it things ---------------------------------------------------------------------------------------------------

local function line(fields)
  return assert(core.json_encode(fields)) .. "\n"
end

-- Tells the guard of a client once; the key goes from the target to the leash without being seen in between.
local function number_of(guard, state)
  local number = guard.known[state]
  if number then return number end
  number = guard.count + 1
  guard.count, guard.known[state] = number, number
  local cfg = state.config
  guard.leash:send(line({
    client = number, url = cfg.api_url, connect_timeout = cfg.connect_timeout,
    ca_file = cfg.ca_file and interpreter.absolute(cfg.ca_file),
  }), state.target)
  return number
end

local function expect(guard, token, entry)
  return guard.leash:send(line({
    expect = token, client = number_of(guard, entry.state), seconds = entry.ends and math.max(0, entry.ends - now()),
  }))
end

local function hold(guard, id, state, token)
  return guard.leash:send(line({ hold = id, client = number_of(guard, state), token = token }))
end

-- Whether it is there still; one that isn't is dropped, and never silently.
local function is_there(guard)
  if guard.leash:receive(0) ~= nil then return true end
  guard.leash:close()
  if current == guard then
    current = nil
    report(("the guard process %d of kill_on_exit has ended before its time; another one takes its place"):format(
      guard.pid))
  end
  return false
end

-- Making one ----------------------------------------------------------------------------------------------------------

-- Goes on with the start as far as that is possible now. Any caller may do it, so it doesn't matter who is cancelled.
local function advance(named)
  if not starting then
    starting = { index = 0 }
    starting.programs, starting.names = interpreter.candidates(named)
  end
  local leash = starting.leash
  if leash then
    local said = leash:receive(0)
    starting.said = starting.said .. (said or "")
    local pid = starting.said:match("^ready (%d+)\n")
    if pid then
      local guard = { leash = leash, pid = tonumber(pid), known = {}, count = 0 }
      current, starting = guard, nil
      for id, state in pairs(held) do hold(guard, id, state) end
      for token, entry in pairs(expected) do expect(guard, token, entry) end
      return "ready"
    end
    if said ~= nil and now() < starting.ends then return "wait" end
    leash:close()
    starting.leash = nil
  end
  starting.index = starting.index + 1
  local program = starting.programs[starting.index]
  if not program then
    local names, why = starting.names, starting.why
    starting = nil
    if why then return "none", "kill_on_exit needs a process of its own, and none can be started: " .. why end
    return "none", INSTALL:format("looked for " .. table.concat(names, ", "), interpreter.wanted())
  end
  leash, starting.why = core.leash_program({ program, "-e", PROGRAM:format(_VERSION) })
  if leash then
    leash:send(("%s\n%s\n"):format(interpreter.paths()))
    starting.leash, starting.said, starting.ends = leash, "", now() + START_SECONDS
  end
  return "wait"
end

local function nothing() return function() end end

local STEP, LONGEST_STEP = 0.002, 0.05

-- A guard that is there and has read all it was told.
local function get(state, context, deadline)
  local loop = loops.choose(state.config.loop)
  local possible, why_not = loop.may_wait()
  if not possible then return access.refuse("unsupported", why_not, context) end
  local target, message, err = access.target(state, context)
  if not target then return nil, message, err end
  local step, starts, deaf = STEP, 0, nil
  while true do
    check_process()
    local guard, how = current, nil
    if guard and is_there(guard) then
      if guard.leash:send("") then return guard end
      deaf = deaf or now() + DEAF_SECONDS
      if now() >= deaf then
        return access.refuse("busy", ("the guard process %d of kill_on_exit doesn't read what it is told; is it "
          .. "stopped?"):format(guard.pid), context)
      end
    elseif starts == MOST_STARTS then
      return access.refuse("unsupported", "the guard process of kill_on_exit ends as soon as it is there", context)
    else
      how, message = advance(state.config.guard_lua)
      if how == "none" then return access.refuse("unsupported", message, context) end
      if how == "ready" then starts = starts + 1 end
    end
    if how ~= "ready" then
      if deadline and now() >= deadline then
        return access.refuse("timeout", "the guard process of kill_on_exit was not there in time", context)
      end
      local ends = now() + step
      local _, why = waits.await(nothing, deadline and deadline < ends and deadline or ends, loop)
      if why == "cancelled" then return access.refuse("cancelled", "cancelled", context) end
      step = math.min(step * 2, LONGEST_STEP)
    end
  end
end

-- What a client has of it ---------------------------------------------------------------------------------------------

---@class e2b.GuardProcess
local methods = {}
local mt = { __name = "e2b.GuardProcess", __index = methods }

-- It was told something, and maybe nobody was there to hear it: then another guard is told all there is.
local function make_sure(state, sent)
  if sent ~= nil or current and is_there(current) then return end
  if next(held) == nil and next(expected) == nil then return end
  local guard, message = get(state, nil, now() + DEAF_SECONDS)
  if not guard then report("sandboxes may outlive this process: " .. message) end
end

--- Makes sure that there is a guard.
---@param context table operation, sandbox_id
---@param deadline number? on the clock of core.now()
---@return true? ok
---@return string? message
---@return e2b.Error? err
function methods:start(context, deadline)
  local guard, message, err = get(self.state, context, deadline)
  if not guard then return nil, message, err end
  return true
end

--- A sandbox with this token in its metadata may come to be.
---@param token string
---@param ends number? when its create is given up, on the clock of core.now()
function methods:expect(token, ends)
  local entry = { state = self.state, ends = ends }
  expected[token] = entry
  make_sure(self.state, current and expect(current, token, entry))
end

--- None will.
---@param token string
function methods:forget(token)
  check_process()
  if not expected[token] then return end
  expected[token] = nil
  make_sure(self.state, current and current.leash:send(line({ forget = token })))
end

--- This sandbox is to be killed.
---@param id string
---@param token string? with which it was expected
function methods:hold(id, token)
  check_process()
  if token then expected[token] = nil end
  held[id] = self.state
  make_sure(self.state, current and hold(current, id, self.state, token))
end

--- This one isn't any more.
---@param id string
---@return boolean held was it to be?
function methods:release(id)
  check_process()
  if not held[id] then return false end
  held[id] = nil
  make_sure(self.state, current and current.leash:send(line({ release = id })))
  return true
end

--- The guard, for a client.
---@param state table of the client
---@return e2b.GuardProcess
function M.of(state)
  return setmetatable({ state = state }, mt)
end

return M
