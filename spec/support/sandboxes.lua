-- What the specs of the local server's sandboxes share: sandboxes with their daemon behind the proxy, and what of them
-- is to be seen on this machine.
local http_client = require("spec.support.http_client")
local sandbox_daemon = require("spec.support.sandbox_daemon")
local support = require("spec.support.support")

local sandboxes = {}

--- Whether this machine can isolate sandboxes; the same question the server asks itself.
function sandboxes.can_isolate()
  return os.execute("bwrap --ro-bind / / --unshare-pid true 2>/dev/null") == (_VERSION == "Lua 5.1" and 0 or true)
end

--- A sandbox there is.
function sandboxes.of(server, id, token)
  local one = sandbox_daemon.through(server, id, token)
  one.client, one.token = http_client.new(server), token
  return one
end

--- Creates a sandbox.
---@return table sandbox the methods of sandbox_daemon, and `id`, `token`, `client`
function sandboxes.create(server, fields)
  local id, answer = http_client.new(server):create(fields)
  local one = sandboxes.of(server, id, answer.json.envdAccessToken)
  one.answer = answer.json
  return one
end

--- The same sandbox, another port.
function sandboxes.port(server, one, port)
  return sandbox_daemon.through(server, one.id, nil, port)
end

--- Roots of local servers in a temporary folder.
function sandboxes.roots(folder)
  local list = {}
  local pipe = io.popen("ls -d " .. support.quote(folder) .. "/e2b-server-* 2>/dev/null")
  for line in pipe:lines() do list[#list + 1] = line end
  pipe:close()
  return list
end

--- The tree of a sandbox on this machine, once there is one.
function sandboxes.tree(folder, id)
  for _, root in ipairs(sandboxes.roots(folder)) do
    if select(2, support.shell("test -d " .. root .. "/" .. id)) == 0 then return root .. "/" .. id end
  end
end

--- Processes that carry the id of a sandbox in their environment.
---@return integer[] pids
function sandboxes.processes(id)
  local pids = {}
  local pipe = io.popen("grep -lazs 'E2B_SANDBOX_ID=" .. id .. "' /proc/[0-9]*/environ 2>/dev/null")
  for line in pipe:lines() do
    local pid = tonumber(line:match("^/proc/(%d+)/"))
    if pid and sandbox_daemon.is_alive(pid) then pids[#pids + 1] = pid end
  end
  pipe:close()
  return pids
end

--- Waits until nothing of a sandbox runs any more.
function sandboxes.wait_for_end(id)
  support.wait_for(function() return #sandboxes.processes(id) == 0 end, 10 * support.slack, "the end of " .. id)
end

return sandboxes
