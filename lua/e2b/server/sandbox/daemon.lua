--- One running daemon: its process, the line it obeys, the socket it serves.
-- Its standard input takes one JSON command a line, each answered by a line on its standard output; the end of its
-- standard output is how the server learns of its end.
-- @module e2b.server.sandbox.daemon

local cqueues = require("cqueues")
local condition = require("cqueues.condition")
local json = require("e2b.server.json")
local native = require("e2b.server.native")
local proxy = require("e2b.server.proxy")
local root = require("e2b.server.sandbox.root")

local daemon = {}
daemon.__index = daemon

local monotime = cqueues.monotime

local START_TIMEOUT = 30 -- seconds; a machine under load starts slowly
local COMMAND_TIMEOUT = 30
local STOP_TIMEOUT = 3 -- seconds a daemon without walls has to end its children
local GONE_TIMEOUT = 5 -- seconds; nothing but the system itself holds a process longer
local MAX_SAID = 65536 -- bytes of a line of its output
local KILL = 9

-- What is shown of its standard error: what runs in the sandbox can write there too.
local MAX_LINE = 1000
local MAX_SHOWN = 262144
local FLOOD_PAUSE = 0.05 -- seconds between two reads of what is not shown
local LAST_READS = 4 -- after its end

-- How the sanitizers are told what to do, where a daemon runs under them.
local PASSED_ON = { "ASAN_OPTIONS", "LSAN_OPTIONS", "UBSAN_OPTIONS" }

local function environment(id, isolated)
  local env = {
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "E2B_SANDBOX_ID=" .. id,
  }
  for _, name in ipairs(PASSED_ON) do
    local value = os.getenv(name)
    -- Behind walls the file of known leaks is not to be seen.
    if value and isolated then value = name == "LSAN_OPTIONS" and "" or value .. ":detect_leaks=0" end
    if value then env[#env + 1] = name .. "=" .. value end
  end
  return env
end

local function wait_for(fd, events, deadline)
  cqueues.poll({ pollfd = fd, events = events }, math.max(deadline - monotime(), 0))
end

-- The next line of its standard output; nil when there is none any more or the time is over.
local function read_line(self, deadline)
  while true do
    local line, rest = self.said:match("^([^\n]*)\n(.*)$")
    if line then
      self.said = rest
      return line
    end
    if not self.stdout then return nil end
    local bytes = native.read(self.stdout, 65536)
    if bytes then
      self.said = self.said .. bytes
      if #self.said > MAX_SAID then return nil end
    elseif bytes == nil then
      return nil
    else
      if monotime() >= deadline then return nil end
      wait_for(self.stdout, "r", deadline)
    end
  end
end

local function write_line(self, text, deadline)
  local line, from = text .. "\n", 1
  while from <= #line do
    local taken = native.write(self.stdin, line, from)
    if taken == nil then return nil end
    if taken then
      from = from + taken
    else
      if monotime() >= deadline then return nil end
      wait_for(self.stdin, "w", deadline)
    end
    if not self.stdin then return nil end
  end
  return true
end

local function close(self, name)
  local fd = self[name]
  if fd then
    self[name] = nil
    cqueues.cancel(fd)
    native.close(fd)
  end
end

-- Watches for its end: nothing is read here but what nobody waits for.
local function watch(self)
  cqueues.running():wrap(function()
    while self.alive do
      -- A command reads its own answer.
      if self.busy then
        self.idle:wait()
      else
        local bytes = self.stdout and native.read(self.stdout, 65536)
        if bytes == nil then break end
        if bytes == false then
          cqueues.poll({ pollfd = self.stdout, events = "r" }, self.wake)
        else
          cqueues.sleep(FLOOD_PAUSE)
        end
      end
    end
    self:reap()
  end)
end

-- ---------------------------------------------------------------- its standard error

local function show(self, line)
  line = line:sub(1, MAX_LINE):gsub("^e2b%-server: ", ""):gsub("\t", " "):gsub("[%c\127]", "?")
    :gsub("\194[\128-\159]", "?")
  self.shown = self.shown + #line + 1
  io.stderr:write("e2b-server: ", self.id, ": ", line, "\n")
  if self.shown >= MAX_SHOWN then io.stderr:write("e2b-server: ", self.id, ": more of this is not shown\n") end
end

local function show_lines(self, text)
  local rest = text:gsub("([^\n]*)\n", function(line)
    if line ~= "" and self.shown < MAX_SHOWN then show(self, line) end
    return ""
  end)
  if #rest < MAX_LINE then return rest end
  if self.shown < MAX_SHOWN then show(self, rest) end
  return ""
end

-- Copies it to this process's own, which nothing in a sandbox may have a descriptor of.
local function copy_errors(self)
  local rest, reads = "", 0
  while true do
    local bytes = native.read(self.stderr, 65536)
    if self.over_with then reads = reads + 1 end
    if bytes and reads <= LAST_READS then
      rest = show_lines(self, rest .. bytes)
      cqueues.sleep(self.shown < MAX_SHOWN and 0 or FLOOD_PAUSE)
    elseif bytes == nil or self.over_with then
      break
    else
      cqueues.poll({ pollfd = self.stderr, events = "r" }, self.wake)
    end
  end
  if rest ~= "" then show_lines(self, rest .. "\n") end
  close(self, "stderr")
  self.wake:signal()
end

-- ---------------------------------------------------------------- its beginning

-- Takes its socket away from where the sandbox could put something else in its place.
local function take_socket(start)
  local ok, message = native.fs_rename(start.made, start.socket)
  if not ok then return nil, message end
  local facts = native.fs_lstat(start.socket)
  if facts and facts.type == "socket" then return true end
  return nil, "there is something else in place of its socket"
end

-- The process behind the walls: bubblewrap's only child.
local function find_init(self)
  local pids, _, parents = native.descendants()
  for i, pid in ipairs(pids) do
    if parents[i] == self.pid then return pid end
  end
end

local mine = {} -- processes that were started here, and not yet collected

---Starts a daemon and waits until it serves.
---@param start table `argv`, `made` (path of the socket that it makes, as it is called here), `socket` (where that is
---  moved to), `id`, `setup` (its options: the first line of its input), `descriptors` (how many it begins with)
---@return table|nil daemon
---@return string|nil message
function daemon.start(start)
  local process, message = native.spawn({
    argv = start.argv, env = environment(start.id, start.setup.isolated), cwd = "/",
    stdin = "pipe", stdout = "pipe", stderr = "pipe", descriptors = start.descriptors,
  })
  if not process then return nil, message end
  mine[process.pid] = true
  local self = setmetatable({
    pid = process.pid, stdin = process.stdin, stdout = process.stdout, stderr = process.stderr, said = "", alive = true,
    socket = start.socket, id = start.id, isolated = start.setup.isolated, shown = 0,
    idle = condition.new(), wake = condition.new(), over = condition.new(),
  }, daemon)
  cqueues.running():wrap(copy_errors, self)
  local deadline = monotime() + START_TIMEOUT
  self.busy = true
  local ready = write_line(self, json.encode(start.setup), deadline) and read_line(self, deadline)
  self.busy = false
  local problem = ready
  if ready == "ready" then
    self.init = self.isolated and find_init(self)
    ready, problem = take_socket(start)
  else
    ready = nil
  end
  if not ready then
    self:stop()
    return nil, "the sandbox's daemon did not start" .. (problem and problem ~= "" and ": " .. problem or "")
  end
  watch(self)
  return self
end

---Tells it to do something and waits until it is done.
---@param name string
---@return boolean ok
function daemon:command(name)
  while self.busy do self.idle:wait() end
  if not self.alive then return false end
  self.busy = true
  self.wake:signal()
  local deadline = monotime() + COMMAND_TIMEOUT
  local line = write_line(self, json.encode({ command = name }), deadline) and read_line(self, deadline)
  self.busy = false
  self.idle:signal()
  local answer = line and json.decode(line)
  return json.is_object(answer) and answer.ok == true
end

---@return table|nil wire a connection to it
---@return boolean|nil dead it serves no more
function daemon:connect()
  if not self.alive then return nil, true end
  return proxy.dial(self.socket)
end

-- ---------------------------------------------------------------- its end

local collected = {} -- exit codes of processes that have ended before they were asked for

-- Takes those that have ended out of the system's table.
local function collect_all()
  while true do
    local ended, exited, code = native.wait()
    if not ended then return end
    if mine[ended] then collected[ended] = exited and code or -1 end
  end
end

-- Waits for the end of a process that ends by itself, or was killed.
local function collect(pid)
  collect_all()
  while collected[pid] == nil do
    cqueues.sleep(0.01)
    collect_all()
  end
  local code = collected[pid]
  collected[pid], mine[pid] = nil, nil
  return code
end

local function kill(pid)
  if collected[pid] == nil then native.kill(pid, KILL) end
end

local adopts = false

---From now on what loses its parent, a daemon that was killed, becomes a child of this process, so that it can be
---ended. Not where that could be somebody else's.
function daemon.adopt()
  if native.pid() ~= 1 and #native.descendants() == 0 then adopts = native.subreaper() end
end

local function end_orphans()
  local me, deadline = native.pid(), monotime() + GONE_TIMEOUT
  repeat
    local left = false
    local pids, _, parents = native.descendants()
    for i, pid in ipairs(pids) do
      if parents[i] == me and not mine[pid] then
        native.kill(pid, KILL)
        left = true
      end
    end
    collect_all()
    if left then cqueues.sleep(0.005) end
  until not left or monotime() >= deadline
end

-- The first process behind the walls is gone only after all the others in there.
local function wait_for_init(self)
  local path, deadline = string.format("/proc/%d", self.init), monotime() + GONE_TIMEOUT
  while native.fs_lstat(path) and monotime() < deadline do
    cqueues.sleep(0.002)
    collect_all()
  end
end

---Runs a program and waits for its end, while other coroutines go on.
---@param argv string[]
---@return boolean ok it exited with 0
function daemon.run(argv)
  local process = native.spawn({
    argv = argv, env = environment("none"), stdin = "null", stdout = "null", stderr = "inherit",
  })
  if not process then return false end
  mine[process.pid] = true
  return collect(process.pid) == 0
end

-- By now it has ended, or is to: nothing of it is used any more.
function daemon:reap()
  if self.reaped then return end
  self.reaped, self.alive = true, false
  -- Before its input ends, which it would take for an order to tell everybody of the end.
  if not self.init then
    kill(self.pid)
  elseif find_init(self) == self.init then
    native.kill(self.init, KILL)
  end
  close(self, "stdin")
  close(self, "stdout")
  self.idle:signal()
  self.wake:signal()
  cqueues.running():wrap(function()
    if self.init then
      wait_for_init(self)
      kill(self.pid)
    end
    collect(self.pid)
    -- Without walls its children may have outlived it.
    if not self.isolated then root.kill_processes({ [self.id] = true }) end
    if adopts then end_orphans() end
    self.over_with = true
    while self.stderr do
      self.wake:signal()
      cqueues.poll(self.wake, 0.1)
    end
    self.ended = true
    self.over:signal()
    if self.on_end then self.on_end() end
  end)
end

---Ends it and everything in its sandbox; `wait` says when that is done.
function daemon:stop()
  if not self.alive then return end
  self.alive = false
  if self.isolated or not self.stdin then return self:reap() end
  -- Without walls it alone knows its children: the end of its input is the order to end them.
  close(self, "stdin")
  self.wake:signal()
  cqueues.running():wrap(function()
    local deadline = monotime() + STOP_TIMEOUT
    while self.stdout and native.read(self.stdout, 65536) ~= nil and monotime() < deadline do
      wait_for(self.stdout, "r", deadline)
    end
    self:reap()
  end)
end

---Waits until it has ended and with it everything it started.
function daemon:wait()
  if not self.ended then self.over:wait() end
end

return daemon
