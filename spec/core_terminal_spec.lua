-- The core's terminal: raw mode, what puts it back, reading and writing without ever blocking.
local support = require("spec.support.support")
local posix = require("spec.support.posix")
local terminal = require("spec.support.terminal")

local HEAD = [[
  local core = require("e2b.core")
  io.stdout:setvbuf("no")
  local function count(command)
    local pipe = io.popen(command)
    local list = pipe:read("*a")
    pipe:close()
    return select(2, list:gsub("%S+", ""))
  end
  local t = assert(core.terminal(0, 1))
]]

describe("the core's terminal", function()
  after_each(terminal.close_all)

  local function at(source, options)
    return terminal.run(HEAD .. source, options)
  end

  it("is refused where there is none", function()
    local core = support.core()
    local read, write = posix.pipe()
    local t, message = core.terminal(read, write)
    assert.is_nil(t)
    assert.equal("the input is not a terminal", message)
    local _, path = posix.terminal(80, 24)
    local fd = posix.open(path, 2 + 256)
    t, message = core.terminal(fd, write)
    assert.is_nil(t)
    assert.equal("the output is not a terminal", message)
    for _, one in ipairs({ read, write, fd }) do posix.close(one) end
  end)

  it("knows its size", function()
    local one = at("print(t:size()) io.read() print(t:size())", { cols = 101, rows = 33 })
    one:expect("101\t33")
    one:resize(7, 5)
    one:type("\n")
    one:expect("7\t5")
    assert.equal(0, one:wait())
  end)

  it("has a size where it doesn't say", function()
    local one = at("print(t:size())", { cols = 0, rows = 0 })
    one:expect("80\t24")
    one:wait()
  end)

  it("gets every key as it is typed, and nothing is echoed", function()
    local one = at([[
      assert(t:raw())
      t:write("ready\r\n")
      local got = ""
      local until_ = core.now() + 20
      while #got < 6 and core.now() < until_ do
        local bytes = t:read()
        if bytes then got = got .. bytes end
      end
      assert(t:restore())
      print((got:gsub("%c", function(c) return "<" .. c:byte() .. ">" end)))
    ]])
    one:expect("ready\r\n")
    assert.is_true(one:is_raw())
    local shown = #one.shown
    one:type("a\3\26\r\4\28")
    one:expect("a<3><26><13><4><28>")
    assert.equal(0, one:wait())
    assert.equal("a<3><26><13><4><28>\r\n", one:look():sub(shown + 1))
    assert.equal(one.before, one:settings())
  end)

  it("says nothing when there is nothing, and nil when it is gone", function()
    local folder = support.tmpdir()
    local one = at([[
      assert(t:raw())
      local first = t:read()
      t:write("waiting")
      local bytes
      repeat
        core.engine():wait(1, nil, t:fd())
        bytes = t:read()
      until bytes == nil
      local file = io.open(arg[1], "w")
      file:write(tostring(first), " ", tostring(t:write("x")))
      file:close()
    ]], { args = { folder .. "/out" }, shell = "trap '' HUP; exec %s" })
    one:expect("waiting")
    posix.close(one.other)
    posix.close(one.fd)
    one.other, one.fd = posix.pipe()
    local text = support.wait_for(function()
      local text = support.read_file(folder .. "/out")
      return text and #text > 5 and text
    end)
    assert.equal("false nil", text)
    assert.equal(0, one:wait())
    support.cleanup(folder)
  end)

  it("is put back by close, by restore, by the collector and by the end of the state", function()
    for _, way in ipairs({
      "t:close()", "t:restore()", "t = nil collectgarbage() collectgarbage()", "error('a failing program')", "",
    }) do
      local one = at("assert(t:raw()) t:write('raw') io.read() " .. way)
      one:expect("raw")
      assert.is_true(one:is_raw())
      one:type("\n")
      one:wait()
      assert.equal(one.before, one:settings(), way)
      one:close()
    end
  end)

  it("is put back when the process is killed in whatever way", function()
    for _, how in ipairs({ 9, 15, 1, 11 }) do
      local one = at("assert(t:raw()) t:write('raw') while true do core.engine():wait(1) end")
      one:expect("raw")
      assert.is_true(one:is_raw())
      assert.is_true(posix.kill(one.pid, how))
      support.wait_for(function() return one:settings() == one.before end, 5, "the settings as they were")
      one:close()
    end
  end)

  it("is put back when its whole process group is killed", function()
    local one = at("assert(t:raw()) t:write('raw') while true do core.engine():wait(1) end")
    one:expect("raw")
    posix.kill(-one.pid, 9)
    support.wait_for(function() return one:settings() == one.before end, 5, "the settings as they were")
  end)

  it("is put back after os.exit that closes nothing", function()
    local one = at("assert(t:raw()) t:write('raw') io.read() os.exit(3)")
    one:expect("raw")
    one:type("\n")
    assert.equal(3, one:wait())
    support.wait_for(function() return one:settings() == one.before end, 5, "the settings as they were")
  end)

  it("is left alone by the guard when somebody has other plans for it by then", function()
    local one = at("assert(t:raw()) os.execute('stty -echo icanon isig opost') t:write('now') io.read() os.exit(0)")
    one:expect("now")
    local changed = one:settings()
    one:type("\n")
    one:wait()
    support.wait_for(function() return #one:processes() == 0 end, 5, "the end of the guard")
    assert.equal(changed, one:settings())
  end)

  it("leaves no guard and no zombie behind", function()
    local one = at([[
      local function children()
        return count("ps -o stat= --ppid " .. core.getpid())
      end
      local before = children()
      for _ = 1, 5 do
        assert(t:raw())
        assert(t:raw()) -- twice is nothing
        assert(children() == before + 1, "there is no guard")
        assert(t:restore())
        assert(t:restore())
        assert(children() == before, "the guard is still there")
      end
      assert(t:raw())
      t:close()
      t:close()
      assert(children() == before)
      assert(tostring(t) == "e2b.terminal (closed)")
      assert(not pcall(t.read, t))
      print("done")
    ]])
    one:expect("done")
    assert.equal(0, one:wait())
    support.wait_for(function() return #one:processes() == 0 end, 5, "the end of everything at the terminal")
  end)

  it("is the parent's business when a child is forked", function()
    local one = terminal.run([[
      local posix = require("spec.support.posix")
    ]] .. HEAD .. [[
      assert(t:raw())
      local pid = posix.fork()
      if pid == 0 then
        t:restore()
        t:close()
        posix.exit(0)
      end
      assert(posix.wait(pid) == 0)
      t:write("child over")
      io.read()
      t:close()
    ]])
    one:expect("child over")
    assert.is_true(one:is_raw())
    one:type("\n")
    assert.equal(0, one:wait())
    assert.equal(one.before, one:settings())
  end)

  it("gives the guard none of our descriptors, and leaves none behind", function()
    local one = at([[
      local fds = require("spec.support.support").fd_count
      local own = core.getpid()
      collectgarbage() collectgarbage()
      local before = fds()
      assert(t:raw())
      local guard = io.popen("pgrep -P " .. own .. " -x " .. "$(ps -o comm= -p " .. own .. ")"):read("*n")
      assert(guard, "no guard")
      collectgarbage() collectgarbage()
      local its = count("ls /proc/" .. guard .. "/fd")
      assert(its == 2, "the guard has " .. its)
      t:restore()
      collectgarbage() collectgarbage()
      assert(fds() == before, "ours: " .. fds() .. " not " .. before)
      local function make() for _ = 1, 20 do assert(core.terminal(0, 1)) end end
      make()
      collectgarbage() collectgarbage()
      assert(fds() == before, "after making some: " .. fds() .. " not " .. before)
      print("same")
    ]])
    one:expect("same")
    assert.equal(0, one:wait())
  end)

  it("never blocks in a write, and doesn't make others' descriptors non-blocking", function()
    local one = at([[
      assert(t:raw())
      local most, total = 0, 0
      for _ = 1, 100 do
        local began = core.now()
        local taken = assert(t:write(("x"):rep(65536)))
        most = math.max(most, core.now() - began)
        total = total + taken
        if taken == 0 then break end
      end
      io.stderr:write("stuck\n")
      t:restore()
      local longest = most < 0.25 and "in time" or "late: " .. most
      -- a blocking write of somebody else's waits for room, and fails not
      assert(io.write(("y"):rep(100000)))
      print(longest, total)
    ]])
    support.sleep(0.3)
    one:expect("in time", 20)
    assert.equal(0, one:wait())
    assert.equal(100000, select(2, one.shown:gsub("y", "")))
  end)

  it("raises on what is no place in the bytes", function()
    local one = at([[
      for _, skip in ipairs({ -1, 4, 1e300 }) do assert(not pcall(t.write, t, "abc", skip)) end
      assert(t:write("abc", 3) == 0)
      assert(t:write("abcdef", 3) == 3)
      print("ok")
    ]])
    one:expect("defok")
    assert.equal(0, one:wait())
  end)
end)
