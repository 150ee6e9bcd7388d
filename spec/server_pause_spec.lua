-- Pausing a sandbox of the local server: what runs in it stands still, and goes on as if nothing had been.
local local_server = require("e2b.server")
local native = require("e2b.server.native")
local sandboxes = require("spec.support.sandboxes")
local support = require("spec.support.support")

for _, isolation in ipairs({ true, false }) do
  describe("pausing a sandbox " .. (isolation and "with walls" or "without walls"), function()
    local folder, server, one

    setup(function()
      folder = support.tmpdir()
      server = local_server.start({ directory = folder, isolation = isolation })
    end)

    teardown(function()
      server:stop()
      support.cleanup(folder)
    end)

    before_each(function()
      one = sandboxes.create(server)
    end)

    after_each(function()
      one.client:delete("/sandboxes/" .. one.id)
      sandboxes.wait_for_end(one.id)
    end)

    local function post(path, body)
      return one.client:post("/sandboxes/" .. one.id .. path, body)
    end

    local function resume(body)
      local answer = one.client:post("/v2/sandboxes/" .. one.id .. "/connect", body)
      assert.equal(201, answer.status)
    end

    -- A process that counts; its stream and pid.
    local function counter()
      local stream = one:start("i=0; while :; do i=$((i+1)); echo $i > count; echo $i; sleep 0.02; done")
      local pid = stream:event().start.pid
      stream:event()
      return stream, pid
    end

    local function file()
      local tree = sandboxes.tree(folder, one.id)
      return tonumber((support.read_file(tree .. "/root/home/user/count") or ""):match("%d+"))
    end

    it("stops its processes and continues them, with memory and files", function()
      local stream, pid = counter()
      assert.equal(204, post("/pause").status)
      -- Whoever was listening is cut off, as a stream through the edge would be.
      assert.has_error(function() stream:rest() end)
      local before = file()
      support.sleep(0.2)
      assert.equal(before, file())
      assert.equal("The sandbox was not found", one:call("/process.Process/List", {}).json.message)
      resume()
      support.wait_for(function() return (file() or 0) > before + 3 end, 5, "the counter to go on")
      local list = one:call("/process.Process/List", {}).json.processes
      assert.equal(pid, list[1].pid)
      local again = one:open("/process.Process/Connect", { process = { pid = pid } })
      assert.equal(pid, again:event().start.pid)
      local seen = tonumber((native.base64_decode(again:event().data.stdout):match("^%d+")))
      assert.is_true(seen > before)
      again:close()
    end)

    it("stops what detached itself too", function()
      one:shell("(setsid sh -c 'i=0; while :; do i=$((i+1)); echo $i > count; sleep 0.02; done' >/dev/null 2>&1 &)")
      support.wait_for(file, 5, "the first count")
      assert.equal(204, post("/pause").status)
      local before = file()
      support.sleep(0.2)
      assert.equal(before, file())
      resume()
      support.wait_for(function() return (file() or 0) > before end, 5, "it to go on")
    end)

    it("without memory ends the processes and keeps the files", function()
      counter()
      assert.equal(204, post("/pause", { memory = false }).status)
      sandboxes.wait_for_end(one.id)
      local before = file()
      resume()
      assert.same({}, one:call("/process.Process/List", {}).json)
      assert.equal(before .. "\n", one:shell("cat count").stdout)
    end)

    it("with memory can still be resumed without", function()
      local _, pid = counter()
      assert.equal(204, post("/pause").status)
      resume({ memory = false, timeout = 60 })
      local before = file()
      assert.is_true(before > 0)
      assert.equal(404, one:call("/process.Process/SendSignal",
        { process = { pid = pid }, signal = "SIGNAL_SIGKILL" }).status)
      assert.equal(before .. "\n", one:shell("cat count").stdout)
    end)

    it("happens at the end of its time when it was made so", function()
      local brief = sandboxes.create(server, { timeout = 3, autoPause = true })
      local stream = brief:start("while :; do date +%N > count; sleep 0.02; done")
      stream:event()
      local path = sandboxes.tree(folder, brief.id) .. "/root/home/user/count"
      -- It is shown as paused from the beginning of the pause on.
      support.wait_for(function() return brief:request("GET", "/health").status == 502 end, 10, "the pause")
      assert.equal("paused", brief.client:info(brief.id).state)
      assert.has_error(function() stream:rest() end)
      local before = support.read_file(path)
      support.sleep(0.1)
      assert.equal(before, support.read_file(path))
      assert.equal(204, brief.client:delete("/sandboxes/" .. brief.id).status)
      sandboxes.wait_for_end(brief.id)
      support.wait_for(function() return not sandboxes.tree(folder, brief.id) end, 5, "its tree to go")
    end)

    it("is undone by traffic when it was made so", function()
      local woken = sandboxes.create(server, { autoPause = true, autoResume = { enabled = true } })
      local stream = woken:start("sleep 1000")
      local pid = stream:event().start.pid
      assert.equal(204, woken.client:post("/sandboxes/" .. woken.id .. "/pause").status)
      assert.equal(pid, woken:call("/process.Process/List", {}).json.processes[1].pid)
      assert.equal("running", woken.client:info(woken.id).state)
      assert.equal("x\n", woken:shell("echo x").stdout)
      woken.client:delete("/sandboxes/" .. woken.id)
      sandboxes.wait_for_end(woken.id)
    end)

    it("of one nothing was asked of starts nothing", function()
      assert.equal(204, post("/pause").status)
      resume()
      assert.same({}, sandboxes.processes(one.id))
      assert.equal("x\n", one:shell("echo x").stdout)
    end)

    it("can be ended by a kill", function()
      counter()
      assert.equal(204, post("/pause").status)
      assert.equal(204, one.client:delete("/sandboxes/" .. one.id).status)
      sandboxes.wait_for_end(one.id)
      support.wait_for(function() return not sandboxes.tree(folder, one.id) end, 5, "its tree to go")
    end)

    it("is short for a fork and a snapshot, which have copies of its files from then on", function()
      counter()
      one:shell("mkdir d && echo before > d/file && ln -s d/file link && chmod 4750 d")
      local forks = one.client:post("/v2/sandboxes/" .. one.id .. "/fork", { timeout = 60, count = 2 })
      assert.equal(201, forks.status)
      local shot = one.client:post("/sandboxes/" .. one.id .. "/snapshots", { name = "shot" })
      assert.equal(201, shot.status)
      one:shell("echo after > d/file")
      local before = file()
      support.wait_for(function() return (file() or 0) > before end, 5, "the counter to go on")
      local copies = { sandboxes.create(server, { templateID = shot.json.snapshotID }) }
      for i = 1, 2 do
        local made = forks.json[i].sandbox
        copies[i + 1] = sandboxes.of(server, made.sandboxID, made.envdAccessToken)
      end
      for _, copy in ipairs(copies) do
        assert.equal("before\n4750\n", copy:shell("cat link; stat -c %a d").stdout)
        assert.same({}, copy:call("/process.Process/List", {}).json)
        copy:shell("echo mine > d/file")
      end
      assert.equal("after\n", one:shell("cat link").stdout)
      -- One that was never asked for its files takes them along too.
      local unused = sandboxes.create(server, { templateID = shot.json.snapshotID })
      for _, copy in ipairs({ copies[1], unused }) do one.client:delete("/sandboxes/" .. copy.id) end
      for i = 2, 3 do one.client:delete("/sandboxes/" .. copies[i].id) end
      assert.equal(204, one.client:delete("/templates/" .. shot.json.snapshotID:match("^[^:]+")).status)
      support.wait_for(function()
        return not support.shell("ls " .. sandboxes.roots(folder)[1]):find("saved", 1, true)
      end, 5, "the copies to go")
    end)

    it("answers 409 while it goes on, and so do snapshots", function()
      server:set({ transition = 0.5 })
      one:shell("true")
      for path, body in pairs({ ["/pause"] = {}, ["/snapshots"] = {}, ["/fork"] = { timeout = 60 } }) do
        local going = one.client:keep()
        local text = require("e2b.server.json").encode(body)
        going.connection:send(("POST /sandboxes/%s%s HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nContent-Length: %d\r\n"
          .. "Content-Type: application/json\r\n\r\n%s"):format(one.id, path, server.api_key, #text, text))
        support.wait_for(function() return one:request("GET", "/health").status == 409 end, 2, "the transition")
        local answer = one:call("/process.Process/List", {})
        assert.equal(409, answer.status)
        assert.equal(409, answer.json.code)
        assert.is_true(require("spec.support.http_client").read(going.connection).status < 300)
        going:close()
        if path == "/pause" then resume() end
        assert.equal("x\n", one:shell("echo x").stdout)
      end
      server:set({ transition = 0 })
    end)
  end)
end
