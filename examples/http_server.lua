-- A lua-http server whose every request runs a command in a sandbox of its own: http_server.lua [PORT]
-- While one request waits for E2B, the others go on.
local e2b = require("e2b")
local server = require("http.server")
local headers = require("http.headers")

local COMMANDS = { ["/"] = "uname -a", ["/slow"] = "sleep 1; echo slept" }

local function answer(stream, status, text)
  local head = headers.new()
  head:append(":status", status)
  head:append("content-type", "text/plain")
  assert(stream:write_headers(head, false))
  assert(stream:write_chunk(text, true))
end

local listening = assert(server.listen({
  host = "127.0.0.1", port = tonumber(arg[1]) or 8080,
  onstream = function(_, stream)
    local command = COMMANDS[assert(stream:get_headers()):get(":path")]
    if not command then return answer(stream, "404", "no such page\n") end
    local result, message = e2b.with({ timeout = 60 }, function(sandbox) return sandbox.commands:run(command) end)
    answer(stream, result and "200" or "502", result and result.stdout or message .. "\n")
  end,
}))
assert(listening:listen())
print("http://127.0.0.1:" .. select(3, listening:localname()))
io.flush()
assert(listening:loop())
