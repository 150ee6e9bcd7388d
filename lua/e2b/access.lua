--- The key, and where calls go with it. From here on the key lives in the target only, in C.
local core = require("e2b.core")
local config = require("e2b.config")
local lazy = require("e2b.lazy")
local waits = require("e2b.wait")

local describe, errors, retry, tasks = lazy("e2b.describe"), lazy("e2b.errors"), lazy("e2b.retry"), lazy("e2b.tasks")

local M = {}

local now = core.now

local NO_KEY = "there is no API key: set the variable E2B_API_KEY, or give e2b.client the option api_key; keys are at "

--- The failure of a call before anything was sent.
---@return nil
---@return string message
---@return e2b.Error err
local function refuse(kind, text, context, args)
  local operation = context and context.operation
  return errors.new(kind, {
    message = operation and operation .. ": " .. text or text, operation = operation,
    sandbox_id = context and context.sandbox_id or args and args.sandbox_id, sent = "no", attempts = 0,
    retryable = false,
  })
end
M.refuse = refuse

-- nil when a key can stand in a header, else what is wrong; never with the key itself.
local function key_fault(key)
  if key:find("%c") then
    return "the API key contains a line end or another control character; was it read from a file?"
  end
  return nil
end

-- What tells two keys apart and nothing about either, for the journal.
local function mark_of(cfg, key)
  for _, header in ipairs(cfg.own_key and cfg.headers or {}) do
    if header[1]:lower() == "x-api-key" then key = header[2] end
  end
  if not key then return nil end
  return (core.sha256("e2b journal " .. key):sub(1, 4):gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

local function build_target(state, key)
  local cfg = state.config
  if cfg.journal then state.public.key_mark = mark_of(cfg, key) end
  if key then
    local fault = key_fault(key)
    if fault then return nil, "authentication", fault end
  end
  local headers = {}
  for i, header in ipairs(cfg.headers) do headers[i] = header end
  if key and not cfg.own_key then headers[#headers + 1] = { "X-API-KEY", key } end
  local target, fault = core.target({
    url = cfg.api_url, headers = headers, user_agent = cfg.user_agent, proxy = config.proxy(cfg, cfg.api_loopback),
    ca_file = cfg.ca_file,
  })
  if not target then
    local about_key = fault:lower():find("x-api-key", 1, true) and not cfg.own_key
    return nil, about_key and "authentication" or "invalid_argument", fault
  end
  state.target = target
  return target
end

-- E2B's own keys; other services have other forms, so this is for a hint only.
local function form_of(key)
  return #key == 44 and key:find("^e2b_%x+$") and "e2b" or "other"
end

-- Asks the caller's function for the key, once: calls that come meanwhile wait for its answer.
local function ask_key(state, context, args)
  local asking = state.asking
  if asking and not tasks.holds_up() then -- else its answer would never come
    local _, why = waits.await(function(done)
      asking[done] = true
      return function() asking[done] = nil end
    end, now() + retry.PATIENCE, state.config.loop)
    if state.target then return state.target end
    -- Whoever asked may be gone (a request of nginx that was ended in there): the next call asks again.
    if why == "deadline" and state.asking == asking then state.asking = nil end
    if why == "cancelled" then return refuse("cancelled", "cancelled", context, args) end
    return refuse("authentication", "the function api_key gave no key", context, args)
  end
  asking = {}
  state.asking = asking
  local ok, key = tasks.pcall(state.key)
  local target, kind, fault
  if not ok then
    -- Its error is not shown: it may well hold the key.
    kind, fault = "authentication", "the function api_key raised an error"
  elseif type(key) ~= "string" or key == "" then
    kind = "authentication"
    fault = "the function api_key gave no key, but " .. (key == "" and "an empty string" or type(key))
  else
    state.public.key_form = form_of(key)
    target, kind, fault = build_target(state, key)
    if target then state.key = nil end
  end
  state.asking = nil
  for done in pairs(asking) do done(true) end
  -- Without what stands before it, which may be the function's own text.
  if not ok and errors.is_interrupt(key) then error("interrupted!", 0) end
  if target then return target end
  return refuse(kind, fault, context, args)
end

--- The target of a client's calls to the API.
---@param state table of the client
---@param context table
---@param args table
---@return userdata? target
---@return string? message
---@return e2b.Error? err
function M.target(state, context, args)
  if state.target then return state.target end
  if state.config.trouble then return refuse("invalid_argument", state.config.trouble, context, args) end
  if state.fault then return refuse(state.fault.kind, state.fault.text, context, args) end
  return ask_key(state, context, args)
end

--- Takes the key a client was given.
---@param state table of the client
---@param key string|function|nil
function M.open(state, key)
  if state.config.trouble then return end -- no target: a wrong variable must not send the key somewhere else
  if type(key) == "function" then
    state.key = key
  elseif key == nil and not state.config.own_key then
    state.fault = { kind = "authentication", text = NO_KEY .. describe.KEYS_PAGE }
  else
    local target, kind, fault = build_target(state, key)
    if not target then state.fault = { kind = kind, text = fault } end
    if key then state.public.key_form = form_of(key) end
  end
end

--- Where a sandbox is reached. The API key and the caller's headers never go there.
---@param state table of the client
---@param domain string?
---@param sandbox_id string
---@param access_token string?
---@return userdata? target
---@return string? message
---@return e2b.Error? err
function M.sandbox_target(state, domain, sandbox_id, access_token)
  local cfg = state.config
  local context = { operation = "sandbox", sandbox_id = sandbox_id }
  local url, fault = config.sandbox_base(cfg, domain, sandbox_id)
  if not url then return refuse("invalid_argument", fault, context) end
  local parsed = config.url(url)
  local headers = { { "E2b-Sandbox-Id", sandbox_id }, { "E2b-Sandbox-Port", tostring(config.ENVD_PORT) } }
  if access_token then headers[3] = { "X-Access-Token", access_token } end
  local target
  target, fault = core.target({
    url = url, headers = headers, user_agent = cfg.envd_agent, proxy = config.proxy(cfg, parsed.loopback),
    ca_file = cfg.ca_file,
  })
  if not target then return refuse("invalid_argument", fault, context) end
  return target
end

return M
