--- `Idempotency-Key` on create: the same key again answers the same sandbox instead of making another.
-- Known from the newest SDKs, which send the header and name the error codes; the status of a mismatch is a guess.
-- @module e2b.server.platform.idempotency

local digest = require("openssl.digest")
local reply = require("e2b.server.reply")

local idempotency = {}
idempotency.__index = idempotency

local MAX_KEYS = 10000

---@return table keys
function idempotency.new()
  return setmetatable({ entries = {}, order = {}, first = 1, last = 0 }, idempotency)
end

local function remember(self, name, entry)
  self.last = self.last + 1
  self.order[self.last], self.entries[name] = name, entry
  if self.last - self.first >= MAX_KEYS then
    self.entries[self.order[self.first]], self.order[self.first] = nil, nil
    self.first = self.first + 1
  end
end

---Runs `fn` unless a request with the same key has succeeded already: then its answer is repeated.
---@param request table
---@param fn fun(): table
---@return table reply
function idempotency:run(request, fn)
  local key = request.headers["idempotency-key"]
  if not key then return fn() end
  if #key > 255 or not key:find("^[a-z0-9-]+$") then
    reply.raise(400, "Invalid Idempotency-Key: 1 to 255 lower-case letters, digits and hyphens are allowed")
  end
  local name = request.team .. " " .. key
  local body = digest.new("sha256"):final(request.body)
  local entry = self.entries[name]
  if entry then
    if entry.body ~= body then
      reply.raise(422, "The Idempotency-Key was used with another request",
        { error_code = "idempotency_request_mismatch" })
    end
    return { status = entry.status, body = entry.answer, headers = {} }
  end
  -- A failure leaves no trace: it raises past the next line.
  local answer = fn()
  remember(self, name, { body = body, status = answer.status, answer = answer.body })
  return answer
end

return idempotency
