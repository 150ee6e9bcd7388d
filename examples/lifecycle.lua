-- The life of a sandbox, through all eight platform tools. Whatever happens, the sandbox is killed at the end.
local e2b = require("e2b")
local Sandbox, Template = e2b.Sandbox, e2b.Template

print("List Templates")
print(assert(Template.list():next_items()))

print("\nCreate Sandbox")
local options = { template = "base", timeout = 300, metadata = { example = "lifecycle" } }
local ok, message = e2b.with(options, function(sandbox)
  print(sandbox)

  print("\nList Sandboxes")
  print(assert(Sandbox.list({ state = { "running" }, metadata = { example = "lifecycle" } }):all()))

  print("\nGet Sandbox")
  assert(sandbox:get_info())
  print(sandbox, ("%s CPUs, %s MiB memory"):format(sandbox.cpu_count, sandbox.memory_mb))

  print("\nSet Sandbox Timeout")
  assert(sandbox:set_timeout(600))
  print(sandbox)

  print("\nPause Sandbox")
  assert(sandbox:pause())
  print(sandbox)

  print("\nResume Sandbox")
  assert(sandbox:resume({ timeout = 120 }))
  print(sandbox)

  print("\nRun a command in it")
  io.write(assert(sandbox.commands:run("echo \"$(whoami) on $(uname -sm), $(nproc) CPUs\"", { check = true })).stdout)

  print("\nKill Sandbox")
  assert(sandbox:kill())
  print(sandbox)
  return true
end)
if not ok then error(message, 0) end
