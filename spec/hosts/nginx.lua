-- The suite in a content handler of nginx, whose response it is.
local suite = require("spec.hosts.suite")

local host = { sleep = ngx.sleep }

function host.together(fns)
  local threads = {}
  for i, fn in ipairs(fns) do
    threads[i] = ngx.thread.spawn(function() return pcall(fn) end)
  end
  local failed
  for _, thread in ipairs(threads) do
    local _, ok, why = ngx.thread.wait(thread)
    if not ok then failed = failed or why end
  end
  if failed then error(failed, 0) end
end

function host.ticker()
  ngx.update_time()
  local on, ticks, gap, last = true, 0, 0, ngx.now()
  local function tick()
    ngx.update_time()
    local time = ngx.now()
    ticks, gap, last = ticks + 1, math.max(gap, time - last), time
    if on then ngx.timer.at(0.01, tick) end
  end
  ngx.timer.at(0.01, tick)
  return function()
    on = false
    ngx.update_time()
    return ticks, math.max(gap, ngx.now() - last)
  end
end

-- Timers, and threads: the bridge has one.
function host.leftover()
  local list = io.popen("ls /proc/" .. ngx.worker.pid() .. "/task | wc -l")
  local threads = tonumber(list:read("*a"))
  list:close()
  return ngx.timer.running_count() + ngx.timer.pending_count() + threads - 1
end

suite.run(host, function(line)
  ngx.say(line)
  ngx.flush()
end, os.getenv("E2B_SPEC_SILENT") == "1")
