--- The rate limiter: per team and route, as the service has it.
-- Generic cell rate: a burst of `count`, then one every `period / count` seconds. It keeps one number a key.
-- @module e2b.server.limits

local monotime = require("cqueues").monotime

local limits = {}
limits.__index = limits

---@param rate table|nil `{ count, period in seconds }`; nil never limits
---@return table limiter
function limits.new(rate)
  return setmetatable({ rate = rate, arrivals = {}, known = 0 }, limits)
end

---Replaces the rate and forgets what was used.
---@param rate table|nil
function limits:set(rate)
  self.rate, self.arrivals, self.known = rate, {}, 0
end

-- Keys whose budget is whole again say nothing any more.
local function forget_idle(self, now)
  self.known = 0
  for key, arrival in pairs(self.arrivals) do
    if arrival <= now then self.arrivals[key] = nil else self.known = self.known + 1 end
  end
end

---Counts one request.
---@param key string
---@return boolean allowed
---@return string[]|nil headers `RateLimit-*`, and `Retry-After` on a denial; nil without a limit
function limits:take(key)
  local rate = self.rate
  if not rate then return true end
  local count, period = rate[1], rate[2]
  local interval = period / count
  local now = monotime()
  local arrival = math.max(self.arrivals[key] or 0, now)
  local next_arrival = arrival + interval
  local wait = next_arrival - period - now
  local allowed = wait <= 1e-9
  if allowed then
    if not self.arrivals[key] then
      self.known = self.known + 1
      if self.known > 10000 then forget_idle(self, now) end
    end
    self.arrivals[key] = next_arrival
    arrival = next_arrival
  end
  local remaining = allowed and math.floor((period - (arrival - now)) / interval + 1e-9) or 0
  local headers = {
    "ratelimit-limit", string.format("%d", count),
    "ratelimit-remaining", string.format("%d", remaining),
    "ratelimit-reset", string.format("%d", math.ceil(arrival - now)),
  }
  if not allowed then
    headers[#headers + 1] = "retry-after"
    -- The service rounds down, but never below one second.
    headers[#headers + 1] = string.format("%d", math.max(1, math.floor(wait)))
    -- The newest SDKs ask this header first, and without it repeat every 429.
    headers[#headers + 1] = "should-retry"
    headers[#headers + 1] = "true"
  end
  return allowed, headers
end

return limits
