-- Uploads a project, runs its tests in a sandbox, downloads the report.
--   lua examples/test_project.lua [folder [command [report [where it goes to]]]]
local e2b = require("e2b")

local folder = arg[1] or "."
local command = arg[2] or "ls -l > report.txt"
local report = arg[3] or "report.txt"
local copy = arg[4] or report

local ok, message = e2b.with({ template = "base", timeout = 600 }, function(sandbox)
  assert(sandbox.files:put_tree(folder, "/home/user/project", { ignore = { ".git", "build/" }, progress = true }))
  local handle = assert(sandbox.commands:start(command, { cwd = "/home/user/project" }))
  for line in handle:lines() do print(line) end
  assert(sandbox.files:read("/home/user/project/" .. report, { to = copy, progress = true }))
  print(("exit code %d, the report is in %s"):format(handle.exit_code, copy))
  return true
end)
if not ok then error(message, 0) end
