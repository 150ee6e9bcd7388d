--- One process: its pipes or its terminal, those who listen to it, its end.
-- @module e2b.server.envd.child

local cqueues = require("cqueues")
local condition = require("cqueues.condition")
local protect = require("e2b.server.protect")
local native = require("e2b.server.native")
local connect = require("e2b.server.envd.connect")
local json = require("e2b.server.json")
local outbox = require("e2b.server.envd.outbox")

local child = {}
local methods = {}
local meta = { __index = methods, __name = "e2b.server.child" }

local monotime = cqueues.monotime

local PIPE_CHUNK = 32768
local PTY_CHUNK = 16384
local ROUNDS = 16 -- reads after which the others get their turn
local LAST_WORDS = 131072 -- bytes still read from a pipe that others hold open when the process was told to end
local SIGKILL = 9

-- ---------------------------------------------------------------- its end, in words

local SIGNALS = {
  "hangup", "interrupt", "quit", "illegal instruction", "trace/breakpoint trap", "aborted", "bus error",
  "floating point exception", "killed", "user defined signal 1", "segmentation fault", "user defined signal 2",
  "broken pipe", "alarm clock", "terminated", "stack fault", "child exited", "continued", "stopped (signal)", "stopped",
  "stopped (tty input)", "stopped (tty output)", "urgent I/O condition", "CPU time limit exceeded",
  "file size limit exceeded", "virtual timer expired", "profiling timer expired", "window changed", "I/O possible",
  "power failure", "bad system call",
}

local function end_event(exit)
  local event
  if exit.exited then
    local status = "exit status " .. exit.code
    event = { exited = true, status = status }
    if exit.code ~= 0 then event.exitCode, event.error = exit.code, status end
  else
    local status = "signal: " .. (SIGNALS[exit.code] or "signal " .. exit.code)
    if exit.core then status = status .. " (core dumped)" end
    event = { exitCode = -1, status = status, error = status }
  end
  return connect.envelope(0, json.encode({ event = { ["end"] = event } }))
end

---@param pid integer
---@return string envelope
function child.start_event(pid)
  return connect.envelope(0, string.format('{"event":{"start":{"pid":%d}}}', pid))
end

-- ---------------------------------------------------------------- output

local function is_full(self)
  for listener in pairs(self.listeners) do
    if listener:is_full() then return true end
  end
  return false
end

local function close(fd)
  cqueues.cancel(fd)
  native.close(fd)
end

-- Reads one pipe or the terminal to its end and hands what comes to everybody who listens; what nobody hears is lost.
local function pump(self, fd, kind, most)
  local ready = { pollfd = fd, events = "r" }
  local rounds, last_words = 0, LAST_WORDS
  while true do
    if is_full(self) and not self.draining then
      rounds = 0
      cqueues.poll(self.room, self.changed)
    else
      local event = native.read_event(fd, most, next(self.listeners) and kind or nil)
      if event then
        if event ~= true then
          for listener in pairs(self.listeners) do listener:push(event) end
        end
        rounds = rounds + 1
        if self.draining then
          last_words = last_words - most
          if last_words <= 0 then break end
        end
        if rounds == ROUNDS then
          rounds = 0
          cqueues.sleep(0)
        end
      elseif event == nil or self.draining then
        break
      else
        rounds = 0
        cqueues.poll(ready, self.changed)
      end
    end
  end
  -- The terminal is also written to: it is closed with the rest.
  if fd ~= self.pty then close(fd) end
  self.reading = self.reading - 1
  self.changed:signal()
end

-- ---------------------------------------------------------------- its life

local function close_input(self)
  local fd = self.stdin
  self.stdin = nil
  if fd then
    close(fd)
    self.changed:signal()
  end
end

-- Kills the process when its time is over. It stands still while the sandbox is paused.
local function check_clock(self)
  if self.deadline and not self.exit and not self.paused and monotime() >= self.deadline then
    self:signal(SIGKILL)
  end
  if not self.deadline or self.exit or self.paused then return nil end
  return math.max(self.deadline - monotime(), 0)
end

local function live(self, on_end)
  while not (self.exit and (self.reading == 0 or self.signalled)) do
    self.changed:wait(check_clock(self))
  end
  self.draining = true
  self.changed:signal()
  while self.reading > 0 do self.changed:wait() end
  close_input(self)
  if self.pty then
    local fd = self.pty
    self.pty = nil
    close(fd)
    self.changed:signal()
  end
  self.ending = end_event(self.exit)
  on_end(self)
  for listener in pairs(self.listeners) do
    listener:push(self.ending)
    listener:finish()
  end
  self.listeners = {}
end

---Takes charge of a process that was just spawned.
---@param spawned table what `native.spawn` answered
---@param info table `config` and `tag` as they were sent, `deadline` (monotime) when it is killed
---@param on_end fun(self: table) called once, before the listeners are told
---@return table child
function child.new(spawned, info, on_end)
  local self = setmetatable({
    pid = spawned.pid, config = info.config, tag = info.tag, deadline = info.deadline, stdin = spawned.stdin,
    pty = spawned.pty, is_pty = spawned.pty ~= nil, reading = 0, listeners = {}, writers = {},
    changed = condition.new(), room = condition.new(),
  }, meta)
  local cq = cqueues.running()
  for _, kind in ipairs({ "stdout", "stderr", "pty" }) do
    local fd = spawned[kind]
    if fd then
      self.reading = self.reading + 1
      cq:wrap(pump, self, fd, kind, kind == "pty" and PTY_CHUNK or PIPE_CHUNK)
    end
  end
  cq:wrap(live, self, on_end)
  return self
end

---The system says how it ended.
---@param exited boolean
---@param code integer exit code, or the signal
---@param core boolean
function methods:reaped(exited, code, core)
  self.exit = { exited = exited, code = code, core = core }
  self.changed:signal()
end

---Sends a signal to the process alone. From now on nobody waits for others that hold its pipes.
---@param number integer
---@return boolean|nil ok
---@return string|nil message
function methods:signal(number)
  if not self.exit then
    local ok, problem = native.kill(self.pid, number)
    if not ok then return nil, problem end
  end
  self.signalled = true
  self.changed:signal()
  return true
end

---Waits until the system has reaped it.
---@param seconds number at most
function methods:wait_reaped(seconds)
  local deadline = monotime() + seconds
  while not self.exit and monotime() < deadline do
    self.changed:wait(math.max(deadline - monotime(), 0))
  end
end

---Stops or continues its clock.
---@param paused boolean
---@param seconds number|nil how long it was stopped
function methods:set_paused(paused, seconds)
  self.paused = paused
  if self.deadline and seconds then self.deadline = self.deadline + seconds end
  self.changed:signal()
  for listener in pairs(self.listeners) do listener:wake() end
end

-- ---------------------------------------------------------------- listening

---@return table outbox that gets everything from now on
function methods:listen()
  local listener = outbox.new(function() self.room:signal() end)
  self.listeners[listener] = true
  return listener
end

---@param listener table
function methods:unlisten(listener)
  self.listeners[listener] = nil
  listener:leave()
end

-- ---------------------------------------------------------------- input

-- Waits for a change, or for the descriptor; raises when the request's time is over, or nobody waits for its end.
local function pause(self, request, ready)
  connect.check_deadline(request)
  request.closed = request.closed or request.on_gone()
  local timeout = request.deadline and math.max(request.deadline - monotime(), 0)
  if ready then
    cqueues.poll(ready, self.changed, request.closed, timeout)
  else
    cqueues.poll(self.changed, request.closed, timeout)
  end
  if request.gone() then connect.raise("canceled", "the client is gone") end
end

-- All of it, waiting while the other side is full.
local function write_all(self, field, bytes, request)
  local from = 1
  while from <= #bytes do
    local fd = self[field]
    if not fd then return nil, "it has been closed" end
    local count, problem = native.write(fd, bytes, from)
    if count then
      from = from + count
    elseif count == nil then
      return nil, problem
    else
      pause(self, request, { pollfd = fd, events = "w" })
    end
  end
  return true
end

-- One writer at a time, in the order they came.
local function write_in_turn(self, field, bytes, request, mine)
  while self.writers[1] ~= mine do pause(self, request) end
  return write_all(self, field, bytes, request)
end

---Writes to standard input or to the terminal; waits while that is full.
---@param kind string "stdin" or "pty"
---@param bytes string
---@param request table its deadline ends the waiting
---@return boolean|nil ok
---@return string|nil message
function methods:write(kind, bytes, request)
  if kind == "stdin" and self.is_pty then return nil, "the process has a terminal" end
  if kind == "pty" and not self.is_pty then return nil, "the process has no terminal" end
  if not self[kind] then
    return nil, kind == "pty" and "the terminal is closed" or "stdin not enabled or closed"
  end
  local mine = {}
  table.insert(self.writers, mine)
  local ok, done, problem = protect(write_in_turn, self, kind, bytes, request, mine)
  for i, writer in ipairs(self.writers) do
    if writer == mine then table.remove(self.writers, i) end
  end
  self.changed:signal()
  if not ok then error(done, 0) end
  return done, problem
end

---Closes standard input; again and again if need be.
function methods:close_stdin()
  close_input(self)
end

---@param cols integer
---@param rows integer
---@return boolean|nil ok
---@return string|nil message
function methods:resize(cols, rows)
  if not self.pty then return nil, "the process has no terminal" end
  return native.resize(self.pty, cols, rows)
end

return child
