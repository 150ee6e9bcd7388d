--- The guard process of kill_on_exit: `e2b guard`, started by e2b.guard_process and by nobody else. It listens until
--- the process that started it is gone, then kills that one's sandboxes, and ends.
--- All it will ever need is loaded at once: later the files may be of another version, or not there.
require("e2b.attempts")
require("e2b.gate")
require("e2b.sandbox_list")
require("e2b.sandbox_scope")
local core = require("e2b.core")
local e2b = require("e2b")
local tokens = require("e2b.sandbox_token")

local M = {}

-- Seconds from the end of the process on: a network that is down may come back, but nobody waits for ever.
-- One on this machine is gone with its sandboxes.
local KILL_SECONDS, LOCAL_SECONDS = 300, 10
-- Seconds for which a create without a deadline is looked for.
local CREATE_SECONDS = 60
-- Seconds after its deadline for which a create may still have made a sandbox.
local LATE_SECONDS = 10
-- Seconds for one request.
local REQUEST_SECONDS = 30
-- Seconds between two looks, and between the first two tries of a kill.
local LOOK, FIRST_PAUSE, LONGEST_PAUSE = 1, 0.5, 30

local now = core.now

-- Failures that a repetition doesn't help.
local HOPELESS = { authentication = true, forbidden = true, invalid_argument = true }

-- A client as it was described over the leash. Its key is one of the headers.
local function client_of(description)
  local client = description.client
  if not client then
    client = e2b.client({
      api_url = description.url, connect_timeout = description.connect_timeout, ca_file = description.ca_file,
      headers = description.headers, proxy = description.proxy, loop = "blocking", getenv = function() end,
    })
    description.client = client
  end
  return client
end

-- What was heard ------------------------------------------------------------------------------------------------------

local function hear(book, text)
  local name, value = text:match("^header ([^:;]+)[:;] ?(.*)$")
  if name then
    book.last.headers[name] = value
    return
  end
  local proxy = text:match("^proxy (.*)$")
  if proxy then
    book.last.proxy = proxy ~= "" and proxy
    return
  end
  local fields = core.json_decode(text)
  if fields.hold then
    book.held[fields.hold] = book.clients[fields.client]
    if fields.token then book.expected[fields.token] = nil end
  elseif fields.release then
    book.held[fields.release] = nil
  elseif fields.expect then
    local ends = fields.seconds and now() + fields.seconds
    book.expected[fields.expect] = { client = book.clients[fields.client], ends = ends }
  elseif fields.forget then
    book.expected[fields.forget] = nil
  elseif fields.client then
    fields.headers = {}
    book.last, book.clients[fields.client] = fields, fields
    fields.client = nil
  end
end

local function listen(leash)
  local book = { clients = {}, held = {}, expected = {} }
  local rest = ""
  while true do
    local bytes = leash:receive(-1)
    if bytes == nil then return book end
    if bytes then
      rest = rest .. bytes
      local last = 1
      for text, after in rest:gmatch("([^\n]*)\n()") do
        hear(book, text)
        last = after
      end
      rest = rest:sub(last)
    end
  end
end

-- What is done then ---------------------------------------------------------------------------------------------------

local function is_local(client)
  local host = client.base_url:match("^https?://([^:/]+)")
  return host == "localhost" or host:find("^127%.") ~= nil
end

local function patience(client)
  return now() + (is_local(client) and LOCAL_SECONDS or KILL_SECONDS)
end

local function kill(client, id)
  local pause, ends = FIRST_PAUSE, patience(client)
  while true do
    local ok, _, err = client.Sandbox.kill(id, { request_timeout = REQUEST_SECONDS })
    if ok then return true end
    if HOPELESS[err.kind] or now() >= ends then return nil end
    e2b.sleep(math.min(math.max(pause, err.retry_after or 0), math.max(0, ends - now())))
    pause = math.min(pause * 2, LONGEST_PAUSE)
  end
end

-- The answer to this create never came. It may make its sandbox late. And where looking fails, nothing is known.
local function look_for(client, token, ends)
  local gives_up = math.max(ends, patience(client))
  while true do
    local found, _, err = tokens.find(client.Sandbox, token, { request_timeout = REQUEST_SECONDS })
    if found and found[1] then
      for _, sandbox in ipairs(found) do kill(client, sandbox.sandbox_id) end
      return
    end
    if err and HOPELESS[err.kind] or now() >= (err and gives_up or ends) then return end
    e2b.sleep(LOOK)
  end
end

local function clean_up(book)
  local jobs = {}
  for id, description in pairs(book.held) do
    jobs[#jobs + 1] = function() kill(client_of(description), id) end
  end
  for token, entry in pairs(book.expected) do
    local until_then = (entry.ends or now() + CREATE_SECONDS) + LATE_SECONDS
    jobs[#jobs + 1] = function() look_for(client_of(entry.client), token, until_then) end
  end
  e2b.map(jobs, function(job) job() end, { limit = 50 })
end

--- Runs until the process at the other end is gone and its sandboxes are, too.
---@return integer status of the process
function M.main()
  local leash = core.leash()
  if not leash:send(("ready %d\n"):format(core.getpid())) then
    io.stderr:write("e2b guard: the library starts this by itself, for sandboxes created with kill_on_exit\n")
    return 1
  end
  clean_up(listen(leash))
  return 0
end

return M
