-- Neovim: its loop, its terminal, what comes with the library for it.
local support = require("spec.support.support")
local neovim = require("spec.support.neovim")
local cases = require("spec.support.uv_cases")

if neovim.here then
  describe("in Neovim", function()
    cases.define({ it = it, setup = setup, teardown = teardown }, neovim.run, "vim.cmd('qall!')")
  end)
end
