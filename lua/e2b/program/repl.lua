--- `e2b repl`: a Lua prompt with the library ready.
local core = require("e2b.core")
local compat = require("e2b.compat")
local complete = require("e2b.program.complete")
local e2b = require("e2b")
local errors = require("e2b.errors")
local paginator = require("e2b.paginator")
local prompts = require("e2b.program.prompt")
local show = require("e2b.program.show")

local M = {}

local USAGE = [[
usage: e2b [repl] [--local] [-e CHUNK ...]

A Lua prompt with e2b, Sandbox and Template ready, for the service that the environment names (E2B_API_KEY …).

  --local     for a private local server, which ends with the session
  -e CHUNK    run CHUNK and show its value, instead of asking for lines; may be given more than once
  --version   the version of the library
  --help      this text

Lines that don't come from a terminal are run without a prompt. There, and with -e, the first error ends it with
status 1; a failure (nil, message, err) is a value, and assert(…) makes it an error.
]]

local HELP = [[
Sandbox.list()            the value of an expression is shown; a list as the table of its first page
s = Sandbox.create()      keeps it: a global. A local ends with its line
s:kill()                  a failure (nil, message, err) is one line
_                         the value that was shown last; after a failure its err
e2b.help(), e2b.help(s)   what there is
:trace                    the traceback of the last error
Tab completes names, an unfinished line goes on in the next one. Ctrl-C ends a call, Ctrl-D the session.
Tasks (e2b.spawn) run whenever anything waits: a call does, and so does this prompt at a terminal.]]

local CHUNK_NAME = "=stdin"

-- Lua 5.1's load takes no strings.
local load_text = rawget(_G, "loadstring") or load

---@class e2b.ReplSession
---@field env table the globals
---@field prompt e2b.Prompt
---@field put_back fun() makes Ctrl-C work again
---@field trace string? the last traceback
---@field told boolean? that a local ends with its line

local function complain(text)
  io.stdout:flush()
  io.stderr:write(text, "\n")
end

-- Compiling ----------------------------------------------------------------------------------------------------------

local function is_unfinished(message)
  return message:find("near '?<eof>'?$") ~= nil
end

-- An expression gives its value; "=expression" is the old way to say so. A chunk hands its values to its first
-- argument: `return call()` would be a tail call, and an error that is about the caller's line would not find it.
local function compile(text)
  local after = text:match("^%s*=(.*)$")
  local expression = after or text
  local chunk, message = load_text("return " .. expression, CHUNK_NAME)
  if chunk then return load_text("(...)(" .. expression .. "\n)", CHUNK_NAME) or chunk end
  if after then return nil, message end
  local unfinished = is_unfinished(message)
  chunk, message = load_text(text, CHUNK_NAME)
  if not chunk and unfinished and not is_unfinished(message) then message = message .. " near <eof>" end
  return chunk, message
end

-- Running ------------------------------------------------------------------------------------------------------------

local function text_of(value)
  if type(value) == "string" then return value end
  local ok, text = pcall(tostring, value)
  if not ok or type(text) ~= "string" then text = "?" end
  local mt = debug.getmetatable(value)
  if type(value) == "table" and not (type(mt) == "table" and rawget(mt, "__tostring")) then
    return "(error object is a table value)"
  end
  return text
end

local function handler(value)
  local trace = debug.traceback(text_of(value), 2)
  -- What is below is the prompt's own.
  return { value = value, trace = (trace:gsub("\n%s*%[C%]: in function '?xpcall'?.*$", "")) }
end

-- A paginator shows what it would give next, and gives it all the same.
local function first_page(pages)
  local page, message, err = paginator.peek(pages)
  if page == nil then
    return message and show.results({ n = 3, nil, message, err }) or tostring(pages)
  end
  local text = tostring(page)
  if pages.next_token then text = text .. "\n(and more: _:all() has them all)" end
  return text
end

local function show_results(session, ...)
  local results = compat.pack(...)
  local first = results[1]
  local text
  if results.n == 1 and paginator.is(first) then
    session.env._ = first
    text = first_page(first)
  else
    text = show.results(results, session.prompt.width())
    if first == nil then first = results[3] end
    if first ~= nil then session.env._ = first end
  end
  if text then io.stdout:write(text, "\n") end
end

-- Lua 5.1 and LuaJIT mark a module while it is loaded, with a userdata and a number. An error, a Ctrl-C, in the middle
-- of that leaves the mark, and the module could never be had again.
local function forget_half_loaded()
  for name, value in pairs(package.loaded) do
    if type(value) == "userdata" or type(value) == "number" then package.loaded[name] = nil end
  end
end

-- false: it raised.
local function run(session, chunk)
  local ok, raised = xpcall(function()
    local shown = false
    local function take(...)
      shown = true
      show_results(session, ...)
    end
    local results = compat.pack(chunk(take))
    if not shown then take(compat.unpack(results, 1, results.n)) end
  end, handler)
  if ok then
    io.stdout:flush()
    return true
  end
  forget_half_loaded()
  -- Out of memory never gets to the handler.
  if type(raised) ~= "table" or not raised.trace then raised = { value = raised, trace = tostring(raised) } end
  if errors.is_interrupt(raised.value) then
    complain("interrupted")
  else
    session.trace = raised.trace
    complain("error: " .. show.line(text_of(raised.value)))
  end
  return false
end

local function execute(session, text)
  local chunk, message = compile(text)
  if not chunk then
    session.trace = nil
    complain("error: " .. show.line(message))
    return false
  end
  if text:find("^%s*local%s") and not session.told then
    session.told = true
    complain("note: a local ends with its line; without the word it stays")
  end
  return run(session, chunk)
end

local COMMANDS = {
  help = function() io.stdout:write(HELP, "\n") end,
  trace = function(session) io.stdout:write(session.trace or "there was no error", "\n") end,
}

-- ":help": no chunk begins like that.
local function command_of(line)
  local word = line:match("^%s*:(%a+)%s*$")
  if not word then return nil end
  return COMMANDS[word] or function() complain(("error: there is no :%s; there are :help and :trace"):format(word)) end
end

-- The session --------------------------------------------------------------------------------------------------------

-- Lines until they are a whole chunk; nil at the end.
local function read_chunk(session)
  local prompt = session.prompt
  local text
  while true do
    local line = prompt.read(text and ">> " or "> ")
    if not line then return text end
    prompt.keep(line)
    if not text then
      local command = command_of(line)
      if command then return command end
    end
    text = text and text .. "\n" .. line or line
    local chunk, message = compile(text)
    if chunk or not is_unfinished(message) then return text end
  end
end

-- One chunk. Answers false after an error, nil at the end.
local function turn(session)
  session.put_back()
  local ok, text = pcall(read_chunk, session)
  if not ok then
    if not errors.is_interrupt(text) then error(text, 0) end
    forget_half_loaded()
    session.prompt.drop()
    return true
  end
  if text == nil then return nil end
  session.put_back()
  if type(text) == "function" then
    text(session)
    return true
  end
  return execute(session, text)
end

local function converse(session)
  while true do
    local ok, went = pcall(turn, session)
    if not ok then
      -- A Ctrl-C between two lines is for none of them.
      if not errors.is_interrupt(went) then error(went, 0) end
    elseif went == nil then
      return 0
    elseif not went and not session.prompt.interactive then
      return 1
    end
  end
end

local function greet(session, server)
  local where = server and "a local server that ends with this session" or e2b.client().base_url
  print(("e2b %s on %s, with %s"):format(e2b.version, compat.jit and compat.jit.version or _VERSION, where))
  print("try:  Sandbox.list()  or  s = Sandbox.create() s:shell();  :help says more")
  if not session.prompt.editing then
    print("(no line editing, history or completion: there is no Lua module readline; Debian's package is lua-readline)")
  end
  if not server and not os.getenv("E2B_API_KEY") then
    print("E2B_API_KEY is not set; e2b.check() says what to do, and e2b --local is a service to try things on")
  end
end

-- The environment of the session, not of what it starts: nothing of the server's key is to be seen elsewhere.
local HIDDEN = { E2B_ACCESS_TOKEN = true, E2B_DOMAIN = true, E2B_DEBUG = true }

local function use(server)
  local getenv = os.getenv
  os.getenv = function(name) -- luacheck: ignore 122 (this program's own, and only for --local)
    if HIDDEN[name] then return nil end
    return server.env[name] or getenv(name)
  end
end

local function parse(args)
  local options, i = { chunks = {} }, 1
  while i <= #args do
    local word = args[i]
    if word == "--local" or word == "--help" or word == "--version" then
      options[word:sub(3)] = true
    elseif word == "-e" then
      i = i + 1
      if not args[i] then return nil, "-e needs a chunk" end
      options.chunks[#options.chunks + 1] = args[i]
    else
      return nil, ("there is no option '%s'"):format(show.line(word))
    end
    i = i + 1
  end
  return options
end

local function attend(options, server)
  require("e2b.repl").names(_G)
  local session = { env = _G, put_back = core.keep_interrupt() }
  session.prompt = prompts.new(function(text, from, to)
    local words, at = complete.words(text:sub(1, to), session.env, e2b)
    if at < from then return {} end
    local before = text:sub(from, at - 1)
    for i, word in ipairs(words) do words[i] = before .. word end
    return words
  end, os.getenv)
  if options.chunks[1] then
    for _, chunk in ipairs(options.chunks) do
      if not execute(session, chunk) then return 1 end
    end
    return 0
  end
  if session.prompt.interactive then greet(session, server) end
  return converse(session)
end

--- Runs the prompt until its input ends.
---@param args string[] see --help
---@return integer status
function M.main(args)
  local options, problem = parse(args)
  if not options then
    complain(("e2b repl: %s (see --help)"):format(problem))
    return 2
  elseif options.help then
    io.stdout:write(USAGE)
    return 0
  elseif options.version then
    print("e2b " .. e2b.version)
    return 0
  end
  if not options["local"] then return attend(options) end
  local started, server = pcall(require("e2b.server").start)
  if not started then
    complain("e2b repl: " .. show.line(tostring(server)))
    return 1
  end
  use(server)
  local ok, status = pcall(attend, options, server)
  server:stop()
  if not ok then error(status, 0) end
  return status
end

return M
