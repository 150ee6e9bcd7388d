-- What the reports are made of: medians of runs, tables of workloads by clients, targets.
local medians = {}

local function median(list)
  local sorted = {}
  for i, value in ipairs(list) do
    sorted[i] = value
  end
  table.sort(sorted)
  local middle = math.floor((#sorted + 1) / 2)
  return #sorted % 2 == 1 and sorted[middle] or (sorted[middle] + sorted[middle + 1]) / 2
end

--- Reads the lines "workload client wall cpu rss", one a run (us, us, KiB). Gives the function of(workload, client,
--- what), which answers the median of "wall", "cpu" or "rss", the lists of workloads and clients that are there, in the
--- order given, and how many runs of each were taken.
function medians.load(path, workloads, clients)
  local runs, seen, taken = {}, {}, 0
  for line in io.lines(path) do
    local workload, client, wall, cpu, rss = line:match("^(%S+) (%S+) (%d+) (%d+) (%d+)$")
    local key = assert(workload, line) .. " " .. client
    runs[key] = runs[key] or { wall = {}, cpu = {}, rss = {} }
    seen[workload], seen[client] = true, true
    local run = runs[key]
    run.wall[#run.wall + 1], run.cpu[#run.cpu + 1] = tonumber(wall), tonumber(cpu)
    run.rss[#run.rss + 1] = tonumber(rss)
    taken = math.max(taken, #run.cpu)
  end
  local function present(list)
    local kept = {}
    for _, entry in ipairs(list) do
      if seen[entry[1]] then
        kept[#kept + 1] = entry
      end
    end
    return kept
  end
  local function of(workload, client, what)
    local run = runs[workload .. " " .. client]
    return run and median(run[what])
  end
  return of, present(workloads), present(clients), taken
end

--- Prints a table; cell(workload, client's key) gives a text or nil. Workloads without any are left out.
function medians.section(text, workloads, clients, cell)
  io.write(("\n%-31s"):format(text))
  for _, client in ipairs(clients) do
    io.write(("%16s"):format(client[2]))
  end
  io.write("\n")
  for _, workload in ipairs(workloads) do
    local cells, any = {}, false
    for i, client in ipairs(clients) do
      local value = cell(workload, client[1])
      any = any or value
      cells[i] = ("%16s"):format(value or "-")
    end
    if any then
      io.write(("%-31s"):format(workload[2]), table.concat(cells), "\n")
    end
  end
end

--- Prints whether a target was met: value and bound in the same unit, wants "less" or "more".
function medians.target(text, value, wants, bound, form)
  local verdict = "n/a "
  if value then
    verdict = (wants == "less" and value <= bound or wants == "more" and value >= bound) and "BEAT" or "MISS"
  end
  print(("%s  %-62s %s (%s %s)"):format(verdict, text, value and form:format(value) or "not measured",
    wants == "less" and "at most" or "at least", form:format(bound)))
end

return medians
