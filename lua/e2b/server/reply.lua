--- Answers: what handlers return, and the one way to leave a handler early.
-- A reply is `{ status, body = string|nil, headers = { name, value, … } }`.
-- @module e2b.server.reply

local json = require("e2b.server.json")

local reply = {}

local failure_meta = {}

---@param status integer
---@param value any written as JSON
---@param headers string[]|nil further headers: name, value, name, value …
---@return table reply
function reply.json(status, value, headers)
  return { status = status, body = json.encode(value), headers = headers or {} }
end

---@return table reply 204 without a body
function reply.empty()
  return { status = 204, headers = {} }
end

---A failure in the form of the API: `{"code": status, "message": …, "error_code"?: …}`.
---@param status integer
---@param message string
---@param extra table|nil further fields of the body
---@param headers string[]|nil
---@return table reply
function reply.failure(status, message, extra, headers)
  local body = { code = status, message = message }
  for key, value in pairs(extra or {}) do body[key] = value end
  return reply.json(status, body, headers)
end

---Leaves the handler with a failure.
---@param status integer
---@param message string
---@param extra table|nil
---@param headers string[]|nil
function reply.raise(status, message, extra, headers)
  error(setmetatable({ reply = reply.failure(status, message, extra, headers) }, failure_meta), 0)
end

---@param raised any what a handler raised
---@return table|nil reply when it was left with `reply.raise`
function reply.of(raised)
  if getmetatable(raised) == failure_meta then return raised.reply end
end

return reply
