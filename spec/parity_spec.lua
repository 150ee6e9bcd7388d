-- Every row of meta/parity.md, on a real sandbox of the local server: in a plain script and in a task beside others.
local support = require("spec.support.support")
local platform = require("spec.support.platform")
local e2b = require("e2b")

local here, sandbox
local rows = {} -- how it is called, as the table has it: what shows that it works

local PATH = "/home/user/parity"

local function run(...) return assert(sandbox.commands:run(...)) end

rows["sandbox.commands:run"] = function()
  local result = run("echo out; echo err >&2; exit 3")
  assert.same({ 3, "out\n", "err\n" }, { result.exit_code, result.stdout, result.stderr })
  assert.equal("exit status 3", result.error)
  assert.equal("a  b\n", run({ "printf", "%s\n", "a  b" }).stdout)
end

rows["sandbox.commands:start"] = function()
  local handle = assert(sandbox.commands:start("echo $A; sleep 0.1", { envs = { A = "1" }, cwd = "/tmp" }))
  assert.is_true(handle.pid > 0)
  assert.equal(0, assert(handle:wait()).exit_code)
end

local function sleeping(opts)
  return assert(sandbox.commands:start({ "sleep", "60" }, opts))
end

rows["sandbox.commands:connect"] = function()
  local first = assert(sandbox.commands:start({ "sh", "-c", "read x; echo $x; exit 4" }, { stdin = true }))
  local second = assert(sandbox.commands:connect(first.pid))
  assert.equal(first.pid, second.pid)
  assert(first:send_stdin("seen\n"))
  local result = assert(second:wait())
  assert.same({ 4, "seen\n" }, { result.exit_code, result.stdout })
  assert(first:wait())
  local none, _, err = sandbox.commands:connect(999999)
  assert.is_nil(none)
  assert.same({ "not_found", "process" }, { err.kind, err.resource })
end

local function listed(pid)
  for _, process in ipairs(assert(sandbox.commands:list())) do
    if process.pid == pid then return process end
  end
  return nil
end

rows["sandbox.commands:list"] = function()
  local handle = sleeping({ tag = "mine" })
  local process = listed(handle.pid)
  assert.same({ "sleep", { "60" }, "mine" }, { process.cmd, process.args, process.tag })
  assert(handle:kill())
end

rows["sandbox.commands:send_stdin"] = function()
  local handle = assert(sandbox.commands:start({ "head", "-n", "1" }, { stdin = true }))
  assert.is_true(sandbox.commands:send_stdin(handle.pid, "to the process\n"))
  assert.equal("to the process\n", assert(handle:wait()).stdout)
end

rows["sandbox.commands:close_stdin"] = function()
  local handle = assert(sandbox.commands:start({ "cat" }, { stdin = true }))
  assert(sandbox.commands:send_stdin(handle.pid, "all"))
  assert.is_true(sandbox.commands:close_stdin(handle.pid))
  local result = assert(handle:wait())
  assert.same({ 0, "all" }, { result.exit_code, result.stdout })
end

rows["sandbox.commands:kill"] = function()
  local handle = sleeping()
  assert.same({ true, true }, { sandbox.commands:kill(handle.pid) })
  assert.equal("signal: killed", assert(handle:wait()).error)
  assert.not_equal(0, run({ "sh", "-c", "kill -0 " .. handle.pid }).exit_code)
  assert.same({ true, false }, { sandbox.commands:kill(999999) })
end

rows["handle.pid"] = function()
  local handle = assert(sandbox.commands:start("echo out; echo err >&2; exit 7"))
  assert.is_nil(handle.exit_code)
  assert(handle:wait())
  assert.same({ 7, "out\n", "err\n", "exit status 7" },
    { handle.exit_code, handle.stdout, handle.stderr, handle.error })
end
for _, field in ipairs({ "stdout", "stderr", "exit_code", "error" }) do rows[field] = rows["handle.pid"] end

rows["handle:wait"] = function()
  local handle = assert(sandbox.commands:start("sleep 0.2; echo done"))
  assert.equal("done\n", assert(handle:wait()).stdout)
end

rows["handle:output"] = function()
  local handle = assert(sandbox.commands:start("echo 1; sleep 0.1; echo 2 >&2"))
  local seen = {}
  for stream, data in handle:output() do seen[#seen + 1] = stream .. " " .. data end
  assert.same({ "stdout 1\n", "stderr 2\n" }, seen)
  assert.equal(0, handle.exit_code)
end

rows["handle:disconnect"] = function()
  local handle = sleeping()
  assert.is_true(handle:disconnect())
  assert.truthy(listed(handle.pid))
  assert.same({ true, true }, { sandbox.commands:kill(handle.pid) })
end

rows["handle:kill"] = function()
  local handle = sleeping()
  assert.same({ true, true }, { handle:kill() })
  assert.equal(-1, assert(handle:wait()).exit_code)
  assert.same({ true, false }, { handle:kill() })
end

rows["handle:send_stdin"] = function()
  local handle = assert(sandbox.commands:start({ "cat" }, { stdin = true }))
  assert.is_true(handle:send_stdin(""))
  assert.is_true(handle:send_stdin("\0\255bytes"))
  assert.is_true(handle:close_stdin())
  assert.equal("\0\255bytes", assert(handle:wait()).stdout)
end
rows["handle:close_stdin"] = rows["handle:send_stdin"]

-- ---------------------------------------------------------------- terminals

local function pty(opts)
  local all = { cols = 80, rows = 24 }
  for name, value in pairs(opts or {}) do all[name] = value end
  return assert(sandbox.pty:create(all))
end

local function read_until(handle, text)
  local seen = ""
  while not seen:find(text, 1, true) do
    local _, data = assert(handle:read())
    seen = seen .. data
  end
  return seen
end

rows["sandbox.pty:create"] = function()
  local handle = pty({ envs = { ABC = "value" } })
  assert(handle:send_stdin("echo x${ABC}x $TERM\nexit 5\n"))
  local seen = {}
  for stream, data in handle:output() do
    assert.equal("pty", stream)
    seen[#seen + 1] = data
  end
  assert.truthy(table.concat(seen):find("xvaluex xterm-256color", 1, true))
  assert.equal(5, handle.exit_code)
end

rows["sandbox.pty:connect"] = function()
  local first = pty()
  assert(first:disconnect())
  local second = assert(sandbox.pty:connect(first.pid))
  assert.equal(first.pid, second.pid)
  assert(second:send_stdin("echo a''gain; exit 6\n"))
  read_until(second, "again")
  assert.equal(6, assert(second:wait()).exit_code)
end

rows["sandbox.pty:send_stdin"] = function()
  local handle = pty()
  assert.is_true(sandbox.pty:send_stdin(handle.pid, "exit 3\n"))
  assert.equal(3, assert(handle:wait()).exit_code)
end

rows["sandbox.pty:resize"] = function()
  local handle = pty()
  assert(handle:send_stdin("stty size\n"))
  read_until(handle, "24 80")
  assert.is_true(sandbox.pty:resize(handle.pid, { cols = 100, rows = 30 }))
  assert(handle:send_stdin("stty size\n"))
  read_until(handle, "30 100")
  assert(handle:kill())
  assert(handle:wait())
end

rows["sandbox.pty:kill"] = function()
  local handle = pty()
  assert.same({ true, true }, { sandbox.pty:kill(handle.pid) })
  assert(handle:wait())
  assert.same({ true, false }, { sandbox.pty:kill(999999) })
end

-- ---------------------------------------------------------------- files

local function files() return sandbox.files end

rows["sandbox.files:read"] = function()
  local text = "Zeile\n" .. ("\0\200"):rep(100000)
  assert(files():write(PATH .. "/r", text))
  assert.equal(text, assert(files():read(PATH .. "/r")))
  assert.equal(text, assert(files():read(PATH .. "/r", { gzip = true })))
  local folder = support.tmpdir()
  assert(files():read(PATH .. "/r", { to = folder .. "/local" }))
  assert.equal(text, support.read_file(folder .. "/local"))
  local reader, pieces = assert(files():read(PATH .. "/r", { format = "stream" })), {}
  while true do
    local piece = reader:read()
    if not piece then break end
    pieces[#pieces + 1] = piece
  end
  assert.equal(text, table.concat(pieces))
  assert(files():write(PATH .. "/empty", ""))
  assert.equal("", assert(files():read(PATH .. "/empty")))
  local none, _, err = files():read(PATH .. "/none")
  assert.is_nil(none)
  assert.same({ "not_found", "file" }, { err.kind, err.resource })
end

rows["sandbox.files:write"] = function()
  local info = assert(files():write("parity/relative", "x", { metadata = { author = "me" } }))
  assert.same({ "relative", "file", PATH .. "/relative", { author = "me" } },
    { info.name, info.type, info.path, info.metadata })
  assert(files():write(PATH .. "/relative", "other", { gzip = true }))
  assert.equal("other", assert(files():read(PATH .. "/relative")))
end

rows["sandbox.files:write_files"] = function()
  local list, expected = {}, {}
  for i = 1, 20 do
    list[i] = { path = PATH .. "/many/" .. i, data = "number " .. i }
    expected[i] = list[i].path
  end
  local infos, paths = assert(files():write_files(list)), {}
  for i, info in ipairs(infos) do paths[i] = info.path end
  assert.same(expected, paths)
  assert.equal("number 20", assert(files():read(PATH .. "/many/20")))
  assert.same({}, assert(files():write_files({})))
end

rows["sandbox.files:list"] = function()
  assert(files():write_files({ { path = PATH .. "/l/b", data = "" }, { path = PATH .. "/l/a/c", data = "12345" } }))
  local shallow, deep = {}, {}
  for _, entry in ipairs(assert(files():list(PATH .. "/l"))) do shallow[#shallow + 1] = entry.name end
  for _, entry in ipairs(assert(files():list(PATH .. "/l", { depth = 2 }))) do deep[#deep + 1] = entry end
  assert.same({ "a", "b" }, shallow)
  assert.same({ "dir", PATH .. "/l/a/c", 5, "file" }, { deep[1].type, deep[2].path, deep[2].size, deep[2].type })
end

rows["sandbox.files:make_dir"] = function()
  assert(files():remove(PATH .. "/made"))
  assert.is_true(files():make_dir(PATH .. "/made/deep"))
  assert.is_false(files():make_dir(PATH .. "/made/deep"))
end

rows["sandbox.files:rename"] = function()
  assert(files():write(PATH .. "/old", "x"))
  assert.equal(PATH .. "/new", assert(files():rename(PATH .. "/old", PATH .. "/new")).path)
  assert.is_false(files():exists(PATH .. "/old"))
end

rows["sandbox.files:remove"] = function()
  assert(files():write(PATH .. "/gone", "x"))
  assert.is_true(files():remove(PATH .. "/gone"))
  assert.is_true(files():remove(PATH .. "/gone"))
  assert.is_false(files():exists(PATH .. "/gone"))
end

rows["sandbox.files:exists"] = function()
  assert.is_true(files():exists("/home/user"))
  assert.is_false(files():exists("/home/user/none"))
end

rows["sandbox.files:get_info"] = function()
  assert(files():write(PATH .. "/i", "123"))
  local info = assert(files():get_info(PATH .. "/i"))
  assert.same({ "i", "file", 3, "-rw-r--r--" }, { info.name, info.type, info.size, info.permissions })
  platform.near(os.time(), info.modified_time, 60)
  assert(run({ "ln", "-sf", PATH .. "/i", PATH .. "/link" }).ok)
  info = assert(files():get_info(PATH .. "/link"))
  assert.same({ "file", PATH .. "/i" }, { info.type, info.symlink_target })
end

local function watched(opts, change)
  run({ "mkdir", "-p", PATH .. "/w/sub" })
  local watcher = assert(files():watch_dir(PATH .. "/w", opts))
  change()
  return watcher
end

rows["sandbox.files:watch_dir"] = function()
  run({ "rm", "-rf", PATH .. "/w" })
  local watcher = watched({ recursive = true, include_entry = true }, function()
    assert(files():write(PATH .. "/w/sub/f", "data"))
  end)
  local event = assert(watcher:next(10))
  assert.same({ "sub/f", "create", PATH .. "/w/sub/f" }, { event.name, event.type, event.entry.path })
  assert(watcher:stop())
end

rows["watcher:get_new_events"] = function()
  run({ "rm", "-rf", PATH .. "/w" })
  local watcher = watched(nil, function() assert(files():write(PATH .. "/w/f", "data")) end)
  local types = {}
  support.wait_for(function()
    for _, event in ipairs(assert(watcher:get_new_events())) do types[#types + 1] = event.type end
    e2b.sleep(0.02)
    return #types >= 3
  end, 10, "three events")
  assert.same({ "create", "chmod", "write" }, types)
  assert(watcher:stop())
end

rows["watcher:events"] = function()
  run({ "rm", "-rf", PATH .. "/w" })
  local watcher = watched(nil, function() assert(files():write(PATH .. "/w/f", "data")) end)
  local types = {}
  for event in watcher:events() do
    types[#types + 1] = event.type
    if event.type == "write" then break end
  end
  assert.same({ "create", "chmod", "write" }, types)
  assert(watcher:stop())
end

rows["watcher:stop"] = function()
  local watcher = watched(nil, function() end)
  assert.is_true(watcher:stop())
  assert.is_true(watcher:stop())
end

local function curl(arguments)
  local output, code = support.shell("curl -sS -m 20 " .. arguments)
  assert.equal(0, code, output)
  return output
end

rows["sandbox:upload_url"] = function()
  local url = assert(sandbox:upload_url(PATH .. "/up load+.txt", { use_signature_expiration = 60 }))
  curl("-H 'E2b-Sandbox-Id: " .. sandbox.sandbox_id .. "' -H 'E2b-Sandbox-Port: 49983' -F file=@/etc/hostname "
    .. support.quote(url))
  assert.equal(support.read_file("/etc/hostname"), assert(files():read(PATH .. "/up load+.txt")))
end

rows["sandbox:download_url"] = function()
  assert(files():write(PATH .. "/down load+.txt", "by URL"))
  local url = assert(sandbox:download_url(PATH .. "/down load+.txt"))
  assert.equal("by URL", curl("-H 'E2b-Sandbox-Id: " .. sandbox.sandbox_id .. "' -H 'E2b-Sandbox-Port: 49983' "
    .. support.quote(url)))
end

rows["sandbox:get_host"] = function()
  assert.truthy(sandbox:get_host(3000):find("^3000%-" .. sandbox.sandbox_id .. "%."))
end

rows["sandbox:is_running"] = function() assert.is_true(sandbox:is_running()) end

rows["sandbox:get_mcp_url"] = function()
  assert.equal("https://" .. sandbox:get_host(50005) .. "/mcp", sandbox:get_mcp_url())
end

rows["sandbox:get_mcp_token"] = function()
  assert(files():write("/etc/mcp-gateway/.token", "the token", { user = "root" }))
  assert.equal("the token", assert(sandbox:get_mcp_token()))
end

-- ---------------------------------------------------------------- git

local repo_count = 0

-- A repository with one commit.
local function repository(name)
  repo_count = repo_count + 1
  local path = ("%s/git/%s%d"):format(PATH, name, repo_count)
  assert(sandbox.git:init(path, { initial_branch = "main" }))
  assert(files():write(path .. "/file", "one\n"))
  assert(sandbox.git:add(path))
  assert(sandbox.git:commit(path, "first", { author_name = "A", author_email = "a@example.com" }))
  return path
end

local function subject(path, ...)
  return (run({ "git", "-C", path, "log", "-1", "--format=%s %an", ... }).stdout:gsub("\n$", ""))
end

rows["sandbox.git:init"] = function()
  assert.equal("first A", subject(repository("init")))
  assert(sandbox.git:init(PATH .. "/git/bare", { bare = true }))
  assert.is_true(files():exists(PATH .. "/git/bare/HEAD"))
end
rows["sandbox.git:commit"] = rows["sandbox.git:init"]

rows["sandbox.git:add"] = function()
  local path = repository("add")
  assert(files():write_files({ { path = path .. "/a", data = "" }, { path = path .. "/b", data = "" } }))
  assert(sandbox.git:add(path, { files = { "a" } }))
  local status = assert(sandbox.git:status(path))
  assert.same({ 1, 1 }, { status.staged_count, status.untracked_count })
end

rows["sandbox.git:status"] = function()
  local path = repository("status")
  local status = assert(sandbox.git:status(path))
  assert.same({ "main", true }, { status.current_branch, status.is_clean })
  assert(files():write(path .. "/file", "two\n"))
  status = assert(sandbox.git:status(path))
  assert.same({ "file", "modified", false },
    { status.file_status[1].name, status.file_status[1].status, status.file_status[1].staged })
end

rows["sandbox.git:clone"] = function()
  local path = repository("clone")
  local copy = path .. "-copy"
  assert(sandbox.git:clone("file://" .. path, { path = copy, branch = "main", depth = 1 }))
  assert.equal("first A", subject(copy))
end

rows["sandbox.git:remote_add"] = function()
  local path = repository("remote")
  assert.is_false(sandbox.git:remote_get(path, "origin"))
  assert(sandbox.git:remote_add(path, "origin", "https://example.com/a.git"))
  assert(sandbox.git:remote_add(path, "origin", "https://example.com/b.git", { overwrite = true }))
  assert.equal("https://example.com/b.git", assert(sandbox.git:remote_get(path, "origin")))
end
rows["sandbox.git:remote_get"] = rows["sandbox.git:remote_add"]

rows["sandbox.git:branches"] = function()
  local path = repository("branches")
  assert(sandbox.git:create_branch(path, "side"))
  local branches = assert(sandbox.git:branches(path))
  table.sort(branches.branches)
  assert.same({ { "main", "side" }, "side" }, { branches.branches, branches.current_branch })
  assert(sandbox.git:checkout_branch(path, "main"))
  assert.equal("main", assert(sandbox.git:branches(path)).current_branch)
  assert(sandbox.git:delete_branch(path, "side", { force = true }))
  assert.same({ "main" }, assert(sandbox.git:branches(path)).branches)
end
for _, name in ipairs({ "create_branch", "checkout_branch", "delete_branch" }) do
  rows["sandbox.git:" .. name] = rows["sandbox.git:branches"]
end

rows["sandbox.git:reset"] = function()
  local path = repository("reset")
  assert(files():write(path .. "/file", "changed\n"))
  assert(sandbox.git:reset(path, { mode = "hard", target = "HEAD" }))
  assert.equal("one\n", assert(files():read(path .. "/file")))
end

rows["sandbox.git:restore"] = function()
  local path = repository("restore")
  assert(files():write(path .. "/file", "changed\n"))
  assert(sandbox.git:restore(path, { paths = { "file" } }))
  assert.equal("one\n", assert(files():read(path .. "/file")))
end

rows["sandbox.git:push"] = function()
  local path = repository("push")
  local bare = path .. ".git"
  assert(sandbox.git:init(bare, { bare = true, initial_branch = "main" }))
  assert(sandbox.git:remote_add(path, "origin", "file://" .. bare))
  local none, _, err = sandbox.git:pull(path)
  assert.is_nil(none)
  assert.equal("conflict", err.kind)
  assert(sandbox.git:push(path, { remote = "origin", branch = "main" }))
  assert.equal("first A", subject(bare, "main"))
  assert(sandbox.git:pull(path))
end
rows["sandbox.git:pull"] = rows["sandbox.git:push"]

rows["sandbox.git:set_config"] = function()
  local path = repository("config")
  assert.is_false(sandbox.git:get_config("e2b.none", { scope = "local", path = path }))
  assert(sandbox.git:set_config("e2b.some", "a value", { scope = "local", path = path }))
  assert.equal("a value", assert(sandbox.git:get_config("e2b.some", { scope = "local", path = path })))
end
rows["sandbox.git:get_config"] = rows["sandbox.git:set_config"]

rows["sandbox.git:configure_user"] = function()
  assert(sandbox.git:configure_user("Some Body", "some@example.com"))
  assert.equal("Some Body", assert(sandbox.git:get_config("user.name")))
end

rows["sandbox.git:dangerously_authenticate"] = function()
  assert(sandbox.git:dangerously_authenticate({ username = "u", password = "p w", host = "example.com" }))
  assert.truthy(assert(files():read("/home/user/.git-credentials")):find("example.com", 1, true))
end

-- ---------------------------------------------------------------- all of them

-- The calls in the third column, in order.
local function calls_of_the_table()
  local calls = {}
  for line in (assert(support.read_file("meta/parity.md")) .. "\n"):gmatch("|([^\n]*)\n") do
    local lua = line:match("^[^|]*|[^|]*|([^|]*)|")
    for code in (lua or ""):gmatch("`([^`]+)`") do
      calls[#calls + 1] = code:match("([%w_.]+:[%w_]+)") or code
    end
  end
  return calls
end

local loops = {
  ["in a plain script"] = function(fn) fn() end,
  ["in a task beside others"] = function(fn)
    local ticks = 0
    local other = e2b.spawn(function()
      while true do
        if not e2b.sleep(0.005) then return end
        ticks = ticks + 1
      end
    end)
    local task = e2b.spawn(fn)
    local done, message, err = task:wait(60)
    other:cancel()
    e2b.run()
    if err then error(err.traceback or message, 0) end
    if message ~= nil then error(message, 0) end
    return done
  end,
}

describe("parity with the official SDKs:", function()
  setup(function()
    here = platform.start()
    sandbox = assert(here.Sandbox.create("base", { timeout = 1200 }))
    assert(sandbox.files:make_dir(PATH))
  end)
  teardown(function()
    here:stop()
    support.cleanup()
  end)

  local names = calls_of_the_table()

  it("the table is what is tried", function()
    local known = {}
    for _, name in ipairs(names) do known[name] = true end
    for name in pairs(rows) do assert.is_true(known[name] == true, name .. " is not in the table") end
    assert.is_true(#names > 50, #names .. " calls")
  end)

  for how, call in pairs(loops) do
    for _, name in ipairs(names) do
      it(name .. " " .. how, function()
        call(assert(rows[name], name .. " is not tried"))
      end)
    end
  end
end)
