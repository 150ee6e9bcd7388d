-- Serves a web page from a sandbox and fetches it from here, through the host name of its port.
--   lua examples/serve_page.lua [port]
local e2b = require("e2b")

local port = tonumber(arg[1]) or 8000

local page, message = e2b.with({ template = "base", timeout = 120 }, function(sandbox)
  assert(sandbox.files:write("/home/user/site/index.html", "<h1>Hello from the sandbox</h1>\n"))
  local server = assert(sandbox.commands:start({
    "python3", "-m", "http.server", tostring(port), "--directory", "/home/user/site" }))
  local host = sandbox:get_host(port)
  print("https://" .. host)
  -- A service of one's own (E2B_SANDBOX_URL) knows sandboxes by the Host header.
  local url = os.getenv("E2B_SANDBOX_URL") or "https://" .. host
  local command = "curl -sSf --retry 10 --retry-all-errors --retry-delay 1 -H 'Host: %s' '%s'"
  local curl = io.popen(command:format(host, url))
  local text = curl:read("*a")
  curl:close()
  if text ~= "" then return text end
  server:kill()
  return nil, "no page came; its server said: " .. assert(server:wait()).stderr
end)
if not page then error(message, 0) end
io.write(page)
