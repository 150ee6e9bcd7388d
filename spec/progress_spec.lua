-- The line that shows how far a transfer is: its text, and when there is one.
local support = require("spec.support.support")
local envd_peer = require("spec.support.envd_peer")
local progress = require("e2b.progress")
local e2b = require("e2b")

local DAEMON = [==[
  function on.files()
    if request.method == "POST" then return conn:respond(200, '[{"name":"x","path":"/x","type":"file"}]') end
    if request.path:find("missing") then return conn:respond(404, '{"code":404,"message":"no"}') end
    if request.path:find("unknown") then
      conn:begin_chunked(200)
    else
      conn:send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    end
    for _ = 1, 100 do
      local piece = ("x"):rep(10000)
      if request.path:find("unknown") then conn:chunk(piece) else conn:send(piece) end
      conn:sleep(0.006)
    end
    if request.path:find("unknown") then conn:chunk("") end
  end
]==]

describe("the line of a transfer", function()
  it("says what is known", function()
    local state = { label = "file.bin", began = 0 }
    assert.equal("file.bin  512 B", progress.line(state, 512, nil, 0.1, 80))
    assert.equal("file.bin  1.0 KiB  512 B/s", progress.line(state, 1024, nil, 2, 80))
    assert.equal("file.bin  [###############               ]   50%  1.0 MiB of 2.0 MiB  512.0 KiB/s  2s",
      progress.line(state, 1048576, 2097152, 2, 120))
    assert.matches("100%%  2.0 MiB of 2.0 MiB  1.0 MiB/s$", progress.line(state, 2097152, 2097152, 2, 120))
    -- a total that turns out to be too small
    assert.matches("100%%", progress.line(state, 3000000, 2097152, 2, 120))
  end)

  it("fits, whatever the width", function()
    local state = { label = ("ü"):rep(100), began = 0 }
    for columns = 20, 200 do
      local text = progress.line(state, 123456789, 987654321, 12.5, columns)
      assert.is_true(require("e2b.table_view").width(text) <= columns, text)
      assert.is_nil(text:find("^[\128-\191]"))
    end
  end)

  it("shows bytes", function()
    assert.same({ "0 B", "1023 B", "1.0 KiB", "1.5 MiB", "2.0 GiB", "3000.0 TiB" }, {
      progress.bytes(0), progress.bytes(1023), progress.bytes(1024), progress.bytes(1572864), progress.bytes(2 ^ 31),
      progress.bytes(3000 * 2 ^ 40),
    })
  end)

  describe("on a terminal", function()
    local server, folder

    setup(function()
      server = envd_peer.start(DAEMON)
      folder = support.tmpdir()
    end)
    teardown(function()
      e2b.close()
      server:stop()
      support.cleanup(folder)
    end)

    local BEGIN = [[
      local e2b = require("e2b")
      local client = e2b.client({ api_url = arg[1], sandbox_url = arg[1], api_key = "key" })
      local files = assert(client.Sandbox.create()).files
    ]]
    local SCRIPT = [[
      local function report(...) io.stdout:write("RESULT ", tostring((...)), "\n") end
      report(files:read(arg[2], { to = arg[3] .. "/out", progress = true }))
    ]]

    local function run(path, terminal, script)
      local result = support.run(BEGIN .. (script or SCRIPT), {
        args = { server.url, path, folder },
        -- a terminal of 80 columns around the script
        wrap = terminal and "sh -c 'for word; do set -- \"$@\" \"'\\''$word'\\''\"; shift; done; "
          .. "exec script -qefc \"stty cols 80; $*\" /dev/null' sh" or nil,
      })
      return result
    end

    it("is drawn, not too often, and ended", function()
      local result = run("known", true)
      if result.out:find("not found") then return pending("there is no script(1) here") end
      assert.equal(0, result.code, result.out)
      local text = result.out
      local updates = select(2, text:gsub("\r[^\r\n]*\27%[K", ""))
      assert.is_true(updates >= 3 and updates <= 10 * (result.seconds + 1), updates .. " updates")
      assert.matches("known  %[#+%s*%]%s+%d+%%", text)
      assert.matches("100%%  976.6 KiB of 976.6 KiB  [^\r\n]*\27%[K\r?\n", text)
      assert.matches("RESULT 1000000", text)
    end)

    it("does without a total", function()
      local result = run("unknown", true)
      assert.matches("unknown  %d+%.%d KiB", result.out)
      assert.matches("RESULT 1000000", result.out)
    end)

    it("gives back what it needed for that", function()
      local result = run("known", true, [[
        local function terminals()
          local pipe = io.popen("ls -l /proc/" .. require("e2b.core").getpid() .. "/fd")
          local _, count = pipe:read("*a"):gsub("/dev/pts/", "")
          pipe:close()
          return count
        end
        collectgarbage("stop")
        local before = terminals()
        for _ = 1, 3 do
          files:read(arg[2], { to = arg[3] .. "/out", progress = true })
          files:read("missing", { to = arg[3] .. "/out", progress = true })
        end
        io.stdout:write("RESULT ", terminals() - before, "\n")
      ]])
      assert.matches("RESULT 0", result.out)
    end)

    it("is not begun when nothing comes", function()
      local result = run("missing", true)
      assert.matches("RESULT nil", result.out)
      assert.is_nil(result.out:find("\27[K", 1, true))
    end)

    it("is not there when nobody looks", function()
      local result = run("known", false)
      assert.equal("", result.err)
      assert.equal("RESULT 1000000\n", result.out)
    end)
  end)
end)
