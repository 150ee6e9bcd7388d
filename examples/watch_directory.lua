-- Watches a directory of a sandbox while a command works in it.
local e2b = require("e2b")

local ok, message = e2b.with({ template = "base", timeout = 120 }, function(sandbox)
  assert(sandbox.files:make_dir("/home/user/work"))
  local watcher = assert(sandbox.files:watch_dir("/home/user/work", { recursive = true }))
  local handle = assert(sandbox.commands:start("cd work && date > now && mv now then && sleep 0.2 && rm then"))
  for event in watcher:events() do
    print(event.type, event.name)
    if event.type == "remove" then break end
  end
  assert(watcher:stop())
  return handle:wait()
end)
if not ok then error(message, 0) end
