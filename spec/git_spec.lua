-- sandbox.git with the git that is installed, in a local sandbox; and what of credentials can be seen where.
local envd_peer = require("spec.support.envd_peer")
local peer = require("spec.support.peer")
local platform = require("spec.support.platform")
local support = require("spec.support.support")
local core = require("e2b.core")
local e2b = require("e2b")

local raises = platform.raises
local SECRET, SECRET_TAIL = "s3cr3t/t:k@n%20", "s3cr3t"

-- A repository behind HTTP as plain files, for those who know the password. What git and everything that it starts have
-- among their arguments while they ask is written down.
local REPOSITORY = [[
  local EXPECTED = "PASSWORD"
  local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
  local function decode(text)
    local out, bits, n = {}, 0, 0
    for c in text:gmatch("[%w+/]") do
      bits, n = bits * 64 + ALPHABET:find(c, 1, true) - 1, n + 6
      if n >= 8 then
        n = n - 8
        out[#out + 1] = string.char(math.floor(bits / 2 ^ n) % 256)
        bits = bits % 2 ^ n
      end
    end
    return table.concat(out)
  end
  conn:serve(function(request)
    local given = request.headers.authorization
    given = given and decode(given:match("^Basic (.*)$"))
    conn:note({ what = "git", path = request.path, given = given or "" })
    if given ~= EXPECTED then
      return conn:respond(401, "no", { ["WWW-Authenticate"] = 'Basic realm="r"', ["Content-Type"] = "text/plain" })
    end
    local pipe = io.popen("grep -la '[s]3cr3t' /proc/[0-9]*/cmdline 2>/dev/null")
    conn:note({ what = "seen", processes = pipe:read("*a") })
    pipe:close()
    if request.path:find("service=git-receive-pack", 1, true) then
      return conn:respond(403, "read only", { ["Content-Type"] = "text/plain" })
    end
    local path = request.path:gsub("%?.*$", ""):gsub("^/repo%.git", "FOLDER")
    local file = io.open(path, "rb")
    if not file then return conn:respond(404, "none", { ["Content-Type"] = "text/plain" }) end
    local body = file:read("*a")
    file:close()
    return conn:respond(200, body, { ["Content-Type"] = "application/octet-stream" })
  end)
]]

local function start_repository(folder, user)
  local output, code = support.shell(([[
    set -e; cd %s
    git init -q -b main work; cd work
    git config user.name n; git config user.email e@x
    echo one > a.txt; git add .; git commit -q -m first
    git branch side
    cd ..; git clone -q --bare work repo.git; cd repo.git; git update-server-info
  ]]):format(folder))
  assert(code == 0, output)
  local handler = REPOSITORY:gsub("PASSWORD", function() return (user or "ada") .. ":" .. SECRET end)
    :gsub("FOLDER", function() return folder .. "/repo.git" end)
  local server = peer.start(handler)
  function server.seen()
    local list = {}
    for _, event in ipairs(server:events("seen")) do list[#list + 1] = event.processes end
    assert(#list > 0, "nobody came with the password")
    return table.concat(list)
  end
  function server.last()
    local events = server:events("git")
    return events[#events]
  end
  return server
end

describe("sandbox.git", function()
  local fixture, sandbox, folder, repository

  setup(function()
    fixture = platform.start()
    sandbox = assert(fixture.Sandbox.create())
    folder = support.tmpdir()
    repository = start_repository(folder)
    local git = sandbox.git
    assert(git:configure_user("Ada", "ada@example.org"))
    assert(git:set_config("init.defaultBranch", "main"))
  end)

  it("prints with the beginning of the sandbox's id", function()
    assert.equal(("Git(%s…)"):format(sandbox.sandbox_id:sub(1, 6)), tostring(sandbox.git))
  end)

  teardown(function()
    if repository then repository:stop() end
    if fixture then fixture:stop() end
    if folder then support.cleanup(folder) end
  end)

  local function sh(line)
    local result = assert(sandbox.commands:run(line))
    assert.equal(0, result.exit_code, result.stderr)
    return result.stdout
  end

  -- All of it in a plain script and in a task.
  for _, mode in ipairs(envd_peer.MODES) do
    local count = 0
    local function it_(name, fn)
      it(name .. ", in " .. mode.name, function()
        count = count + 1
        local path = ("r%d%s"):format(count, mode.name:gsub("%W", ""))
        mode.run(function() fn(sandbox.git, path) end)
      end)
    end

    local function repo(git, path)
      assert(git:init(path))
      sh("echo one > " .. path .. "/a.txt")
      assert(git:add(path))
      assert(git:commit(path, "first"))
    end

    it_("makes repositories", function(git, path)
      local result = assert(git:init(path, { initial_branch = "trunk" }))
      assert.equal(0, result.exit_code)
      assert.equal("trunk", git:status(path).current_branch)
      assert(git:init(path .. ".bare", { bare = true }))
      assert.equal("true\n", sh("git -C " .. path .. ".bare rev-parse --is-bare-repository"))
    end)

    it_("stages, commits and tells what is changed", function(git, path)
      assert(git:init(path))
      sh("cd " .. path .. " && touch a 'b c' ü")
      local status = assert(git:status(path))
      assert.equal(3, status.untracked_count)
      local names = {}
      for i, file in ipairs(status.file_status) do names[i] = file.name end
      table.sort(names)
      assert.same({ "a", "b c", "ü" }, names)
      assert(git:add(path, { files = { "b c", "ü" } }))
      assert.equal(2, git:status(path).staged_count)
      assert(git:commit(path, "-m with 'quotes' and \"more\"\n\nbody", {
        author_name = "Grace 'G' H", author_email = "g@example.org",
      }))
      assert.equal("Grace 'G' H <g@example.org>|-m with 'quotes' and \"more\"\n", sh("git -C " .. path
        .. " log -1 --format='%an <%ae>|%s'"))
      assert(git:add(path))
      assert(git:commit(path, "second"))
      assert.is_true(git:status(path).is_clean)
      local result, message, err = git:commit(path, "nothing")
      assert.is_nil(result)
      assert.equal("exit", err.kind)
      assert.equal(1, err.exit_code)
      assert.truthy(err.stdout:find("nothing to commit", 1, true))
      assert.truthy(message:find("^sandbox%.git:commit: git ended with exit code 1: .*nothing to commit"), message)
      assert(git:commit(path, "empty", { allow_empty = true }))
      sh("cd " .. path .. " && git mv 'b c' moved && echo x >> a")
      status = git:status(path)
      assert.equal(2, status.total_count)
      assert.equal("b c", status.file_status[1].renamed_from or status.file_status[2].renamed_from)
    end)

    it_("makes, changes and deletes branches", function(git, path)
      repo(git, path)
      assert(git:create_branch(path, "feature/x"))
      assert.same({ branches = { "feature/x", "main" }, current_branch = "feature/x" }, assert(git:branches(path)))
      assert(git:commit(path, "more", { allow_empty = true }))
      assert(git:checkout_branch(path, "main"))
      assert.equal("main", git:branches(path).current_branch)
      local _, _, err = git:delete_branch(path, "feature/x")
      assert.equal("exit", err.kind)
      assert(git:delete_branch(path, "feature/x", { force = true }))
      assert.same({ "main" }, git:branches(path).branches)
      _, _, err = git:checkout_branch(path, "none")
      assert.equal("exit", err.kind)
      sh("git -C " .. path .. " checkout -q --detach")
      assert.is_true(git:status(path).detached)
      assert.same({ "main" }, git:branches(path).branches)
    end)

    it_("resets and restores", function(git, path)
      repo(git, path)
      local file = path .. "/a.txt"
      sh("echo two > " .. file)
      assert(git:restore(path, { "a.txt" }))
      assert.equal("one\n", sh("cat " .. file))
      sh("echo two > " .. file)
      assert(git:add(path))
      assert(git:restore(path, "a.txt", { staged = true }))
      assert.equal(" ", git:status(path).file_status[1].index_status)
      assert.equal("two\n", sh("cat " .. file))
      assert(git:add(path))
      assert(git:restore(path, { paths = { "a.txt" }, staged = true, worktree = true, source = "HEAD" }))
      assert.is_true(git:status(path).is_clean)
      sh("echo two > " .. file)
      assert(git:add(path))
      assert(git:reset(path, { paths = { "a.txt" } }))
      assert.equal(0, git:status(path).staged_count)
      assert(git:commit(path, "more", { allow_empty = true }))
      assert(git:reset(path, { mode = "hard", target = "HEAD~1" }))
      assert.is_true(git:status(path).is_clean)
      assert.equal("first\n", sh("git -C " .. path .. " log --format=%s"))
    end)

    it_("keeps remotes, pushes and pulls", function(git, path)
      repo(git, path)
      assert(git:init(path .. ".bare", { bare = true }))
      assert.is_false(git:remote_get(path, "origin"))
      local _, _, err = git:push(path)
      assert.equal("exit", err.kind)
      _, _, err = git:pull(path)
      assert.equal("conflict", err.kind)
      assert.equal("no_upstream", err.reason)
      assert.truthy(err.message:find("^sandbox%.git:pull: .*no upstream branch is configured"))
      local bare = sh("cd " .. path .. ".bare && pwd"):match("[^\n]+")
      assert(git:remote_add(path, "origin", "/wrong"))
      _, _, err = git:remote_add(path, "origin", bare)
      assert.equal("exit", err.kind)
      assert(git:remote_add(path, "origin", bare, { overwrite = true, fetch = true }))
      assert.equal(bare, git:remote_get(path, "origin"))
      local pushed, message
      pushed, message, err = git:push(path)
      assert.is_nil(pushed)
      assert.equal("no_upstream", err.reason)
      assert.truthy(message:find("no upstream branch is configured", 1, true))
      assert.truthy(err.stderr:find("has no upstream branch", 1, true))
      assert(git:push(path, { remote = "origin", branch = "main" }))
      assert.equal("origin/main", git:status(path).upstream)
      assert(git:commit(path, "more", { allow_empty = true }))
      assert.equal(1, git:status(path).ahead)
      assert(git:push(path))
      assert(git:reset(path, { mode = "hard", target = "HEAD~1" }))
      assert.equal(1, git:status(path).behind)
      assert(git:pull(path))
      assert.equal(0, git:status(path).behind)
      assert(git:clone(bare, path .. ".clone", { branch = "main", depth = 1 }))
      assert(git:pull(path .. ".clone", { branch = "main" }))
      assert.equal("main", git:status(path .. ".clone").current_branch)
    end)

    it_("keeps settings", function(git, path)
      assert(git:init(path))
      local key = "e2b." .. path
      assert.is_false(git:get_config(key))
      assert(git:set_config(key, "a 'b' \"c\""))
      assert.equal("a 'b' \"c\"", git:get_config(key))
      assert.is_false(git:get_config(key, { scope = "local", path = path }))
      assert(git:set_config(key, true, { scope = "local", path = path }))
      assert.equal("true", git:get_config(key, { scope = "local", path = path }))
      assert(git:configure_user("Local", "l@example.org", { scope = "local", path = path }))
      assert.equal("Local", git:get_config("user.name", { scope = "local", path = path }))
      assert.equal("Ada", git:get_config("user.name"))
      assert.is_false(git:get_config("not-a-key"))
      local value, _, err = git:get_config(key, { scope = "local", path = path .. ".none" })
      assert.is_nil(value)
      assert.equal("exit", err.kind)
    end)

    it_("clones with credentials that are in no argument and no file", function(git, path)
      repository:forget()
      local url = repository.url .. "/repo.git"
      local _, message, err = git:clone(url, path)
      assert.equal("authentication", err.kind)
      assert.truthy(message:find("git clone requires credentials", 1, true), message)
      _, message, err = git:clone(url, path, { username = "ada" })
      assert.equal("authentication", err.kind)
      assert.truthy(message:find("requires a password or token", 1, true), message)
      _, message, err = git:clone(url, path, { username = "ada", password = "wrong-" .. SECRET })
      assert.equal("authentication", err.kind)
      support.assert_no_secret({ SECRET_TAIL, "wrong-" }, message, err, debug.traceback())

      local result = assert(git:clone(url, { path = path, username = "ada", password = SECRET }))
      support.assert_no_secret(SECRET_TAIL, result)
      assert.equal("one\n", sh("cat " .. path .. "/a.txt"))
      assert.equal("", sh("grep -rla s3cr3t " .. path .. " ~/.git* || true"))
      assert.equal("", repository.seen())
      assert.equal(url, git:remote_get(path, "origin"))
      assert.equal("ada:" .. SECRET, repository.last().given)

      -- in the address
      local inside = url:gsub("://", "://ada:s3cr3t%%2Ft%%3Ak%%40n%%2520@")
      assert(git:clone(inside, path .. "2", { branch = "side" }))
      assert.equal("side", git:status(path .. "2").current_branch)
      assert.equal(url, git:remote_get(path .. "2", "origin"))
      assert.equal("", sh("grep -rla s3cr3t " .. path .. "2 || true"))
      assert.equal("", repository.seen())

      -- given ones win over those in the address
      assert(git:clone((url:gsub("://", "://eve:n0@")), path .. "3", { username = "ada", password = SECRET }))
      assert.equal("", repository.seen())
    end)

    it_("stores credentials when that is asked for", function(git, path)
      repository:forget()
      local url = repository.url .. "/repo.git"
      local own = mode.name:gsub("%W", "")
      local result = assert(git:clone(url, {
        path = path, username = "ada", password = SECRET, dangerously_store_credentials = true,
      }))
      assert.equal(0, result.exit_code)
      assert.equal("", repository.seen())
      assert.equal("http://ada:s3cr3t%2Ft%3Ak%40n%2520@" .. url:match("://(.*)"), git:remote_get(path, "origin"))
      assert.equal("1\n", sh("git -C " .. path .. " config --get-all remote.origin.url | wc -l | tr -d ' '"))
      assert(git:pull(path))
      -- and without a path the folder is the address's
      sh("mkdir " .. path .. ".in")
      local home = sh("pwd"):match("[^\n]+")
      assert(git:clone(url, {
        cwd = home .. "/" .. path .. ".in", username = "ada", password = SECRET, dangerously_store_credentials = true,
      }))
      assert(sh("cat " .. path .. ".in/repo/.git/config"):find("s3cr3t", 1, true), own)
    end)

    it_("pushes and pulls with credentials, and the remote stays as it is", function(git, path)
      repository:forget()
      local url = repository.url .. "/repo.git"
      local given = { username = "ada", password = SECRET }
      assert(git:clone(url, { path = path, username = "ada", password = SECRET }))
      assert(git:pull(path, given))
      assert(git:pull(path, { remote = "origin", branch = "main", username = "ada", password = SECRET }))
      local _, message, err = git:pull(path)
      assert.equal("authentication", err.kind)
      assert.truthy(message:find("git pull requires credentials", 1, true), message)

      _, message, err = git:push(path, { username = "ada", password = SECRET, branch = "main" })
      assert.equal("exit", err.kind) -- the server is read only
      assert.truthy(message:find("403", 1, true), message)
      support.assert_no_secret(SECRET_TAIL, message, err)
      assert.equal("ada:" .. SECRET, repository.last().given)
      assert.truthy(repository.last().path:find("receive-pack", 1, true))
      _, message, err = git:push(path, { remote = "origin", branch = "main" })
      assert.equal("authentication", err.kind)
      assert.truthy(message:find("git push requires credentials", 1, true), message)
      assert.equal(url, git:remote_get(path, "origin"))
      assert.equal("", sh("grep -rla s3cr3t " .. path .. " || true"))
      assert.equal("", repository.seen())

      -- a remote with other credentials in it
      sh("git -C " .. path .. " remote set-url origin '" .. url:gsub("://", "://eve:n0@") .. "'")
      _, message, err = git:pull(path)
      assert.equal("authentication", err.kind)
      support.assert_no_secret("n0@", message, err)
      assert(git:pull(path, given))

      -- which remote?
      assert(git:remote_add(path, "other", url))
      _, message, err = git:pull(path, { branch = "main", username = "ada", password = SECRET })
      assert.equal("invalid_argument", err.kind)
      assert.truthy(message:find("2 remotes", 1, true), message)
      sh("git -C " .. path .. " remote set-url other git@h:x")
      _, message, err = git:push(path, { remote = "other", username = "ada", password = SECRET })
      assert.equal("invalid_argument", err.kind)
      assert.truthy(message:find("https://", 1, true), message)
      _, _, err = git:push(path, { remote = "none", username = "ada", password = SECRET })
      assert.equal("exit", err.kind)
    end)

    it_("gives git credentials for good", function(git, path)
      repository:forget()
      local host = repository.url:match("://(.*)")
      local result = assert(git:dangerously_authenticate("ada", SECRET, { host = host, protocol = "http" }))
      support.assert_no_secret(SECRET_TAIL, result)
      assert(git:clone(repository.url .. "/repo.git", path))
      assert.equal("", repository.seen())
      -- other credentials for one call are neither stored nor do they make git forget the stored ones
      local _, _, err = git:clone(repository.url .. "/repo.git", path .. "x", { username = "ada", password = "no" })
      assert.equal("authentication", err.kind)
      assert(git:pull(path))
      sh("rm -f ~/.git-credentials; git config --global --unset credential.helper")
      assert(git:dangerously_authenticate({ username = "ada", password = SECRET, host = host, protocol = "http" }))
      assert(git:pull(path))
      sh("rm -f ~/.git-credentials; git config --global --unset credential.helper")
    end)
  end

  it("is watched by something that sees arguments", function()
    local handle = assert(sandbox.commands:start({ "sh", "-c", "echo here; sleep 20", SECRET_TAIL }))
    assert.equal("here", handle:read_line())
    assert.are_not.equal("", (support.shell("grep -la '[s]3cr3t' /proc/[0-9]*/cmdline 2>/dev/null; true")))
    handle:kill()
    handle:disconnect()
  end)

  it("gives credentials to nobody but the host they are for", function()
    local other = start_repository(support.tmpdir())
    local url = repository.url .. "/repo.git"
    sh("git config --global url." .. other.url .. "/.insteadOf " .. repository.url .. "/")
    local _, _, err = sandbox.git:clone(url, { path = "elsewhere", username = "ada", password = SECRET })
    sh("git config --global --unset url." .. other.url .. "/.insteadOf")
    assert.equal("authentication", err.kind)
    for _, event in ipairs(other:events("git")) do assert.equal("", event.given) end
    other:stop()
  end)

  it("says what is wrong when there is no repository, no git, no such folder, no such user", function()
    local git = sandbox.git
    for _, call in ipairs({
      function() return git:status("/tmp") end, function() return git:branches("/tmp") end,
      function() return git:remote_get("/tmp", "origin") end, function() return git:pull("/tmp") end,
    }) do
      local value, message, err = call()
      assert.is_nil(value)
      assert.equal("exit", err.kind, message)
      assert.equal(128, err.exit_code)
      assert.truthy(message:lower():find("not a git repository", 1, true), message)
      assert.equal(sandbox.sandbox_id, err.sandbox_id)
    end
    local _, message, err = git:init("x", { envs = { PATH = "/none" } })
    assert.equal("exit", err.kind)
    assert.equal(127, err.exit_code, message)
    _, message, err = git:init("x", { cwd = "/none" })
    assert.equal("invalid_argument", err.kind)
    assert.truthy(message:find("^sandbox%.git:init: "), message)
    _, _, err = git:init("x", { user = "nobody-here" })
    assert.equal("authentication", err.kind)
  end)

  it("bounds a whole call with timeout", function()
    local began = core.now()
    local stuck = peer.start("conn:read_request() conn:wait_closed()")
    local result, message, err = sandbox.git:clone(stuck.url .. "/repo.git", { path = "never", timeout = 0.5 })
    stuck:stop()
    assert.is_nil(result)
    assert.equal("timeout", err.kind, message)
    assert.equal("timeout", err.deadline)
    assert.equal("sandbox.git:clone", err.operation)
    assert.is_true(core.now() - began < 3 * support.slack)
  end)

  it("raises on what can't be meant, and names what was", function()
    local git = sandbox.git
    raises("there is no 'createBranch': write create_branch", function() return git.createBranch end)
    raises("there is no 'dangerouslyAuthenticate': write dangerously_authenticate", function()
      return git.dangerouslyAuthenticate
    end)
    assert.is_nil(git.bisect)
    raises("sandbox.git.status needs the colon", function() return git.status("x") end)
    raises("sandbox.git:clone", function() return git:clone() end)
    raises("begins with a dash", function() return git:clone("--upload-pack=x") end)
    raises("begins with a dash", function() return git:checkout_branch("r", "-f") end)
    raises("begins with a dash", function() return git:reset("r", { target = "--hard" }) end)
    raises("begins with a dash", function() return git:push("r", { remote = "--receive-pack=x" }) end)
    raises("'depth'", function() return git:clone("u", { depth = 0 }) end)
    raises("did you mean 'author_name'", function() return git:commit("r", "m", { authorName = "x" }) end)
    raises("did you mean 'timeout'", function() return git:status("r", { timeoutMs = 1 }) end)
    raises("there is no username", function() return git:clone("https://h/x", { password = "p" }) end)
    raises("https://", function() return git:clone("git@h:x", { username = "u", password = "p" }) end)
    raises("'path' to sandbox.git:status", function() return git:status() end)
    raises("'path' to sandbox.git:status", function() return git:status("") end)
    raises("the list is empty", function() return git:add("r", { files = {} }) end)
    raises("the list is empty", function() return git:restore("r", { paths = {} }) end)
    raises("both false", function() return git:restore("r", "f", { staged = false, worktree = false }) end)
    raises("both false", function() return git:restore("r", "f", { worktree = false }) end)
    raises("soft, mixed, hard, merge, keep", function() return git:reset("r", { mode = "gentle" }) end)
    raises('"global", "local", "system"', function() return git:set_config("k", "v", { scope = "repo" }) end)
    raises("needs the path", function() return git:get_config("k", { scope = "local" }) end)
    raises("it is empty", function() return git:set_config("", "v") end)
    raises("it is empty", function() return git:configure_user("", "e") end)
    raises("it is empty", function() return git:dangerously_authenticate("", "p") end)
    raises("it is empty", function() return git:dangerously_authenticate("u", "") end)
    raises("line end", function() return git:dangerously_authenticate("u", "p\nhost=evil") end)
    raises("'name' to sandbox.git:remote_add", function() return git:remote_add("r", "", "u") end)
    raises("'url' to sandbox.git:remote_add", function() return git:remote_add("r", "n", "") end)
    for _, call in ipairs({
      function() return git:clone("https://h/x", { username = "u", password = SECRET .. "\n" }) end,
      function() return git:dangerously_authenticate("u", SECRET .. "\n") end,
      function() return git:clone("https://u:" .. SECRET_TAIL .. "%0a@h/x") end,
    }) do
      local ok, message = pcall(call)
      assert.is_false(ok)
      support.assert_no_secret(SECRET_TAIL, message)
    end
  end)
end)

describe("the credentials of sandbox.git", function()
  it("reach the sandbox in the environment or on the standard input, and nothing that is logged", function()
    local logged = {}
    local server = envd_peer.start([[
      on.Start = function(message)
        local words = table.concat(message.process.args, " ")
        if words:find("get-url", 1, true) then return run(0, "https://h.example/x.git\n") end
        if words:find("credential approve", 1, true) then
          begin() event('{"start":{"pid":7}}')
          shared.approve = function() ended(0) finish() end
          return
        end
        if words:find("credential.helper store", 1, true) then return run(0) end
        return run(1, "", "fatal: ada:s3cr3t/t:k@n%20 and https://ada:s3cr3t%2Ft@h/x failed")
      end
      on.SendInput = function() return answer(200) end
      on.CloseStdin = function() answer(200) shared.approve() end
    ]], { client = { logger = function(event) logged[#logged + 1] = event end } })
    local git = server.sandbox().git
    local given = { username = "ada", password = SECRET, remote = "origin" }
    local errs = {
      { git:clone("https://h.example/x.git", { username = "ada", password = SECRET }) },
      { git:clone("https://ada:s3cr3t%2Ft@h.example/x.git") }, { git:push("r", given) }, { git:pull("r", given) },
    }
    support.assert_no_secret(SECRET_TAIL, errs, assert(git:dangerously_authenticate("ada", SECRET)), logged)
    for _, failed in ipairs(errs) do
      assert.is_nil(failed[1])
      assert.truthy(failed[2]:find("***", 1, true), failed[2])
    end
    local environments = 0
    for _, sent in ipairs(envd_peer.messages(server, "Start")) do
      local process = sent.message.process
      assert.equal("git", process.cmd)
      assert.equal("0", process.envs.GIT_TERMINAL_PROMPT)
      support.assert_no_secret(SECRET_TAIL, process.args)
      if process.envs.E2B_GIT_PASSWORD then environments = environments + 1 end
    end
    assert.equal(4, environments)
    assert.truthy(#logged > 8)
    e2b.close()
    server:stop()
  end)
end)
