-- Uploads a project, runs its tests in a sandbox, downloads the report. Ends with the exit code of the tests.
--   lua examples/test_project.lua [folder [command [report [where it goes to]]]]
local e2b = require("e2b")

local folder = arg[1] or "."
local command = arg[2] or "ls -l > report.txt"
local report = arg[3] or "report.txt"
local copy = arg[4] or report

local code, message = e2b.with({ template = "base", timeout = 600 }, function(sandbox)
  assert(sandbox.files:put_tree(folder, "/home/user/project", { ignore = { ".git", "build/" }, progress = true }))
  local handle = assert(sandbox.commands:start(command, { cwd = "/home/user/project" }))
  for line in handle:lines() do print(line) end
  local saved, why = sandbox.files:read("/home/user/project/" .. report, { to = copy, progress = true })
  print(("exit code %d, %s"):format(handle.exit_code, saved and "the report is in " .. copy or "no report: " .. why))
  return handle.exit_code
end)
if not code then error(message, 0) end
os.exit(code, true)
