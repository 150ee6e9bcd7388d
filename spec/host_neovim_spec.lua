-- Neovim: its loop, its terminal, what comes with the library for it.
local hosts = require("spec.hosts.init")
local neovim = require("spec.support.neovim")
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
end
