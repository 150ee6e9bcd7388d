-- Medians, ratios and targets from the lines that run.sh collected.  lua report.lua RESULTS [FLAT]
-- RESULTS: "workload client wall cpu rss" a run (us, us, KiB); FLAT: "client calls rss calls rss" a client.
local results_path, flat_path = arg[1], arg[2]

local WORKLOADS = {
  { "start", "start + 1 get_info", 1 },
  { "get", "1,000 get_info", 1000 },
  { "concurrent", "1,000 at once, 50", 1000 },
  { "pages", "200 pages of 100", 200 },
  { "cycle", "500 create + kill", 500 },
}
local CLIENTS = {
  { "e2b", "e2b, Lua 5.4" },
  { "luajit", "e2b, LuaJIT" },
  { "floor", "C on libcurl" },
  { "naive", "lua-curl, cjson" },
  { "sdk", "JavaScript SDK" },
}

local medians = dofile("bench/medians.lua")
local of, taken
of, WORKLOADS, CLIENTS, taken = medians.load(results_path, WORKLOADS, CLIENTS)
local target = medians.target

local function section(text, cell)
  medians.section(text, WORKLOADS, CLIENTS, cell)
end

local function milliseconds(what)
  return function(workload, client)
    local value = of(workload[1], client, what)
    return value and ("%.1f"):format(value / 1000)
  end
end

section("CPU, ms", milliseconds("cpu"))
section("wall, ms", milliseconds("wall"))
section("peak memory, MB", function(workload, client)
  local value = of(workload[1], client, "rss")
  return value and ("%.1f"):format(value / 1024)
end)
section("CPU a call after the first, us", function(workload, client)
  local value, start = of(workload[1], client, "cpu"), of("start", client, "cpu")
  return value and start and workload[3] > 1 and ("%.1f"):format((value - start) / (workload[3] - 1))
end)
section("CPU, times C", function(workload, client)
  local value, floor = of(workload[1], client, "cpu"), of(workload[1], "floor", "cpu")
  return value and floor and ("%.2f"):format(value / floor)
end)

local function ratio(workload, over, under)
  local a, b = of(workload, over, "cpu"), of(workload, under, "cpu")
  return a and b and a / b
end

local function milli(value)
  return value and value / 1000
end

local extra
for _, workload in ipairs(WORKLOADS) do
  local ours, floor = of(workload[1], "e2b", "rss"), of(workload[1], "floor", "rss")
  if ours and floor then
    extra = math.max(extra or -math.huge, (ours - floor) / 1024)
  end
end

print("\nTargets, Lua 5.4, medians of " .. taken)
target("start to first answer, CPU ms", milli(of("start", "e2b", "cpu")), "less", 14, "%.1f")
target("start to first answer: the JavaScript SDK's CPU over ours", ratio("start", "sdk", "e2b"), "more", 35, "%.1f")
target("1,000 get_info: our CPU over the C program's", ratio("get", "e2b", "floor"), "less", 2, "%.2f")
target("1,000 get_info: the JavaScript SDK's CPU over ours", ratio("get", "sdk", "e2b"), "more", 40, "%.1f")
target("200 pages: our CPU over the naive loop's", ratio("pages", "e2b", "naive"), "less", 2, "%.2f")
target("peak memory over the C program's, MB, worst workload", extra, "less", 4, "%.1f")

if flat_path then
  for line in io.lines(flat_path) do
    local client, early, before, late, after = line:match("^(%S+)%s+(%d+)%s+(%d+)%s+(%d+)%s+(%d+)$")
    -- a page or two of allocator slack is no leak: 90,000 calls that kept one byte each would be 88 KiB
    target(("%s: resident KiB gained from %s calls to %s (%s to %s)"):format(client, early, late, before, after),
      tonumber(after) - tonumber(before), "less", 64, "%d")
  end
end
