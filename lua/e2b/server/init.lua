--- A local server that speaks E2B's platform API and runs sandboxes, for scripts and specs without an account.
--
-- The first thing asked of a sandbox starts its daemon, in a directory of its own and, where bubblewrap works, behind
-- walls: commands, files, terminals and services in it are real. They end with the sandbox, and with the server.
--
-- `bin/e2b-server` runs it by hand. `start` gives a spec one of its own, in its own process on the same Lua:
--
--     local server = require("e2b.server").start({ rate_limit = "3/1" })
--     -- server.url, server.api_key, server.env (the variables to set)
--     server:set({ fail_next = { status = 503, method = "POST", path = "/v2/sandboxes", count = 2 } })
--     for _, r in ipairs(server:requests()) do print(r.method, r.path, r.status, r.body) end
--     server:clear()      -- forgets the requests so far
--     server:stop()       -- soon and for sure; also happens when this process ends, however it ends
--
-- Switches for `set` (also `POST /_control/set`, as JSON; `false` turns one off):
--
-- - `latency` seconds before each answer; `transition` seconds a pause or snapshot takes
-- - `max_sandboxes`, `max_timeout`, `rate_limit = { count, seconds }`
-- - `ignore_filters`, `no_v2` (true or a status), `no_resume` (true or a status)
-- - `clock_skew` seconds by which the server's clock, `Date` included, is ahead
-- - `fail_next = { status, message | body (text or table), headers = { name = value }, content_type, count = 1,
--   method, path (its beginning), delay (seconds before it), drop (cut the connection instead of answering),
--   cut_after (bytes of a sandbox's real answer, which breaks off there) }`;
--   several queue up; one with only `delay` delays the real answer
--
-- A row of `requests()` (also `GET /_control/requests`): method, path, query, headers (names in lower case, keys
-- hidden), body (at most 64 KiB), body_bytes, status (0 before a sandbox has answered), connection (a number: which
-- connection it came on), at (epoch seconds). Requests to `/_control/` are not in it. The last 5,000 are kept; the
-- second result is their total number.
-- @module e2b.server

local json = require("e2b.server.json")

local server = {}

local methods = {}
local server_meta = { __index = methods, __name = "e2b.server" }

function server_meta:__tostring()
  return "e2b.server(" .. self.url .. (self.stopped and ", stopped)" or ")")
end

-- ---------------------------------------------------------------- starting

local function shell_quote(value)
  return "'" .. value:gsub("'", "'\\''") .. "'"
end

-- The interpreter that runs this very script, or one of the same version.
local function interpreter()
  local arguments = rawget(_G, "arg")
  local first = 0
  while arguments and arguments[first - 1] do first = first - 1 end
  local name = first < 0 and arguments[first]
  if name and name:find("lua[%d.]*[^/]*$") then return name end
  if rawget(_G, "jit") then return "luajit" end
  return "lua" .. _VERSION:match("%d+%.%d+")
end

local function random_key()
  local source = assert(io.open("/dev/urandom", "rb"))
  local bytes = source:read(20)
  source:close()
  return "e2b_" .. bytes:gsub(".", function(char) return string.format("%02x", char:byte()) end)
end

local function rate(value)
  if type(value) ~= "string" then return value end
  local count, seconds = value:match("^(%d+)/([%d.]+)$")
  if not count then error("rate_limit must look like \"10/1\" or { 10, 1 }", 3) end
  return { tonumber(count), tonumber(seconds) }
end

local KNOWN = {
  api_key = true, api_keys = true, host = true, port = true, rate_limit = true, max_sandboxes = true,
  max_timeout = true, latency = true, transition = true, keep_alive = true, no_v2 = true, no_resume = true,
  ignore_filters = true, control = true, log = true, lua = true, isolation = true, directory = true,
}

local function child_options(options, keys)
  for name in pairs(options) do
    if not KNOWN[name] then error("unknown option " .. tostring(name), 3) end
  end
  local limit = rate(options.rate_limit)
  return {
    host = options.host, port = options.port or 0, api_keys = json.array(keys),
    rate_limit = limit and json.array({ limit[1], limit[2] }), max_sandboxes = options.max_sandboxes,
    max_timeout = options.max_timeout, latency = options.latency, transition = options.transition,
    keep_alive = options.keep_alive, no_v2 = options.no_v2 == true and 404 or options.no_v2 or nil,
    no_resume = options.no_resume == true and 405 or options.no_resume or nil,
    ignore_filters = options.ignore_filters, isolation = options.isolation, directory = options.directory,
    control = options.control ~= false, log = options.log,
    until_eof = true, quiet = true,
  }
end

-- Nothing secret may stand in argv: the options go through the pipe.
local function command(options, answers)
  local code = string.format("package.path=%q package.cpath=%q os.exit(require('e2b.server.main').child())",
    package.path, package.cpath)
  -- Should the server ever spin, it must not do so for ever: no spec needs half an hour of processor time.
  return string.format("{ echo $$; ulimit -t 1800; exec %s -e %s; } > %s", shell_quote(options.lua or interpreter()),
    shell_quote(code), shell_quote(answers))
end

---Starts a private server in its own process.
---@param options table|nil `port` (0), `host`, `api_key` (a random one), `api_keys` (a list, each a team of its own),
---  `rate_limit` ("requests/seconds"), `max_sandboxes`, `max_timeout` (s), `latency` (s), `transition` (s),
---  `keep_alive` (s), `no_v2` and `no_resume` (true or a status), `ignore_filters`, `isolation` (false: sandboxes
---  without walls), `directory` (where they keep their files), `control` (true), `log`, `lua` (the interpreter: the one
---  that runs this)
---@return table server `url`, `api_key`, `env`, `pid`, and the methods `stop`, `set`, `requests`, `clear`
function server.start(options)
  options = options or {}
  local keys = options.api_keys or { options.api_key or random_key() }
  local setup = json.encode(child_options(options, keys))
  local stub = os.tmpname()
  local answers = stub .. ".answers"
  os.execute("mkfifo -m 600 " .. shell_quote(answers))
  -- A pipe to its standard input: the server ends when the pipe does, and the pipe ends with this process.
  local pipe = assert(io.popen(command(options, answers), "w"))
  pipe:write(setup, "\n")
  pipe:flush()
  -- The shell holds the other end from its first moment: this waits for the first line, or for the end of a failure.
  local input, message = io.open(answers, "r")
  local pid = input and input:read("*l")
  local url = input and (input:read("*l") or ""):match("^listening on (.+)$")
  os.remove(answers)
  os.remove(stub)
  if not url then
    if input then input:close() end
    pipe:close()
    error("the local server did not start: " .. (message or "see standard error"), 2)
  end
  return setmetatable({
    url = url, api_key = keys[1], pid = tonumber(pid), pipe = pipe, input = input,
    env = { E2B_API_URL = url, E2B_SANDBOX_URL = url, E2B_API_KEY = keys[1] },
  }, server_meta)
end

-- ---------------------------------------------------------------- a started server

local END = [[kill -TERM PID 2>/dev/null; i=0
while [ $i -lt 500 ] && grep -qs '^State:.[^ZTt]' /proc/PID/status; do sleep 0.02; i=$((i + 1)); done
kill -KILL PID 2>/dev/null]]

---Ends the server and its sandboxes. May be called again.
---@return boolean true
function methods:stop()
  if self.stopped then return true end
  self.stopped = true
  -- Time to end its sandboxes and remove their files, unless it is stopped; then it ends whether it likes or not. Until
  -- the pipe is closed the process is not reaped, so its id cannot belong to another.
  os.execute((END:gsub("PID", tostring(self.pid))))
  self.pipe:close()
  self.input:close()
  return true
end

local function ask(self, message)
  if self.stopped then error("the server is stopped", 3) end
  self.pipe:write(json.encode(message), "\n")
  self.pipe:flush()
  local line = self.input:read("*l")
  if not line then error("the local server has died", 3) end
  local answer = json.plain(json.decode(line))
  if answer.error then error(answer.error, 3) end
  return answer
end

local function jsonable(value)
  if type(value) ~= "table" then return value end
  local copy = {}
  for key, item in pairs(value) do copy[key] = jsonable(item) end
  return value[1] ~= nil and json.array(copy) or copy
end

---Changes switches of the running server (see above).
---@param settings table
---@return boolean true
function methods:set(settings)
  return ask(self, { command = "set", settings = jsonable(settings) }).ok
end

---What has arrived since the start or the last `clear`, oldest first.
---@return table[] requests
---@return integer total also counts those no longer kept
function methods:requests()
  local answer = ask(self, { command = "requests" })
  return answer.requests, answer.total
end

---Forgets the requests so far.
---@return boolean true
function methods:clear()
  return ask(self, { command = "clear" }).ok
end

return server
