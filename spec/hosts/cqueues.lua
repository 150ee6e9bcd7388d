-- The suite in a coroutine of a cqueues controller.
local e2b = require("e2b")
local cqueues = require("cqueues")
local condition = require("cqueues.condition")
local suite = require("spec.hosts.suite")

local host = { sleep = cqueues.sleep }
local controller = cqueues.new()
local others = 1 -- coroutines of ours in the controller

function host.together(fns)
  local left, changed, failed = #fns, condition.new(), nil
  for _, fn in ipairs(fns) do
    others = others + 1
    controller:wrap(function()
      local ok, why = e2b.pcall(fn)
      if not ok then failed = failed or why end
      left, others = left - 1, others - 1
      changed:signal()
    end)
  end
  while left > 0 do changed:wait() end
  if failed then error(failed, 0) end
end

function host.ticker()
  local on, ticks, gap, last = true, 0, 0, cqueues.monotime()
  others = others + 1
  controller:wrap(function()
    while on do
      cqueues.sleep(0.01)
      local time = cqueues.monotime()
      ticks, gap, last = ticks + 1, math.max(gap, time - last), time
    end
    others = others - 1
  end)
  return function()
    on = false
    return ticks, math.max(gap, cqueues.monotime() - last)
  end
end

function host.leftover() return controller:count() - others end

controller:wrap(function()
  suite.run(host, print, os.getenv("E2B_SPEC_SILENT") == "1")
  others = 0
end)
assert(controller:loop())
assert(controller:empty(), "the controller has coroutines left")
