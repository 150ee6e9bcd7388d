-- The suite in Neovim (its main coroutine) or in a luv script (the main program); with UV_TASK=1 in a task of e2b.
local suite = require("spec.hosts.suite")

local vim = rawget(_G, "vim")
local uv = vim and (vim.uv or vim.loop) or require("luv")
local plain_timer = uv.new_timer

-- Neovim can't walk its own handles, so those that are made from here on are kept.
local handles = {}
for _, name in ipairs({ "new_poll", "new_timer" }) do
  local make = uv[name]
  uv[name] = function(...)
    local handle = make(...)
    handles[#handles + 1] = handle
    return handle
  end
end

local host = { together = suite.as_tasks }

function host.sleep(seconds)
  if vim then return vim.wait(seconds * 1000) end
  local timer, over = plain_timer(), false
  timer:start(math.ceil(seconds * 1000), 0, function()
    over = true
    timer:close()
  end)
  while not over do uv.run("once") end
end

function host.ticker()
  local timer, ticks, gap, last = plain_timer(), 0, 0, uv.hrtime()
  timer:start(10, 10, function()
    local time = uv.hrtime()
    ticks, gap, last = ticks + 1, math.max(gap, (time - last) / 1e9), time
  end)
  return function()
    timer:stop()
    timer:close()
    return ticks, math.max(gap, (uv.hrtime() - last) / 1e9)
  end
end

function host.leftover()
  local count = 0
  for _, handle in ipairs(handles) do
    if not handle:is_closing() then count = count + 1 end
  end
  return count
end

local function write(line)
  io.write(line, "\n")
  io.flush()
end

local e2b = require("e2b")
if not vim then e2b.use_loop("uv") end

local silent = os.getenv("E2B_SPEC_SILENT") == "1"
if os.getenv("UV_TASK") == "1" then
  -- What the host sleeps holds up its tasks, and in a callback of luv's its loop can't run.
  host.sleep, host.leftover = nil, nil
  assert(e2b.spawn(function()
    suite.run(host, write, silent)
    return true
  end):wait())
else
  suite.run(host, write, silent)
end
if not vim then uv.run("nowait") end -- luv 1.44 crashes at the end of a script that has left something half closed
