-- Each example runs as a process of its own against a local server, as it would against the real service.
local support = require("spec.support.support")
local platform = require("spec.support.platform")

local here, server, Sandbox

setup(function()
  here = platform.start()
  server, Sandbox = here.server, here.Sandbox
end)

teardown(function()
  here:stop()
  support.cleanup()
end)

before_each(function() server:clear() end)
after_each(function() here:cleanup() end)

local function example(name, stdin, ...)
  local result = support.run(nil, {
    file = "examples/" .. name .. ".lua", env = server.env, stdin = stdin, args = { ... },
  })
  assert.equal(0, result.code, result.out .. result.err)
  assert.equal("", result.err)
  local lines = {}
  for line in result.out:gmatch("[^\n]+") do lines[#lines + 1] = line end
  return lines, result.out
end

describe("examples", function()
  it("are all run here, and short", function()
    local known = {
      list_running = 15, create_base = 15, kill_running = 30, lifecycle = 50, agent_tools = 30, run_python = 25,
      test_project = 25, watch_directory = 25, shell = 15, serve_page = 25, http_server = 30, luv = 30,
    }
    local names = support.shell("cd examples && ls *.lua") -- in folders: host_neovim_spec and host_nginx_spec run it
    for file in names:gmatch("[^\n]+") do
      local name = file:match("^(.*)%.lua$")
      assert.is_number(known[name], file .. " has no spec")
      local _, count = support.read_file("examples/" .. file):gsub("\n", "")
      assert.is_true(count <= known[name], file .. " has " .. count .. " lines")
      known[name] = nil
    end
    assert.is_nil(next(known))
  end)

  it("name no server and no key: with E2B_API_KEY alone they use the real service", function()
    for name in support.shell("find examples -name '*.lua'"):gmatch("[^\n]+") do
      local text = support.read_file(name)
      assert.is_nil(text:find("http://127.0.0.1:%d")) -- a server of its own may listen there
      assert.is_nil(text:find("api_url", 1, true))
      assert.is_nil(text:find("api_key", 1, true))
    end
  end)

  it("list_running: template, state and expiry of what runs", function()
    local first = here:create("base", { timeout = 100 })
    local second = here:create("code-interpreter-v1", { timeout = 200 })
    local paused = here:create()
    assert(paused:pause())
    local lines = example("list_running")
    assert.equal(3, #lines)
    local time = "%d%d%d%d%-%d%d%-%d%d %d%d:%d%d:%d%d$"
    assert.matches("^" .. second.sandbox_id .. "  code%-interpreter%-v1  running  until " .. time, lines[1])
    assert.matches("^" .. first.sandbox_id .. "  base  running  until " .. time, lines[2])
    assert.equal("2 running", lines[3])
  end)

  it("create_base: a sandbox of 5 minutes, its id alone on the first line", function()
    local lines = example("create_base")
    local made = assert(Sandbox.get_info(lines[1]))
    here.made[1] = made.sandbox_id
    assert.equal("base", made.name)
    platform.near(300, made.end_at - made.started_at, 2)
  end)

  it("create_base: says why not, and fails", function()
    local result = support.run(nil, { file = "examples/create_base.lua", env = { E2B_API_URL = server.url } })
    assert.equal(1, result.code)
    assert.matches("E2B_API_KEY", result.err, 1, true)
    assert.equal("", result.out)
  end)

  it("kill_running: only those that were confirmed", function()
    local first, second, third = here:create(), here:create(), here:create()
    local _, out = example("kill_running", "y\n\nYES\n") -- asked newest first
    assert.matches("killed", out, 1, true)
    assert.matches("kept", out, 1, true)
    assert.is_false(here:alive(third.sandbox_id))
    assert.is_true(here:alive(second.sandbox_id))
    assert.is_false(here:alive(first.sandbox_id))
  end)

  it("kill_running: the end of the input, and any other word, confirm nothing", function()
    local first, second = here:create(), here:create()
    example("kill_running", "yep\n")
    example("kill_running", "")
    assert.is_true(here:alive(first.sandbox_id))
    assert.is_true(here:alive(second.sandbox_id))
  end)

  it("kill_running: nothing to do", function()
    assert.same({ "no sandboxes" }, (example("kill_running")))
  end)

  it("lifecycle: all eight tools, and nothing left", function()
    local _, out = example("lifecycle")
    for _, title in ipairs({
      "List Templates", "Create Sandbox", "List Sandboxes", "Get Sandbox", "Set Sandbox Timeout", "Pause Sandbox",
      "Resume Sandbox", "Kill Sandbox",
    }) do
      assert.matches(title, out, 1, true)
    end
    assert.matches("paused", out, 1, true)
    local seen = here:requests()
    for i, request in ipairs(seen) do seen[i] = request:gsub("/i%w%w%w%w%w%w%w+", "/ID") end
    assert.same({
      "GET /v2/templates", "POST /v2/sandboxes", "GET /v2/sandboxes", "GET /sandboxes/ID", "POST /sandboxes/ID/timeout",
      "POST /sandboxes/ID/pause", "POST /sandboxes/ID/resume", "POST /process.Process/Start", "DELETE /sandboxes/ID",
    }, seen)
    assert.matches("user on Linux", out, 1, true)
    assert.same({}, assert(Sandbox.list():all()))
  end)

  it("agent_tools: answers and refusals", function()
    local _, out = example("agent_tools")
    assert.matches("get_sandbox\tok", out, 1, true)
    assert.matches("set_sandbox_timeout\tinvalid_argument: ", out, 1, true)
    assert.matches("kill_sandbox\tok", out, 1, true)
    assert.same({}, assert(Sandbox.list():all()))
  end)

  it("run_python: the steps and the exit code", function()
    assert.same({ "step 1", "step 2", "step 3", "exit code 0" }, (example("run_python")))
  end)

  it("test_project: what was uploaded is there, what is to be ignored is not, the report comes back", function()
    local folder = support.tmpdir()
    support.shell("mkdir -p " .. folder .. "/project/.git " .. folder .. "/project/src")
    support.write_file(folder .. "/project/src/a.lua", "return 1\n")
    support.write_file(folder .. "/project/.git/config", "")
    local report = folder .. "/report.txt"
    local result = support.run(nil, {
      file = "examples/test_project.lua", env = server.env,
      args = { folder .. "/project", "find . -type f; echo fine > report.txt", "report.txt", report },
    })
    assert.equal(0, result.code, result.out .. result.err)
    assert.matches("./src/a.lua", result.out, 1, true)
    assert.is_nil(result.out:find(".git", 1, true), result.out)
    assert.equal("", result.err)
    assert.equal("fine\n", support.read_file(report))
  end)

  it("luv: three at once beside a timer", function()
    local lines = example("luv")
    local ticks = tonumber(table.remove(lines):match("^(%d+) ticks meanwhile$"))
    table.sort(lines)
    assert.same({ "sandbox 1 on Linux", "sandbox 2 on Linux", "sandbox 3 on Linux" }, lines)
    assert.is_true(ticks >= 40 / support.slack, ticks)
    assert.same({}, assert(Sandbox.list():all()))
  end)

  it("watch_directory: what happened, in order", function()
    local lines = example("watch_directory")
    assert.equal("create\tnow", lines[1])
    assert.equal("remove\tthen", lines[#lines])
  end)

  it("shell: says that it needs a terminal", function()
    local result = support.run(nil, { file = "examples/shell.lua", env = server.env, stdin = "" })
    assert.equal(1, result.code)
    assert.matches("terminal", result.err, 1, true)
    assert.same({}, assert(Sandbox.list():all()))
  end)

  it("serve_page: the page, fetched from here", function()
    -- Sandboxes with internet access share this machine's ports: one that nobody else's specs take at the same time.
    local port = support.free_port()
    local lines = example("serve_page", nil, tostring(port))
    assert.matches("^https://" .. port .. "%-i%w+%.", lines[1])
    assert.equal("<h1>Hello from the sandbox</h1>", lines[2])
  end)
end)
