-- Streams that break, and every way to read them: what the specs of broken streams share. The sandbox is a peer; key
-- and token must never show.
local failing = require("spec.support.failing")
local envd_peer = require("spec.support.envd_peer")

local breaking = {}

local PRELUDE = [[
  local broken
  local function stream(first)
    return function()
      begin()
      send(first)
      broken()
    end
  end
  on.Start, on.Connect = stream('{"event":{"start":{"pid":7}}}'), stream('{"event":{"start":{"pid":7}}}')
  on.WatchDir = stream('{"start":{}}')
  on.List = function() answer(200) end
]]

--- A sandbox whose streams (of processes, terminals, watches) run the function `broken` of the source when they have
--- begun.
---@param t table of failing.test
---@param source string
---@param options? table of envd_peer.start
function breaking.serve(t, source, options)
  local all = {
    token = failing.ENVD_TOKEN, watched = { peer = function(handler) return t:raw(handler) end },
    client = { api_key = failing.KEY, proxy = false, logger = function(event) t.log[#t.log + 1] = event end },
  }
  for name, value in pairs(options or {}) do all[name] = value end
  return envd_peer.start(PRELUDE .. source, all)
end

local function until_nil(next_of)
  while true do
    local value, message, err = next_of()
    if value == nil then return nil, message, err end
  end
end

--- Every way to read a stream: each returns what the failing call returned.
breaking.READERS = {
  { name = "run", read = function(sandbox, opts) return sandbox.commands:run("x", opts) end },
  { name = "start and wait", read = function(sandbox, opts)
    local handle, message, err = sandbox.commands:start("x", opts)
    if not handle then return nil, message, err end
    return handle:wait()
  end },
  { name = "connect and read", read = function(sandbox, opts)
    local handle, message, err = sandbox.commands:connect(7, opts)
    if not handle then return nil, message, err end
    return until_nil(function() return handle:read() end)
  end },
  { name = "start and lines", read = function(sandbox, opts)
    local handle, message, err = sandbox.commands:start("x", opts)
    if not handle then return nil, message, err end
    local ok, raised = pcall(function()
      for _ in handle:lines() do end -- luacheck: ignore 542
    end)
    assert(not ok, "the loop ended as if nothing was wrong")
    assert(raised == handle.err.message, raised)
    return nil, raised, handle.err
  end, needs_yield = true },
  { name = "a terminal", read = function(sandbox, opts)
    local handle, message, err = sandbox.pty:create(opts)
    if not handle then return nil, message, err end
    return handle:wait()
  end },
  { name = "a watch", watch = true, read = function(sandbox, opts)
    local watcher, message, err = sandbox.files:watch_dir("/x", opts)
    if not watcher then return nil, message, err end
    return until_nil(function() return watcher:next() end)
  end },
}

--- How often the health of the sandbox was asked for.
function breaking.of_health(server)
  local count = 0
  for _, request in ipairs(server:requests()) do
    if request.path == "/health" then count = count + 1 end
  end
  return count
end

--- it() for each way a program waits: `define(name, fn)` with fn(t) as for failing.test.
function breaking.each_mode(fn)
  for _, mode in ipairs(envd_peer.MODES) do
    fn(function(name, body)
      require("busted").it(name .. " (" .. mode.name .. ")", failing.test(function(t)
        mode.run(function() body(t) end)
      end))
    end)
  end
end

return breaking
