--- The sentences of failed calls: the operation, what the server or the network said, and a way out.
--- Texts of the caller's and the server's are bounded and freed of control characters; what looks like a key is cut.
local M = {}

local KEYS_PAGE = "https://e2b.dev/dashboard?tab=keys"

M.KEYS_PAGE = KEYS_PAGE

local LONGEST = 1024

--- What the server said, fit to be shown: bounded, on one line, keys blanked out.
---@param text any
---@return string?
function M.clean(text)
  if type(text) ~= "string" or text == "" then return nil end
  if #text > LONGEST then text = text:sub(1, LONGEST) .. "…" end
  text = text:gsub("%c+", " "):gsub("([eE]2[bB]_)[%w]+", "%1…")
  text = text:match("^%s*(.-)%s*$")
  return text ~= "" and text or nil
end

--- An id or a name from the caller, fit to be shown.
---@param text any
---@return string
function M.show(text)
  text = tostring(text):gsub("%c", "?")
  if #text > 64 then text = text:sub(1, 64) .. "…" end
  return '"' .. text .. '"'
end

local function seconds(value)
  if value == nil then return "the time given" end
  value = math.floor(value * 1000 + 0.5) / 1000 -- what is left of a deadline is never round
  return (value < 100 and "%.3g s" or "%.0f s"):format(value)
end

-- "what happened" with the status and the server's own words. What runs in a sandbox has words for its statuses, and
-- where it answers with a stream no other.
local function with_answer(text, facts, said)
  local code = facts.error_code
  local label = type(code) == "string" and M.clean(code) or facts.code or facts.status
  if said then return ("%s (%s: %s)"):format(text, tostring(label), said) end
  if label == facts.status then label = "HTTP " .. tostring(label) end
  return ("%s (%s)"):format(text, label)
end

local function host(info)
  return info.host or "the server"
end

-- The texts by status: what happened, then the way out.
local function authentication(facts, info, said)
  if info.api == false then
    local what = facts.error_code == "unauthenticated" and "the sandbox refused the user" or
      "the sandbox refused the access token"
    return with_answer(what, facts, said)
  end
  return with_answer("the API key was refused", facts, said)
    .. "; check the option api_key or E2B_API_KEY, keys are at " .. KEYS_PAGE
end

local function not_found(facts, info, said)
  local text
  if info.resource == "sandbox" and info.sandbox_id then
    text = with_answer("there is no sandbox " .. M.show(info.sandbox_id), facts, said)
      .. "; it was killed, its time was over, or it belongs to another team"
  elseif info.resource then
    text = with_answer("the " .. info.resource .. " was not found", facts, said)
  else
    text = with_answer("not found", facts, said)
  end
  return text
end

local function redirect(facts, info)
  local to = facts.location_host and (" to " .. facts.location_host) or ""
  return ("%s answered with a redirect%s (HTTP %d), and redirects are never followed, for the key would follow; ")
    :format(host(info), to, facts.status) .. "check api_url or E2B_API_URL"
end

-- What the question after a broken connection brought to light.
local FOUND = {
  gone = "the sandbox was killed or reached its end of life, or is paused",
  alive = "the sandbox itself answers",
  busy = "the sandbox is there, but too busy to answer",
  unknown = "the sandbox can't be reached either",
}

local BY_KIND = {
  authentication = authentication,
  not_found = not_found,
  forbidden = function(facts, info, said)
    local text = with_answer("access was refused", facts, said)
    return info.api == false and text or text .. "; the key's team may not do this"
  end,
  conflict = function(facts, _, said)
    return with_answer("not possible in the present state", facts, said)
  end,
  invalid_argument = function(facts, info, said)
    local who = info.api == false and "the sandbox" or "the server"
    return with_answer(who .. " refused the request", facts, said)
  end,
  rate_limit = function(facts, _, said)
    local text = with_answer("too many requests", facts, said)
    local after = facts.retry_after
    if after and after:match("^%s*%d+%s*$") then return text .. "; try again in " .. after:match("%d+") .. " s" end
    return text .. "; try again later"
  end,
  quota = function(facts, _, said)
    return with_answer("a quota of the team is used up", facts, said)
      .. "; repeating doesn't help: end something first (Sandbox.list shows what runs), or raise the limit"
  end,
  busy = function(facts, info, said)
    if info.api == false then return with_answer("the sandbox is busy", facts, said) end
    return with_answer("the service is busy", facts, said)
      .. (facts.has_body and "; nothing was changed, try again in a moment" or "; try again in a moment")
  end,
  sandbox_gone = function(facts, _, said)
    return with_answer(FOUND.gone, facts, said)
  end,
  no_space = function(facts, _, said)
    return with_answer("the disk of the sandbox is full", facts, said)
  end,
  network = function(facts, info, said)
    return with_answer(host(info) .. " can't reach what it stands before", facts, said)
  end,
  cancelled = function(facts, _, said)
    return with_answer("the sandbox broke this off", facts, said)
  end,
  server = function(facts, info, said)
    if info.api == false and (said or facts.error_code) then
      return with_answer("the sandbox's daemon failed", facts, said)
    end
    if said then return with_answer("the server failed", facts, said) end
    return ("the server failed (HTTP %d without an answer of E2B's: it comes from %s or from something in between)")
      :format(facts.status or 0, host(info))
  end,
  unsupported = function(facts, info, said)
    return with_answer(host(info) .. " doesn't know this call", facts, said)
      .. "; it may be an older or a newer version of the service"
  end,
  protocol = function(facts, info)
    return ("%s answered with a web page (HTTP %d), not as E2B does; check api_url or E2B_API_URL"):format(
      host(info), facts.status)
  end,
  too_large = function(facts, _, said)
    return with_answer("the request is too large for the server", facts, said)
  end,
}

local CLOCKS = {
  request_timeout = "no complete answer from %s within %s (request_timeout)",
  connect_timeout = "no connection to %s within %s (connect_timeout)",
  idle_timeout = "nothing came from %s for %s (idle_timeout)",
}

local function timeout(facts, info, said)
  if facts.deadline == "timeout" then return ("not over within %s (timeout)"):format(seconds(info.timeout)) end
  if facts.cause == "http" or facts.cause == "connect" then
    return with_answer("the sandbox took too long", facts, said)
  end
  local clock = CLOCKS[facts.deadline] and facts.deadline or "request_timeout"
  return CLOCKS[clock]:format(host(info), seconds(info[clock]))
end

local function tls(_, info, text)
  local where = info.ca_file and ("the CA file is " .. info.ca_file)
    or "the CA certificates are the system's; the option ca_file names others"
  return ("no secure connection to %s: %s; %s"):format(host(info), text, where)
end

local function network(facts, info, text)
  if facts.replay then
    return ("the connection to %s was cut when the request had been sent; it is not sent a second time by itself")
      :format(host(info))
  end
  if facts.sent == "no" then return ("%s can't be reached: %s"):format(host(info), text) end
  return ("the connection to %s broke: %s"):format(host(info), text)
end

local function answer(facts, info, text)
  if facts.cause == "connect" then
    return ("the answer of %s is not what the daemon of a sandbox answers: %s"):format(host(info), text)
  end
  local kind = facts.content_type and (" (" .. facts.content_type .. ")") or ""
  if facts.cause == "shape" then
    return ("the answer of %s is not what E2B's API answers: %s"):format(host(info), text)
  elseif facts.cause == "json" then
    return ("the answer of %s is not JSON%s: %s"):format(host(info), kind, text)
  end
  return ("%s doesn't speak HTTP as expected: %s"):format(host(info), text)
end

local function without_status(kind, facts, info)
  local text = M.clean(facts.text) or "no reason given"
  if kind == "timeout" then return timeout(facts, info) end
  if kind == "tls" then return tls(facts, info, text) end
  if kind == "protocol" then return answer(facts, info, text) end
  if kind == "cancelled" then return "cancelled" end
  if kind == "too_large" then
    local most = info.max_bytes and (" of %d bytes"):format(info.max_bytes) or ""
    return ("the answer of %s is larger than the limit%s (max_answer_bytes)"):format(host(info), most)
  end
  return network(facts, info, text)
end

--- The message of a failed call.
---@param kind string
---@param facts table of transfer:result()
---@param info table as for errors.from_facts
---@param said string? what the server said, cleaned
---@param doubt boolean? something may have been made that nobody holds
---@param token string? it can be found by this
---@return string
function M.failure(kind, facts, info, said, doubt, token)
  local text
  local coded = facts.cause == "connect" and (facts.error_code or facts.code or facts.message) ~= nil
  if kind == "timeout" then
    text = timeout(facts, info, said)
  elseif info.probe and info.probe ~= "alive" then
    local what = M.clean(facts.text) or "no reason given"
    what = facts.cause == "deadline" and timeout(facts, info) or network(facts, info, what)
    text = ("%s (%s)"):format(FOUND[info.probe], what)
  elseif facts.cause ~= "http" and not coded then
    text = without_status(kind, facts, info)
  elseif kind == "protocol" and facts.status and facts.status >= 300 and facts.status < 400 then
    text = redirect(facts, info)
  else
    text = (BY_KIND[kind] or BY_KIND.invalid_argument)(facts, info, said)
  end
  if info.probe == "alive" then text = text .. "; " .. FOUND.alive end
  if info.attempts and info.attempts > 1 then text = ("%s (%d attempts)"):format(text, info.attempts) end
  if doubt then
    text = text .. "; the sandbox may have been made all the same and then costs until its timeout: "
      .. (token and "e2b.reap(err.token) ends it" or "look for it with Sandbox.list before creating another")
  end
  if info.operation then return info.operation .. ": " .. text end
  return text
end

return M
