-- The guard processes of kill_on_exit. A guard keeps the TMPDIR of the process that started it, and is known by that.
local support = require("spec.support.support")

--- The guards of processes with this TMPDIR.
---@param mark string
---@return integer[] pids
return function(mark)
  local pids = {}
  local text = support.shell("grep -las 'TMPDIR=" .. mark .. "' /proc/[0-9]*/environ")
  for pid in text:gmatch("/proc/(%d+)/") do
    local command = support.read_file("/proc/" .. pid .. "/cmdline")
    if command and command:find("e2b.program.guard", 1, true) then pids[#pids + 1] = tonumber(pid) end
  end
  return pids
end
