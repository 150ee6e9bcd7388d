-- The suite in a plain script: `script.lua blocking` on the main coroutine, `script.lua tasks` in a task of e2b.
local suite = require("spec.hosts.suite")

local function write(line)
  io.write(line, "\n")
  io.flush()
end

local function all()
  return suite.run({ together = suite.as_tasks }, write, os.getenv("E2B_SPEC_SILENT") == "1")
end

if arg[1] == "tasks" then
  local e2b = require("e2b")
  assert(e2b.spawn(function()
    all()
    return true
  end):wait())
else
  all()
end
