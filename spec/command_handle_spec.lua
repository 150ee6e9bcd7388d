-- Handles: reading a process as a stream and by lines, waiting, letting go; and the buffers behind them.
local exchange = require("spec.support.exchange")
local envd_peer = require("spec.support.envd_peer")
local platform = require("spec.support.platform")
local support = require("spec.support.support")
local core = require("e2b.core")
local e2b = require("e2b")
local line_buffer = require("e2b.line_buffer")
local output_buffer = require("e2b.output_buffer")

local raises = platform.raises
local watched = exchange.watch()

local function serve(source, options)
  options = options or {}
  options.watched = watched
  return envd_peer.start(source, options)
end

local function start(server, opts)
  return assert(server.sandbox().commands:start("x", opts))
end

local HANGS = [[
  on.Start = function()
    begin()
    event('{"start":{"pid":7}}')
    output("stdout", "so far\n")
    conn:wait_closed()
    conn:close()
  end
]]

-- What is in a list of pieces, however they were cut.
local LINES = [[
  on.Start = function()
    begin()
    event('{"start":{"pid":7}}')
    for _, piece in ipairs({ "one\ntw", "o", "\n", "\n", "three\r\nfour\nfi", "ve" }) do
      output("stdout", piece)
      conn:sleep(0.003)
    end
    output("stderr", "oh")
    conn:sleep(0.003)
    output("stdout", "!", "stderr", " no\nand")
    ended(0)
    finish()
  end
]]

describe("output that nobody limits", function()
  local MUCH = [[
    on.Start = function()
      begin()
      event('{"start":{"pid":7}}')
      for _ = 1, 30 do output("stdout", ("0123456789"):rep(10000)) end
      ended(0)
      finish()
    end
  ]]

  it("is kept as 10 MiB by run, and as 1 MiB by a handle, which is there to be read", function()
    local server = serve(MUCH)
    local result = assert(server.sandbox().commands:run("x"))
    assert.are.same({ 3000000, 0 }, { #result.stdout, result.stdout_dropped })
    local handle = start(server)
    result = assert(handle:wait())
    assert.are.same({ 1048576, 3000000 - 1048576 }, { #result.stdout, result.stdout_dropped })
    assert.are.equal(3000000, #assert(start(server, { max_output = 4000000 }):wait()).stdout)
  end)
end)

describe("waiting with options", function()
  it("keeps the check that the handle was made with", function()
    local server = serve("on.Start = function() run(3) end")
    local _, _, err = start(server, { check = true }):wait({ timeout = 5 })
    assert.are.equal("exit", err and err.kind)
    assert.are.equal(3, assert(start(server, { check = true }):wait({ check = false })).exit_code)
  end)
end)

describe("lines out of pieces", function()
  local function lines(most, ...)
    local buffer, found = line_buffer.new(most), {}
    for _, piece in ipairs({ ... }) do
      line_buffer.put(buffer, piece)
      for line in line_buffer.next, buffer do found[#found + 1] = line end
    end
    found[#found + 1] = line_buffer.rest(buffer)
    return table.concat(found, "|")
  end

  it("are joined, whole, and none is lost", function()
    assert.are.equal("", lines(10))
    assert.are.equal("", lines(10, ""))
    assert.are.equal("a", lines(10, "a"))
    assert.are.equal("a|b", lines(10, "a\nb"))
    assert.are.equal("a|b", lines(10, "a\nb\n"))
    assert.are.equal("|a||", lines(10, "\na\n\n\n"))
    assert.are.equal("abc|d", lines(10, "a", "b", "", "c\n", "d"))
    assert.are.equal("a\0b|\r", lines(10, "a\0b\n\r\n"))
  end)

  it("are split where they are too long", function()
    assert.are.equal("0123|4567|89", lines(4, "0123456789\n"))
    assert.are.equal("0123|4567|89", lines(4, "01", "2345", "6789"))
    assert.are.equal("0123|4567", lines(4, "0123\n4567\n"))
    assert.are.equal("0123|x", lines(4, "0123", "\nx"))
    assert.are.equal("0|1|2", lines(1, "012"))
  end)

  it("are the same wherever the pieces end", function()
    local parts = {}
    for i = 1, 200 do parts[i] = ("x"):rep(i * 7 % 23) .. i end
    local text = table.concat(parts, "\n")
    for size = 1, 40 do
      local pieces = {}
      for at = 1, #text, size do pieces[#pieces + 1] = text:sub(at, at + size - 1) end
      assert.are.equal((text:gsub("\n", "|")), lines(1000, (table.unpack or unpack)(pieces))) -- luacheck: ignore 113
    end
  end)
end)

describe("output that is kept", function()
  it("is the newest, whatever the pieces", function()
    local number = 0
    local function piece(size)
      number = number + 1
      return (("%d,"):format(number)):rep(size):sub(1, size)
    end
    for _, most in ipairs({ 0, 1, 10, 1000, 65536, 200000 }) do
      for _, size in ipairs({ 1, 7, 1000, 40000, 65536, 100000 }) do
        local buffer, all = output_buffer.new(most), {}
        for i = 1, size == 1 and 2000 or 12 do
          all[i] = piece(size)
          output_buffer.add(buffer, all[i])
          if i % 5 == 0 then output_buffer.text(buffer) end
        end
        local text = table.concat(all)
        local kept = most == 0 and "" or text:sub(-most)
        assert.is_true(output_buffer.text(buffer) == kept, most .. " of pieces of " .. size)
        assert.are.equal(#text - #kept, output_buffer.dropped(buffer))
        assert.are.equal(#text - #kept, output_buffer.dropped(buffer))
      end
    end
  end)

  it("takes no more memory than it has to", function()
    local buffer = output_buffer.new(1000000)
    collectgarbage()
    local before = collectgarbage("count")
    for i = 1, 1000000 do output_buffer.add(buffer, "0123456789 " .. i % 10) end
    collectgarbage()
    collectgarbage()
    local kb = collectgarbage("count") - before
    assert.is_true(kb < 1500, kb .. " KB")
    assert.are.equal(1000000, #output_buffer.text(buffer))
    assert.are.equal(11000000, output_buffer.dropped(buffer))
  end)

  it("is not kept more often than twice when it becomes a string", function()
    local clear = io.open("/proc/self/clear_refs", "w")
    -- Only where there is /proc, and nothing watches the program that takes memory itself.
    if not clear or support.slack > 1 then return end
    local MB = 1048576
    local function peak() return tonumber(support.read_file("/proc/self/status"):match("VmHWM:%s*(%d+)")) / 1024 end
    collectgarbage()
    clear:write("5")
    clear:close()
    local before = peak()
    local buffer = output_buffer.new(10 * MB)
    for i = 1, 400 do
      output_buffer.add(buffer, ("%06d"):format(i):rep(10000))
      if i % 8 == 0 then collectgarbage() end
    end
    assert.are.equal(10 * MB, #output_buffer.text(buffer))
    local grown = peak() - before
    assert.is_true(grown < 24, ("it grew by %.1f MB"):format(grown))
  end)
end)

for _, mode in ipairs(envd_peer.MODES) do
  local function it_(name, fn)
    it(name, function() mode.run(fn) end)
  end

  describe("a handle, in " .. mode.name .. ",", function()
    it_("is read piece by piece", function()
      local server = serve([[
        on.Start = function()
          begin()
          event('{"start":{"pid":7}}')
          output("stdout", "a", "stderr", "b")
          conn:wait_signal("go")
          output("stdout", "c")
          ended(4)
          finish()
        end
      ]])
      local handle = start(server)
      assert.are.equal("Command(pid 7, running)", tostring(handle))
      assert.are.same({ "stdout", "a" }, { handle:read() })
      assert.are.same({ "stderr", "b" }, { handle:read() })
      assert.are.equal("a b", handle.stdout .. " " .. handle.stderr)
      assert.is_nil(handle.exit_code)
      server:signal("go")
      assert.are.same({ "stdout", "c" }, { handle:read() })
      assert.are.equal(0, select("#", handle:read()) - 1)
      assert.is_nil((handle:read()))
      assert.are.equal(4, handle.exit_code)
      assert.are.equal("exit status 4", handle.error)
      assert.are.equal("Command(pid 7, exit code 4)", tostring(handle))
      local result = assert(handle:wait())
      assert.are.equal("ac b 4", result.stdout .. " " .. result.stderr .. " " .. result.exit_code)
      assert.are.equal(result, handle:wait())
    end)

    it_("is a stream for a loop", function()
      local handle = start(serve("on.Start = function() run(0, 'out', 'err') end"))
      local got = {}
      for stream, data in handle:output() do got[#got + 1] = stream .. " " .. data end
      assert.are.equal("stdout out,stderr err", table.concat(got, ","))
      for _ in handle:output() do error("there is nothing any more") end
    end)

    it_("is lines for a loop", function()
      local handle = start(serve(LINES))
      local out, err = {}, {}
      for line, stream in handle:lines() do
        local list = stream == "stdout" and out or err
        list[#list + 1] = line
      end
      assert.are.equal("one|two||three\r|four|five!", table.concat(out, "|"))
      assert.are.equal("oh no|and", table.concat(err, "|"))
      assert.are.equal("oh no\nand", handle.stderr)
      assert.are.equal(0, handle.exit_code)
    end)

    it_("is lines to be asked for", function()
      local handle = start(serve(LINES))
      assert.are.same({ "one", "stdout" }, { handle:read_line() })
      assert.are.same({ "two", "stdout" }, { handle:read_line() })
      local count = 0
      while handle:read_line() do count = count + 1 end
      assert.are.equal(6, count)
      assert.is_nil((handle:read_line()))
    end)

    it_("splits lines that are longer than what is kept", function()
      local server = serve("on.Start = function() run(0, ('0123456789'):rep(3) .. '\\n') end")
      local handle = start(server, { max_output = 8 })
      local got = {}
      for line in handle:lines() do got[#got + 1] = line end
      assert.are.equal("01234567|89012345|67890123|456789", table.concat(got, "|"))
      assert.are.equal("3456789\n", handle.stdout)
      assert.are.equal(23, handle.stdout_dropped)
    end)

    it_("fails a loop with a raise, and leaves the error", function()
      local server = serve([[
        on.Start = function()
          begin()
          event('{"start":{"pid":7}}')
          output("stdout", "a line\nhalf")
          conn:close()
        end
      ]])
      local handle = start(server)
      local got = {}
      local ok, raised = e2b.pcall(function()
        for line in handle:lines() do got[#got + 1] = line end
      end)
      assert.is_false(ok)
      assert.is_truthy(raised:find("connect(7) finds the process again", 1, true), raised)
      assert.are.equal("network", handle.err.kind)
      assert.are.equal(7, handle.err.pid)
      assert.are.equal("a line", table.concat(got, "|"))
      assert.are.equal("a line\nhalf", handle.stdout)
      local none, message, err = handle:wait()
      assert.is_nil(none)
      assert.are.equal(raised, message)
      assert.are.equal(handle.err, err)
    end)

    it_("waits, with functions for the output", function()
      local handle = start(serve("on.Start = function() run(0, 'out', 'err') end"))
      local heard = {}
      local result = assert(handle:wait({
        on_stdout = function(data) heard[#heard + 1] = data end,
        on_stderr = function(data) heard[#heard + 1] = data end,
      }))
      assert.are.equal("out err", table.concat(heard, " "))
      assert.are.equal("out", result.stdout)
    end)

    it_("waits for some time, and the process goes on", function()
      local server = serve([[
        on.Start = function()
          begin()
          event('{"start":{"pid":7}}')
          conn:wait_signal("go")
          ended(0)
          finish()
        end
      ]])
      local handle = start(server)
      local began = core.now()
      local none, message, err = handle:wait({ timeout = 0.1 })
      assert.is_nil(none)
      assert.are.equal("timeout timeout 7", err.kind .. " " .. err.deadline .. " " .. err.pid)
      assert.is_truthy(message:find("the process (pid 7) goes on after 0.1 s", 1, true), message)
      assert.is_true(core.now() - began < 0.1 + support.tolerance)
      server:signal("go")
      assert.is_true(assert(handle:wait({ timeout = 5 })).ok)
      assert.are.equal(0, #envd_peer.messages(server, "SendSignal"))
    end)

    it_("fails with check", function()
      local server = serve("on.Start = function() run(2, nil, 'no') end")
      local _, _, err = start(server):wait({ check = true })
      assert.are.equal("exit 2", err.kind .. " " .. err.exit_code)
      _, _, err = start(server, { check = true }):wait()
      assert.are.equal("exit", err.kind)
      assert.are.equal(2, start(server):wait().exit_code)
    end)

    it_("kills, sends input and ends it", function()
      local server = serve(HANGS .. [[
        on.SendInput = function() answer(200) end
        on.CloseStdin = function() answer(200) end
      ]])
      local handle = start(server, { stdin = true })
      assert.is_true(handle:send_stdin("hi"))
      assert.is_true(handle:close_stdin())
      assert.are.same({ true, true }, { handle:kill() })
      for _, name in ipairs({ "SendInput", "CloseStdin", "SendSignal" }) do
        assert.are.equal(7, envd_peer.messages(server, name)[1].message.process.pid)
      end
    end)

    it_("sends large input in parts", function()
      local server = serve(HANGS .. [[
        on.SendInput = function()
          shared.count = (shared.count or 0) + 1
          if shared.count == 5 then return fail(500, "internal", "broken pipe") end
          answer(200)
        end
      ]])
      local handle = start(server, { stdin = true })
      assert.is_true(handle:send_stdin(("x"):rep(2 ^ 21 + 1)))
      assert.are.equal(3, #envd_peer.messages(server, "SendInput"))
      local ok, message, err = handle:send_stdin(("x"):rep(2 ^ 21))
      assert.is_nil(ok)
      assert.are.equal("server", err.kind)
      assert.is_truthy(message:find("(1048576 of 2097152 bytes had been sent)", 1, true), message)
    end)

    it_("lets go of the process", function()
      local server = serve(HANGS)
      local handle = start(server)
      handle:disconnect()
      handle:disconnect()
      server:wait_event("closed")
      assert.are.equal(0, #envd_peer.messages(server, "SendSignal"))
      assert.are.equal("Command(pid 7, disconnected)", tostring(handle))
      raises("the handle was disconnected; connect(pid) makes another", function() handle:read() end)
      raises("the handle was disconnected", function() handle:wait() end)
      assert.are.same({ true, true }, { handle:kill() })
    end)

    it_("knows the exit code after it let go", function()
      local handle = start(serve("on.Start = function() run(3) end"))
      assert(handle:wait())
      handle:disconnect()
      assert.are.equal(3, handle:wait().exit_code)
    end)

    it_("that is dropped leaves the process and no descriptor", function()
      local server = serve(HANGS)
      local function drop()
        local handle = start(server)
        handle:read()
      end
      drop()
      support.collect()
      server:wait_event("closed")
      assert.are.equal(0, core.stats().in_flight)
      assert.are.equal(0, #envd_peer.messages(server, "SendSignal"))
    end)

    it_("stops when a function of the caller's raises, and the raise goes on", function()
      local server = serve(HANGS)
      local handle = start(server)
      local ok, raised = e2b.pcall(function()
        handle:wait({ on_stdout = function() error("mine", 0) end })
      end)
      assert.is_false(ok)
      assert.are.equal("mine", raised)
      server:wait_event("closed")
      assert.are.equal("so far\n", handle.stdout)
    end)

    it_("of a terminal gives its bytes, can be made another size, and has no end of input", function()
      local server = serve([[
        on.Start = function()
          begin()
          event('{"start":{"pid":7}}')
          output("pty", "$ ls\r\n", "pty", "file")
          ended(0)
          finish()
        end
        on.Update = function() answer(200) end
        on.SendInput = function() answer(200) end
      ]])
      local link = require("e2b.envd").link(server.sandbox())
      local heard = {}
      local handle = assert(require("e2b.command_handle").open(link, "process_start", {
        process = { cmd = "bash" }, pty = { size = { cols = 80, rows = 24 } },
      }, nil, {
        operation = "spec", name = "bash", pty = true, on_pty = function(data) heard[#heard + 1] = data end,
      }))
      assert.is_true(handle:resize(100, 30))
      assert.is_true(handle:send_stdin("ls\r"))
      raises("a terminal's input can't be closed", function() handle:close_stdin() end)
      raises("cols must be a whole number", function() handle:resize(0, 30) end)
      raises("rows must be a whole number", function() handle:resize(10) end)
      local lines = {}
      for line, stream in handle:lines() do lines[#lines + 1] = stream .. " " .. line end
      assert.are.equal("pty $ ls\r|pty file", table.concat(lines, "|"))
      assert.are.equal("$ ls\r\nfile", table.concat(heard))
      assert.are.same({ cols = 100, rows = 30 }, envd_peer.messages(server, "Update")[1].message.pty.size)
      assert.are.equal("bHMN", envd_peer.messages(server, "SendInput")[1].message.input.pty)
      assert.are.equal("", handle.stdout)
    end)
  end)
end

describe("a handle", function()
  it("can be waited for by one task and read by another", function()
    local server = serve([[
      on.Start = function()
        begin()
        event('{"start":{"pid":7}}')
        for i = 1, 10 do
          conn:sleep(0.003)
          output("stdout", i % 10 .. "")
        end
        ended(0)
        finish()
      end
    ]])
    local handle = start(server)
    local result
    local _, failed = e2b.all(function() result = assert(handle:wait()) end, function()
      while handle:read() do end -- luacheck: ignore 542
    end, function() assert(handle:wait()) end)
    assert.are.equal(0, failed)
    assert.are.equal("1234567890", result.stdout)
  end)

  it("ends the wait of a task when another lets go", function()
    local handle = start(serve(HANGS))
    local ok, raised
    local task = e2b.spawn(function() ok, raised = e2b.pcall(handle.wait, handle) end)
    e2b.sleep(0.05)
    handle:disconnect()
    task:wait(1)
    assert.is_false(ok)
    assert.is_truthy(raised:find("the handle was disconnected", 1, true), raised)
  end)

  it("is not ended by the cancel of a task that waits for it", function()
    local server = serve([[
      on.Start = function()
        begin()
        event('{"start":{"pid":7}}')
        conn:wait_signal("go")
        ended(0)
        finish()
      end
    ]])
    local handle = start(server)
    local task = e2b.spawn(function() return handle:wait() end)
    e2b.sleep(0.03)
    task:cancel()
    local _, _, err = task:wait()
    assert.are.equal("cancelled", err.kind)
    server:signal("go")
    assert.is_true(assert(handle:wait()).ok)
    assert.are.equal(0, #envd_peer.messages(server, "SendSignal"))
  end)

  it("raises on what it doesn't have", function()
    local handle = start(serve("on.Start = function() run(0) end"))
    raises("there is no 'sendStdin': write send_stdin", function() handle:sendStdin("x") end)
    raises("there is no 'exitCode': write exit_code", function() return handle.exitCode end)
    raises("handle.wait needs a handle, got nil: write handle:wait(…)", function() handle.wait() end)
    raises("only a terminal has a size", function() handle:resize(80, 24) end)
    raises("unknown option 'timeoutMs' for handle:wait", function() handle:wait({ timeoutMs = 1 }) end)
    raises("bad option 'on_stdout' for handle:wait", function() handle:wait({ on_stdout = 1 }) end)
    assert.is_nil(handle.whatever)
    assert(handle:wait())
  end)

  if tonumber(_VERSION:match("5%.(%d)")) >= 4 then
    it("lets go at the end of its scope", function()
      local server = serve(HANGS)
      local chunk = assert(load("local handle <close> = ...; return handle:read()"))
      assert.are.equal("stdout", (chunk(start(server))))
      server:wait_event("closed")
      assert.are.equal(0, #envd_peer.messages(server, "SendSignal"))
    end)
  end
end)
