--- The daemon as a program: one runs for each sandbox, inside of it, and speaks envd's protocol on a Unix socket.
--
-- The first line of its standard input is a JSON object of options: `socket`, `sandbox_id`, `template_id`, `envs`,
-- `access_token`, `default_user`, `default_workdir`, `users`, `plain_root`, `cpu_count`, `version`. It prints "ready".
-- Each further line is a command, answered by one line: `{"command":"pause"}`, `{"command":"resume"}`. When standard
-- input ends, everything that was started in the sandbox is killed, and the daemon ends.
-- @module e2b.server.envd.main

local main = {}

local KILL_TIME = 5 -- seconds; nothing but the system itself holds a process longer
local MAX_LINE = 16 * 1024 * 1024

-- Lines of a descriptor, without a buffer that `poll` would know nothing of.
local function line_reader(cqueues, native, fd)
  local buffer = ""
  local ready = { pollfd = fd, events = "r" }
  return function()
    while true do
      local line, rest = buffer:match("^([^\n]*)\n(.*)$")
      if line then
        buffer = rest
        return line
      end
      if cqueues.running() then cqueues.poll(ready) end
      local piece = native.read(fd, 65536)
      if piece == nil or #buffer > MAX_LINE then return nil end
      if piece then buffer = buffer .. piece end
    end
  end
end

local function say(line)
  io.stdout:write(line, "\n")
  io.stdout:flush()
end

local function make_daemon(options)
  local function text(name)
    return options[name] ~= "" and options[name] or nil
  end
  return {
    options = options, access_token = text("access_token"), default_user = text("default_user") or "root",
    default_workdir = text("default_workdir"), user_envs = options.envs or {}, envs = {},
  }
end

-- Ends everything, then this process.
local function finish(daemon, process)
  if daemon.ending then return end
  daemon.ending = true
  os.remove(daemon.options.socket)
  process.kill_all(KILL_TIME)
  os.exit(0)
end

local COMMANDS = {
  pause = function(process) process.pause() end,
  resume = function(process) process.resume() end,
}

local function obey(json, process, line)
  local given = json.decode(line)
  local command = json.is_object(given) and COMMANDS[given.command]
  if not command then return json.encode({ error = "unknown command" }) end
  command(process)
  return json.encode({ ok = true })
end

-- Not a generic for: on Lua 5.1 nothing can wait inside of its iterator.
local function obey_all(json, process, next_line)
  local line = next_line()
  while line do
    say(obey(json, process, line))
    line = next_line()
  end
end

-- Takes over the signals that matter before there are children and before anybody can know the socket.
local function signals(daemon, process)
  local signal = require("cqueues.signal")
  signal.ignore(signal.SIGPIPE)
  signal.block(signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
  local listener = signal.listen(signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
  return function()
    while true do
      local number = listener:wait()
      if number == signal.SIGCHLD then
        process.reap()
      elseif number then
        finish(daemon, process)
      end
    end
  end
end

local function run(options, next_line, cqueues)
  local native = require("e2b.server.native")
  local json = require("e2b.server.json")
  local daemon = make_daemon(options)
  require("e2b.server.envd.users").setup(daemon)
  require("e2b.server.envd.paths").setup(daemon)
  local protect = require("e2b.server.protect")
  local process = require("e2b.server.envd.process")
  -- Out of reach of the terminal that the server may run in; what loses its parent comes to this process.
  native.session()
  native.subreaper()
  native.umask(18)
  -- Many commands at once need many; each of them starts with as many as there were.
  daemon.descriptors = native.raise_descriptors()
  local watch = signals(daemon, process)
  local cq = cqueues.new()
  local app = require("e2b.server.envd.app").new(daemon)
  local server, problem = require("e2b.server.http").listen(cq, app, {
    path = options.socket, stream = true, keep_alive = 640,
  })
  if not server then return nil, "cannot listen on " .. options.socket .. ": " .. problem end
  cq:wrap(watch)
  cq:wrap(function()
    -- Whatever happens to the commands: without them nobody could end this process any more.
    local fine, raised = protect(obey_all, json, process, next_line)
    if not fine then io.stderr:write("e2b-server: ", tostring(raised), "\n") end
    server:close()
    finish(daemon, process)
  end)
  say("ready")
  while true do
    local fine, raised = cq:loop()
    -- One coroutine failed; the others go on.
    if not fine then io.stderr:write("e2b-server: ", tostring(raised), "\n") end
  end
end

---The program. Returns only when it could not start.
---@return integer code for os.exit
function main.main()
  -- Of lua-http nothing else is used here, and a sandbox waits for its daemon.
  local ok, problem = require("e2b.server.requirements").load()
  if ok then
    local cqueues = require("cqueues")
    local json = require("e2b.server.json")
    local next_line = line_reader(cqueues, require("e2b.server.native"), 0)
    local options = json.decode(next_line() or "")
    if json.is_object(options) and type(options.socket) == "string" then
      local _
      _, problem = run(json.plain(options), next_line, cqueues)
    else
      problem = "the first line of standard input must be a JSON object with the path of a socket"
    end
  end
  io.stderr:write("e2b-server: ", tostring(problem), "\n")
  return 1
end

return main
