-- A server that dies leaves no process behind, and nothing that its successor does not remove.
local local_server = require("e2b.server")
local sandbox_daemon = require("spec.support.sandbox_daemon")
local sandboxes = require("spec.support.sandboxes")
local support = require("spec.support.support")

describe("a local server that crashes", function()
  local folder

  before_each(function()
    folder = support.tmpdir()
  end)

  after_each(function()
    support.cleanup(folder)
  end)

  local function busy_sandbox(server)
    local one = sandboxes.create(server)
    local stream = one:start("(setsid sleep 1000 >/dev/null 2>&1 &); sleep 1001 & "
      .. "echo x > file; echo ready; sleep 1002")
    stream:event()
    stream:event()
    assert.is_true(#sandboxes.processes(one.id) >= 3)
    return one
  end

  local function crash(server)
    os.execute("kill -KILL " .. server.pid)
    server.pipe:close()
    server.stopped = true
  end

  for _, isolation in ipairs({ true, false }) do
    describe(isolation and "with walls" or "without walls", function()
      it("takes its processes along, and its successor removes its files", function()
        local server = local_server.start({ directory = folder, isolation = isolation })
        local first, second = busy_sandbox(server), busy_sandbox(server)
        local paused = busy_sandbox(server)
        assert.equal(204, paused.client:post("/sandboxes/" .. paused.id .. "/pause").status)
        crash(server)
        for _, one in ipairs({ first, second, paused }) do sandboxes.wait_for_end(one.id) end
        assert.equal(1, #sandboxes.roots(folder))
        local successor = local_server.start({ directory = folder, isolation = isolation })
        support.wait_for(function() return #sandboxes.roots(folder) == 0 end, 5, "an empty folder")
        -- And it works in the same place.
        assert.equal("x\n", sandboxes.create(successor):shell("echo x").stdout)
        successor:stop()
        assert.same({}, sandboxes.roots(folder))
      end)
    end)
  end

  it("has its left-overs killed by the successor, should any be left", function()
    local server = local_server.start({ directory = folder })
    local one = busy_sandbox(server)
    crash(server)
    sandboxes.wait_for_end(one.id)
    -- As if one had survived: a process with the sandbox's id, and no server.
    local pipe = io.popen("E2B_SANDBOX_ID=" .. one.id .. " sh -c 'echo $$; exec sleep 1000 >/dev/null'", "r")
    local pid = pipe:read("*l")
    -- And one that carries no id of a sandbox there is.
    local other = io.popen("E2B_SANDBOX_ID=i00000000000000000000 sh -c 'echo $$; exec sleep 1000 >/dev/null'", "r")
    local bystander = other:read("*l")
    local successor = local_server.start({ directory = folder })
    support.wait_for(function() return #sandboxes.roots(folder) == 0 end, 5, "an empty folder")
    sandboxes.wait_for_end(one.id)
    assert.is_false(sandbox_daemon.is_alive(pid))
    assert.equal(0, select(2, support.shell("kill -0 " .. bystander .. " && kill -KILL " .. bystander)))
    pipe:close()
    other:close()
    successor:stop()
  end)

  it("does not take what a living server has for left over", function()
    local server = local_server.start({ directory = folder })
    local one = sandboxes.create(server)
    one:shell("echo kept > file")
    local other = local_server.start({ directory = folder })
    other:stop()
    assert.equal("kept\n", one:shell("cat file").stdout)
    -- Not even when that one hangs.
    os.execute("kill -STOP " .. server.pid)
    other = local_server.start({ directory = folder })
    assert.equal("x\n", sandboxes.create(other):shell("echo x").stdout)
    other:stop()
    os.execute("kill -CONT " .. server.pid)
    assert.equal("kept\n", one:shell("cat file").stdout)
    server:stop()
    assert.same({}, sandboxes.roots(folder))
  end)

  it("leaves folders alone that only look like its own", function()
    local young, file = folder .. "/e2b-server-young", folder .. "/e2b-server-file"
    assert(support.shell("mkdir " .. young .. " && touch " .. file))
    local old = folder .. "/e2b-server-old"
    assert(support.shell("mkdir " .. old .. " && touch -d '1 hour ago' " .. old))
    local server = local_server.start({ directory = folder })
    support.wait_for(function() return #sandboxes.roots(folder) == 2 end, 5, "the old one's end")
    assert.same({ file, young }, sandboxes.roots(folder))
    server:stop()
  end)

  it("that is ended in an orderly way removes everything itself", function()
    for _, how in ipairs({ "TERM", "eof" }) do
      local server = local_server.start({ directory = folder })
      local one = busy_sandbox(server)
      if how == "eof" then
        server.pipe:close()
        server.stopped = true
      else
        os.execute("kill -TERM " .. server.pid)
        server.pipe:close()
        server.stopped = true
      end
      sandboxes.wait_for_end(one.id)
      assert.same({}, sandboxes.roots(folder))
    end
  end)
end)
