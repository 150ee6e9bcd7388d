-- What happens inside a sandbox, through this module.  lua inside.lua URL WORKLOAD COUNT FOLDER
local url, workload, count, folder = arg[1], arg[2], tonumber(arg[3]), arg[4]

local e2b = require("e2b")
local client = e2b.client({
  api_key = "e2b_0000000000000000000000000000000000000000", api_url = url, sandbox_url = url,
})
local sandbox = assert(client.Sandbox.create("base", { timeout = 900 }))

local function run_true()
  local result = assert(sandbox.commands:run("true"))
  assert(result.exit_code == 0, "it failed")
end

-- Counts what comes as a program would that prints it, and keeps no more of it than such a program wants; by itself a
-- result has the newest 10 MiB.
local function output(command, bytes)
  local seen = 0
  local result = assert(sandbox.commands:run(command, {
    timeout = 600, max_output = 65536,
    on_stdout = function(text)
      seen = seen + #text
    end,
  }))
  assert(result.exit_code == 0 and seen == bytes, seen .. " bytes of output")
end

-- a file to fetch, where the server doesn't make one up
local function prepare()
  local command = os.getenv("BENCH_PREPARE")
  if command ~= "" then
    assert(sandbox.commands:run(command, { check = true }))
  end
end

local workloads = {}

workloads.start = run_true

function workloads.run()
  for _ = 1, count do
    run_true()
  end
end

function workloads.run50()
  local list = {}
  for i = 1, count do
    list[i] = i
  end
  local _, failed = e2b.map(list, function()
    run_true()
    return true
  end, { limit = 50 })
  assert(failed == 0, "some failed")
end

function workloads.lines()
  output(os.getenv("BENCH_LINES"), count * 80)
end

function workloads.flushed()
  output(os.getenv("BENCH_FLUSHED"), count * 80)
end

function workloads.output()
  output(os.getenv("BENCH_OUTPUT"), count)
end

function workloads.down()
  prepare()
  local path = folder .. "/down"
  assert(sandbox.files:read(os.getenv("BENCH_DOWN"), { to = path, request_timeout = 600 }))
  local file = assert(io.open(path))
  assert(file:seek("end") == count, "wrong size")
  file:close()
end

function workloads.drain()
  prepare()
  local seen = 0
  assert(sandbox.files:read(os.getenv("BENCH_DOWN"), {
    request_timeout = 600,
    to = function(bytes)
      seen = seen + #bytes
    end,
  }))
  assert(seen == count, "wrong size")
end

function workloads.up()
  local info = assert(sandbox.files:write("/home/user/up", { path = folder .. "/up" }, { request_timeout = 600 }))
  assert(info.type == "file", "not written")
end

-- 1,000 names that bench/inside.sh has made
local function name(i)
  return ("file-%04d.txt"):format(i)
end

function workloads.small()
  for i = 1, count do
    assert(sandbox.files:write("/home/user/one/" .. name(i), { path = folder .. "/small/" .. name(i) }))
  end
end

function workloads.tree()
  assert(sandbox.files:put_tree(folder .. "/small", "/home/user/many", { request_timeout = 600 }))
end

local ok, message = xpcall(workloads[workload], debug.traceback)
sandbox:kill()
assert(ok, message)
