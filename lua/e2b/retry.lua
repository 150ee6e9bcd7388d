--- When a failed call is made again by itself.
---   (a) surely not sent: any call, after 0.5 s × 1.5 each time, ± 50 %
---   (b) 429 with a Retry-After that can be obeyed: any call, after exactly that time
---   (c) a cut connection, 502 and 504: calls that may be repeated (GET, DELETE), waits as (a)
---   (d) anything else, 503 above all: never
--- All within the attempts of the option `retries` and one deadline.
local core = require("e2b.core")
local errors = require("e2b.errors")

local M = {}

--- With the deadline off, no wait goes beyond this (seconds since the call began).
M.PATIENCE = 60

local FIRST, FACTOR = 0.5, 1.5

-- Park and Miller's generator: the host's math.random is the host's to seed, and unseeded it makes processes that
-- failed together come back together.
local seed

local function random()
  if not seed then
    local address = tonumber(tostring({}):match("0x(%x+)") or "1", 16) or 1
    seed = (core.now() * 1e6 + core.getpid() * 7919 + address) % 2147483646
    seed = seed - seed % 1 + 1
  end
  seed = seed * 16807 % 2147483647
  return seed / 2147483647
end

--- The wait before the attempt after the n-th.
---@param n integer
---@param chance? fun(): number 0 to 1
---@return number seconds
function M.backoff(n, chance)
  return FIRST * FACTOR ^ (n - 1) * (0.5 + (chance or random)())
end

-- A certificate that isn't trusted, or a CA file that can't be read, is the same in half a second.
local HOPELESS = {
  [1] = true, [3] = true, [4] = true, [51] = true, [53] = true, [54] = true, [58] = true, [59] = true, [60] = true,
  [66] = true, [77] = true, [80] = true, [82] = true, [83] = true, [90] = true, [91] = true, [98] = true,
}

-- The connection ended under a request: empty reply, send and receive errors, partial body, HTTP/2 framing and stream.
local CUT = { [16] = true, [18] = true, [52] = true, [55] = true, [56] = true, [92] = true }

--- Whether, why and after how long a failed call is made again. The deadline is not looked at.
---@param facts table of transfer:result()
---@param attempts integer made so far
---@param retries integer extra attempts that are allowed
---@param idempotent boolean
---@param api boolean a call to E2B's API; what runs inside a sandbox knows no repetition by status
---@param chance? fun(): number
---@return "rate_limit"|"backoff"|nil reason
---@return number? seconds
function M.decide(facts, attempts, retries, idempotent, api, chance)
  if attempts > retries then return nil end
  local cause = facts.cause
  if cause == "http" then
    if not api then return nil end
    local status = facts.status
    if status == 429 then
      local wait = errors.retry_after(facts.retry_after)
      if wait then return "rate_limit", wait end
    elseif idempotent and (status == 502 or status == 504) then
      return "backoff", M.backoff(attempts, chance)
    end
    return nil
  end
  local again = false
  if cause == "curl" then
    again = facts.sent == "no" and not HOPELESS[facts.curl] or idempotent and CUT[facts.curl]
      or idempotent and facts.replay
  elseif cause == "deadline" then
    again = facts.deadline == "connect_timeout" and facts.sent == "no"
  end
  if again then return "backoff", M.backoff(attempts, chance) end
  return nil
end

return M
