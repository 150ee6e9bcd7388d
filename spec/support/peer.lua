-- A raw TCP (or TLS) peer in a process of its own, which does to its client what a spec tells it to: each connection
-- runs
-- a piece of Lua source. The process ends with this one, however this one ends: its standard input is a pipe from here.
--
--   local peer = require("spec.support.peer")
--   local server = peer.start([[
--     local request = conn:read_request()
--     conn:respond(200, '{"ok":true}', { ["X-Test"] = "1" })
--   ]])
--   … server.url, server.port, server:count(), server:requests(), server:stop()
--
-- In the handler: `conn` (see peer_main.lua), `shared` (a table that all connections of the peer see),
-- `server.signalled`.
local support = require("spec.support.support")

local peer = {}
local methods = {}
local meta = { __index = methods }

local here = debug.getinfo(1, "S").source:match("^@(.*)peer%.lua$") or "spec/support/"

--- Starts a peer.
---@param options string|table handler source, or { handler=, host="127.0.0.1", port=0,
---  tls={ certificate=, key= } (paths),
---  alpn = "h2" (the protocol to agree on), listen_after = s (with a port: connections are refused until then) }
---@return table server url, host, port, and the methods below
function peer.start(options)
  if type(options) == "string" then
    options = { handler = options }
  end
  local folder = support.tmpdir()
  support.write_file(folder .. "/handler.lua", options.handler)
  support.write_file(folder .. "/config.lua", support.serialize({
    host = options.host or "127.0.0.1",
    port = options.port or 0,
    listen_after = options.listen_after,
    tls = options.tls,
    alpn = options.alpn,
  }))
  -- A sanitizer preloaded for the code under test has no business in here: the program itself, without the script
  -- that may have started it.
  local program = support.shell("readlink /proc/$PPID/exe"):match("^%S+/%S*lua[^/%s]*") -- nor a valgrind
  local command = support.lua_command({ LD_PRELOAD = false }, program)
  command = command .. " " .. support.quote(here .. "peer_main.lua")
  command = "exec " .. command .. " " .. support.quote(folder) .. " >" .. folder .. "/log 2>&1"
  local pipe = assert(io.popen(command, "w"))
  local self = setmetatable({ folder = folder, pipe = pipe, offset = 0, records = {} }, meta)
  local limit = support.now() + 10 * support.slack
  while true do
    local port = support.read_file(folder .. "/port")
    if port then
      self.port = tonumber(port)
      break
    end
    local log = support.read_file(folder .. "/log")
    if log and log ~= "" or support.now() > limit then
      pipe:close()
      local text = support.read_file(folder .. "/log") or ""
      support.cleanup(folder)
      error("the peer did not start: " .. text, 2)
    end
    support.sleep(0.001)
  end
  self.host = options.host or "127.0.0.1"
  self.url = (options.tls and "https://" or "http://") .. (options.name or self.host) .. ":" .. self.port
  return self
end

--- A peer that answers the n-th request with the n-th answer (the last one again and again), on kept-alive connections.
--- answer: { status = 200, body = "", headers = { [name] = value }, delay = s, cut = "before"|"headers"|"body", close
--- = bool }
---@param answers table[]
---@param options? table as for start, without handler
---@return table server
function peer.answers(answers, options)
  local copy = {}
  for name, value in pairs(options or {}) do
    copy[name] = value
  end
  copy.handler = "local answers = " .. support.serialize(answers) .. "\n" .. [[
    conn:serve(function(request)
      conn:answer(answers[math.min(request.number, #answers)])
    end)
  ]]
  return peer.start(copy)
end

-- Reads the complete records that came since the last time.
local function refresh(self)
  local file = io.open(self.folder .. "/records", "rb")
  if not file then
    return self.records
  end
  file:seek("set", self.offset)
  local text = file:read("*a") or ""
  file:close()
  local at = 1
  while true do
    local size, from = text:match("^(%d+)\n()", at)
    if not size or #text < from + size then
      break
    end
    self.records[#self.records + 1] = support.deserialize(text:sub(from, from + size - 1))
    at = from + size + 1
  end
  self.offset = self.offset + at - 1
  return self.records
end

--- Everything that happened, in order: { what = "connection"|"request"|"closed"|"note"|"error", time = s, connection =
--- n, … }
---@param what? string only these
---@return table[]
function methods:events(what)
  local found = {}
  for _, record in ipairs(refresh(self)) do
    if not what or record.what == what then
      found[#found + 1] = record
    end
  end
  return found
end

--- The requests that arrived, each { method=, path=, headers= (lower-case names), header_list=, body=, connection=,
--- time= }.
---@return table[]
function methods:requests()
  return self:events("request")
end

--- How many requests (or events of another kind) arrived so far.
---@param what? string
---@return integer
function methods:count(what)
  return #self:events(what or "request")
end

--- Forgets what arrived so far; the peer's own numbering goes on.
function methods:forget()
  refresh(self)
  self.records = {}
end

--- Lets a handler go on that waits in `conn:wait_signal(name)`.
---@param name string
function methods:signal(name)
  support.write_file(self.folder .. "/signal-" .. name, "")
end

--- Waits until the n-th event of a kind has happened.
---@param what string
---@param n? integer 1
---@param seconds? number 5
---@return table event
function methods:wait_event(what, n, seconds)
  n = n or 1
  return support.wait_for(function()
    return self:events(what)[n]
  end, seconds, "event " .. what .. " number " .. n .. " of a peer")
end

--- Ends the peer. Raises when one of its handlers failed: such a spec has not tested what it says. Idempotent.
function methods:stop()
  if not self.pipe then
    return
  end
  support.write_file(self.folder .. "/stopping", "")
  self.pipe:close()
  self.pipe = nil
  local errors = self:events("error")
  local log = support.read_file(self.folder .. "/log") or ""
  support.cleanup(self.folder)
  if errors[1] or log ~= "" then
    error("a peer's handler failed: " .. (errors[1] and errors[1].message or log), 2)
  end
end

--- A port of 127.0.0.1 on which nobody listens.
---@return integer
function peer.free_port()
  local socket = require("socket")
  local listener = assert(socket.bind("127.0.0.1", 0))
  local _, port = listener:getsockname()
  listener:close()
  return tonumber(port)
end

return peer
