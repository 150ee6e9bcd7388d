-- Starts the peer and runs the host against it: lua run.lua HOST [FIRST [LAST]]
local peer = require("spec.support.peer")
local support = require("spec.support.support")

local function find(name, path)
  for template in path:gmatch("[^;]+") do
    local file = template:gsub("%?", name)
    if support.read_file(file) then
      return file
    end
  end
  error("no " .. name .. " in " .. path)
end

local server = peer.start(assert(support.read_file("spec/oom/handler.lua")))
local words = {
  "timeout", os.getenv("OOM_SECONDS") or "1500", arg[1], "spec/oom/script.lua", server.url,
  find("cjson", package.cpath), arg[2] or "", arg[3] or "",
}
for i, word in ipairs(words) do
  words[i] = word ~= "" and support.quote(word) or ""
end
local done = os.execute(table.concat(words, " "))
server:stop()
if done ~= true and done ~= 0 then
  io.stderr:write("the sweep failed\n")
  os.exit(1)
end
