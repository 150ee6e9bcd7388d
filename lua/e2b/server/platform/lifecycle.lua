--- Pause, resume, connect, time to live, network update.
-- @module e2b.server.platform.lifecycle

local clock = require("e2b.server.clock")
local reply = require("e2b.server.reply")
local validation = require("e2b.server.validation")
local network = require("e2b.server.platform.network")
local sandboxes = require("e2b.server.platform.sandboxes")

local lifecycle = {}

local SECOND = clock.SECOND
local MAX_WAITS = 3 -- how often connect waits for a transition to end

local seconds_field = { type = "integer", min = 0 }
local boolean = { type = "boolean" }

local PAUSE = { type = "object", fields = { memory = boolean } }
local RESUME = { type = "object", fields = { timeout = seconds_field, memory = boolean, autoPause = boolean } }
local CONNECT = { type = "object", required = { "timeout" }, fields = { timeout = seconds_field, memory = boolean } }
local CONNECT_V2 = { type = "object", fields = CONNECT.fields }
local TIMEOUT = { type = "object", required = { "timeout" }, fields = { timeout = seconds_field } }
local REFRESH = { type = "object", fields = { duration = { type = "integer", min = 0, max = 3600 } } }

local function in_transition(id, sandbox)
  local doing = sandbox.state == "pausing" and "paused" or "snapshotted"
  reply.raise(409, string.format('Sandbox "%s" is being %s', id, doing))
end

-- A sandbox whose expiry or kill came while it was waited for is gone.
local function still(state, request, id)
  local sandbox = state.store:find(request.team, id)
  if not sandbox then sandboxes.not_found(id) end
  return sandbox
end

local function pause(state)
  return function(request)
    local body = validation.body(request, PAUSE, true)
    local sandbox, id = sandboxes.get(state, request)
    if sandbox.state == "snapshotting" then in_transition(id, sandbox) end
    if sandbox.state == "paused" then
      reply.raise(409, string.format('Sandbox "%s" is already paused', id))
    elseif sandbox.state == "pausing" then
      state.store.wait(sandbox)
    else
      state.store:pause(sandbox, body.memory ~= false)
    end
    still(state, request, id)
    return reply.empty()
  end
end

local function start_again(state, request, sandbox, seconds, memory)
  sandboxes.check_timeout(state, seconds)
  sandboxes.check_quota(state, request.team, 1)
  state.store:resume(sandbox, seconds, memory == false)
  return reply.json(201, sandboxes.brief(sandbox))
end

local function resume(state)
  return function(request)
    local body = validation.body(request, RESUME, true)
    local sandbox, id = sandboxes.get(state, request)
    if sandbox.state == "pausing" then
      state.store.wait(sandbox)
      sandbox = still(state, request, id)
    end
    if sandbox.state ~= "paused" then
      reply.raise(409, string.format('Sandbox "%s" is already running', id))
    end
    if body.autoPause ~= nil then sandbox.auto_pause = body.autoPause end
    return start_again(state, request, sandbox, body.timeout or 15, body.memory)
  end
end

-- Where the longest life allowed ends.
local function latest_end(state, sandbox)
  return sandbox.started + state.options.max_timeout * SECOND
end

local function extend(state, sandbox, seconds)
  local wanted = math.min(clock.now() + seconds * SECOND, latest_end(state, sandbox))
  if wanted > sandbox.end_at then state.store:set_end(sandbox, wanted) end
end

local function connect(state, schema, default_timeout)
  return function(request)
    local body = validation.body(request, schema, default_timeout ~= nil)
    local seconds = body.timeout or default_timeout
    sandboxes.check_timeout(state, seconds, true)
    local sandbox, id = sandboxes.get(state, request)
    local waits = 0
    while sandbox.state == "pausing" or sandbox.state == "snapshotting" do
      waits = waits + 1
      if waits > MAX_WAITS then in_transition(id, sandbox) end
      state.store.wait(sandbox)
      sandbox = still(state, request, id)
    end
    if sandbox.state == "paused" then return start_again(state, request, sandbox, seconds, body.memory) end
    extend(state, sandbox, seconds)
    return reply.json(200, sandboxes.brief(sandbox))
  end
end

-- Only a running sandbox has a life to set; the service answers 404 for a paused one.
local function running(state, request)
  local sandbox, id = sandboxes.get(state, request)
  if sandbox.state == "pausing" then in_transition(id, sandbox) end
  if sandbox.state == "paused" then sandboxes.not_found(id) end
  return sandbox, id
end

local function set_timeout(state)
  return function(request)
    local body = validation.body(request, TIMEOUT)
    local sandbox = running(state, request)
    local now = clock.now()
    local wanted = math.min(now + body.timeout * SECOND, latest_end(state, sandbox))
    if wanted < now or (wanted == now and body.timeout > 0) then
      reply.raise(400, string.format("Max instance length exceeded: a sandbox may run for at most %g hours",
        state.options.max_timeout / 3600))
    end
    sandbox.timeout = body.timeout
    state.store:set_end(sandbox, wanted)
    if body.timeout == 0 then state.store:expire(sandbox) end
    return reply.empty()
  end
end

local function refresh(state)
  return function(request)
    local body = validation.body(request, REFRESH, true)
    extend(state, running(state, request), math.max(body.duration or 15, 15))
    return reply.empty()
  end
end

local function set_network(state)
  return function(request)
    local body = validation.body(request, network.update)
    local sandbox = running(state, request)
    network.check(body)
    sandbox.network = network.replace(sandbox.network, body)
    sandbox.allow_internet = body.allow_internet_access
    return reply.empty()
  end
end

---Wakes a paused sandbox because of traffic into it: its original life, but at least five minutes.
---@param state table
---@param sandbox table
function lifecycle.auto_resume(state, sandbox)
  local seconds = math.min(math.max(sandbox.timeout, 300), state.options.max_timeout)
  sandboxes.check_quota(state, sandbox.team, 1)
  state.store:resume(sandbox, seconds)
end

---@param routes table
---@param state table
function lifecycle.routes(routes, state)
  routes:add("POST", "/sandboxes/{sandbox}/pause", pause(state))
  routes:add("POST", "/sandboxes/{sandbox}/resume", resume(state), { resume = true })
  routes:add("POST", "/sandboxes/{sandbox}/connect", connect(state, CONNECT))
  routes:add("POST", "/v2/sandboxes/{sandbox}/connect", connect(state, CONNECT_V2, 300), { v2 = true })
  routes:add("POST", "/sandboxes/{sandbox}/timeout", set_timeout(state))
  routes:add("POST", "/sandboxes/{sandbox}/refreshes", refresh(state))
  routes:add("PUT", "/sandboxes/{sandbox}/network", set_network(state))
end

return lifecycle
