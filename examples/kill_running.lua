-- Lists running sandboxes and kills those that you confirm. Anything but y or yes keeps one.
local e2b = require("e2b")

local running = assert(e2b.Sandbox.list({ state = { "running" } }):all())
print(running)
for _, sandbox in ipairs(running) do
  io.write(("kill %s (%s)? [y/N] "):format(sandbox.sandbox_id, sandbox.name or sandbox.template_id))
  io.flush()
  local answer = io.read("*l")
  if not answer then break end -- the input has ended: nobody is there to confirm
  answer = answer:lower()
  if answer == "y" or answer == "yes" then
    local ok, existed = sandbox:kill()
    print(ok and (existed and "killed" or "was gone already") or "not killed: " .. existed)
  else
    print("kept")
  end
end
