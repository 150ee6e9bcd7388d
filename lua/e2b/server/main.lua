--- The server as a program: its command line, its life from listening to the end.
-- @module e2b.server.main

local requirements = require("e2b.server.requirements")

local main = {}

local USAGE = [[
usage: e2b-server [options]

A local stand-in for E2B: its platform API, and sandboxes in which commands really run, in private directories.

  --host ADDRESS       where to listen (default 127.0.0.1; anything else can be reached by others)
  --port PORT          0 picks a free one (default 3000)
  --api-key KEY        accept only this key; may be given more than once, each key is a team of its own
                       (default: any key of the form e2b_ and hex digits)
  --rate-limit N/S     per key and route: a burst of N requests, then N in S seconds; the rest gets 429 with Retry-After
  --max-sandboxes N    running sandboxes a key may have; more get 429 without Retry-After
  --max-timeout S      the longest life of a sandbox in seconds (default 86400)
  --latency S          wait S seconds before each answer
  --transition S       how long a pause or a snapshot takes in seconds (default 0)
  --keep-alive S       close connections idle for S seconds (default 600)
  --no-v2[=STATUS]     a server of before the v2 routes: they answer 404, or 405
  --no-resume[=STATUS] a server without the resume route: it answers 405, or another status
  --ignore-filters     a server that ignores the filters of lists
  --directory PATH     where sandboxes keep their files (default TMPDIR, or /tmp)
  --no-isolation       sandboxes without walls: what runs in them sees this machine and its files
  --control            test switches under /_control/
  --until-eof          end when standard input ends
  --quiet              print the URL only
  --log                one line on standard error for each request
  --help               this text
]]

-- A key everybody may know; printed as a hint because this server accepts it.
local EXAMPLE_KEY = "e2b_" .. ("0"):rep(40)

local function positive(value, what)
  local number = tonumber(value)
  if not number or number < 0 then return nil, what .. " must be a number, not negative" end
  return number
end

local function number_option(name, field)
  return function(options, value)
    local number, problem = positive(value, name)
    if not number then return problem end
    options[field] = number
  end
end

local function whole_option(name, field, max)
  return function(options, value)
    local number = value:find("^%d+$") and #value < 12 and tonumber(value)
    if not number or (max and number > max) then return name .. " must be a whole number" end
    options[field] = number
  end
end

local with_value = {
  ["--host"] = function(options, value) options.host = value end,
  ["--port"] = whole_option("--port", "port", 65535),
  ["--api-key"] = function(options, value)
    options.api_keys = options.api_keys or {}
    options.api_keys[#options.api_keys + 1] = value
  end,
  ["--directory"] = function(options, value) options.directory = value end,
  ["--rate-limit"] = function(options, value)
    local count, seconds = value:match("^(%d+)/(%d+%.?%d*)$")
    count, seconds = tonumber(count), tonumber(seconds)
    if not count or count < 1 or seconds <= 0 then
      return "--rate-limit must look like 10/1: requests, slash, seconds"
    end
    options.rate_limit = { count, seconds }
  end,
  ["--max-sandboxes"] = whole_option("--max-sandboxes", "max_sandboxes"),
  ["--max-timeout"] = whole_option("--max-timeout", "max_timeout"),
  ["--latency"] = number_option("--latency", "latency"),
  ["--transition"] = number_option("--transition", "transition"),
  ["--keep-alive"] = number_option("--keep-alive", "keep_alive"),
}

local function status_switch(field, default)
  return function(options, value)
    options[field] = value and tonumber(value) or default
    if options[field] < 400 or options[field] > 599 then return "the status must be an error status" end
  end
end

local switches = {
  ["--no-v2"] = status_switch("no_v2", 404),
  ["--no-resume"] = status_switch("no_resume", 405),
  ["--ignore-filters"] = function(options) options.ignore_filters = true end,
  ["--no-isolation"] = function(options) options.isolation = false end,
  ["--control"] = function(options) options.control = true end,
  ["--until-eof"] = function(options) options.until_eof = true end,
  ["--quiet"] = function(options) options.quiet = true end,
  ["--log"] = function(options) options.log = true end,
  ["--help"] = function(options) options.help = true end,
}

---Reads a command line.
---@param args string[]
---@return table|nil options
---@return string|nil message what is wrong with it
function main.parse(args)
  local options, i = {}, 1
  while i <= #args do
    local name, value = args[i]:match("^(%-%-[%w-]+)=(.*)$")
    name = name or args[i]
    local problem
    if with_value[name] then
      if not value then
        i = i + 1
        value = args[i]
      end
      if not value then return nil, name .. " needs a value" end
      problem = with_value[name](options, value)
    elseif switches[name] then
      problem = switches[name](options, value)
    else
      problem = "unknown option " .. name
    end
    if problem then return nil, problem end
    i = i + 1
  end
  return options
end

local function complete(options)
  local full = { host = "127.0.0.1", port = 3000, max_timeout = 86400, transition = 0, keep_alive = 600 }
  for name, value in pairs(options) do full[name] = value end
  if options.api_keys then
    full.api_keys = {}
    for _, key in ipairs(options.api_keys) do full.api_keys[key] = true end
  end
  full.missing = { v2 = options.no_v2, resume = options.no_resume }
  return full
end

local function is_loopback(host)
  return host == "localhost" or host == "::1" or host:find("^127%.%d+%.%d+%.%d+$") ~= nil
end

local function announce(options, url, places)
  io.stdout:write("listening on ", url, "\n")
  if not options.quiet then
    io.stdout:write(string.format("export E2B_API_URL=%s E2B_SANDBOX_URL=%s E2B_API_KEY=%s\n", url, url,
      options.api_keys and "<one of your --api-key>" or EXAMPLE_KEY))
    io.stdout:flush()
    local isolated, reason = places:isolated()
    io.stdout:write("sandboxes are ", isolated and "isolated with bubblewrap"
      or places.problem and "not to be had here" or "not isolated: " .. reason, "\n")
  end
  io.stdout:flush()
  if not is_loopback(options.host) then
    io.stderr:write("e2b-server: warning: ", options.host,
      " is not loopback: others on the network can reach this server\n")
  end
end

-- Files and /dev/null cannot be waited for, and have ended anyway.
local function can_wait_for_input()
  local result = os.execute("test -p /dev/stdin || test -S /dev/stdin || test -t 0")
  return result == true or result == 0
end

-- Ends the program, after everything that runs in its sandboxes.
local function finish(app)
  -- A second reason to end must not cut the first one short.
  if app.ending then require("cqueues").sleep(60) end
  app.ending = true
  app.places:close()
  os.exit(0)
end

-- Ends the program when standard input ends; commands on it are for the control switches.
local function watch_input(cqueues, app)
  if not app.options.input_is_pipe and not can_wait_for_input() then finish(app) end
  while true do
    cqueues.poll({ pollfd = 0, events = "r" })
    local line = io.stdin:read("*l")
    if not line then finish(app) end
    if app.control then
      io.stdout:write(app.control:command(line), "\n")
      io.stdout:flush()
    end
  end
end

-- Takes over the signals that end a program at once, before anybody can know its URL; answers what waits for them.
local function signals(options, app)
  local signal = require("cqueues.signal")
  local ending = { signal.SIGTERM, signal.SIGINT, signal.SIGHUP }
  signal.ignore(signal.SIGPIPE)
  if options.until_eof then
    -- Ctrl-C at the terminal reaches the whole process group; a private server ends with the one who started it.
    signal.ignore(signal.SIGINT)
    ending = { signal.SIGTERM }
  end
  local unpack = table.unpack or unpack -- luacheck: ignore 113 143
  signal.block(unpack(ending))
  local listener = signal.listen(unpack(ending))
  return function()
    listener:wait()
    finish(app)
  end
end

---Runs a server until it is told to end; returns only when it could not start.
---@param given table options as `main.parse` makes them
---@return nil
---@return string message
function main.run(given)
  local options = complete(given)
  local ok, problem = requirements.load()
  if not ok then return nil, problem end
  local cqueues = require("cqueues")
  require("e2b.server.clock").set()
  local cq = cqueues.new()
  local app = require("e2b.server.app").new(options, cq)
  ok, problem = app.places:check()
  if not ok then return nil, problem end
  local server, message = require("e2b.server.http").listen(cq, app, {
    host = options.host, port = options.port, keep_alive = options.keep_alive, stream = true,
  })
  if not server then
    return nil, string.format("cannot listen on %s port %d: %s", options.host, options.port, message)
  end
  local _, host, port = server:localname()
  if options.host == "localhost" then host = "localhost" end
  if host:find(":", 1, true) then host = "[" .. host .. "]" end
  cq:wrap(signals(options, app))
  if options.until_eof then cq:wrap(watch_input, cqueues, app) end
  announce(options, string.format("http://%s:%d", host, port), app.places)
  while true do
    local fine, raised = cq:loop()
    if not fine then
      -- One coroutine failed; the others go on.
      io.stderr:write("e2b-server: ", tostring(raised), "\n")
    end
  end
end

---The program behind `bin/e2b-server`.
---@param args string[]
---@return integer code for os.exit
function main.main(args)
  local options, message = main.parse(args)
  if not options then
    io.stderr:write("e2b-server: ", message, " (see --help)\n")
    return 2
  end
  if options.help then
    io.stdout:write(USAGE)
    return 0
  end
  local _, problem = main.run(options)
  io.stderr:write("e2b-server: ", problem, "\n")
  return 1
end

---The program behind `e2b.server.start`: its options come as the first line of standard input, not in argv.
---@return integer code for os.exit
function main.child()
  local json = require("e2b.server.json")
  local options, problem = json.decode(io.stdin:read("*l") or "")
  if options then
    options = json.plain(options)
    options.input_is_pipe = true
    local _
    _, problem = main.run(options)
  end
  io.stderr:write("e2b-server: ", problem, "\n")
  return 1
end

return main
