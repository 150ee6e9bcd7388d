--- What a Sandbox object knows about itself between two answers: state, end, tokens, and how it prints.
--- Create, connect and resume answer without state and end, pause, kill and set_timeout answer nothing;
--- the object works them out from the Date header and the timeout in force, and says so in `estimated`.
local M = {}

-- Tokens by object: no field, so that nothing that prints or copies an object can show one.
local envd_tokens = setmetatable({}, { __mode = "k" })
local traffic_tokens = setmetatable({}, { __mode = "k" })
-- Objects whose tokens an answer has told, be it that there are none. Items of lists come without.
local told = setmetatable({}, { __mode = "k" })

--- The key in a sandbox's metadata under which this library marks what it may have to find again. It is never shown,
--- lest a program that gives one sandbox's metadata to another passes the mark on.
M.TOKEN = "e2b_lua_token"

--- Whether a value can be such a mark: 32 hexadecimal digits.
---@param value any
---@return boolean
function M.is_mark(value)
  return type(value) == "string" and #value == 32 and not value:find("[^%da-f]")
end

local function hide_mark(row)
  if row.metadata then row.metadata[M.TOKEN] = nil end
end

---@class e2b.Binding what the objects and statics of one client share
---@field source fun(): e2b.Client makes or finds the client
---@field client e2b.Client? the client, once it was needed
---@field class e2b.SandboxClass
---@field mt table metatable of the objects
---@field released (fun(id: string): boolean)? told of each killed sandbox, once kill_on_exit was used
---@field offset number the server's clock minus ours, in seconds

--- Seconds since the epoch on the server's clock, as far as it is known.
---@param binding e2b.Binding
---@return number
function M.now(binding)
  return os.time() + binding.offset
end

--- Learns the clock offset from an answer's Date header.
--- Both clocks tick in whole seconds, so a difference of one says nothing and would only make `expires_in` jump.
---@param binding e2b.Binding
---@param meta { date: integer? }?
---@return integer now the answer's time on the server's clock
function M.learn(binding, meta)
  local date = meta and meta.date
  if not date then return M.now(binding) end
  local offset = date - os.time()
  if math.abs(offset - binding.offset) > 1 then binding.offset = offset end
  return date
end

--- Moves what must not be a field out of a row. Rows of lists normally carry none.
---@param object e2b.Sandbox
---@param row table
---@param partial boolean? the row of a list: that there is no token in it says nothing
function M.keep_tokens(object, row, partial)
  local envd, traffic = row.envd_access_token, row.traffic_access_token
  if not partial or envd ~= nil then told[object] = true end
  if envd ~= nil then envd_tokens[object], row.envd_access_token = envd, nil end
  if traffic ~= nil then traffic_tokens[object], row.traffic_access_token = traffic, nil end
end

local keep_tokens = M.keep_tokens

--- Whether it is known which tokens an object has.
---@param object e2b.Sandbox
---@return boolean
function M.told(object)
  return told[object] == true
end

--- The tokens of an object, for the data plane; never to be printed.
---@param object e2b.Sandbox
---@return string? envd_access_token
---@return string? traffic_access_token
function M.tokens(object)
  return envd_tokens[object], traffic_tokens[object]
end

--- Makes the row of an answer a Sandbox, in place.
---@param binding e2b.Binding
---@param row table
---@param partial boolean? of a list
---@return e2b.Sandbox
function M.adopt(binding, row, partial)
  keep_tokens(row, row, partial)
  hide_mark(row)
  if row.metadata == nil then row.metadata = {} end
  return setmetatable(row, binding.mt)
end

-- Fields that an answer may lack because they are no longer so. Those not named here (the domain, the mounts) are
-- merely left out for a paused sandbox and stay as they were.
local FADING = { "name", "extra", "network", "lifecycle", "allow_internet_access" }

--- Brings an object up to date with a complete answer. The id stays the one the caller knows.
---@param object e2b.Sandbox
---@param row table
---@return e2b.Sandbox object
function M.refresh(object, row)
  keep_tokens(object, row)
  hide_mark(row)
  for _, field in ipairs(FADING) do object[field] = nil end
  for field, value in pairs(row) do
    if field ~= "sandbox_id" then object[field] = value end
  end
  object.estimated = false
  return object
end

--- Enters the short answer of create, connect and resume, which knows neither state nor end.
---@param object e2b.Sandbox
---@param row table
---@param book { state: string, started_at: integer?, end_at: integer? }
---@return e2b.Sandbox object
function M.enter(object, row, book)
  keep_tokens(object, row)
  hide_mark(row)
  for field, value in pairs(row) do
    if field ~= "sandbox_id" then object[field] = value end
  end
  return M.note(object, book)
end

--- Notes what a call without an answer has changed.
---@param object e2b.Sandbox
---@param book { state: string?, started_at: integer?, end_at: integer? }
---@return e2b.Sandbox object
function M.note(object, book)
  for field, value in pairs(book) do object[field] = value end
  object.estimated = true
  return object
end

--- Seconds until the sandbox ends, on the server's clock; negative once that is past, nil when it isn't running or the
--- end isn't known.
---@param binding e2b.Binding
---@param object e2b.Sandbox
---@return number? seconds
function M.expires_in(binding, object)
  if not object.end_at or object.state == "paused" or object.state == "killed" then return nil end
  return object.end_at - M.now(binding)
end

--- `4m59s left`, `expired`, or "" when there is nothing to say.
---@param binding e2b.Binding
---@param object e2b.Sandbox
---@return string
function M.left(binding, object)
  local format = require("e2b.format")
  local seconds = M.expires_in(binding, object)
  if not seconds then return "" end
  if seconds <= 0 then return "expired" end
  return format.span(seconds) .. " left"
end

--- `Sandbox(i1a2b3…, base, running, 4m59s left)`
---@param binding e2b.Binding
---@param object e2b.Sandbox
---@return string
function M.text(binding, object)
  local format = require("e2b.format")
  local parts = { format.short_id(object.sandbox_id) }
  local template = object.name or object.template_id
  if template then parts[#parts + 1] = format.clean(template) end
  local left = M.left(binding, object)
  -- Past the end that was worked out, "running" is no more than the last word heard.
  local stale = left == "expired" and object.estimated and object.state == "running"
  if object.state and not stale then parts[#parts + 1] = format.clean(object.state) end
  if left ~= "" then parts[#parts + 1] = left end
  return ("Sandbox(%s)"):format(table.concat(parts, ", "))
end

return M
