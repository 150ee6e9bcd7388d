-- Watching folders through the daemon: the stream, the watchers that are polled, and the events of real changes.
local daemon_process = require("spec.support.daemon")
local native = require("e2b.server.native")
local support = require("spec.support.support")

describe("watching", function()
  local daemon, home, open_streams, open_watchers

  setup(function()
    daemon = daemon_process.start()
    home = daemon.root .. "/home/user"
  end)

  teardown(function()
    daemon:stop()
  end)

  before_each(function()
    open_streams, open_watchers = {}, {}
    support.shell("rm -rf " .. home .. "/* && mkdir " .. home .. "/w")
  end)

  after_each(function()
    for _, stream in ipairs(open_streams) do
      stream:close()
    end
    for _, id in ipairs(open_watchers) do
      daemon:rpc("RemoveWatcher", { watcherId = id })
    end
    assert.equal("", daemon:complaints())
  end)

  local function shell(command)
    local output, code = support.shell("cd " .. home .. "/w && " .. command)
    assert(code == 0, output)
  end

  -- A polled watcher; answers a function that gives what is new as "TYPE name" words.
  local function watch(message)
    message = message or {}
    message.path = message.path or "w"
    local answer = daemon:rpc("CreateWatcher", message)
    assert(answer.status == 200, answer.body)
    local id = answer.json.watcherId
    open_watchers[#open_watchers + 1] = id
    return function()
      local list = daemon:rpc("GetWatcherEvents", { watcherId = id }).json.events or {}
      local words = {}
      for i, event in ipairs(list) do
        words[i] = event.type:gsub("^EVENT_TYPE_", "") .. " " .. event.name
      end
      return words, list
    end, id
  end

  local function open(message, headers)
    message.path = message.path or "w"
    local stream = daemon:stream("WatchDir", message, headers)
    open_streams[#open_streams + 1] = stream
    return stream
  end

  describe("by polling", function()
    it("tells a new upload in exactly three events", function()
      local events = watch()
      daemon:write("w/new.txt", "content")
      assert.same({ "CREATE new.txt", "CHMOD new.txt", "WRITE new.txt" }, (events()))
      assert.same({}, (events()))
      daemon:write("w/new.txt", "again")
      local list = events()
      assert.equal("CHMOD new.txt", list[1])
      assert.equal("WRITE new.txt", list[#list])
      daemon:write("w/empty.txt", "")
      assert.same({ "CREATE empty.txt", "CHMOD empty.txt" }, (events()))
    end)

    it("tells each kind of change", function()
      shell("touch a b && mkdir d")
      local events = watch()
      shell("chmod 600 a")
      shell("printf x >> a")
      shell("mv a c")
      shell("mv c ..")
      shell("mv ../c .")
      shell("rm b")
      shell("rmdir d")
      assert.same({
        "CHMOD a", "WRITE a", "RENAME a", "CREATE c", "RENAME c", "CREATE c", "REMOVE b", "REMOVE d",
      }, (events()))
      daemon:rpc("MakeDir", { path = "w/made" })
      assert.same({ "CREATE made", "CHMOD made" }, (events()))
      shell("cat c >/dev/null && ls >/dev/null")
      assert.same({}, (events()))
    end)

    it("tells what happens to the folder itself", function()
      local events = watch()
      shell("chmod 700 .")
      assert.same({ "CHMOD ." }, (events()))
      shell("mv ../w ../v")
      assert.same({ "RENAME ." }, (events()))
      support.shell("rmdir " .. home .. "/v")
      local list = events()
      assert.equal("REMOVE .", list[#list])
    end)

    it("does not look below, unless asked", function()
      shell("mkdir -p nested/deep")
      local flat, recursive = watch(), watch({ recursive = true })
      shell("touch nested/file nested/deep/file")
      assert.same({}, (flat()))
      assert.same({
        "CREATE nested/file", "CHMOD nested/file", "CREATE nested/deep/file", "CHMOD nested/deep/file",
      }, (recursive()))
      shell("chmod 700 nested")
      assert.same({ "CHMOD nested" }, (recursive()))
    end)

    it("watches new folders as soon as it sees them", function()
      local events = watch({ recursive = true })
      daemon:rpc("MakeDir", { path = "w/a/b" })
      assert.same({ "CREATE a", "CHMOD a" }, (function()
        local list = events()
        return { list[1], list[2] }
      end)())
      daemon:write("w/a/b/f", "x")
      assert.same({ "CREATE a/b/f", "CHMOD a/b/f", "WRITE a/b/f" }, (events()))
    end)

    it("knows folders under their new names", function()
      shell("mkdir -p old/sub")
      local events = watch({ recursive = true })
      shell("mv old new")
      assert.same({ "RENAME old", "CREATE new" }, (events()))
      shell("touch new/sub/f")
      assert.same({ "CREATE new/sub/f", "CHMOD new/sub/f" }, (events()))
      shell("mv new ../gone")
      assert.same({ "RENAME new" }, (events()))
      support.shell("touch " .. home .. "/gone/sub/g " .. home .. "/gone/h")
      assert.same({}, (events()))
      shell("rm -rf ../gone && mkdir again")
      assert.same({ "CREATE again" }, (events()))
    end)

    it("describes what is there, when asked", function()
      shell("touch a")
      local events = watch({ includeEntry = true })
      shell("chmod 600 a && printf x > b")
      local _, list = events()
      assert.equal("/home/user/w/a", list[1].entry.path)
      assert.equal("-rw-------", list[1].entry.permissions)
      assert.equal("/home/user/w/b", list[2].entry.path)
      shell("rm a && touch a && mv b c")
      local words
      words, list = events()
      for i, word in ipairs(words) do
        if word:find("^REMOVE") or word:find("^RENAME") then
          assert.is_nil(list[i].entry)
        elseif not word:find(" b$") then
          assert.is_table(list[i].entry)
        end
      end
      assert.equal("REMOVE a", words[1])
    end)

    it("is over when the watcher is removed", function()
      local events, id = watch()
      assert.matches("^w[a-z0-9]+$", id)
      assert.equal(21, #id)
      assert.same({}, (events()))
      assert.equal("{}", daemon:rpc("RemoveWatcher", { watcherId = id }).body)
      for _, call in ipairs({ "GetWatcherEvents", "RemoveWatcher" }) do
        local answer = daemon:rpc(call, { watcher_id = id })
        assert.equal(404, answer.status)
        assert.same({ code = "not_found", message = "watcher with id " .. id .. " not found" }, answer.json)
      end
    end)

    it("reports lost events, again and again", function()
      local limit = tonumber(support.read_file("/proc/sys/fs/inotify/max_queued_events") or "")
      if not limit or limit > 100000 then
        return
      end
      -- A stopped daemon can't empty the queue.
      local pid = daemon:pid()
      shell("touch f0 f1")
      local events, id = watch()
      assert.same({}, (events()))
      support.shell("kill -STOP " .. pid)
      -- Two in turn: the same again would be put together with the one before.
      for i = 0, limit + 1000 do
        native.fs_chmod(home .. "/w/f" .. i % 2, 384)
      end
      support.shell("kill -CONT " .. pid)
      for _ = 1, 2 do
        local answer = daemon:rpc("GetWatcherEvents", { watcherId = id })
        assert.equal(500, answer.status)
        assert.same({ code = "internal", message = "watcher error: fsnotify: queue or buffer overflow" }, answer.json)
      end
    end)

    it("keeps many watchers apart and leaves no descriptor behind", function()
      local function descriptors()
        local pid = daemon:pid()
        return #native.fs_readdir("/proc/" .. pid .. "/fd")
      end
      local before = descriptors()
      local ids, polls = {}, {}
      for i = 1, 30 do
        shell("mkdir d" .. i)
        polls[i], ids[i] = watch({ path = "w/d" .. i })
      end
      assert.is_true(descriptors() >= before + 30)
      shell("touch d7/x")
      assert.same({ "CREATE x", "CHMOD x" }, (polls[7]()))
      assert.same({}, (polls[8]()))
      for _, id in ipairs(ids) do
        daemon:rpc("RemoveWatcher", { watcherId = id })
      end
      support.wait_for(function()
        return descriptors() <= before
      end, 5, "the descriptors to be closed")
    end)
  end)

  describe("by a stream", function()
    it("starts when it is armed, then tells what happens", function()
      local stream = open({})
      assert.equal(200, stream.status)
      assert.equal("application/connect+json", stream.headers["content-type"])
      assert.same({ start = {} }, (stream:next()))
      daemon:write("w/f", "x")
      for _, kind in ipairs({ "CREATE", "CHMOD", "WRITE" }) do
        assert.same({ filesystem = { name = "f", type = "EVENT_TYPE_" .. kind } }, (stream:next()))
      end
      assert.is_false((stream:next(0.05)))
    end)

    it("describes what is there, when asked", function()
      local stream = open({ include_entry = true, recursive = true, path = "" })
      stream:next()
      shell("mkdir new")
      local event = stream:next().filesystem
      assert.equal("w/new", event.name)
      assert.equal("/home/user/w/new", event.entry.path)
      assert.equal("FILE_TYPE_DIRECTORY", event.entry.type)
    end)

    it("ends at its deadline", function()
      local stream = open({}, { ["Connect-Timeout-Ms"] = "300" })
      assert.same({ start = {} }, (stream:next()))
      local seconds, message, flags = support.timed(stream.next, stream)
      assert.same({ error = { code = "deadline_exceeded", message = "context deadline exceeded" } }, message)
      assert.equal(2, flags)
      -- Far from both: never, and the keepalive.
      assert.is_true(seconds < 5 * support.slack, seconds)
      assert.is_nil((stream:next()))
    end)

    it("keeps the connection alive", function()
      local stream = open({}, { ["Keepalive-Ping-Interval"] = "1" })
      stream:next()
      local seconds, message = support.timed(stream.next, stream)
      assert.same({ keepalive = {} }, message)
      assert.is_true(seconds > 0.5, seconds)
      assert.same({ keepalive = {} }, (stream:next()))
    end)

    it("is freed when the client leaves", function()
      local function watches()
        local pid = daemon:pid()
        local output = support.shell("readlink /proc/" .. pid .. "/fd/* | grep -c inotify")
        return tonumber(output:match("%d+"))
      end
      local before = watches()
      local streams = {}
      for i = 1, 5 do
        streams[i] = open({})
        streams[i]:next()
      end
      assert.equal(before + 5, watches())
      for _, stream in ipairs(streams) do
        stream:close()
      end
      support.wait_for(function()
        return watches() == before
      end, 5, "the watches to end")
    end)

    it("passes on a flood", function()
      local stream = open({})
      stream:next()
      shell("touch $(seq -f 'f%g' 1 100)")
      local seen = 0
      while seen < 200 do
        local message = stream:next()
        assert.is_table(message.filesystem)
        seen = seen + 1
      end
    end)
  end)

  it("is refused for what is no folder", function()
    shell("touch file")
    for _, case in ipairs({
      { "none", 404, "not_found", "path /home/user/none not found: stat /home/user/none: no such file or directory" },
      { "w/file", 400, "invalid_argument", "path /home/user/w/file not a directory" },
      { "w/file/x", 500, "internal",
        "error statting path /home/user/w/file/x: stat /home/user/w/file/x: not a directory" },
    }) do
      local answer = daemon:rpc("CreateWatcher", { path = case[1] })
      assert.equal(case[2], answer.status)
      assert.same({ code = case[3], message = case[4] }, answer.json)
      local stream = open({ path = case[1] })
      assert.equal(200, stream.status)
      assert.same({ error = { code = case[3], message = case[4] } }, (stream:next()))
    end
  end)
end)
