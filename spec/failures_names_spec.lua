-- Names that hold whatever a name can hold, and directories that hold a lot, in a real sandbox.
local envd_peer = require("spec.support.envd_peer")
local platform = require("spec.support.platform")
local support = require("spec.support.support")
local book = require("e2b.sandbox_book")
local e2b = require("e2b")

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

  local function it_(name, fn)
    for _, mode in ipairs(envd_peer.MODES) do
      it(name .. " (" .. mode.name .. ")", function() mode.run(fn) end)
    end
  end

  local NAMES = { "-rf", "--", "..x", "...", " ", "  lead", "trail ", "%41", "%", "a%2Fb", "~", "~root", "$HOME",
    "`id`", "*", "?", "&", "#frag", "a?b=c&d", "+", "a\nb", "\n", "\r\n", "\27[2J", "'", '"', "\\", "\\n", "a;b", "{}",
    "\195\188",
    ("\230\150\135"):rep(85), ("n"):rep(255), "\239\187\191bom", "\244\143\191\191" }
  for code = 1, 127 do
    local char = string.char(code)
    if char ~= "/" and char ~= "." then NAMES[#NAMES + 1] = char .. "x" end
  end

  it_("a name may hold every character, both ways and wherever names go", function()
    local files = sandbox.files
    assert(files:make_dir("names"))
    local watcher = assert(files:watch_dir("names"))
    local seen = {}
    for i, name in ipairs(NAMES) do
      local path = "names/" .. name
      local info = assert(files:write(path, "of " .. i))
      assert(info.name == name and info.path == "/home/user/" .. path, info.path)
      assert(files:read(path) == "of " .. i and files:exists(path))
      assert(assert(files:get_info(path)).name == name)
    end
    while not seen[NAMES[#NAMES]] do seen[assert(watcher:next(5)).name] = true end
    watcher:stop()
    local listed, count = {}, 0
    for _, entry in ipairs(assert(files:list("names"))) do
      listed[entry.name], count = entry, count + 1
      assert(not tostring(entry):find("[%z\1-\31\127]"), "what is shown of a name controls the terminal")
    end
    assert(count == #NAMES, count)
    for _, name in ipairs(NAMES) do
      assert(listed[name] and listed[name].path == "/home/user/names/" .. name, name)
      assert(seen[name], name)
    end
    -- Through a process, as words.
    local found = assert(sandbox.commands:run({ "find", "names", "-type", "f", "-printf", "%f\\0" })).stdout
    for name in found:gmatch("([^%z]+)%z") do listed[name] = nil end
    assert(next(listed) == nil)
    local words, all = { "cat" }, {}
    for i, name in ipairs(NAMES) do words[i + 1], all[i] = "names/" .. name, "of " .. i end
    assert(assert(sandbox.commands:run(words)).stdout == table.concat(all))
    for _, name in ipairs(NAMES) do
      local path = "names/" .. name
      local other = "names/2" .. name:sub(1, 200):gsub("[\128-\255]+$", "")
      assert(assert(files:rename(path, other)).path == "/home/user/" .. other)
      assert(files:remove(other))
    end
    assert(#assert(files:list("names")) == 0)
    assert(files:remove("names"))
  end)

  it_("a name that is no UTF-8 is the same file, or is refused: never another file", function()
    local files, bad = sandbox.files, {}
    for code = 128, 255 do bad[#bad + 1] = "raw/x" .. string.char(code) .. "y" end
    for _, text in ipairs({ "\192\175", "\237\160\128", "\244\144\128\128", "\240\128\128\128", "\226\130" }) do
      bad[#bad + 1] = "raw/" .. text
    end
    local innocent = "raw/x\239\191\189y" -- what a careless reader makes of it
    assert(files:write(innocent, "innocent"))
    for i, path in ipairs(bad) do
      assert(assert(files:write(path, "of " .. i)).path == "/home/user/" .. path)
      assert(files:read(path) == "of " .. i)
    end
    for i = 1, #bad, 6 do
      local path = bad[i]
      fails("invalid_argument", files:exists(path))
      fails("invalid_argument", files:get_info(path))
      fails("invalid_argument", files:remove(path))
      fails("invalid_argument", files:rename(path, "raw/other"))
      fails("invalid_argument", files:rename(innocent, path))
      fails("invalid_argument", files:make_dir(path .. "d"))
      fails("invalid_argument", files:list(path))
      fails("invalid_argument", sandbox.commands:run({ "rm", path }))
      local err = fails("invalid_argument", files:write(path, "new", { atomic = true }))
      assert(err.sent == "no" and err.bytes_sent == 0)
    end
    assert(files:read(innocent) == "innocent")
    assert(shell("ls raw | wc -l") == #bad + 1 .. "\n") -- and nothing else was made
    assert(#assert(files:list("raw")) == #bad + 1)
    shell("rm -r raw")
  end)

  it_("10,000 entries are listed in order, while another task goes on", function()
    local zeros = ("0"):rep(195)
    shell("rm -rf many; mkdir many && cd many && seq -f '" .. zeros .. "%05.0f' 10000 | xargs touch")
    local ticks = 0
    local ticker = e2b.spawn(function()
      while e2b.sleep(0.01) do ticks = ticks + 1 end
    end)
    local list = assert(sandbox.files:list("many"))
    assert(#list == 10000)
    for i = 1, 10000 do assert(list[i].name == zeros .. ("%05d"):format(i)) end
    assert(ticks > 5, ticks)
    ticker:cancel()
    ticker:wait()
    assert(#tostring(list) > 2000000)
    assert(sandbox.files:remove("many"))
    assert(sandbox.files:exists("many") == false)
  end)

  it_("a watch loses nothing of 2,000 files that are made at once", function()
    assert(sandbox.files:make_dir("flood"))
    local watcher = assert(sandbox.files:watch_dir("flood"))
    shell("cd flood && seq 2000 | xargs touch")
    e2b.sleep(0.2)
    local created, count = {}, 0
    while count < 2000 do
      local event = assert(watcher:next(10))
      if event.type == "create" then
        assert(not created[event.name], "twice: " .. event.name)
        created[event.name], count = true, count + 1
      end
    end
    for i = 1, 2000 do assert(created[tostring(i)]) end
    watcher:stop()
    assert(sandbox.files:remove("flood"))
  end)

  it_("what is asked for beside all limits is refused in words", function()
    local files = sandbox.files
    fails("server", files:write(("n"):rep(256), "x"))
    fails("server", files:write(("n/"):rep(100) .. ("n"):rep(4000), "x"))
    local err = fails("invalid_argument", files:list("/etc/passwd"))
    assert(err.message:find("not a directory", 1, true), err.message)
    fails("not_found", files:read("nothing\27[2Jhere"))
    fails("not_found", sandbox.commands:connect(4294967295))
    fails("invalid_argument", sandbox.commands:run("true", { cwd = "/no\nwhere" }))
  end)
end)
