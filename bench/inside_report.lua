-- Medians, ratios and targets from the lines that inside.sh collected.  lua inside_report.lua RESULTS canned|real
local medians = dofile("bench/medians.lua")
local path, server = arg[1], arg[2]

local MIB = 1048576
-- name, text, how many calls, or MiB that stream
local WORKLOADS = {
  { "start", "start + 1 command" },
  { "run", "%s commands in sequence", calls = true },
  { "run50", "%s commands, 50 at once", calls = true },
  { "lines", "100,000 lines of output", mib = 8000000 / MIB },
  { "flushed", "the same, a line at a time", mib = 8000000 / MIB },
  { "output", "256 MiB of output", mib = 256 },
  { "drain", "1 GiB down, to a function", mib = 1024 },
  { "down", "1 GiB down, to a file", mib = 1024 },
  { "up", "1 GiB up, from a file", mib = 1024 },
  { "small", "1,000 small files one by one", count = 1000 },
  { "tree", "the same as a tree", count = 1000 },
}
local CLIENTS = {
  { "e2b", "e2b, Lua 5.4" },
  { "luajit", "e2b, LuaJIT" },
  { "sdk", "JavaScript SDK" },
  { "curl", "curl program" },
}
local COMMANDS = { canned = 500, real = 100 }
for _, workload in ipairs(WORKLOADS) do
  if workload.calls then
    workload.count = COMMANDS[server]
    workload[2] = workload[2]:format(workload.count)
  end
end

local of, workloads, clients, taken = medians.load(path, WORKLOADS, CLIENTS)

local function section(text, cell)
  medians.section(text, workloads, clients, cell)
end

local function milliseconds(what)
  return function(workload, client)
    local value = of(workload[1], client, what)
    return value and ("%.1f"):format(value / 1000)
  end
end

-- What starting costs is not what streaming costs. The curl program hasn't been measured at starting: next to nothing.
local function after_start(workload, client)
  local value, start = of(workload, client, "cpu"), of("start", client, "cpu")
  if client == "curl" then
    return value
  end
  return value and start and value - start
end

section("CPU, ms", milliseconds("cpu"))
section("wall, ms", milliseconds("wall"))
section("peak memory, MB", function(workload, client)
  local value = of(workload[1], client, "rss")
  return value and ("%.1f"):format(value / 1024)
end)
section("CPU a call after the first, us", function(workload, client)
  local value = workload.count and after_start(workload[1], client)
  return value and ("%.1f"):format(value / workload.count)
end)
section("CPU a MiB after the start, us", function(workload, client)
  local value = workload.mib and after_start(workload[1], client)
  return value and ("%.1f"):format(value / workload.mib)
end)

if server ~= "canned" then
  return
end

local target = medians.target

local function ratio(workload, over, under)
  local a, b = after_start(workload, over), after_start(workload, under)
  return a and b and a / b
end

local function against_curl(workload)
  local ours, curl = of(workload, "e2b", "cpu"), of(workload, "curl", "cpu")
  return ours and curl and ours / curl
end

print("\nTargets, Lua 5.4, medians of " .. taken)
for _, workload in ipairs(workloads) do
  local name, text = workload[1], workload[2]
  if name == "lines" or name == "flushed" or name == "output" then
    target(text .. ": the JavaScript SDK's CPU a MiB over ours", ratio(name, "sdk", "e2b"), "more", 5, "%.1f")
  end
end
for _, workload in ipairs(workloads) do
  if workload[1] == "down" or workload[1] == "up" then
    target(workload[2] .. ": our CPU over the curl program's", against_curl(workload[1]), "less", 1.15, "%.2f")
  end
end
local most
for _, workload in ipairs(workloads) do
  for _, client in ipairs({ "e2b", "luajit" }) do
    local value = of(workload[1], client, "rss")
    most = value and math.max(most or 0, value / 1024) or most
  end
end
target("peak memory, MB, worst workload, either Lua", most, "less", 16, "%.1f")

-- Of these most is the system's own work, the same for everybody.
for _, workload in ipairs(workloads) do
  local ours, curl = ratio(workload[1], "sdk", "e2b"), ratio(workload[1], "sdk", "curl")
  if ours and curl then
    print(("      %s: the JavaScript SDK's CPU is %.1f times ours, and %.1f times the curl program's"):format(
      workload[2], ours, curl))
  end
end
