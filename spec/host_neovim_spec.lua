-- Neovim: its loop, its terminal, what comes with the library for it.
local hosts = require("spec.hosts.init")
local neovim = require("spec.support.neovim")
local peer = require("spec.support.peer")
local support = require("spec.support.support")
local tmux = require("spec.support.tmux")
local cases = require("spec.support.uv_cases")

if neovim.here then
  for _, way in ipairs({ "the main coroutine", "a task" }) do
    describe("Neovim, " .. way .. ":", function()
      hosts.declare(function(env, wrap)
        env.UV_TASK = way == "a task" and "1" or "0"
        local result = neovim.run(nil, { file = "spec/hosts/uv.lua", env = env, wrap = wrap })
        return result.out .. result.err
      end)
    end)
  end

  describe("in Neovim", function()
    cases.define({ it = it, setup = setup, teardown = teardown }, neovim.run, "vim.cmd('qall!')")
  end)

  describe("Neovim in a terminal", function()
    local server, folder, one

    -- :Call makes a call that is answered when the spec says so; a timer counts on the screen.
    local INIT = [[
      local e2b = require("e2b")
      local client = e2b.client({ api_url = os.getenv("URL"), api_key = "key", retries = 0 })
      vim.api.nvim_buf_set_lines(0, 0, -1, false, { "count 0", "state idle", "" })
      vim.api.nvim_win_set_cursor(0, { 3, 0 })
      vim.api.nvim_create_user_command("Call", function()
        vim.api.nvim_buf_set_lines(0, 1, 2, false, { "state waiting" })
        local value, _, err = client:request("GET", "/held")
        vim.api.nvim_buf_set_lines(0, 1, 2, false, { "state " .. (value and "answered" or err.kind) })
      end, {})
      local count = 0
      vim.loop.new_timer():start(20, 20, vim.schedule_wrap(function()
        count = count + 1
        vim.api.nvim_buf_set_lines(0, 0, 1, false, { "count " .. count })
      end))
    ]]

    before_each(function()
      folder = support.tmpdir()
      server = peer.start([[
        local request = conn:read_request()
        conn:wait_signal("go")
        conn:respond(200, "[]")
      ]])
      support.write_file(folder .. "/init.lua", INIT)
      one = tmux.run(neovim.command({
        headless = false, env = { URL = server.url }, args = { "-S", folder .. "/init.lua" },
      }))
      one:expect("state idle")
    end)
    after_each(function()
      one:stop()
      if server.pipe then server:signal("go") end
      server:stop()
      support.cleanup()
    end)

    local function counted(screen) return tonumber(screen:match("count (%d+)")) end

    it("is drawn while a call waits, and what is typed meanwhile comes after it", function()
      one:keys(":Call", "Enter")
      server:wait_event("request")
      local first = counted(one:expect("state waiting"))
      one:expect(function(screen) return counted(screen) >= first + 20 end)
      one:keys("i", "typed meanwhile", "Escape")
      local next_one = counted(one:screen())
      local screen = one:expect(function(now) return counted(now) >= next_one + 20 end)
      assert.truthy(screen:find("state waiting", 1, true), screen)
      assert.is_nil(screen:find("typed meanwhile", 1, true), screen)
      server:signal("go")
      one:expect("state answered")
      one:expect("typed meanwhile")
      assert.equal("", one:errors())
    end)

    it("ends a call at Ctrl-C, and goes on", function()
      one:keys(":Call", "Enter")
      server:wait_event("request")
      one:expect("state waiting")
      one:keys("C-c")
      one:expect("state cancelled")
      one:keys("i", "typed after", "Escape")
      one:expect("typed after")
      assert.equal("", one:errors())
    end)

    it("goes on when its network is gone", function()
      server:signal("go")
      server:stop()
      one:keys(":Call", "Enter")
      one:expect("state network")
      one:keys("i", "typed after", "Escape")
      one:expect("typed after")
    end)
  end)
end
