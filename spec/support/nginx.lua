-- A real nginx with its Lua module, in a folder of its own: Debian's packages, unpacked by get-nginx.sh.
local support = require("spec.support.support")

local nginx = {}

local root -- where nginx was unpacked, or false
local why_not

-- The library as nginx's LuaJIT loads it. A build of its own: another make may be at work in the usual folders.
local CORE = "build/nginx-core"

--- Fetches nginx and builds the core for it, once.
---@return string? root
---@return string? message why there is none
function nginx.ready()
  if root == nil then
    local output, code = support.shell("spec/support/get-nginx.sh")
    root = code == 0 and output:match("([^\n]+)\n*$") or false
    why_not = output
    if root then
      local lua = select(2, support.shell("bin/find-lua --cflags luajit")) == 0 and "luajit" or "5.1"
      local built, status = support.shell(("flock %s.lock env -u LD_PRELOAD -u CFLAGS -u LDFLAGS -u MAKEFLAGS "
        .. "make -s LUA_VERSION=%s BUILD=%s build"):format(CORE, lua, CORE))
      if status ~= 0 then root, why_not = false, built end
    end
  end
  return root or nil, why_not
end

local CONFIG = [[
load_module $ROOT/usr/lib/nginx/modules/ndk_http_module.so;
load_module $ROOT/usr/lib/nginx/modules/ngx_http_lua_module.so;
$USER
daemon off;
worker_processes $WORKERS;
pid nginx.pid;
error_log error.log notice;
$MAIN
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  lua_package_path "$HERE/lua/?.lua;$HERE/lua/?/init.lua;$HERE/?.lua;$ROOT/usr/share/lua/5.1/?.lua;$PREFIX/?.lua;;";
  lua_package_cpath "$HERE/$CORE/?.so;;";
  $HTTP
  server {
    listen 127.0.0.1:$PORT;
    location = / { return 204; }
    $SERVER
  }
}
]]

local methods = {}
local mt = { __index = methods }

local function start(options)
  local here = assert(support.shell("pwd")):match("[^\n]+")
  local found, message = nginx.ready()
  if not found then error(message, 2) end
  local self = setmetatable({ prefix = support.tmpdir(), port = support.free_port() }, mt)
  os.execute("chmod 755 " .. self.prefix)
  self.url = "http://127.0.0.1:" .. self.port
  local main, words = { options.main or "" }, {}
  for name, value in pairs(options.env or {}) do
    main[#main + 1] = "env " .. name .. ";"
    words[#words + 1] = name .. "=" .. support.quote(value)
  end
  local values = {
    ROOT = found, HERE = here, CORE = CORE, PREFIX = self.prefix, PORT = self.port, WORKERS = options.workers or 1,
    MAIN = table.concat(main, "\n"), HTTP = options.http or "", SERVER = options.server or "",
    USER = support.shell("id -u"):find("^0\n") and "user " .. (options.user or "root") .. ";" or "",
  }
  self.values = values
  self:configure(options)
  for name, text in pairs(options.files or {}) do support.write_file(self.prefix .. "/" .. name, text) end
  -- The library path is for nginx alone: its LuaJIT must not become that of anything it is started by. The shell's
  -- standard input is a pipe from here: nginx ends with this process, however that ends.
  self.pipe = assert(io.popen(("{ setsid %s env %s LD_LIBRARY_PATH=%s/lib %s/usr/sbin/nginx -p %s -e error.log "
    .. "-c nginx.conf </dev/null >%s/out 2>&1 & echo $! >%s/shell; cat >/dev/null; kill -- -$! 2>/dev/null; wait; }")
    :format(options.wrap or "", table.concat(words, " "), found, found, self.prefix, self.prefix, self.prefix), "w"))
  -- nginx writes its own when it listens; until then it is what was started.
  support.wait_for(function()
    self.pid = tonumber((support.read_file(self.prefix .. "/shell") or ""):match("^(%d+)\n"))
    return self.pid
  end, 10, "the start of nginx")
  local ok, raised = pcall(support.wait_for, function()
    if not self:alive() then error("nginx ended", 0) end
    if not self:answers() then return false end
    self.pid = tonumber((support.read_file(self.prefix .. "/nginx.pid"):match("%d+")))
    return true
  end, 10, "nginx's first answer")
  if not ok then
    local said = tostring(raised) .. "\n" .. (support.read_file(self.prefix .. "/out") or "") .. self:log()
    self:stop()
    error(said, 2)
  end
  return self
end

--- Starts one and waits until it answers.
--- options: server (text inside server{}), http, main (text in front), workers (1), env (variables that nginx keeps for
--- its workers), files (name -> text, in the prefix, which is on the package path), user (the workers', "root"), wrap
--- (words put before the program, as `unshare -m`)
---@param options table
---@return table server url, port, prefix
function nginx.start(options)
  local ok, result
  for _ = 1, 3 do
    ok, result = pcall(start, options)
    -- Somebody else was quicker with the port.
    if ok or not tostring(result):find("Address already in use", 1, true) then break end
  end
  if not ok then error(result, 0) end
  return result
end

--- Writes the configuration anew, with other text for http and server; reload() makes it count.
function methods:configure(options)
  self.values.HTTP = options.http or self.values.HTTP
  self.values.SERVER = options.server or self.values.SERVER
  support.write_file(self.prefix .. "/nginx.conf", (CONFIG:gsub("%$(%u+)", function(name)
    return self.values[name] and tostring(self.values[name])
  end)))
end

function methods:answers()
  return select(2, support.shell("curl -s -o /dev/null --max-time 5 " .. self.url .. "/")) == 0
end

function methods:alive()
  local stat = support.read_file("/proc/" .. self.pid .. "/stat")
  return stat ~= nil and not stat:find("%) [ZX] ")
end

function methods:signal(name)
  support.shell("kill -" .. name .. " " .. self.pid)
end

--- The pids of the workers.
function methods:workers()
  local list = {}
  local children = support.read_file(("/proc/%d/task/%d/children"):format(self.pid, self.pid)) or ""
  for pid in children:gmatch("%d+") do list[#list + 1] = tonumber(pid) end
  return list
end

--- GET (or what curl's words say); returns the body and the status.
---@return string body
---@return string status
function methods:get(path, words)
  local output = support.shell(("curl -sS --max-time %d -w '\\n%%{http_code}' %s %s"):format(
    math.ceil(30 * support.slack), words or "", support.quote(self.url .. path)))
  local body, status = output:match("^(.*)\n(%d+)$")
  return body or output, status or ""
end

--- Starts many GETs at once and waits for all. Returns the bodies and the seconds it took.
function methods:burst(paths)
  local folder = support.tmpdir()
  local words = {}
  for i, path in ipairs(paths) do
    words[#words + 1] = ("url = \"%s%s\"\noutput = \"%s/%d\"\n"):format(self.url, path, folder, i)
  end
  support.write_file(folder .. "/config", table.concat(words))
  local seconds = support.timed(os.execute, ("curl -sS --parallel --parallel-immediate --parallel-max 300 "
    .. "--max-time %d -K %s/config 2>%s/err"):format(math.ceil(30 * support.slack), folder, folder))
  local bodies = {}
  for i = 1, #paths do bodies[i] = support.read_file(folder .. "/" .. i) or support.read_file(folder .. "/err") end
  support.cleanup(folder)
  return bodies, seconds
end

--- Runs Lua source in a content handler and returns what it prints with ngx.say. The server must have RUN in it.
nginx.RUN = [[
location = /run {
  client_body_buffer_size 1m;
  content_by_lua_block {
    ngx.req.read_body()
    local chunk = assert(loadstring(ngx.req.get_body_data(), "=run"))
    local ok, raised = xpcall(chunk, debug.traceback)
    if not ok then ngx.say("raised: ", tostring(raised)) end
  }
}
location = /run_in_timer {
  client_body_buffer_size 1m;
  content_by_lua_block {
    ngx.req.read_body()
    local chunk = assert(loadstring(ngx.req.get_body_data(), "=run"))
    local over = assert(require("ngx.semaphore").new())
    local said = {}
    local function say(...)
      for i = 1, select("#", ...) do said[#said + 1] = tostring((select(i, ...))) end
      said[#said + 1] = "\n"
    end
    setfenv(chunk, setmetatable({ say = say }, { __index = _G }))
    assert(ngx.timer.at(0, function()
      local ok, raised = xpcall(chunk, debug.traceback)
      if not ok then say("raised: ", raised) end
      over:post(1)
    end))
    over:wait(60)
    ngx.print(table.concat(said))
  }
}
]]

function methods:run(source, path)
  local file = self.prefix .. "/source.lua"
  support.write_file(file, source)
  return (self:get(path or "/run", "--data-binary @" .. file))
end

--- The same in a timer, where it prints with say().
function methods:run_in_timer(source)
  return self:run(source, "/run_in_timer")
end

function methods:log()
  return support.read_file(self.prefix .. "/error.log") or ""
end

--- What nginx complained of, without lines that hold one of these texts.
function methods:complaints(expected)
  local found = {}
  for line in self:log():gmatch("[^\n]+") do
    local bad = line:find("%[warn%]") or line:find("%[error%]") or line:find("%[alert%]") or line:find("%[crit%]")
      or line:find("%[emerg%]")
    for _, text in ipairs(expected or {}) do
      if line:find(text, 1, true) then bad = nil end
    end
    if bad then found[#found + 1] = line end
  end
  return table.concat(found, "\n")
end

function methods:reload()
  local before = {}
  for _, pid in ipairs(self:workers()) do before[pid] = true end
  self:signal("HUP")
  support.wait_for(function()
    for _, pid in ipairs(self:workers()) do
      if not before[pid] then return true end
    end
  end, 10, "new workers")
end

--- Ends it gracefully; seconds until it was gone.
function methods:quit(seconds)
  local began = support.now()
  self:signal("QUIT")
  support.wait_for(function() return not self:alive() end, seconds or 10, "the end of nginx")
  return support.now() - began
end

--- Ends it for sure and removes its folder.
function methods:stop()
  if self.stopped then return end
  self.stopped = true
  local pids = { self.pid }
  for _, pid in ipairs(self:workers()) do pids[#pids + 1] = pid end
  self:signal("TERM")
  pcall(support.wait_for, function() return not self:alive() end, 5)
  support.shell("kill -9 " .. table.concat(pids, " "))
  self.pipe:close()
  support.cleanup(self.prefix)
end

return nginx
