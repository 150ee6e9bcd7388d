-- This module under the bench's workloads.  lua client.lua URL start|get|concurrent|pages|cycle|flat COUNT
local url, workload, count = arg[1], arg[2], tonumber(arg[3])

local e2b = require("e2b")
local client = e2b.client({ api_key = "e2b_0000000000000000000000000000000000000000", api_url = url })
local Sandbox = client.Sandbox
local ID = "ibench0000000000000001"

local function get_infos(from, to)
  for _ = from, to do
    local info = assert(Sandbox.get_info(ID))
    assert(info.sandbox_id == ID and info.cpu_count == 2)
  end
end

-- resident KiB now, not the peak
local function resident()
  local file = io.open("/proc/self/statm")
  if file then
    local pages = tonumber(file:read("*a"):match("^%d+ (%d+)"))
    file:close()
    return pages * 4
  end
  local ps = io.popen("ps -o rss= -p " .. require("e2b.core").getpid())
  local kib = tonumber(ps:read("*a"))
  ps:close()
  return kib
end

local workloads = {}

function workloads.get()
  get_infos(1, count)
end

workloads.start = workloads.get

function workloads.concurrent()
  local ids = {}
  for i = 1, count do
    ids[i] = ID
  end
  local _, failed = e2b.map(ids, function(id)
    local info = assert(Sandbox.get_info(id))
    return info.cpu_count == 2 or nil, "wrong answer" -- the other programs keep no answers either
  end, { limit = 50 })
  assert(failed == 0, "some failed")
end

function workloads.pages()
  local sandboxes, pages = 0, 0
  local paginator = Sandbox.list({ limit = 100 })
  while paginator.has_next do
    sandboxes, pages = sandboxes + #assert(paginator:next_items()), pages + 1
  end
  assert(pages == count and sandboxes == count * 100)
end

function workloads.cycle()
  for _ = 1, count do
    local sandbox = assert(Sandbox.create("base", { timeout = 300 }))
    assert(sandbox:kill())
  end
end

function workloads.flat()
  local early = math.floor(count / 10)
  get_infos(1, early)
  collectgarbage()
  local before = resident()
  get_infos(early + 1, count)
  collectgarbage()
  print(early, before, count, resident())
end

workloads[workload]()
