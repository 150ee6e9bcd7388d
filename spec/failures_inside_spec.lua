-- What goes wrong in sandboxes with real processes and real files: they are killed and paused under everything that is
-- going on, tasks are cancelled, readers rest and handles are forgotten.
local envd_peer = require("spec.support.envd_peer")
local platform = require("spec.support.platform")
local support = require("spec.support.support")
local book = require("e2b.sandbox_book")
local stream = require("spec.support.stream_peer")
local core = require("e2b.core")
local e2b = require("e2b")

-- Scaled down with the other big specs where everything is slow.
local OUTPUT = math.floor(math.min(stream.size, 1e9) / 16)

describe("in a real sandbox,", function()
  local here, sandbox, secrets

  setup(function()
    here = platform.start()
    sandbox = here:create({ timeout = 3600 })
    secrets = { here.server.api_key or "key", (book.tokens(sandbox)) }
    assert(#secrets == 2)
  end)

  teardown(function()
    sandbox = nil
    here:cleanup()
    here:stop()
  end)

  -- The results of a failed call: the error, when it is of that kind and tells no secrets.
  local function fails(kind, value, message, err)
    if value ~= nil then error("expected a failure, got " .. tostring(value), 2) end
    if not err then error("no error: " .. tostring(message), 2) end
    if err.kind ~= kind then error(("%s instead of %s: %s"):format(err.kind, kind, message), 2) end
    support.assert_no_secret(secrets, message, err)
    assert(err.message == message and #message < 2048 and not message:find("[%z\1-\31\127]"))
    return err
  end

  local function shell(command, opts)
    local result = assert(sandbox.commands:run(command, opts))
    assert(result.ok, result.stderr)
    return result.stdout
  end

  local function runs(pid)
    return assert(sandbox.commands:run({ "kill", "-0", tostring(pid) }, { user = "root" })).ok
  end

  local function it_(name, fn)
    for _, mode in ipairs(envd_peer.MODES) do
      it(name .. " (" .. mode.name .. ")", function() mode.run(fn) end)
    end
  end

  -- Everything that can be going on in a sandbox, each as a function that goes on with it until it ends.
  local function open_all(own)
    local function until_nil(next_of, ...)
      while true do
        local value, message, err = next_of(...)
        if value == nil then return nil, message, err end
      end
    end
    local handle = assert(own.commands:start("echo on; exec sleep 100"))
    local lines = assert(own.commands:start("echo on; exec sleep 100"))
    local terminal = assert(own.pty:create())
    local watcher = assert(own.files:watch_dir("."))
    assert(own.commands:run("head -c 50000000 /dev/zero > big"))
    local reader = assert(own.files:read("big", { format = "stream" }))
    assert(handle:read() == "stdout" and lines:read_line() == "on" and terminal:read() == "pty" and reader:read())
    return {
      wait = function() return handle:wait() end,
      read = function() return handle:read() end,
      lines = function()
        local ok, raised = e2b.pcall(function()
          for line in lines:lines() do error("a line: " .. line) end
        end)
        assert(not ok)
        return nil, raised, lines.err
      end,
      terminal = function() return terminal:wait() end,
      watch = function() return until_nil(watcher.next, watcher) end,
      reader = function() return until_nil(reader.read, reader) end,
      input = function() return terminal:send_stdin("x") end,
      list = function() return own.commands:list() end,
      download = function() return own.files:read("big") end,
      upload = function() return own.files:write("new", "x") end,
      begin = function() return own.commands:start("true") end,
    }, handle, terminal, { lines, watcher, reader }
  end

  it_("a kill ends all that is going on, and each is told why", function()
    local own = here:create({ timeout = 600 })
    local all = open_all(own)
    assert(own:kill())
    for name, go_on in pairs(all) do
      local seconds, value, message, err = support.timed(go_on)
      local said = fails("sandbox_gone", value, message, err)
      assert(seconds < 1 * support.slack, name .. " took " .. seconds)
      assert(message:find("killed or reached its end of life", 1, true), name .. ": " .. message)
      assert(said.sandbox_id == own.sandbox_id, name)
      assert(said.retryable == false, name)
    end
    assert(core.stats().in_flight == 0)
  end)

  it_("the end of a sandbox's life ends a command that is waited for", function()
    local own = here:create({ timeout = 1 })
    local err = fails("sandbox_gone", own.commands:run("sleep 100"))
    assert(err.pid and err.sandbox_id == own.sandbox_id)
  end)

  it_("a pause ends the streams, and a resume continues the processes", function()
    local own = here:create({ timeout = 600 })
    -- Counts in memory: begun anew it would begin at one.
    local counter = assert(own.commands:start("i=0; while :; do i=$((i + 1)); echo $i; sleep 0.02; done"))
    local last
    for _ = 1, 5 do last = tonumber((counter:read_line())) end
    local all, handle, terminal, others = open_all(own)
    assert(terminal:send_stdin("kept=in_memory\r"))
    assert(own:pause())
    for name, go_on in pairs(all) do
      local _, value, message, err = support.timed(go_on)
      fails("sandbox_gone", value, message, err)
      assert(message:find("or is paused", 1, true), name .. ": " .. message)
    end
    local line, message, err
    repeat
      line, message, err = counter:read_line()
      last = tonumber(line) or last
    until not line
    fails("sandbox_gone", line, message, err)
    assert(own:resume())
    -- The same process goes on where it stood, but what it wrote while nobody listened is lost.
    local again = assert(own.commands:connect(counter.pid))
    local next_line = tonumber((assert(again:read_line())))
    assert(next_line > last and next_line < last + 200, next_line .. " after " .. last)
    assert(tonumber((again:read_line())) == next_line + 1)
    assert(again:kill() and assert(again:wait()).exit_code == -1)
    local typed = assert(own.pty:connect(terminal.pid))
    assert(typed:send_stdin("echo $kept; exit 3\r"))
    local text = {}
    assert(assert(typed:wait({ on_pty = function(data) text[#text + 1] = data end })).exit_code == 3)
    assert(table.concat(text):find("in_memory", 1, true), table.concat(text))
    assert(assert(own.files:get_info("big")).size == 50000000)
    -- The old handles stay what they were.
    fails("sandbox_gone", handle:read())
    fails("sandbox_gone", others[1]:read_line())
    fails("sandbox_gone", others[2]:next())
    fails("sandbox_gone", others[3]:read())
    assert(own.commands:kill(handle.pid))
    own:kill()
  end)

  it_("a process waits for a reader that rests, and nothing of its output is lost", function()
    local lines = math.floor(OUTPUT / 16)
    local handle = assert(sandbox.commands:start(
      ("seq -f %%015.0f 1 %.0f | tee >(sha256sum > sum); sleep 0.2; cat sum"):format(lines), { max_output = 100000 }))
    local kind, data, err = handle:read()
    assert(kind == "stdout", data)
    e2b.sleep(0.5)
    if OUTPUT > 5e7 then -- less fits into the buffers on the way
      local written = tonumber(shell("cat /proc/$(pgrep -n seq)/io", { user = "root" }):match("wchar: (%d+)"))
      assert(written < OUTPUT / 2, "it wrote " .. written .. " bytes that nobody read")
    end
    local folder = support.tmpdir()
    local sum = assert(io.popen("sha256sum > " .. folder .. "/sum", "w"))
    local size, rest = 0, ""
    while kind do
      size, rest = size + #data, rest .. data
      assert(sum:write(rest:sub(1, -69))) -- the sandbox's own sum comes last
      rest = rest:sub(-68)
      kind, data, err = handle:read()
    end
    assert(not err, data)
    sum:close()
    assert(size == lines * 16 + 68, size)
    assert(rest == support.read_file(folder .. "/sum"), rest)
    assert(#handle.stdout == 100000 and handle.stdout_dropped == size - 100000)
    support.cleanup(folder)
  end)

  -- Many and cancelled -----------------------------------------------------------------------------------------------

  it("of 200 commands at once half are cancelled, and the others don't notice", function()
    local before, tasks, pids = core.stats().in_flight, {}, {}
    shell("mkfifo go")
    for i = 1, 200 do
      tasks[i] = e2b.spawn(function()
        -- Each goes on when somebody writes into the pipe.
        return sandbox.commands:run({ "sh", "-c", ("echo $$; read x < go; echo %d"):format(i) },
          { on_stdout = function(data) pids[i] = pids[i] or tonumber((data:match("%d+"))) end, timeout = 0 })
      end)
    end
    support.wait_for(function()
      e2b.sleep(0.05)
      for i = 1, 200 do
        if not pids[i] then return false end
      end
      return true
    end, 20, "200 commands to run")
    for i = 1, 200, 2 do tasks[i]:cancel() end
    for i = 1, 200, 2 do fails("cancelled", tasks[i]:wait()) end
    local rows, listed = assert(sandbox.commands:list()), {}
    for _, row in ipairs(rows) do listed[row.pid] = true end
    for i = 1, 200 do assert((listed[pids[i]] or false) == (i % 2 == 0), i .. " of 200") end
    shell(": > go")
    for i = 2, 200, 2 do
      local result = assert(tasks[i]:wait())
      assert(result.stdout == ("%d\n%d\n"):format(pids[i], i), result.stdout)
    end
    assert(sandbox.files:remove("go"))
    support.wait_for(function()
      e2b.sleep(0.01)
      return core.stats().in_flight == before
    end, 5, "the end of all transfers")
  end)

  it("a cancel ends what waits and nothing else", function()
    local commands, files = sandbox.commands, sandbox.files
    local counter = assert(commands:start("i=0; while [ $i -lt 100 ]; do i=$((i + 1)); echo $i; sleep 0.01; done"))
    local handle = assert(commands:start("exec sleep 100"))
    assert(files:make_dir("watched"))
    local watcher = assert(files:watch_dir("watched"))
    local terminal = assert(sandbox.pty:create())
    local counted = e2b.spawn(function()
      local n = 0
      while true do
        local line, message = counter:read_line()
        if not line then
          assert(not message, message)
          return n
        end
        n = n + 1
        assert(tonumber(line) == n)
      end
    end)
    local ran
    shell("head -c 50000000 /dev/zero > zeros")
    local tasks = {
      e2b.spawn(function()
        return commands:run("echo $$; exec sleep 100", { on_stdout = function(data) ran = tonumber(data) end })
      end),
      e2b.spawn(function() return handle:wait() end),
      e2b.spawn(function() return watcher:next() end),
      e2b.spawn(function()
        while true do
          local kind, message, err = terminal:read()
          if not kind then return nil, message, err end
        end
      end),
      e2b.spawn(function()
        return files:write("half", function()
          e2b.sleep(0.02)
          return ("x"):rep(10000)
        end)
      end),
      e2b.spawn(function()
        return files:read("zeros", { to = function() return (e2b.sleep(0.02)) end })
      end),
    }
    support.wait_for(function()
      e2b.sleep(0.02)
      return ran
    end, 10, "the command")
    e2b.sleep(0.1)
    local seconds = support.timed(function()
      for _, task in ipairs(tasks) do task:cancel() end
      for i, task in ipairs(tasks) do
        local value, message, err = task:wait(10)
        assert(value == nil and err and err.kind == "cancelled",
          i .. ": " .. tostring(value) .. ", " .. tostring(message))
        support.assert_no_secret(secrets, message, err)
      end
    end)
    assert(seconds < 1 * support.slack, seconds)
    assert(not runs(ran), "the process of a cancelled run goes on")
    assert(runs(handle.pid) and runs(terminal.pid))
    -- Who is not cancelled goes on, on the very same streams.
    assert(counted:wait(20) == 100)
    assert(files:write("watched/seen", ""))
    assert(assert(watcher:next(5)).name == "seen")
    watcher:stop()
    assert(terminal:send_stdin("exit\r") and assert(terminal:wait()).exit_code == 0)
    assert(handle:kill() and assert(handle:wait()).exit_code == -1)
    shell("rm -r zeros half watched")
  end)

  it_("handles that nobody holds any more leave no descriptor, and their processes go on", function()
    local function drop(pids)
      for i = 1, 5 do
        local handle = assert(sandbox.commands:start("echo on; exec sleep 100"))
        pids[#pids + 1] = handle.pid
        if i % 2 == 0 then assert(handle:read()) end
        assert(sandbox.files:watch_dir("/tmp"))
        local terminal = assert(sandbox.pty:create())
        pids[#pids + 1] = terminal.pid
        assert(terminal:read())
        local reader = assert(sandbox.files:read("/bin/bash", { format = "stream" }))
        if i % 2 == 0 then assert(reader:read()) end
      end
    end
    drop({})
    support.collect()
    local before, pids = support.snapshot(), {}
    drop(pids)
    support.collect()
    if rawget(_G, "jit") then jit.flush() end -- luacheck: ignore 113 -- compiled code may hold on to what it used
    support.collect()
    support.assert_no_leak(before)
    assert(core.stats().in_flight == 0)
    for _, pid in ipairs(pids) do assert(runs(pid)) end
    for _, row in ipairs(assert(sandbox.commands:list())) do assert(sandbox.commands:kill(row.pid)) end
  end)
end)
