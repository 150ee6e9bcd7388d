-- What every spec may need: a clock, temporary folders, child scripts on the same Lua, and the search for leaks and for
-- secrets. Nothing in here knows the library but for `core()` and `leaks`.
local system = require("system")

local support = {}

local unpack = table.unpack or unpack -- luacheck: ignore 113 143
local load_text = loadstring or load -- luacheck: ignore 113

--- Seconds on the monotonic clock.
---@return number
function support.now()
  return system.monotime()
end

--- Suspends this process (the thing that specs wait for is always asked for again afterwards).
---@param seconds number
function support.sleep(seconds)
  system.sleep(seconds)
end

-- A slow or emulated machine (valgrind, a sanitizer) widens what is tolerated, never what is asked for.
support.slack = tonumber(os.getenv("E2B_SPEC_SLACK") or "") or 1

--- The 100 ms that every deadline is kept within, widened by E2B_SPEC_SLACK.
support.tolerance = 0.1 * support.slack

--- Polls until `condition()` is true.
---@param condition fun(): any
---@param seconds? number upper bound (5)
---@param what? string named when it never becomes true
---@return any value what the condition returned
function support.wait_for(condition, seconds, what)
  local limit = support.now() + (seconds or 5) * support.slack
  while true do
    local value = condition()
    if value then
      return value
    end
    if support.now() > limit then
      error("waited in vain for " .. (what or "a condition"), 2)
    end
    support.sleep(0.002)
  end
end

--- Runs `fn` and says how long it took.
---@param fn function
---@return number seconds, any ... what fn returned
function support.timed(fn, ...)
  local begin = support.now()
  local results = { n = 0 }
  local function keep(...)
    results = { n = select("#", ...), ... }
  end
  keep(fn(...))
  return support.now() - begin, unpack(results, 1, results.n)
end

-- Files -------------------------------------------------------------------------------------------------------------

--- Quotes a string for sh.
function support.quote(text)
  return "'" .. tostring(text):gsub("'", "'\\''") .. "'"
end

function support.read_file(path)
  local file = io.open(path, "rb")
  if not file then
    return nil
  end
  local text = file:read("*a")
  file:close()
  return text
end

function support.write_file(path, text)
  local file = assert(io.open(path, "wb"))
  assert(file:write(text))
  assert(file:close())
end

--- Runs a shell command.
---@param command string
---@return string output standard output and error
---@return integer code
function support.shell(command)
  local pipe = assert(io.popen("{ " .. command .. "\n} 2>&1; printf '\\n%s' $?", "r"))
  local text = pipe:read("*a")
  pipe:close()
  local output, code = text:match("^(.*)\n(%d+)$")
  return output, tonumber(code)
end

local folders = {}

--- Makes an empty folder; `support.cleanup()` removes it, and so does the end of the process.
---@return string path
function support.tmpdir()
  local output, code = support.shell('mktemp -d "${TMPDIR:-/tmp}/e2b-spec.XXXXXXXX"')
  assert(code == 0, output)
  local path = output:match("[^\n]+")
  folders[#folders + 1] = path
  return path
end

--- Removes one folder of tmpdir, or all of them.
---@param path? string
function support.cleanup(path)
  for i = #folders, 1, -1 do
    if path == nil or folders[i] == path then
      os.execute("rm -rf " .. support.quote(folders[i]))
      table.remove(folders, i)
    end
  end
end

-- A spec run that raises or forgets still leaves no folder behind: this runs when the Lua state is closed.
do
  local function sweep()
    support.cleanup()
  end
  if newproxy then -- luacheck: ignore 113
    support._sentinel = newproxy(true) -- luacheck: ignore 113
    getmetatable(support._sentinel).__gc = sweep
  else
    support._sentinel = setmetatable({}, { __gc = sweep })
  end
end

--- A port of 127.0.0.1 for a service that can't be asked for one of its own choice: free, and so are the next ones.
--- It is below those that a system gives to outgoing connections, which come and go.
---@param count? integer of ports in a row (1)
---@return integer port
function support.free_port(count)
  local socket = require("socket")
  math.randomseed(tonumber((tostring({}):match("%x%x%x%x%x$")), 16) + os.time())
  for _ = 1, 100 do
    local first, free = math.random(10000, 30000), true
    for port = first, first + (count or 1) - 1 do
      local listener = socket.bind("127.0.0.1", port)
      free = free and listener ~= nil
      if listener then listener:close() end
    end
    if free then return first end
  end
  error("no free port found", 2)
end

-- Child scripts on the same Lua -------------------------------------------------------------------------------------

--- The interpreter that runs this spec.
---@return string
function support.lua()
  local given = os.getenv("E2B_SPEC_LUA")
  if given and given ~= "" then
    return given
  end
  local lowest = 0
  while arg and arg[lowest - 1] do
    lowest = lowest - 1
  end
  if lowest < 0 then
    return arg[lowest]
  end
  return (support.shell("readlink /proc/$PPID/exe"):match("[^\n]+"))
end

-- Versioned variables (LUA_PATH_5_4 …) would win over the ones set here.
local UNSET = {}
for _, version in ipairs({ "5_2", "5_3", "5_4", "5_5" }) do
  UNSET[#UNSET + 1] = "-u LUA_PATH_" .. version .. " -u LUA_CPATH_" .. version
end
UNSET[#UNSET + 1] = "-u LUA_INIT"

--- The shell words that start this Lua with this process's search paths.
---@param env? table<string, string|false> more variables; false unsets one
---@param interpreter? string instead of this one
---@return string
function support.lua_command(env, interpreter)
  local words = { "env", table.concat(UNSET, " ") }
  local sets = { "LUA_PATH=" .. support.quote(package.path), "LUA_CPATH=" .. support.quote(package.cpath) }
  for name, value in pairs(env or {}) do
    if value == false then
      words[#words + 1] = "-u " .. name
    else
      sets[#sets + 1] = name .. "=" .. support.quote(value)
    end
  end
  words[#words + 1] = table.concat(sets, " ")
  words[#words + 1] = support.quote(interpreter or support.lua())
  return table.concat(words, " ")
end

--- Runs Lua source in a child on the same Lua and waits for its end.
--- options: args (list), env (map; false unsets), stdin (text), timeout (s, 30), wrap (shell words put before the
--- interpreter, as `unshare -m`), file (run this file instead of source), merge (stderr goes to stdout).
---@param source string|nil
---@param options? table
---@return { out: string, err: string, code: integer, seconds: number } result code 124: it hung and was ended
function support.run(source, options)
  options = options or {}
  local folder = support.tmpdir()
  local file = options.file
  if not file then
    file = folder .. "/script.lua"
    support.write_file(file, source)
  end
  local words = { "timeout -k 2 " .. (options.timeout or 30) * support.slack }
  if options.wrap then
    words[#words + 1] = options.wrap
  end
  words[#words + 1] = support.lua_command(options.env)
  words[#words + 1] = support.quote(file)
  for _, word in ipairs(options.args or {}) do
    words[#words + 1] = support.quote(word)
  end
  local input = "/dev/null"
  if options.stdin then
    input = folder .. "/stdin"
    support.write_file(input, options.stdin)
  end
  words[#words + 1] = "<" .. support.quote(input) .. " >" .. folder .. "/out"
  words[#words + 1] = options.merge and "2>&1" or "2>" .. folder .. "/err"
  local begin = support.now()
  os.execute(table.concat(words, " ") .. "; echo $? >" .. folder .. "/code")
  local result = {
    seconds = support.now() - begin,
    out = support.read_file(folder .. "/out") or "",
    err = support.read_file(folder .. "/err") or "",
    code = tonumber(support.read_file(folder .. "/code") or "") or -1,
  }
  support.cleanup(folder)
  return result
end

--- A loadable text of plain data, the same on every Lua.
---@param value any nil, boolean, number, string or a table of them
---@return string
function support.serialize(value)
  local kind = type(value)
  if kind == "string" then
    -- %q leaves CR alone on 5.1, and reading a chunk turns "\r\n" into "\n"
    return (string.format("%q", value):gsub("\r", "\\r"):gsub("\\\n", "\\n"))
  elseif kind == "number" and value == math.floor(value) and math.abs(value) < 2 ^ 53 then
    return string.format("%d", value)
  elseif kind == "number" then
    return string.format("%.17g", value)
  elseif kind ~= "table" then
    return tostring(value)
  end
  local parts = {}
  for key, item in pairs(value) do
    parts[#parts + 1] = "[" .. support.serialize(key) .. "]=" .. support.serialize(item)
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

--- Reads what serialize wrote.
---@param text string
---@return any
function support.deserialize(text)
  return assert(load_text("return " .. text, "=data"))()
end

-- Leaks -------------------------------------------------------------------------------------------------------------

--- The core, loaded when it is first asked for.
function support.core()
  return require("e2b.core")
end

--- How many descriptors this process has open, or nil where /proc isn't there.
---@return integer|nil
function support.fd_count()
  local ok, iterate, folder = pcall(require("lfs").dir, "/proc/self/fd")
  if not ok then
    return nil
  end
  local count = -1 -- the listing itself
  for name in iterate, folder do
    if name ~= "." and name ~= ".." then
      count = count + 1
    end
  end
  return count
end

--- Two full collections: the first may only resurrect.
function support.collect()
  if rawget(_G, "jit") then
    jit.flush() -- luacheck: ignore 113 -- compiled code may hold on to what a loop used
  end
  collectgarbage("collect")
  collectgarbage("collect")
end

--- What is open right now, without the connections that are kept alive on purpose.
---@return table
function support.snapshot()
  support.collect()
  local stats = support.core().stats()
  local fds = support.fd_count()
  return { transfers = stats.transfers, in_flight = stats.in_flight, fds = fds and fds - stats.sockets }
end

--- Raises when something stayed behind. Take `before` after a first call: the engine itself owns a few descriptors.
---@param before? table a snapshot
function support.assert_no_leak(before)
  before = before or { transfers = 0, in_flight = 0 }
  local after = support.snapshot()
  for _, name in ipairs({ "transfers", "in_flight", "fds" }) do
    if before[name] and after[name] and after[name] > before[name] then
      error(string.format("leak: %s %d before, %d after", name, before[name], after[name]), 2)
    end
  end
end

-- Secrets -----------------------------------------------------------------------------------------------------------

--- Looks for texts that nobody may see in a value: strings, tables (keys too), their metatables, tostring of them.
---@param secrets string[]
---@param value any
---@return string|nil where the first one was found
function support.find_secret(secrets, value, path, seen)
  path, seen = path or "value", seen or {}
  local kind = type(value)
  if kind == "string" then
    for _, secret in ipairs(secrets) do
      if value:find(secret, 1, true) then
        return path
      end
    end
  elseif kind == "table" or kind == "userdata" then
    if seen[value] then
      return nil
    end
    seen[value] = true
    local found = support.find_secret(secrets, tostring(value), "tostring(" .. path .. ")", seen)
    if found or kind == "userdata" then
      return found
    end
    for key, item in next, value do
      found = support.find_secret(secrets, key, path .. " (key)", seen)
        or support.find_secret(secrets, item, path .. "." .. tostring(key), seen)
      if found then
        return found
      end
    end
    local meta = getmetatable(value)
    return type(meta) == "table" and support.find_secret(secrets, meta, path .. " (metatable)", seen) or nil
  end
  return nil
end

--- Raises when one of the secrets shows in any of the values.
---@param secrets string|string[]
function support.assert_no_secret(secrets, ...)
  if type(secrets) == "string" then
    secrets = { secrets }
  end
  for i = 1, select("#", ...) do
    local found = support.find_secret(secrets, (select(i, ...)), "value " .. i)
    if found then
      error("a secret shows in " .. found, 2)
    end
  end
end

return support
