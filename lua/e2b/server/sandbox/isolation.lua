--- The walls of a sandbox: bubblewrap's command line, and what the private file system holds at first.
--
-- Inside, `/` is a directory of the sandbox's own, writable; programs and libraries are the machine's, read-only.
-- Processes see only each other, and end with the server. The daemon is the init process in there.
-- @module e2b.server.sandbox.isolation

local native = require("e2b.server.native")
local root = require("e2b.server.sandbox.root")

local isolation = {}

-- Of the machine's settings what programs need to run; nothing of its users or its secrets.
local SHARED = {
  "alternatives", "ssl/certs", "ssl/openssl.cnf", "ca-certificates", "ca-certificates.conf", "pki/tls/certs",
  "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "host.conf", "gai.conf", "localtime", "os-release",
  "debian_version", "mime.types", "protocols", "services", "magic", "terminfo", "fonts", "perl",
}
local SHARED_PATTERNS = { "^python3", "^java%-" }

-- What a root user needs to act as one on files and processes of its own sandbox.
local CAPABILITIES = {
  "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
  "CAP_NET_BIND_SERVICE", "CAP_SYS_PTRACE",
}

isolation.USER_ID = 1000

local function add(list, ...)
  for i = 1, select("#", ...) do list[#list + 1] = (select(i, ...)) end
end

-- /bin and its like are links into /usr on most machines, else folders to be shown.
local SYSTEM = { "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32" }

local function is_link(path)
  local facts = native.fs_lstat(path)
  return facts and facts.type == "symlink"
end

local function system_folders(list)
  add(list, { "--ro-bind", "/usr", "/usr" })
  for _, path in ipairs(SYSTEM) do
    if not is_link(path) then add(list, { "--ro-bind-try", path, path }) end
  end
end

local function settings(list)
  for _, name in ipairs(SHARED) do add(list, { "--ro-bind-try", "/etc/" .. name, "/etc/" .. name }) end
  for _, name in ipairs(native.fs_readdir("/etc") or {}) do
    for _, pattern in ipairs(SHARED_PATTERNS) do
      if name:find(pattern) then add(list, { "--ro-bind-try", "/etc/" .. name, "/etc/" .. name }) end
    end
  end
end

-- What is mounted over the sandbox's own `/`, in this order: option, source (if it has one), place.
local function mounts(tree, options)
  local list = {}
  system_folders(list)
  settings(list)
  add(list, { "--proc", "/proc" })
  if native.ids() == 0 then
    -- bubblewrap takes these for read-only already; to a real root they are not.
    for _, path in ipairs({ "/proc/sys", "/proc/sysrq-trigger" }) do add(list, { "--ro-bind-try", path, path }) end
  end
  add(list, { "--dev", "/dev" }, { "--bind", tree .. "/run", "/run/e2b" })
  for _, bind in ipairs(options.binds) do add(list, { "--ro-bind-try", bind[1], bind[2] }) end
  return list
end

-- Removes what is in the way of a mount point: the first part of its path that is no folder, or not what it should be.
local function make_way(base, path, is_folder)
  local at = base
  for part, rest in path:gmatch("/([^/]+)()") do
    at = at .. "/" .. part
    local facts = native.fs_lstat(at)
    if not facts then return end
    local folder = is_folder or rest <= #path
    if facts.type == "dir" and not folder then return root.remove(at) end
    if facts.type ~= "dir" and (folder or facts.type ~= "file") then return assert(native.fs_unlink(at)) end
  end
end

---Makes sure that no mount point lies behind a symbolic link that the sandbox has put there: bubblewrap makes what is
---missing of their paths, as whoever runs this server, and would follow the link to anywhere on the machine. Nothing
---may run in the sandbox meanwhile. Raises when it cannot.
---@param tree string
---@param options table as for `command`
function isolation.prepare(tree, options)
  for _, mount in ipairs(mounts(tree, options)) do
    local source = mount[3] and native.fs_stat(mount[2])
    if source or not mount[3] then
      make_way(tree .. "/root", mount[3] or mount[2], not source or source.type == "dir")
    end
  end
end

---The command line in front of the daemon's own.
---@param tree string directory of the sandbox: `root` is its file system; in `run` the daemon makes its socket
---@param options table `network` (false: none but loopback), `binds` (pairs: real path, path inside), `hostname`
---@return string[] argv
function isolation.command(tree, options)
  local argv = {
    "bwrap", "--die-with-parent", "--as-pid-1", "--new-session", "--unshare-pid", "--unshare-ipc", "--unshare-uts",
    "--unshare-cgroup-try", "--hostname", options.hostname,
  }
  if native.ids() == 0 then
    add(argv, "--cap-drop", "ALL")
    for _, name in ipairs(CAPABILITIES) do add(argv, "--cap-add", name) end
  else
    local id = tostring(isolation.USER_ID)
    add(argv, "--unshare-user", "--uid", id, "--gid", id)
  end
  if options.network == false then add(argv, "--unshare-net") end
  add(argv, "--bind", tree .. "/root", "/")
  for _, mount in ipairs(mounts(tree, options)) do add(argv, mount[1], mount[2], mount[3]) end
  add(argv, "--chdir", "/", "--")
  return argv
end

-- ---------------------------------------------------------------- the first content

local PASSWD = "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000:user:/home/user:/bin/bash\n"
  .. "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
local GROUP = "root:x:0:\ntty:x:5:\nuser:x:1000:\nnogroup:x:65534:\n"
-- The machine's own would have its users looked for in the network.
local SWITCH = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nprotocols: files\nservices: files\n"
local PROFILE = [[
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
if [ -n "${BASH-}" ] && [ "$BASH" != /bin/sh ] && [ -f /etc/bash.bashrc ]; then . /etc/bash.bashrc; fi
]]
local BASHRC = [[
case $- in *i*) PS1='\u@\h:\w\$ ' ;; esac
]]

local function write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

local function copy(from, to)
  local file = io.open(from, "rb")
  if not file then return end
  write(to, file:read("*a"))
  file:close()
end

---Fills the file system of a new sandbox.
---@param tree string an existing directory; `root` and `run` are made in it
---@param isolated boolean false: only the homes, for there the machine's own files are seen
function isolation.fill(tree, isolated)
  local base = tree .. "/root"
  local function folder(path, mode) assert(native.fs_mkdir(base .. path, mode or 493)) end
  assert(native.fs_mkdir(tree .. "/run", 493))
  for _, path in ipairs({ "", "/home", "/home/user", "/tmp", "/root" }) do folder(path) end
  native.fs_chmod(base .. "/tmp", 1023)
  if isolated and native.ids() == 0 then
    native.fs_chown(base .. "/home/user", isolation.USER_ID, isolation.USER_ID)
    native.fs_chmod(base .. "/root", 448)
  end
  if not isolated then return end
  for _, path in ipairs({
    "/etc", "/var", "/var/tmp", "/var/log", "/var/cache", "/var/lib", "/run", "/run/lock", "/run/e2b", "/mnt", "/media",
    "/opt", "/srv",
  }) do folder(path) end
  native.fs_chmod(base .. "/var/tmp", 1023)
  for _, path in ipairs(SYSTEM) do
    if is_link(path) then native.fs_symlink(native.fs_readlink(path), base .. path) end
  end
  native.fs_symlink("/proc/mounts", base .. "/etc/mtab")
  write(base .. "/etc/passwd", PASSWD)
  write(base .. "/etc/group", GROUP)
  write(base .. "/etc/nsswitch.conf", SWITCH)
  write(base .. "/etc/profile", PROFILE)
  write(base .. "/etc/bash.bashrc", BASHRC)
  write(base .. "/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
  copy("/etc/resolv.conf", base .. "/etc/resolv.conf")
end

---Says in files which sandbox this is.
---@param folder string nothing is in it yet
---@param id string
---@param template_id string
function isolation.sign(folder, id, template_id)
  write(folder .. "/.E2B_SANDBOX", "true")
  write(folder .. "/.E2B_SANDBOX_ID", id)
  write(folder .. "/.E2B_TEMPLATE_ID", template_id)
end

-- ---------------------------------------------------------------- does it work here?

-- Where there is `timeout`, a check that hangs does not hang the server.
local CHECK = "exec 2>&1 </dev/null; set -- %s; command -v timeout >/dev/null && exec timeout -k 1 30 \"$@\"; "
  .. "exec \"$@\""

local function quote(word)
  return "'" .. word:gsub("'", "'\\''") .. "'"
end

---Runs the interpreter behind the walls once.
---@param tree string a directory made for this
---@param runtime table
---@return boolean works
---@return string|nil why not
function isolation.works(tree, runtime)
  isolation.fill(tree, true)
  local argv = isolation.command(tree, { hostname = "check", binds = runtime.binds })
  add(argv, runtime.program, "-e", "io.write('it works')")
  for i, word in ipairs(argv) do argv[i] = quote(word) end
  local pipe = io.popen(CHECK:format((table.concat(argv, " "))), "r")
  local said = pipe and pipe:read("*a") or ""
  if pipe then pipe:close() end
  if said == "it works" then return true end
  if said:find("not found", 1, true) then said = "bubblewrap (bwrap) is not installed" end
  if said == "" then said = "bubblewrap (bwrap) does nothing" end
  return false, (said:gsub("%s+$", ""):match("[^\n]*$"))
end

return isolation
