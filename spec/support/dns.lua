-- A name server that never answers. The system's resolver asks whom /etc/resolv.conf names, so the client runs in a
-- child
-- with a mount namespace of its own, where that file names a UDP socket of the child: bound, and never read.
-- Root needs the mount namespace only. Others get a user and a network namespace too, where port 53 is theirs.
local support = require("spec.support.support")

local dns = {}

-- An address of the loopback net that no local resolver uses, and no other run of these specs at the same time.
local function free_address()
  local pid = tonumber(support.shell("echo $$"):match("%d+"))
  return string.format("127.86.%d.%d", math.floor(pid / 250) % 250 + 1, pid % 250 + 1)
end

-- Binds the name server's port, and holds it.
local PRELUDE = [[
local udp = assert(require("socket").udp4())
local bound, why = udp:setsockname(%q, 53)
if not bound then
  io.stderr:write("can't bind the silent name server: ", tostring(why), "\n")
  os.exit(97)
end
SILENT_NAME_SERVER = udp
]]

-- In the namespace: each file is covered where it lives, links resolved. nscd would answer from outside.
local SETUP = [[
set -e
mount --make-rprivate / 2>/dev/null || true
cover() { mount --bind "$1" "$(readlink -f "$2")"; }
cover %s/resolv.conf /etc/resolv.conf
cover %s/nsswitch.conf /etc/nsswitch.conf
for socket in /run/nscd /var/run/nscd; do
  if [ -d $socket ]; then mount --bind %s/empty $socket; fi
done
if [ "$1" = network ]; then
  shift
  ip link set lo up 2>/dev/null || { mount -t sysfs sysfs /sys && echo 0x9 >/sys/class/net/lo/flags; }
else
  shift
fi
exec "$@"
]]

-- A folder with the files of the namespace; the words that run a command in it.
local function namespace(address, hosts)
  local folder = support.tmpdir()
  support.write_file(folder .. "/resolv.conf", "nameserver " .. address .. "\noptions timeout:5 attempts:2\n")
  support.write_file(folder .. "/nsswitch.conf", "hosts: " .. (hosts or "files dns") .. "\n")
  os.execute("mkdir " .. folder .. "/empty")
  support.write_file(folder .. "/setup", (SETUP:gsub("%%s", folder)))
  local root = support.shell("id -u"):match("%d+") == "0"
  return folder, ("unshare %s sh %s/setup %s"):format(root and "-m" or "-Urmn", folder, root and "host" or "network")
end

--- Runs Lua source in a child whose name server is silent. Raises when the machine doesn't allow such a namespace: a
--- spec that can't see the silence has tested nothing.
---@param source string
---@param options? table as for support.run; hosts = "files" makes every unknown name unresolvable at once instead
---@return table result as support.run
function dns.run(source, options)
  local address = free_address()
  local copy = {}
  for name, value in pairs(options or {}) do
    copy[name] = value
  end
  local folder
  folder, copy.wrap = namespace(address, copy.hosts)
  local result = support.run(PRELUDE:format(address) .. source, copy)
  support.cleanup(folder)
  if result.err:find("unshare", 1, true) or result.err:find("mount:", 1, true) or result.code == 97 then
    error("no namespace with a silent name server to be had (it takes root or user namespaces): " .. result.err, 2)
  end
  return result
end

--- Calls fn with the shell words that run any program where the name server is silent.
---@param fn fun(wrap: string)
function dns.within(fn)
  local address = free_address()
  local folder, wrap = namespace(address)
  support.write_file(folder .. "/hold.lua", PRELUDE:format(address) .. [[
local words = {}
for i, word in ipairs(arg) do words[i] = "'" .. word:gsub("'", "'\\''") .. "'" end
local ok, _, code = os.execute(table.concat(words, " "))
if type(ok) == "number" then ok, code = ok == 0, math.floor(ok / 256) end
os.exit(ok and 0 or code)
]])
  fn(wrap .. " " .. support.lua_command() .. " " .. folder .. "/hold.lua")
  support.cleanup(folder)
end

return dns
