--- Failures as values: `nil, message, err`. One table with a `kind`, no class tree.
local describe = require("e2b.describe")

local M = {}

---@alias e2b.Kind
---| "authentication" # no key, or a refused one
---| "forbidden"
---| "not_found" # see resource
---| "conflict"
---| "invalid_argument" # refused here or by the server
---| "rate_limit" # 429 with a time to wait
---| "quota" # 429 without: repeating doesn't help
---| "busy" # 503
---| "timeout" # see deadline
---| "network"
---| "tls"
---| "server" # 5xx
---| "protocol" # the answer is not what E2B's API answers; a redirect
---| "too_large"
---| "cancelled"
---| "unsupported" # this server doesn't have it
---| "sandbox_gone" # killed, or its time was over, while something was going on in it
---| "no_space" # the sandbox's disk is full
---| "exit" # check = true, and the command's exit code is not 0
---| "raised" # a task's function raised

---@class e2b.Error
---@field kind e2b.Kind
---@field message string a sentence, with what the server said in it
---@field server_message string? what the server said, word for word
---@field resource string? with not_found: sandbox, template …
---@field status integer? HTTP status
---@field error_code string? E2B's own code
---@field operation string? which call: "Sandbox.create"
---@field sandbox_id string?
---@field request_id string? X-E2B-Trace-ID
---@field attempts integer? how often the request was tried
---@field deadline string? which clock ended it: request_timeout, connect_timeout, idle_timeout, timeout (of a command)
---@field sent string? "no", "maybe", "yes": did the request reach the server?
---@field retryable boolean? may the same call be made again safely?
---@field retry_after number? seconds to wait before that
---@field curl integer? libcurl's code
---@field token string? of a create whose sandbox may be there: `e2b.reap(err.token)` ends it
---@field os_errno integer? with a local file: the system's error number
---@field pid integer? of the process that a broken stream was about: connect to it again
---@field exit_code integer? with exit
---@field reason string? of sandbox.git: "no_upstream"
---@field stdout string? with exit
---@field stderr string? with exit
---@field result e2b.CommandResult? with exit
---@field traceback string? with raised

local mt = {
  __name = "e2b.Error",
  __tostring = function(err) return tostring(err.message) end,
}

--- Makes the three results of a failure.
---@param kind string
---@param fields table the other fields of the error, `message` among them; becomes the error itself
---@return nil
---@return string message
---@return e2b.Error err
function M.new(kind, fields)
  fields.kind = kind
  if fields.message == nil then fields.message = kind end
  setmetatable(fields, mt)
  return nil, fields.message, fields
end

--- Whether a value is an error of this library.
---@param value any
---@return boolean
function M.is(value)
  return type(value) == "table" and getmetatable(value) == mt
end

--- Whether what was raised is a signal's doing (Ctrl-C in the lua program): it belongs to whoever runs the program, and
--- nobody in between may take it for a failure of theirs.
---@param value any
---@return boolean
function M.is_interrupt(value)
  return type(value) == "string" and (value == "interrupted!" or value:find("^[^\n]*:%d+: interrupted!$") ~= nil)
end

local BY_STATUS = {
  [400] = "invalid_argument", [401] = "authentication", [402] = "quota", [403] = "forbidden", [404] = "not_found",
  [405] = "unsupported", [409] = "conflict", [410] = "unsupported", [413] = "too_large", [422] = "invalid_argument",
  [423] = "conflict", [501] = "unsupported", [503] = "busy",
}

local function kind_of_status(status, facts)
  if status == 429 then
    -- Wait and stop share a status: only the limiter names a time. A quota has none.
    return facts.retry_after ~= nil and "rate_limit" or "quota"
  end
  -- E2B never answers with a web page: a wrong address must not pass for "killed already".
  if status == 404 and not facts.has_body and (facts.content_type or ""):find("^text/html") then return "protocol" end
  local kind = BY_STATUS[status]
  if kind then return kind end
  if status >= 500 then return "server" end
  if status >= 400 then return "invalid_argument" end
  return "protocol" -- a redirect, or a status that means nothing here
end

-- CURLcode to kind; every other code is the network's.
local BY_CURL = {
  [1] = "protocol", [8] = "protocol", [43] = "protocol", [61] = "protocol", [28] = "timeout",
  [35] = "tls", [51] = "tls", [53] = "tls", [54] = "tls", [58] = "tls", [59] = "tls", [60] = "tls", [64] = "tls",
  [66] = "tls", [77] = "tls", [80] = "tls", [82] = "tls", [83] = "tls", [90] = "tls", [91] = "tls", [98] = "tls",
}

local BY_CAUSE = {
  deadline = "timeout", cancelled = "cancelled", too_large = "too_large", json = "protocol", shape = "protocol",
  connect = "protocol",
}

-- What the daemon in a sandbox says went wrong: the codes of the Connect protocol.
local BY_CODE = {
  canceled = "cancelled", unknown = "server", invalid_argument = "invalid_argument", deadline_exceeded = "timeout",
  not_found = "not_found", already_exists = "conflict", permission_denied = "forbidden",
  resource_exhausted = "rate_limit", failed_precondition = "conflict", aborted = "conflict",
  out_of_range = "invalid_argument", unimplemented = "unsupported", internal = "server", unavailable = "busy",
  data_loss = "server", unauthenticated = "authentication",
}

-- What a status means that comes from a sandbox, or from the proxy in front of it.
local function kind_in_sandbox(facts)
  local status = facts.code or facts.status or 0 -- the number that the sandbox itself names
  if status == 502 then
    -- The proxy's two reasons: there is no such sandbox, or nothing listens on the port.
    return type(facts.message) == "string" and facts.message:find("not found", 1, true) and "sandbox_gone" or "network"
  end
  if status == 429 then return "rate_limit" end
  if status == 507 then return "no_space" end
  if status == 499 then return "cancelled" end
  if status == 504 then return "timeout" end
  return kind_of_status(status, facts)
end

--- Whether a stream ended with the sandbox's own word for what went wrong, and not because it broke the protocol.
---@param facts table of transfer:result()
---@return boolean
function M.is_answer(facts)
  return facts.cause == "connect" and (facts.error_code or facts.code or facts.message) ~= nil
end

--- The kind of what went wrong with a transfer.
---@param facts table of transfer:result()
---@param inside boolean? it was a call to what runs in a sandbox
---@return string
function M.kind(facts, inside)
  local by_code = inside and (facts.cause == "http" or facts.cause == "connect") and BY_CODE[facts.error_code]
  if by_code then return by_code end
  if facts.cause == "http" then return inside and kind_in_sandbox(facts) or kind_of_status(facts.status or 0, facts) end
  if facts.cause == "connect" and M.is_answer(facts) then
    return facts.code and kind_in_sandbox(facts) or "server" -- a code that nobody knows
  end
  return BY_CAUSE[facts.cause] or BY_CURL[facts.curl or 0] or "network"
end

-- May the same call be made again safely? Not: will it help.
local function retryable(kind, facts, idempotent)
  if kind == "sandbox_gone" or kind == "no_space" then return false end
  if facts.cause == "connect" and kind ~= "rate_limit" then
    return idempotent == true and (kind == "busy" or kind == "server" or kind == "timeout")
  end
  if kind == "rate_limit" then return true end -- the limiter answers before the handler runs
  if kind == "busy" and facts.has_body then return true end -- E2B's own word that nothing changed
  local status = facts.status
  if facts.cause == "http" and status and status >= 300 and status < 500 or status == 501 then return false end
  return facts.sent == "no" or idempotent == true
end

--- A Retry-After that can be obeyed: decimal digits only, at most 2147483 seconds.
---@param text string? the header
---@return number? seconds
function M.retry_after(text)
  local digits = type(text) == "string" and text:match("^%s*(%d+)%s*$")
  local seconds = digits and tonumber(digits)
  if seconds and seconds <= 2147483 then return seconds end
  return nil
end

-- 404s by error: what only `kill` asks, for which a 404 is no failure.
local strangers, tried_before = setmetatable({}, { __mode = "k" }), setmetatable({}, { __mode = "k" })

--- Whose a 404 is, and whether it may be this call's own doing.
---@param err e2b.Error of the kind not_found
---@return boolean stranger it has a body and that is not E2B's: anything in between may have answered
---@return boolean tried an earlier attempt of the same call reached the service, or may have
function M.not_found_by(err)
  return strangers[err] == true, tried_before[err] == true
end

--- What a failed transfer becomes.
---@param facts table of transfer:result()
---@param info table operation, sandbox_id, resource, attempts, idempotent, creates, host, api, ca_file, max_bytes,
---  tried, probe (what became of the sandbox, see e2b.probe), and the clocks in force in seconds: request_timeout,
---  connect_timeout, idle_timeout, timeout
---@return nil
---@return string message
---@return e2b.Error err
function M.from_facts(facts, info)
  local inside = info.api == false
  local kind = M.kind(facts, inside)
  local probe = info.probe
  if probe == "gone" then
    kind = "sandbox_gone"
  elseif probe == "busy" then
    kind = "busy"
  elseif probe == "unknown" then
    kind = "network"
  end
  local said = describe.clean(facts.message)
  local err = {
    operation = info.operation, sandbox_id = info.sandbox_id, request_id = facts.request_id,
    attempts = info.attempts, status = facts.status, server_message = said,
    error_code = describe.clean(facts.error_code), sent = facts.sent, curl = facts.curl,
    os_errno = facts.os_errno,
    retry_after = M.retry_after(facts.retry_after), retryable = retryable(kind, facts, info.idempotent),
  }
  if kind == "timeout" then
    err.deadline = facts.deadline or (facts.error_code == "deadline_exceeded" and info.timeout and "timeout")
      or "request_timeout"
    facts.deadline = err.deadline
  end
  if kind == "not_found" then
    err.resource = info.resource
    if not facts.has_body and facts.content_type then strangers[err] = true end
    if info.tried then tried_before[err] = true end
  end
  -- Something may have been made: the answer was lost, or it says nothing about what happened.
  local doubt = info.creates and (facts.sent == "maybe" or facts.sent == "yes" and not err.retryable
    and (kind == "server" or kind == "protocol" and facts.cause ~= "http" or kind == "timeout" or kind == "network"
      or kind == "cancelled" or kind == "busy" or kind == "too_large" and facts.cause ~= "http"))
  if doubt then err.token = info.token end
  err.message = describe.failure(kind, facts, info, said, doubt, err.token)
  return M.new(kind, err)
end

return M
