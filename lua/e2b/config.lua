--- Where a client's settings come from: the call over the client over the environment over the default.
--- The environment is read when a client is made, through a `getenv` that can be given; an empty variable counts as
--- unset. No key is kept in here.
local options = require("e2b.options")
local version = require("e2b.version")
local loop = require("e2b.loop.init")

local M = {}

local types = options.types

-- URLs ---------------------------------------------------------------------------------------------------------------

--- Takes a base URL apart.
---@param text string
---@return table? url { url = without trailing slash, host = with port, loopback = boolean, secure = boolean }
---@return string? message what is wrong with it, without the text itself (a URL may hold a password)
function M.url(text)
  if text:find("[%c%s]") then return nil, "it contains a space or a control character" end
  local scheme, rest = text:match("^(%a[%w+.-]*)://(.*)$")
  scheme = scheme and scheme:lower()
  if scheme ~= "https" and scheme ~= "http" then return nil, "it must start with https:// or http://" end
  local authority, path = rest:match("^([^/?#]+)(.*)$")
  if not authority then return nil, "it has no host" end
  if authority:find("@", 1, true) then return nil, "a user name or password in it is not supported" end
  if path:find("[?#]") then return nil, "it must not have a query or a fragment" end
  local name = authority:match("^%[([%x:.]+)%]$") or authority:match("^%[([%x:.]+)%]:%d+$")
    or authority:match("^([^:%[%]]+)$") or authority:match("^([^:%[%]]+):%d+$")
  if not name then return nil, "its host can't be read" end
  name = name:lower()
  return {
    url = scheme .. "://" .. authority .. path:gsub("/+$", ""),
    host = authority, secure = scheme == "https",
    loopback = name == "localhost" or name == "::1" or name:find("^127%.%d+%.%d+%.%d+$") ~= nil,
  }
end

local function domain_fault(value)
  if value:find("^[%w.-]+$") or value:find("^[%w.-]+:%d+$") then return nil end
  return "a domain such as e2b.app expected, without a scheme and a path"
end

-- Options ------------------------------------------------------------------------------------------------------------

local function url_option(value)
  if type(value) ~= "string" then return "a URL expected, got " .. type(value) end
  if value == "" then return nil end
  local _, fault = M.url(value)
  return fault
end

local function key_option(value)
  if type(value) == "string" or type(value) == "function" then return nil end
  return "a string or a function that returns one expected, got " .. type(value)
end

local PROXIES = { http = true, https = true, socks4 = true, socks4a = true, socks5 = true, socks5h = true }

-- What libcurl can't read it quotes, password and all: so that is refused here, and not quoted.
local function proxy_fault(text)
  if text:find("[%c%s]") then return "it contains a space or a control character" end
  local scheme, rest = text:match("^(.-)://(.*)$")
  if scheme and not PROXIES[scheme:lower()] then
    return "it must start with http://, https://, socks4://, socks4a://, socks5:// or socks5h://"
  end
  local authority, after = (rest or text):match("^([^/?#]*)(.*)$")
  local user, host = authority:match("^(.*)@([^@]*)$")
  if after:find("@", 1, true) or user and user:find("@", 1, true) then
    return "/, ?, # and @ in a user name or a password must be percent-encoded"
  end
  -- With one of these libcurl leaves the proxy out, without a word.
  local encoded = user and user:lower()
  if encoded and (encoded:find("%%[01]%x") or encoded:find("%7f", 1, true)) then
    return "it contains a percent-encoded control character"
  end
  host = host or authority
  local name, port = host:match("^(%[%x*:[%x:.]*[%%%w]*%])(.*)$")
  if not name then name, port = host:match("^([%w._~\128-\255-]+)(.*)$") end
  if not name then return "it has no host, or one that can't be read" end
  if port ~= "" then
    local number = tonumber(port:match("^:(%d+)$"))
    if not number or number < 1 or number > 65535 then
      return "its host or its port can't be read (a port is a number from 1 to 65535)"
    end
  end
  return nil
end

local function proxy_option(value)
  if value == false or value == "" then return nil end
  if type(value) == "string" then return proxy_fault(value) end
  return "a URL, or false for never, expected, got " .. tostring(value)
end

local function loop_option(value)
  if type(value) == "string" then
    if loop.known(value) then return nil end
    return ("there is no loop of the name %q"):format(value)
  end
  if type(value) == "table" and type(value.await) == "function" and type(value.may_wait) == "function" then
    return nil
  end
  return "a name, or a table with the functions may_wait and await, expected"
end

local function callable(value)
  if type(value) == "function" then return nil end
  return "a function expected, got " .. type(value)
end

local function path_option(value)
  if type(value) ~= "string" then return "a path expected, got " .. type(value) end
  if value:find("%z") then return "a path cannot hold a NUL byte" end
  return nil
end

-- Goes into a header that other text surrounds.
local function words(value)
  if type(value) ~= "string" then return "a string expected, got " .. type(value) end
  if value:find("%c") then return "it contains a control character" end
  return nil
end

local function domain_option(value)
  if type(value) ~= "string" then return "a string expected, got " .. type(value) end
  if value == "" then return nil end
  return domain_fault(value)
end

M.OPTIONS = {
  api_key = key_option, domain = domain_option, api_url = url_option, sandbox_url = url_option,
  debug = types.boolean, request_timeout = types.seconds, connect_timeout = types.seconds,
  idle_timeout = types.seconds, retries = types.count, headers = types.headers, api_headers = types.headers,
  proxy = proxy_option, ca_file = types.string, user_agent = words, integration = words, logger = callable,
  connections = types.positive, max_answer_bytes = types.positive, loop = loop_option, await = callable,
  getenv = callable, journal = path_option,
  -- Accepted as in the official SDKs, where it has no effect any more either.
  validate_api_key = types.boolean, kill_on_exit = types.boolean,
}

--- Checks and copies the options of e2b.client. Raises at the caller's line.
---@param opts table?
---@return table
function M.read(opts)
  local copy = options.read(opts, M.OPTIONS, "e2b.client")
  if copy.loop and copy.await then
    options.raise("e2b.client: loop and await are both ways to wait; give one of them")
  end
  for _, name in ipairs({ "headers", "api_headers" }) do
    if copy[name] then copy[name] = options.copy(copy[name]) end
  end
  return copy
end

-- Headers ------------------------------------------------------------------------------------------------------------

-- Later entries replace earlier ones of the same name, whatever the case.
local function merge(lists)
  local merged, at = {}, {}
  for _, list in ipairs(lists) do
    local names = {}
    for name in pairs(list) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do
      local key = name:lower()
      if not at[key] then
        at[key] = #merged + 1
      end
      merged[at[key]] = { name, tostring(list[name]) }
    end
  end
  return merged, at
end

-- The settings -------------------------------------------------------------------------------------------------------

local DEFAULTS = {
  domain = "e2b.app", request_timeout = 60, connect_timeout = 10, idle_timeout = 60, retries = 3,
  max_answer_bytes = 32 * 1024 * 1024,
}
M.DEFAULTS = DEFAULTS

local function given(value, otherwise)
  if value == nil or value == "" then return otherwise end
  return value
end

-- A wrong variable is not the caller's line: each call of the client answers with it.
local function from_env(getenv, name, fault, troubles)
  local value = getenv(name)
  if value == nil or value == "" then return nil end
  local wrong = fault(value)
  if wrong then
    troubles[#troubles + 1] = ("the environment variable %s can't be used: %s"):format(name, wrong)
    return nil
  end
  return value
end

local function positive_text(value)
  local number = value:match("^%d+$") and tonumber(value)
  if number and number >= 1 and number < 2 ^ 31 then return nil end
  return "a whole number from 1 on expected"
end

--- The settings of a client.
---@param opts table what config.read returned
---@return table config without the key
---@return string|function|nil api_key
function M.resolve(opts)
  local getenv = opts.getenv or os.getenv
  local troubles = {}
  local function env(name, fault) return from_env(getenv, name, fault, troubles) end

  local debug_flag = opts.debug
  if debug_flag == nil then debug_flag = (getenv("E2B_DEBUG") or ""):lower() == "true" end
  local domain = given(opts.domain, nil) or env("E2B_DOMAIN", domain_fault) or DEFAULTS.domain
  local api_url = given(opts.api_url, nil) or env("E2B_API_URL", url_option)
    or (debug_flag and "http://localhost:3000") or "https://api." .. domain
  local sandbox_url = given(opts.sandbox_url, nil) or env("E2B_SANDBOX_URL", url_option)
  local connections = opts.connections or tonumber(env("E2B_API_CONNECTIONS", positive_text))

  local api, sandbox = M.url(api_url), sandbox_url and M.url(sandbox_url)
  local agent = given(opts.user_agent, nil)
  if not agent then
    agent = "e2b-lua-sdk/" .. version
    if given(opts.integration, nil) then agent = agent .. " " .. opts.integration end
  end
  local headers, at = merge({ opts.headers or {}, opts.api_headers or {} })
  local api_agent = agent
  if at["user-agent"] then
    api_agent = headers[at["user-agent"]][2]
    table.remove(headers, at["user-agent"])
  end

  local config = {
    domain = domain, api_url = api.url, api_host = api.host, api_loopback = api.loopback,
    sandbox_url = sandbox and sandbox.url, debug = debug_flag,
    request_timeout = opts.request_timeout or DEFAULTS.request_timeout,
    connect_timeout = opts.connect_timeout or DEFAULTS.connect_timeout,
    idle_timeout = opts.idle_timeout or DEFAULTS.idle_timeout, idle_of_events = opts.idle_timeout,
    retries = opts.retries or DEFAULTS.retries,
    max_answer_bytes = opts.max_answer_bytes or DEFAULTS.max_answer_bytes,
    headers = headers, own_key = at["x-api-key"] ~= nil, user_agent = api_agent, envd_agent = agent,
    proxy = opts.proxy, ca_file = given(opts.ca_file, nil), logger = opts.logger,
    connections = connections, kill_on_exit = opts.kill_on_exit, guard_lua = given(getenv("E2B_LUA"), nil),
    trouble = troubles[1],
    loop = opts.await and require("e2b.loop.user").new(opts.await) or opts.loop,
    journal = given(opts.journal, nil) or given(getenv("E2B_JOURNAL"), nil),
  }
  if config.proxy == "" then config.proxy = nil end
  return config, given(opts.api_key, nil) or given(getenv("E2B_API_KEY"), nil)
end

--- The proxy of a request: what was asked for, or the environment's; a loopback address is never asked of the
--- environment's proxy, where the key would leave the machine in plain text.
---@param config table
---@param loopback boolean
---@return string|false|nil
function M.proxy(config, loopback)
  if config.proxy == nil and loopback then return false end
  return config.proxy
end

-- Sandboxes ----------------------------------------------------------------------------------------------------------

-- Exactly these have one host for all sandboxes, which goes by headers; foo.e2b.dev hasn't.
local SHARED_HOST = { ["e2b.app"] = true, ["e2b.dev"] = true, ["e2b.pro"] = true, ["e2b-staging.dev"] = true }

M.ENVD_PORT = 49983

--- The base URL of what runs inside a sandbox.
---@param config table
---@param domain string? the sandbox's own; nil: the configured one
---@param sandbox_id string
---@param direct boolean? for whoever sends no headers: the sandbox's own host, not the one that all share
---@return string? url
---@return string? message
function M.sandbox_base(config, domain, sandbox_id, direct)
  if config.sandbox_url then return config.sandbox_url end
  if config.debug then return "http://localhost:" .. M.ENVD_PORT end
  domain = given(domain, nil) or config.domain
  local fault = domain_fault(domain)
  if fault then return nil, "the domain of the sandbox can't be used: " .. fault end
  if SHARED_HOST[domain] and not direct then return "https://sandbox." .. domain end
  if not sandbox_id:find("^[%w_-]+$") or #sandbox_id > 56 then
    return nil, "the sandbox id can't be part of a host name"
  end
  return ("https://%d-%s.%s"):format(M.ENVD_PORT, sandbox_id, domain)
end

return M
