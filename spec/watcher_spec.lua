-- Watching a directory, against a peer that plays the daemon.
local support = require("spec.support.support")
local e2b = require("e2b")
local core = require("e2b.core")
local envd_peer = require("spec.support.envd_peer")

local DAEMON = [==[
  local function happened(name, kind, more)
    return send(('{"filesystem":{"name":"%s","type":"EVENT_TYPE_%s"%s}}'):format(name, kind, more or ""))
  end
  function on.WatchDir(message)
    local path = message.path
    begin()
    if path == "missing" then
      return finish('{"error":{"code":"not_found","message":"path /home/user/missing not found"}}')
    elseif path == "file" then
      return finish('{"error":{"code":"invalid_argument","message":"path is not a directory"}}')
    elseif path == "odd" then
      happened("x", "CREATE")
      return conn:wait_closed()
    elseif path == "mute" then
      return conn:wait_closed()
    end
    send('{"start":{}}')
    if path == "ends" then
      return finish()
    elseif path == "overflows" then
      happened("x", "CREATE")
      return finish('{"error":{"code":"internal","message":"queue overflow"}}')
    elseif path == "cut" then
      happened("x", "CREATE")
      return conn:close()
    elseif path == "quiet" then
      send('{"keepalive":{}}')
      return conn:wait_closed()
    elseif path == "alive" then
      for _ = 1, 6 do
        conn:sleep(0.1)
        send('{"keepalive":{}}')
      end
      happened("x", "CREATE")
      return conn:wait_closed()
    elseif path == "many" then
      for i = 1, 5000 do happened("f" .. i, "CREATE") end
      return conn:wait_closed()
    end
    happened("x", "CREATE", ',"entry":{"name":"x","path":"/d/x","type":"FILE_TYPE_FILE","size":"3"}')
    send('{"keepalive":{}}')
    happened("x", "CHMOD")
    happened("x", "WRITE")
    send('{"filesystem":{"name":"strange","type":17}}')
    send('{"filesystem":{"name":"stranger"}}')
    happened("x", "RENAME")
    happened("sub/y", "REMOVE")
    conn:wait_signal("more")
    happened("late", "CREATE")
    return conn:wait_closed()
  end
]==]

describe("a watcher", function()
  local server, files

  setup(function() server = envd_peer.start(DAEMON) end)
  teardown(function()
    e2b.close()
    server:stop()
  end)

  before_each(function() files = server.sandbox().files end)

  local function events_of(list)
    local out = {}
    for i, event in ipairs(list) do out[i] = event.type .. " " .. event.name end
    return out
  end

  local EXPECTED = { "create x", "chmod x", "write x", "rename x", "remove sub/y" }

  for _, mode in ipairs(envd_peer.MODES) do
    describe("in " .. mode.name, function()
      local function run(name, fn)
        it(name, function() mode.run(fn) end)
      end

      run("tells what happens, one by one", function()
        local watcher = assert(files:watch_dir("d", { recursive = true, include_entry = true }))
        assert.equal("Watcher(d, watching)", tostring(watcher))
        local all = envd_peer.messages(server, "WatchDir")
        local sent = all[#all]
        assert.same({ path = "d", recursive = true, includeEntry = true }, sent.message)
        assert.equal("50", sent.headers["keepalive-ping-interval"])
        assert.is_nil(sent.headers["connect-timeout-ms"])
        local list = {}
        for i = 1, #EXPECTED do list[i] = assert(watcher:next(5)) end
        assert.same(EXPECTED, events_of(list))
        assert.same({ "/d/x", "file", 3 }, { list[1].entry.path, list[1].entry.type, list[1].entry.size })
        assert.is_nil(list[2].entry)
        local seconds, event, message = support.timed(watcher.next, watcher, 0.2)
        assert.is_false(event)
        assert.is_nil(message)
        assert.is_true(seconds >= 0.19 and seconds < 0.2 + support.tolerance, seconds)
        watcher:stop()
      end)

      run("tells what has happened, without waiting", function()
        local watcher = assert(files:watch_dir("d"))
        local list = {}
        support.wait_for(function()
          local seconds, new = support.timed(watcher.get_new_events, watcher)
          assert.is_true(seconds < 0.05 * support.slack)
          for _, event in ipairs(new) do list[#list + 1] = event end
          return #list >= #EXPECTED
        end)
        assert.same(EXPECTED, events_of(list))
        assert.same({}, watcher:get_new_events())
        watcher:stop()
        local ok, message = e2b.pcall(watcher.get_new_events, watcher)
        assert.is_false(ok)
        assert.matches("the watcher is stopped", message)
      end)

      run("says why it could not begin", function()
        local value, text, err = files:watch_dir("missing")
        assert.is_nil(value)
        assert.same({ "not_found", "file", "i1" }, { err.kind, err.resource, err.sandbox_id })
        assert.matches("sandbox.files:watch_dir: the file was not found", text, nil, true)
        value, _, err = files:watch_dir("file")
        assert.is_nil(value)
        assert.equal("invalid_argument", err.kind)
        value, _, err = files:watch_dir("odd")
        assert.is_nil(value)
        assert.equal("protocol", err.kind)
        value, _, err = files:watch_dir("mute", { request_timeout = 0.2 })
        assert.is_nil(value)
        assert.same({ "timeout", "request_timeout" }, { err.kind, err.deadline })
      end)

      run("says why it ended", function()
        for path, kind in pairs({ overflows = "server", cut = "network", ends = "protocol" }) do
          local watcher = assert(files:watch_dir(path))
          local event, text, err
          repeat event, text, err = watcher:next(5) until not event
          assert.is_nil(event)
          assert.equal(kind, err.kind, text)
          assert.equal(err, watcher.err)
          assert.equal("Watcher(" .. path .. ", failed)", tostring(watcher))
          local again, more = watcher:next()
          assert.same({ nil, text }, { again, more })
        end
      end)

      run("notices that not even signs of life come", function()
        local watcher = assert(files:watch_dir("quiet", { idle_timeout = 0.3 * support.slack }))
        local event, text, err = watcher:next(5 * support.slack)
        assert.is_nil(event)
        assert.same({ "timeout", "idle_timeout" }, { err.kind, err.deadline }, text)
        watcher = assert(files:watch_dir("alive", { idle_timeout = 0.3 * support.slack }))
        assert.equal("x", assert(watcher:next(5 * support.slack)).name)
        watcher:stop()
      end)

      run("ends at its timeout", function()
        local watcher = assert(files:watch_dir("quiet", { timeout = 0.3 }))
        local all = envd_peer.messages(server, "WatchDir")
        assert.equal("300", all[#all].headers["connect-timeout-ms"])
        local seconds, event, _, err = support.timed(watcher.next, watcher)
        assert.is_nil(event)
        assert.same({ "timeout", "timeout" }, { err.kind, err.deadline })
        assert.is_true(seconds < 0.3 + 2 * support.tolerance, seconds)
      end)

      run("gives each of many events", function()
        local watcher = assert(files:watch_dir("many"))
        for i = 1, 5000 do assert.equal("f" .. i, watcher:next(5).name) end
        watcher:stop()
      end)
    end)
  end

  it("is iterated in a generic for", function()
    local watcher = assert(files:watch_dir("d"))
    local list = {}
    for event in watcher:events() do
      list[#list + 1] = event
      if #list == #EXPECTED then watcher:stop() end
    end
    assert.same(EXPECTED, events_of(list))
    watcher = assert(files:watch_dir("overflows"))
    local ok, message = pcall(function()
      for _ in watcher:events() do end -- luacheck: ignore 542
    end)
    assert.is_false(ok)
    assert.matches("queue overflow", message)
    assert.equal(watcher.err.message, message)
  end)

  it("that is stopped lets go of who waits for it", function()
    local watcher = assert(files:watch_dir("quiet"))
    local task = e2b.spawn(function()
      local event, message = watcher:next()
      assert(event == nil and message == nil)
      return "let go"
    end)
    assert(e2b.sleep(0.1))
    assert.is_true(watcher:stop())
    assert.equal("let go", task:wait(5))
    assert.is_true(watcher:stop())
    assert.is_nil((watcher:next()))
    assert.equal("Watcher(quiet, stopped)", tostring(watcher))
  end)

  it("goes on when a task that waits for it is cancelled", function()
    local watcher = assert(files:watch_dir("alive"))
    local task = e2b.spawn(function() return watcher:next() end)
    assert(e2b.sleep(0.1))
    task:cancel()
    local _, _, err = task:wait(5)
    assert.equal("cancelled", err.kind)
    assert.is_nil(watcher.err)
    assert.equal("Watcher(alive, watching)", tostring(watcher))
    assert.equal("x", assert(watcher:next(5)).name)
    watcher:stop()
  end)

  it("ends with what holds it", function()
    local function closed() return #server:events("closed") end
    local before = closed()
    do
      local watcher = assert(files:watch_dir("quiet")) -- luacheck: ignore 211
    end
    collectgarbage()
    collectgarbage()
    support.wait_for(function() return closed() > before end, 5, "the stream's end")
    assert.equal(0, core.stats().in_flight)
    if _VERSION >= "Lua 5.4" then
      before = closed()
      assert(load("local watcher <close> = ...; watcher:get_new_events()"))(assert(files:watch_dir("quiet")))
      support.wait_for(function() return closed() > before end, 5, "the stream's end")
    end
  end)

  it("needs a daemon that can do it", function()
    local old = envd_peer.start(DAEMON, { version = "0.1.3" })
    local of = old.sandbox().files
    for name, version in pairs({ recursive = "0.1.4", include_entry = "0.6.3", allow_network_mounts = "0.6.4" }) do
      local value, text, err = of:watch_dir("d", { [name] = true })
      assert.is_nil(value)
      assert.equal("unsupported", err.kind)
      assert.matches(version, text, nil, true)
      local watcher = assert(of:watch_dir("d", { [name] = false }))
      watcher:stop()
    end
    old:stop()
  end)

  it("raises at what is wrong with a call", function()
    local watcher = assert(files:watch_dir("quiet"))
    local function raises(text, fn, ...)
      local ok, message = pcall(fn, ...)
      assert.is_false(ok, text)
      assert.matches(text, message, nil, true)
      assert.matches("watcher_spec.lua:%d+: ", message)
    end
    raises("for event in watcher:events() do", files.watch_dir, files, "d", print)
    raises("did you mean 'include_entry'?", files.watch_dir, files, "d", { includeEntry = true })
    raises("the events come from watcher:next()", files.watch_dir, files, "d", { on_event = print })
    raises("watcher:next() says how the watch ended", files.watch_dir, files, "d", { onExit = print })
    raises("bad option 'recursive'", files.watch_dir, files, "d", { recursive = 1 })
    raises("bad option 'timeout'", files.watch_dir, files, "d", { timeout = -1 })
    raises("write watcher:next()", watcher.next)
    raises("write watcher:stop()", watcher.stop, files)
    raises("bad argument to watcher:next", watcher.next, watcher, "5")
    watcher:stop()
  end)
end)
