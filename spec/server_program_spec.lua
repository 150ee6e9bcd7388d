-- The local server as a program: its command line, how it starts, how it ends, and what `e2b.server.start` promises.
local local_server = require("e2b.server")
local http_client = require("spec.support.http_client")
local support = require("spec.support.support")
local main = require("e2b.server.main")

local KEY = "e2b_" .. ("0"):rep(40)

local launched = {} -- ids of the processes of the running spec

-- Runs bin/e2b-server with its output in a pipe; `finish()` reads the rest and the exit code.
local function launch(arguments, input)
  local script = "echo $$; exec " .. support.lua_command() .. " bin/e2b-server " .. arguments
  local command = "sh -c " .. support.quote(script) .. " 2>&1 " .. (input or "</dev/null") .. "; echo code $?"
  local pipe = assert(io.popen(command, "r"))
  local program = { pid = pipe:read("*n") }
  launched[#launched + 1] = program.pid
  pipe:read("*l")
  function program.line()
    return pipe:read("*l")
  end
  function program.finish()
    local rest = pipe:read("*a")
    pipe:close()
    launched = {}
    return tonumber(rest:match("code (%d+)%s*$")), rest
  end
  return program
end

local function is_alive(pid)
  local _, code = support.shell("kill -0 " .. pid)
  return code == 0
end

local function wait_dead(pid)
  support.wait_for(function()
    return not is_alive(pid)
  end, 5, "the end of process " .. pid)
end

describe("e2b-server", function()
  -- A spec that failed half-way must not leave its program, and a pipe that waits for it, behind.
  after_each(function()
    for _, pid in ipairs(launched) do
      os.execute("kill -KILL " .. pid .. " 2>/dev/null")
    end
    launched = {}
  end)

  it("says where it listens, what to export and how sandboxes are kept, in a line each", function()
    local program = launch("--port 0")
    local url = program.line():match("^listening on (http://127%.0%.0%.1:%d+)$")
    assert.is_string(url)
    assert.equal("export E2B_API_URL=" .. url .. " E2B_SANDBOX_URL=" .. url .. " E2B_API_KEY=" .. KEY, program.line())
    assert.matches("^sandboxes are ", program.line())
    local client = http_client.new({ url = url, api_key = KEY })
    assert.equal(200, client:get("/v2/sandboxes").status)
    assert.equal(200, client:with_key("e2b_0aF"):get("/v2/sandboxes").status)
    assert.equal(401, client:with_key("e2b_xyz"):get("/v2/sandboxes").status)
    assert.equal(404, client:get("/_control/requests").status)
    os.execute("kill -TERM " .. program.pid)
    local code, rest = program.finish()
    assert.equal(0, code)
    assert.matches("^code 0%s*$", rest)
  end)

  it("ends cleanly on Ctrl-C", function()
    local program = launch("--port 0 --quiet")
    assert.matches("^listening on ", program.line())
    os.execute("kill -INT " .. program.pid)
    assert.equal(0, (program.finish()))
  end)

  it("ends with its standard input when asked to", function()
    local program = launch("--port 0 --quiet --until-eof")
    assert.matches("^listening on ", program.line())
    assert.equal(0, (program.finish()))
  end)

  it("never shows a key it was given", function()
    local program = launch("--port 0 --log --api-key e2b_5ec2e7")
    local url = program.line():match("http://%S+")
    local hint = program.line()
    assert.matches("E2B_API_KEY=<one of your --api-key>", hint, 1, true)
    local client = http_client.new({ url = url, api_key = "e2b_5ec2e7" })
    client:create()
    client:get("/nowhere")
    client:with_key("e2b_bad0bad0"):get("/v2/sandboxes?metadata=a")
    os.execute("kill -TERM " .. program.pid)
    local _, rest = program.finish()
    for _, text in ipairs({ hint, rest }) do
      assert.is_nil(text:find("5ec2e7", 1, true))
      assert.is_nil(text:find("bad0", 1, true))
    end
    assert.matches("POST /v2/sandboxes 201", rest, 1, true)
    assert.matches("GET /v2/sandboxes 401", rest, 1, true)
  end)

  it("warns when others can reach it", function()
    local program = launch("--port 0 --quiet --host 0.0.0.0")
    local first, second = program.line(), program.line()
    if not first:find("warning") then
      first, second = second, first
    end
    assert.matches("warning: 0.0.0.0 is not loopback", first, 1, true)
    assert.matches("^listening on http://0.0.0.0:%d+$", second)
    os.execute("kill -TERM " .. program.pid)
    program.finish()
  end)

  it("stays on loopback without being told", function()
    local program = launch("--port 0 --quiet")
    local port = program.line():match(":(%d+)$")
    local hexport = string.format("%04X", tonumber(port))
    local found = {}
    for _, file in ipairs({ "/proc/net/tcp", "/proc/net/tcp6" }) do
      for address, local_port in (support.read_file(file) or ""):gmatch("%d+: (%x+):(%x+) %x+:%x+ 0A") do
        if local_port == hexport then
          found[#found + 1] = address
        end
      end
    end
    os.execute("kill -TERM " .. program.pid)
    program.finish()
    if support.read_file("/proc/net/tcp") then
      assert.same({ "0100007F" }, found)
    end
  end)

  it("explains itself, and what is wrong with its command line", function()
    local help = support.run(nil, { file = "bin/e2b-server", args = { "--help" } })
    assert.equal(0, help.code)
    for _, option in ipairs({
      "--host", "--port", "--api-key", "--rate-limit", "--max-sandboxes", "--latency", "--no-v2", "--no-resume",
      "--ignore-filters", "--until-eof", "--quiet", "--log", "--max-timeout", "--transition", "--keep-alive",
      "--control",
    }) do
      assert.matches(option, help.out, 1, true)
    end
    local wrong = support.run(nil, { file = "bin/e2b-server", args = { "--prot", "1" } })
    assert.equal(2, wrong.code)
    assert.equal("", wrong.out)
    assert.matches("unknown option --prot", wrong.err, 1, true)
  end)

  it("says when a port is taken", function()
    local first = local_server.start()
    local port = first.url:match(":(%d+)$")
    local second = support.run(nil, { file = "bin/e2b-server", args = { "--port", port } })
    first:stop()
    assert.equal(1, second.code)
    assert.matches("cannot listen on 127.0.0.1 port " .. port, second.err, 1, true)
  end)

  it("reads its command line", function()
    assert.same({
      host = "::1", port = 0, api_keys = { "a", "b" }, rate_limit = { 10, 0.5 }, max_sandboxes = 3, latency = 0.25,
      no_v2 = 405, no_resume = 405, quiet = true,
    }, main.parse({ "--host", "::1", "--port=0", "--api-key", "a", "--api-key=b", "--rate-limit", "10/0.5",
      "--max-sandboxes", "3", "--latency", "0.25", "--no-v2=405", "--no-resume", "--quiet" }))
    for _, wrong in ipairs({
      { "--port" }, { "--port", "x" }, { "--port", "65536" }, { "--rate-limit", "10" }, { "--rate-limit", "0/1" },
      { "--rate-limit", "1/0" }, { "--latency", "-1" }, { "--max-sandboxes", "1.5" }, { "--no-v2=200" }, { "file" },
    }) do
      local options, message = main.parse(wrong)
      assert.is_nil(options, wrong[1])
      assert.is_string(message)
    end
  end)
end)

describe("e2b.server.start", function()
  it("gives a server of its own, quickly, and stops it for sure", function()
    local seconds, server = support.timed(local_server.start)
    assert.is_true(seconds < 2 * support.slack)
    assert.matches("^http://127%.0%.0%.1:%d+$", server.url)
    assert.matches("^e2b_%x+$", server.api_key)
    assert.equal(44, #server.api_key)
    assert.same({ E2B_API_URL = server.url, E2B_SANDBOX_URL = server.url, E2B_API_KEY = server.api_key }, server.env)
    local client = http_client.new(server)
    assert.equal(200, client:get("/v2/sandboxes").status)
    assert.equal(401, client:with_key(KEY):get("/v2/sandboxes").status)
    assert.is_true(is_alive(server.pid))
    assert.is_true(server:stop())
    assert.is_false(is_alive(server.pid))
    assert.is_true(server:stop())
    assert.matches("stopped", tostring(server))
    assert.has_error(function() server:requests() end, "the server is stopped")
  end)

  it("stops it even when it hangs", function()
    local server = local_server.start()
    os.execute("kill -STOP " .. server.pid)
    assert.is_true(support.timed(server.stop, server) < 2 * support.slack)
    assert.is_false(is_alive(server.pid))
  end)

  it("runs the same Lua", function()
    local server = local_server.start()
    local function executable(pid)
      return (support.shell("readlink /proc/" .. pid .. "/exe"):match("[^\n]+"))
    end
    local mine = support.run('print(io.popen("readlink /proc/$PPID/exe"):read("*l"))').out:match("[^\n]+")
    local its = executable(server.pid)
    server:stop()
    assert.equal(mine, its)
  end)

  it("ends with the process that started it, however that ends", function()
    for _, ending in ipairs({ "os.exit(0)", "os.execute('kill -9 $PPID')", "error('raised')", "" }) do
      local result = support.run([[
        local server = require("e2b.server").start()
        io.stdout:write(server.pid, "\n")
        io.stdout:flush()
        ]] .. ending)
      local pid = tonumber(result.out:match("%d+"))
      assert.is_number(pid, result.err)
      wait_dead(pid)
    end
  end)

  it("ends a server that is collected", function()
    local pid = local_server.start().pid
    collectgarbage()
    collectgarbage()
    wait_dead(pid)
  end)

  it("shows no key in the list of processes, and leaves no file behind", function()
    local function names()
      local all = {}
      for name in support.shell("ls /tmp | grep '^lua_.*answers$'"):gmatch("[^\n]+") do all[name] = true end
      return all
    end
    local before = names()
    local server = local_server.start({ api_keys = { "e2b_5ec2e7" } })
    local line = support.read_file("/proc/" .. server.pid .. "/cmdline") or ""
    -- Those of servers that start beside this one go by themselves.
    support.wait_for(function()
      for name in pairs(names()) do
        if not before[name] then return false end
      end
      return true
    end, 5, "the files of a start to be gone")
    server:stop()
    assert.is_nil(line:find("5ec2e7", 1, true))
  end)

  it("says when it cannot start", function()
    local first = local_server.start()
    local port = tonumber(first.url:match(":(%d+)$"))
    local result = support.run('require("e2b.server").start({ port = ' .. port .. " })")
    first:stop()
    assert.not_equal(0, result.code)
    assert.matches("the local server did not start", result.err, 1, true)
    assert.matches("cannot listen", result.err, 1, true)
  end)

  it("refuses options it does not know", function()
    assert.has_error(function() local_server.start({ prot = 1 }) end, "unknown option prot")
    assert.has_error(function() local_server.start({ rate_limit = "many" }) end)
  end)

  it("keeps several servers apart", function()
    local one, two = local_server.start(), local_server.start()
    http_client.new(one):create()
    assert.equal(1, #http_client.new(one):get("/v2/sandboxes").json)
    assert.equal(0, #http_client.new(two):get("/v2/sandboxes").json)
    one:stop()
    assert.equal(200, http_client.new(two):get("/v2/sandboxes").status)
    two:stop()
  end)
end)
