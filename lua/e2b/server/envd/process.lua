--- The service process.Process: starting, listening to, feeding and signalling processes.
-- @module e2b.server.envd.process

local cqueues = require("cqueues")
local protect = require("e2b.server.protect")
local native = require("e2b.server.native")
local json = require("e2b.server.json")
local child = require("e2b.server.envd.child")
local connect = require("e2b.server.envd.connect")
local paths = require("e2b.server.envd.paths")
local users = require("e2b.server.envd.users")

local process = {}

local monotime = cqueues.monotime

local RETAINED = 30 -- seconds the end of a process can still be asked for
local REAP_WAIT = 0.25 -- seconds a kill waits for the process to be gone
local DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
local SIGKILL, SIGTERM, SIGSTOP, SIGCONT = 9, 15, 19, 18

local by_pid = {} -- what is alive, or at least still has pipes open
local by_tag = {}
local ended_by_pid, ended_by_tag = {}, {} -- what has ended: { pid, tag, ending, expires }
local ended, first_ended, last_ended = {}, 1, 0 -- the same, oldest first
local daemon

-- ---------------------------------------------------------------- messages

local CONFIG = { cmd = "string", args = "[string]", envs = "{string}", cwd = "string?" }
local PTY = { size = { cols = "uint32", rows = "uint32" } }
local SELECTOR = { pid = "uint32?", tag = "string?", oneof = { "pid", "tag" } }
local INPUT = { stdin = "bytes?", pty = "bytes?", oneof = { "stdin", "pty" } }
local SIGNAL = { enum = { SIGNAL_UNSPECIFIED = 0, SIGNAL_SIGTERM = 15, SIGNAL_SIGKILL = 9 } }

-- ---------------------------------------------------------------- who is there

local function sweep()
  local now = monotime()
  while first_ended <= last_ended and ended[first_ended].expires <= now do
    local one = ended[first_ended]
    ended[first_ended] = nil
    first_ended = first_ended + 1
    if ended_by_pid[one.pid] == one then ended_by_pid[one.pid] = nil end
    if one.tag and ended_by_tag[one.tag] == one then ended_by_tag[one.tag] = nil end
  end
end

local function on_end(self)
  sweep()
  local one = { pid = self.pid, tag = self.tag, ending = self.ending, expires = monotime() + RETAINED }
  last_ended = last_ended + 1
  ended[last_ended] = one
  -- The number may belong to another by now, and so may the tag.
  if by_pid[self.pid] == self then
    by_pid[self.pid] = nil
    ended_by_pid[self.pid] = one
  end
  if self.tag and by_tag[self.tag] == self then
    by_tag[self.tag] = nil
    ended_by_tag[self.tag] = one
  end
end

local function register(self)
  by_pid[self.pid] = self
  ended_by_pid[self.pid] = nil
  if self.tag then
    by_tag[self.tag] = self
    ended_by_tag[self.tag] = nil
  end
end

local function name_of(selector)
  if selector and selector.pid then return string.format("process with pid %d not found", selector.pid) end
  if selector and selector.tag then return string.format("process with tag %s not found", selector.tag) end
  connect.raise("unimplemented", "a process is selected by pid or tag")
end

local function find(selector)
  local missing = name_of(selector)
  local found = selector.pid and by_pid[selector.pid] or selector.tag and by_tag[selector.tag]
  if not found then connect.raise("not_found", missing) end
  return found
end

local function find_ended(selector)
  sweep()
  return selector.pid and ended_by_pid[selector.pid] or selector.tag and ended_by_tag[selector.tag]
end

---Tells every child what the system says of those that ended; also reaps orphans that became this process's children.
function process.reap()
  while true do
    local pid, exited, code, core = native.wait()
    if not pid then return end
    local one = by_pid[pid]
    if one and not one.exit then one:reaped(exited, code, core) end
  end
end

-- ---------------------------------------------------------------- Start

local function environment(user, envs)
  local values = {
    PATH = os.getenv("PATH") or DEFAULT_PATH, HOME = paths.real(user.home), USER = user.name, LOGNAME = user.name,
  }
  if paths.is_plain() then values.TMPDIR = paths.real("/tmp") end
  for name, value in pairs(daemon.envs) do values[name] = value end
  for name, value in pairs(envs) do values[name] = value end
  local list = {}
  for name, value in pairs(values) do list[#list + 1] = name .. "=" .. value end
  return list
end

local function command_line(config)
  return table.concat(config.args, " ", 1) ~= "" and config.cmd .. " " .. table.concat(config.args, " ") or config.cmd
end

-- Starts it as the user; where the system has only one user, as that one.
local function spawn(plan, user)
  plan.uid, plan.gid, plan.groups = users.ids(user)
  local spawned, problem, _, step = native.spawn(plan)
  if not spawned and (step == "user" or step == "groups") and users.cannot_switch() then
    plan.uid, plan.gid, plan.groups = nil, nil, nil
    spawned, problem, _, step = native.spawn(plan)
  end
  return spawned, problem, step
end

-- Neither arguments nor variables can hold a zero byte.
local function has_zero(config)
  local texts = { config.cmd, config.cwd or "", table.concat(config.args) }
  for name, value in pairs(config.envs) do texts[#texts + 1] = name .. value end
  return table.concat(texts):find("\0", 1, true) ~= nil
end

local function launch(request, message)
  local config = message.process or { cmd = "", args = {}, envs = {} }
  local user = users.required(request)
  local cwd, problem = paths.resolve(user, config.cwd)
  if not cwd then connect.raise("invalid_argument", problem) end
  local starting = "error starting process '" .. command_line(config) .. "': "
  if has_zero(config) then connect.raise("invalid_argument", starting .. "invalid argument") end
  local argv = { config.cmd }
  for i, argument in ipairs(config.args) do argv[i + 1] = argument end
  local plan = {
    argv = argv, env = environment(user, config.envs), cwd = paths.real(cwd), death_signal = SIGKILL,
    descriptors = daemon.descriptors,
    stdin = message.stdin == false and "null" or "pipe",
    pty = message.pty and (message.pty.size or { cols = 0, rows = 0 }),
  }
  local spawned, step
  spawned, problem, step = spawn(plan, user)
  local missing = step == "cwd" and problem == "no such file or directory"
  if missing and paths.is_plain() then
    -- Folders of the machine itself can be worked in too.
    plan.cwd = cwd
    spawned = spawn(plan, user)
  end
  if spawned then return spawned, config end
  if missing then
    connect.raise("invalid_argument", string.format("cwd '%s' does not exist", cwd))
  end
  connect.raise("invalid_argument", starting .. "fork/exec /bin/sh: " .. problem)
end

local function follow(self, listener, request, send, clock)
  local ok, raised = protect(listener.run, listener, request, send, clock)
  self:unlisten(listener)
  if not ok then error(raised, 0) end
end

local function start(request, message, send)
  if daemon.ending then connect.raise("unavailable", "the sandbox is ending") end
  local spawned, config = launch(request, message)
  local self = child.new(spawned, { config = config, tag = message.tag, deadline = request.deadline }, on_end)
  register(self)
  local listener = self:listen()
  listener:push(child.start_event(self.pid))
  follow(self, listener, request, send, self)
end

local function listen(request, message, send)
  name_of(message.process)
  local one = find_ended(message.process)
  if one then
    send(child.start_event(one.pid) .. one.ending)
    return
  end
  local self = find(message.process)
  local listener = self:listen()
  listener:push(child.start_event(self.pid))
  follow(self, listener, request, send, request)
end

-- ---------------------------------------------------------------- the others

local function list()
  local processes = json.array({})
  for _, self in pairs(by_pid) do
    local config = { cmd = self.config.cmd, cwd = self.config.cwd }
    if self.config.args[1] then config.args = json.array(self.config.args) end
    if next(self.config.envs) then config.envs = self.config.envs end
    processes[#processes + 1] = { config = config, pid = self.pid, tag = self.tag }
  end
  table.sort(processes, function(a, b) return a.pid < b.pid end)
  return processes[1] and { processes = processes } or {}
end

local function put(self, input, request)
  local kind = input and (input.stdin and "stdin" or input.pty and "pty")
  if not kind then connect.raise("unimplemented", "invalid input type") end
  local ok, problem = self:write(kind, input[kind], request)
  if not ok then
    connect.raise("internal", string.format("error writing to %s: %s", kind == "pty" and "tty" or kind, problem))
  end
end

local function send_input(request, message)
  put(find(message.process), message.input, request)
end

local function stream_input(request, next_message)
  local self
  local message = next_message()
  while message do
    if message.start then
      self = find(message.start.process)
    elseif message.data then
      if not self then connect.raise("invalid_argument", "data before start") end
      put(self, message.data.input, request)
    elseif not message.keepalive then
      connect.raise("unimplemented", "invalid event type")
    end
    message = next_message()
  end
end

local function close_stdin(_, message)
  local self = find(message.process)
  if self.is_pty then
    connect.raise("unknown", "error closing stdin: cannot close stdin for PTY process, send the byte 0x04 instead")
  end
  self:close_stdin()
end

local NUMBERS = { SIGNAL_SIGTERM = SIGTERM, SIGNAL_SIGKILL = SIGKILL }

local function send_signal(_, message)
  local self = find(message.process)
  local name = message.signal or "SIGNAL_UNSPECIFIED"
  local number = NUMBERS[name]
  if not number then connect.raise("unimplemented", "invalid signal: " .. tostring(name)) end
  local ok, problem = self:signal(number)
  if not ok then connect.raise("internal", "error sending signal: " .. problem) end
  -- Who kills and then looks should not find it any more.
  if number == SIGKILL then self:wait_reaped(REAP_WAIT) end
end

local function update(_, message)
  local self = find(message.process)
  local size = message.pty and message.pty.size
  if not size then return end
  local ok, problem = self:resize(size.cols, size.rows)
  if not ok then connect.raise("internal", "error resizing tty: " .. problem) end
end

---@param router table e2b.server.router
---@param state table the daemon
function process.routes(router, state)
  daemon = state
  local path = "/process.Process/"
  connect.stream(router, path .. "Start", start, { process = CONFIG, pty = PTY, tag = "string?", stdin = "bool?" })
  connect.stream(router, path .. "Connect", listen, { process = SELECTOR })
  connect.service(router, path .. "List", list, {})
  connect.service(router, path .. "SendInput", send_input, { process = SELECTOR, input = INPUT })
  connect.service(router, path .. "CloseStdin", close_stdin, { process = SELECTOR })
  connect.service(router, path .. "SendSignal", send_signal, { process = SELECTOR, signal = SIGNAL })
  connect.service(router, path .. "Update", update, { process = SELECTOR, pty = PTY })
  connect.client_stream(router, path .. "StreamInput", stream_input, {
    start = { process = SELECTOR }, data = { input = INPUT }, keepalive = {}, oneof = { "start", "data", "keepalive" },
  })
end

-- ---------------------------------------------------------------- all of them

local stopped, is_stopped = {}, {} -- pids that a pause has stopped, in the order of the stopping, and as a set
local stopped_at

local function stop_once()
  local pids, states = native.descendants()
  local again = false
  for i, pid in ipairs(pids) do
    if not is_stopped[pid] and states[i] ~= "T" and states[i] ~= "t" and states[i] ~= "Z" then
      if native.kill(pid, SIGSTOP) then
        stopped[#stopped + 1] = pid
        is_stopped[pid] = true
      end
      again = true
    end
  end
  return again
end

---Stops every process of the sandbox but this one. Those that were stopped before stay so after `resume`.
function process.pause()
  if stopped_at then return end
  stopped_at = monotime()
  for _, self in pairs(by_pid) do self:set_paused(true) end
  -- Until a round finds nobody new: one that was just being started may have been missed.
  while stop_once() do cqueues.sleep(0.001) end
end

---Continues what `pause` stopped. The clocks of the processes stood still meanwhile.
function process.resume()
  if not stopped_at then return end
  local seconds = monotime() - stopped_at
  -- Children first: a shell that continued before them would take note of their having stopped.
  for i = #stopped, 1, -1 do native.kill(stopped[i], SIGCONT) end
  stopped, is_stopped, stopped_at = {}, {}, nil
  for _, self in pairs(by_pid) do self:set_paused(false, seconds) end
end

---Kills everything that was started, and what that started, until nothing is left.
---@param seconds number at most; what the system itself holds cannot be killed
function process.kill_all(seconds)
  local deadline = monotime() + seconds
  repeat
    if native.pid() == 1 then native.kill(-1, SIGKILL) end
    local pids, states = native.descendants()
    local left = false
    for i, pid in ipairs(pids) do
      native.kill(pid, SIGKILL)
      left = left or states[i] ~= "Z"
    end
    process.reap()
    if left then cqueues.sleep(0.002) end
  until not left or monotime() >= deadline
end

return process
