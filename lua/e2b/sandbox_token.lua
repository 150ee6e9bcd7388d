--- The mark that a create leaves on its sandbox, so that it is found again when nobody heard the answer: a random token
--- in the metadata.
local core = require("e2b.core")
local book = require("e2b.sandbox_book")
local options = require("e2b.options")
local tasks = require("e2b.tasks")
local unique = require("e2b.unique")

local M = {}

--- The key in the metadata.
M.KEY = book.TOKEN

--- A new token: 32 hexadecimal digits of the system's randomness.
---@return string
function M.new()
  return unique.hex(32)
end

M.is = book.is_mark

--- The body of a create with the token in it.
---@param body table
---@param token string
---@return table copy
function M.mark(body, token)
  local copy = options.copy(body)
  copy.metadata = options.copy(body.metadata)
  copy.metadata[M.KEY] = token
  return copy
end

--- The running and paused sandboxes that carry a token, the oldest first. Each row is checked here: a service that
--- ignores filters must not hand out a stranger's.
---@param Sandbox e2b.SandboxClass
---@param token string
---@param opts table? of each call
---@return e2b.Sandbox[]? found
---@return string? message
---@return e2b.Error? err
function M.find(Sandbox, token, opts)
  local asked = options.copy(opts)
  asked.metadata = { [M.KEY] = token }
  local found, message, err = Sandbox.list(asked):all()
  if not found and err.kind == "unsupported" then
    asked.state = { "running" } -- all that the older list knows
    found, message, err = Sandbox.list(asked):all()
  end
  if not found then return nil, message, err end
  table.sort(found, function(a, b)
    local first, second = a.started_at or 0, b.started_at or 0
    if first ~= second then return first < second end
    return a.sandbox_id < b.sandbox_id
  end)
  return found
end

--- Seconds from the first listing to the second; the pauses grow from there.
M.PAUSE = 0.1

-- A listing that hangs is begun again after so many seconds; and so long is the longest pause.
local ONE, LONGEST = 5, 2
-- The last one begins so long before the end.
local LAST = 0.5

-- What is the same a moment later.
local HOPELESS = { authentication = true, forbidden = true, unsupported = true, invalid_argument = true, tls = true }

--- Looks for sandboxes with a token until there is one. A service that is down meanwhile is asked again.
---@param Sandbox e2b.SandboxClass
---@param token string
---@param until_then number on the clock of core.now()
---@param opts table? of each call
---@return e2b.Sandbox[]? found nil: none came
---@return e2b.Error? err why the last listing failed
function M.wait_for(Sandbox, token, until_then, opts)
  local asked, pause = options.copy(opts), M.PAUSE
  asked.request_timeout = ONE
  while true do
    local left = until_then - core.now()
    if left <= 0 then return nil end
    -- However many pages there are, and however long each takes.
    local found, _, err = tasks.shield(M.find, left, Sandbox, token, asked)
    if found and found[1] then return found end
    if err and (HOPELESS[err.kind] or err.kind == "cancelled") then return nil, err end
    local rest = until_then - LAST - core.now()
    if rest <= 0 then return nil, err end
    if not tasks.sleep(pause < rest and pause or rest) then return nil, err end
    pause = pause * 1.6 < LONGEST and pause * 1.6 or LONGEST
  end
end

return M
