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
local KILL = 9

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
        if bytes == false then cqueues.poll({ pollfd = self.stdout, events = "r" }, self.wake) end
      end
    end
    self:reap()
  end)
end

---Starts a daemon and waits until it serves.
---@param start table `argv`, `socket` (path, here), `id`, `setup` (its options: the first line of its input)
---@return table|nil daemon
---@return string|nil message
function daemon.start(start)
  local process, message = native.spawn({
    argv = start.argv, env = environment(start.id, start.setup.isolated), cwd = "/",
    stdin = "pipe", stdout = "pipe", stderr = "inherit",
  })
  if not process then return nil, message end
  local self = setmetatable({
    pid = process.pid, stdin = process.stdin, stdout = process.stdout, said = "", alive = true, socket = start.socket,
    id = start.id, isolated = start.setup.isolated,
    idle = condition.new(), wake = condition.new(), over = condition.new(),
  }, daemon)
  local deadline = monotime() + START_TIMEOUT
  self.busy = true
  local ready = write_line(self, json.encode(start.setup), deadline) and read_line(self, deadline)
  self.busy = false
  if ready ~= "ready" then
    self:stop()
    return nil, "the sandbox's daemon did not start" .. (ready and ready ~= "" and ": " .. ready or "")
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

-- Takes a process that has ended, or was killed, out of the system's table.
local function collect(pid)
  while collected[pid] == nil do
    local ended, exited, code = native.wait()
    if ended then
      collected[ended] = exited and code or -1
    else
      cqueues.sleep(0.01)
    end
  end
  local code = collected[pid]
  collected[pid] = nil
  return code
end

---Runs a program and waits for its end, while other coroutines go on.
---@param argv string[]
---@return boolean ok it exited with 0
function daemon.run(argv)
  local process = native.spawn({
    argv = argv, env = environment("none"), stdin = "null", stdout = "null", stderr = "inherit",
  })
  return process ~= nil and collect(process.pid) == 0
end

-- By now it has ended, or is to: nothing of it is used any more.
function daemon:reap()
  if self.reaped then return end
  self.reaped, self.alive = true, false
  close(self, "stdin")
  close(self, "stdout")
  native.kill(self.pid, KILL)
  self.idle:signal()
  self.wake:signal()
  cqueues.running():wrap(function()
    collect(self.pid)
    -- Without walls its children may have outlived it.
    if not self.isolated then root.kill_processes({ [self.id] = true }) end
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
