-- Transfers without the floors above the core: what the core's specs do again and again.
local support = require("spec.support.support")
local core = support.core()

local exchange = {}

--- A target of a peer.
---@param server table|string a peer or a URL
---@param options? table more fields
function exchange.target(server, options)
  local all = { url = type(server) == "string" and server or server.url, proxy = false }
  for name, value in pairs(options or {}) do
    all[name] = value
  end
  return assert(core.target(all))
end

--- A transfer of the row "raw": GET path, or what args say.
function exchange.raw(target, path, opts, args)
  local all = { method = "GET", path = path }
  for name, value in pairs(args or {}) do
    all[name] = value
  end
  return assert(core.transfer(target, "raw", all, opts))
end

--- Starts the transfers and waits until all of them are done; other news goes to on_event(transfer, event).
--- Raises after `seconds` (10).
function exchange.drive(transfers, on_event, seconds)
  local engine = core.engine()
  local left = 0
  local open = {}
  for _, transfer in ipairs(transfers) do
    open[transfer] = true
    left = left + 1
  end
  local limit = core.now() + (seconds or 10) * support.slack
  while left > 0 do
    engine:wait(0.2)
    for transfer, event in engine.finished, engine do
      if event == "done" then
        assert(open[transfer], "done twice, or not one of these")
        open[transfer] = nil
        left = left - 1
      elseif on_event then
        on_event(transfer, event)
      end
    end
    assert(core.now() < limit, "the transfers did not end")
  end
end

--- Runs one transfer to its end. Returns what result() returns.
function exchange.run(transfer, on_event, seconds)
  core.engine():start(transfer)
  exchange.drive({ transfer }, on_event, seconds)
  return transfer:result()
end

--- Runs a transfer that must fail; returns its facts.
function exchange.fail(transfer, on_event, seconds)
  local results = { exchange.run(transfer, on_event, seconds) }
  if results[1] ~= false then
    error("succeeded: " .. tostring(results[2]), 2)
  end
  return results[2]
end

--- GET path, start to end.
function exchange.get(target, path, opts)
  return exchange.run(exchange.raw(target, path, opts))
end

--- Reads a streamed body to its end, a piece a call of on_bytes. Returns result().
function exchange.read_all(transfer, on_bytes, seconds, max)
  local function take()
    while true do
      local bytes = transfer:read(max)
      if not bytes then
        return bytes
      end
      on_bytes(bytes)
    end
  end
  core.engine():start(transfer)
  exchange.drive({ transfer }, take, seconds)
  take() -- the last of it comes with "done"
  return transfer:result()
end

--- The most memory this process ever had, in kB.
function exchange.peak_kb()
  return tonumber(support.read_file("/proc/self/status"):match("VmHWM:%s*(%d+)"))
end

--- In a busted spec: before_each and after_each that close the engine and look for leaks.
function exchange.watch()
  local busted = require("busted")
  local peers = {}
  busted.before_each(function()
    support.collect()
  end)
  busted.after_each(function()
    core.engine():close()
    for _ in core.engine().finished, core.engine() do -- luacheck: ignore 542
    end
    for _, server in ipairs(peers) do
      server:stop()
    end
    for i = #peers, 1, -1 do
      peers[i] = nil
    end
    if rawget(_G, "jit") then
      jit.flush() -- luacheck: ignore 113 -- compiled code may hold on to what a loop used
    end
    support.collect()
    local stats = core.stats()
    for _, name in ipairs({ "engines", "targets", "transfers", "in_flight", "sockets", "easies" }) do
      assert(stats[name] == 0, "leak: " .. name .. " = " .. stats[name])
    end
  end)
  return {
    --- A peer that ends with the spec.
    peer = function(options)
      local server = require("spec.support.peer").start(options)
      peers[#peers + 1] = server
      return server
    end,
    answers = function(answers, options)
      local server = require("spec.support.peer").answers(answers, options)
      peers[#peers + 1] = server
      return server
    end,
  }
end

return exchange
