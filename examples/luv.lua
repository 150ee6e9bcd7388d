-- A luv script: its timer ticks while three sandboxes work side by side.
local uv = require("luv")
local e2b = require("e2b")
e2b.use_loop("uv")

local ticks, left = 0, 3
local timer = uv.new_timer()
timer:start(10, 10, function() ticks = ticks + 1 end)

for i = 1, left do
  e2b.spawn(function()
    return e2b.with({ template = "base", timeout = 60 }, function(sandbox)
      return sandbox.commands:run(("sleep 0.5; echo sandbox %d on $(uname -s)"):format(i))
    end)
  end, function(result, message)
    print(result and result.stdout:gsub("\n", "") or message)
    left = left - 1
    if left == 0 then timer:close() end
  end)
end
uv.run()
print(ticks .. " ticks meanwhile")
