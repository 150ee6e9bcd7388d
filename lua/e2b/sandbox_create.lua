--- What Sandbox.create sends: the caller's options, checked and copied, under the names the table of REST calls knows.
--- Everything wrong here is the caller's mistake and raises; nothing that wasn't given is sent, so that the server's
--- defaults hold.
local options = require("e2b.options")
local base = require("e2b.sandbox_base")
local book = require("e2b.sandbox_book")

local M = {}

local raise = options.raise

--- Everything `0.0.0.0/0` stands for: all addresses.
M.ALL_TRAFFIC = "0.0.0.0/0"

-- "metadata.job", or "metadata[\"a b\"]" where a dot would not do.
local function entry_name(what, key)
  if type(key) == "string" and key:match("^[%a_][%w_]*$") then return what .. "." .. key end
  return ("%s[%s]"):format(what, type(key) == "string" and ("%q"):format(key) or tostring(key))
end

local function expect_table(value, what, form)
  if type(value) ~= "table" then
    raise(("%s must be a table (%s), got %s"):format(what, form, type(value)))
  end
  return value
end

local function expect(value, kind, what)
  if value ~= nil and type(value) ~= kind then
    raise(("%s must be a %s, got %s"):format(what, kind, type(value)))
  end
  return value
end

--- A map of strings to strings, copied. A number is refused with the form that works: the service compares text.
---@param value any
---@param what string the option's name, for the message
---@return table<string, string>?
function M.strings(value, what)
  if value == nil then return nil end
  expect_table(value, what, "{ name = \"text\" }")
  local copy = {}
  for key, text in pairs(value) do
    if type(key) ~= "string" then
      raise(("%s has a key that is no string: %s (write { name = \"text\" })"):format(what, tostring(key)))
    end
    if type(text) ~= "string" then
      local name = entry_name(what, key)
      if type(text) == "number" or type(text) == "boolean" then
        raise(("%s must be a string, got a %s: write %s = \"%s\""):format(name, type(text),
          (name:gsub("^[%w_.:]+: ", "")), tostring(text)))
      end
      raise(("%s must be a string, got %s"):format(name, type(text)))
    end
    copy[key] = text
  end
  return copy
end

--- A list of values of one type, copied.
---@param value any
---@param what string
---@param kind string the Lua type of every entry
---@return any[]?
function M.list(value, what, kind)
  if value == nil then return nil end
  expect_table(value, what, "a list of " .. kind .. "s")
  local copy = {}
  for index, entry in ipairs(value) do
    if type(entry) ~= kind then
      raise(("%s[%d] must be a %s, got %s"):format(what, index, kind, type(entry)))
    end
    copy[index] = entry
  end
  for key in pairs(value) do
    if not (type(key) == "number" and copy[key] ~= nil) then
      raise(("%s must be a list { first, second, … }, got the key %s"):format(what, tostring(key)))
    end
  end
  return copy
end

local strings, list = M.strings, M.list

-- platform rules: without `lifecycle` none of the three fields may be sent; "kill" is sent as auto_pause = false.
local function lifecycle(body, value)
  if value == nil then return end
  expect_table(value, "lifecycle", "{ on_timeout = \"pause\", auto_resume = true }")
  options.check(value, { "on_timeout", "auto_resume" }, "lifecycle")
  local action, keep_memory, name = value.on_timeout, nil, "lifecycle.on_timeout"
  if type(action) == "table" then
    options.check(action, { "action", "keep_memory" }, name)
    keep_memory = expect(action.keep_memory, "boolean", "lifecycle.on_timeout.keep_memory")
    action, name = action.action, "lifecycle.on_timeout.action"
    if action == nil then raise(name .. " is missing: it is \"pause\" or \"kill\"") end
  end
  if action ~= nil and action ~= "pause" and action ~= "kill" then
    raise(("%s must be \"pause\" or \"kill\", got %s"):format(name, require("e2b.format").value(action)))
  end
  local auto_resume = expect(value.auto_resume, "boolean", "lifecycle.auto_resume")
  if keep_memory ~= nil and action ~= "pause" then
    raise("lifecycle.on_timeout.keep_memory is only for action = \"pause\": a killed sandbox keeps nothing")
  end
  if auto_resume and action ~= "pause" then
    raise("lifecycle.auto_resume = true needs on_timeout = \"pause\": only a paused sandbox can be resumed")
  end
  if auto_resume and keep_memory == false then
    raise("lifecycle.auto_resume = true needs the memory: leave keep_memory out or make it true")
  end
  if action ~= nil then body.auto_pause = action == "pause" end
  body.auto_pause_memory = keep_memory
  body.auto_resume = auto_resume
end

local function iam(value)
  if value == nil then return nil end
  expect_table(value, "iam", "{ tokens = { name = { audience = …, token_type = … } } }")
  options.check(value, { "tokens" }, "iam")
  local given = value.tokens
  if given == nil then return nil end
  expect_table(given, "iam.tokens", "{ name = { audience = …, token_type = … } }")
  local tokens
  for name, token in pairs(given) do
    if type(name) ~= "string" or name == "" or name:find("[{}%c]") then
      raise("iam.tokens: a name must be a string without braces and control characters, and not empty")
    end
    local what = entry_name("iam.tokens", name)
    expect_table(token, what, "{ audience = …, token_type = … }")
    options.check(token, { "audience", "token_type" }, what)
    for _, field in ipairs({ "audience", "token_type" }) do
      if type(token[field]) ~= "string" then
        raise(("%s.%s must be a string, got %s"):format(what, field, type(token[field])))
      end
    end
    tokens = tokens or {}
    tokens[name] = { audience = token.audience, token_type = token.token_type }
  end
  return tokens and { tokens = tokens }
end

-- What a transform function sees: a placeholder for each registered token, and a loud answer for any other.
local function placeholders(identity)
  local known = {}
  for name in pairs(identity and identity.tokens or {}) do
    known[name] = ("${e2b.identity.tokens.%s}"):format(name)
  end
  return setmetatable(known, {
    __index = function(_, name)
      raise(("network.rules: a transform asks for iam.tokens.%s, which this create doesn't register in iam.tokens")
        :format(tostring(name)))
    end,
  })
end

local function rule_of(rule, what, identity)
  expect_table(rule, what, "{ transform = { headers = { … } } }")
  options.check(rule, { "transform" }, what)
  local transform = rule.transform
  if transform == nil then return {} end
  what = what .. ".transform"
  if type(transform) == "function" then
    transform = transform({ iam = { tokens = placeholders(identity) } })
    if type(transform) ~= "table" then
      raise(("%s must return a table { headers = { … } }, it returned %s"):format(what, type(transform)))
    end
  end
  expect_table(transform, what, "{ headers = { … } } or a function that returns one")
  options.check(transform, { "headers" }, what)
  return { transform = { headers = strings(transform.headers, what .. ".headers") } }
end

local function rules_of(value, identity)
  if value == nil then return nil end
  expect_table(value, "network.rules", "{ [\"api.example.com\"] = { { transform = … } } }")
  local copy = {}
  for domain, given in pairs(value) do
    local what = entry_name("network.rules", domain)
    if type(domain) ~= "string" then raise(what .. ": the key must be a domain") end
    if type(given) ~= "table" or given[1] == nil then
      raise(what .. " must be a list of rules: { { transform = { headers = { … } } } }")
    end
    local entries = list(given, what, "table")
    for index, rule in ipairs(entries) do entries[index] = rule_of(rule, ("%s[%d]"):format(what, index), identity) end
    copy[domain] = entries
  end
  return copy
end

local function addresses(value, what, context)
  if type(value) == "function" then
    local made = value(context)
    if type(made) ~= "table" then
      raise(("%s must return a list of addresses, it returned %s"):format(what, type(made)))
    end
    value = made
  end
  return list(value, what, "string")
end

local function egress_proxy(value)
  if value == nil then return nil end
  expect_table(value, "network.egress_proxy", "{ address = \"host:port\" }")
  options.check(value, { "address", "username", "password" }, "network.egress_proxy")
  if type(value.address) ~= "string" then
    raise("network.egress_proxy.address must be a string \"host:port\", got " .. type(value.address))
  end
  return {
    address = value.address,
    username = expect(value.username, "string", "network.egress_proxy.username"),
    password = expect(value.password, "string", "network.egress_proxy.password"),
  }
end

local NETWORK = {
  "allow_public_traffic", "allow_out", "deny_out", "rules", "egress_proxy", "mask_request_host", "https_ports",
}

local function network(value, identity)
  if value == nil then return nil end
  expect_table(value, "network", "{ deny_out = { … }, … }")
  options.check(value, NETWORK, "network")
  local rules = rules_of(value.rules, identity)
  local context = { all_traffic = M.ALL_TRAFFIC, rules = value.rules or {} }
  return {
    allow_public_traffic = expect(value.allow_public_traffic, "boolean", "network.allow_public_traffic"),
    allow_out = addresses(value.allow_out, "network.allow_out", context),
    deny_out = addresses(value.deny_out, "network.deny_out", context),
    rules = rules,
    egress_proxy = egress_proxy(value.egress_proxy),
    mask_request_host = expect(value.mask_request_host, "string", "network.mask_request_host"),
    https_ports = list(value.https_ports, "network.https_ports", "number"),
  }
end

-- A map of mount path to volume (or its name) becomes the wire's list, sorted so that equal calls send equal bodies.
local function volume_mounts(value)
  if value == nil then return nil end
  expect_table(value, "volume_mounts", "{ [\"/mnt/data\"] = \"volume-name\" }")
  local mounts = {}
  for path, volume in pairs(value) do
    if type(path) ~= "string" then
      raise("volume_mounts maps a path to a volume: { [\"/mnt/data\"] = \"volume-name\" }")
    end
    local name = volume
    if type(volume) == "table" then name = volume.name end
    if type(name) ~= "string" then
      raise(("%s must be a volume or its name, got %s"):format(entry_name("volume_mounts", path), type(volume)))
    end
    mounts[#mounts + 1] = { name = name, path = path }
  end
  table.sort(mounts, function(a, b) return a.path < b.path end)
  return mounts
end

-- The servers' names and settings are the caller's; what is in them is the gateway's business.
local function mcp(value)
  if value == nil then return nil end
  expect_table(value, "mcp", "{ server_name = { … } }")
  for name in pairs(value) do
    if type(name) ~= "string" then raise("mcp maps the names of servers to their settings: { server_name = { … } }") end
  end
  return value
end

--- The options of create that shape the sandbox.
M.OPTIONS = {
  "template", "timeout", "metadata", "envs", "allow_internet_access", "lifecycle", "network", "volume_mounts", "iam",
  "secure", "mcp", "exactly_once", "kill_on_exit",
}

--- The body of `POST /v2/sandboxes`. Functions in `network` are called here, once.
---@param template string
---@param opts table
---@return table body
function M.body(template, opts)
  if opts.secure ~= nil and opts.secure ~= true then
    raise(("secure = %s is not possible: sandboxes are always secured; leave the option out"):format(
      tostring(opts.secure)))
  end
  expect(opts.exactly_once, "boolean", "exactly_once")
  expect(opts.kill_on_exit, "boolean", "kill_on_exit")
  local metadata = strings(opts.metadata, "metadata")
  if metadata and book.is_mark(metadata[book.TOKEN]) then
    raise(("metadata.%s is another sandbox's, by which this library finds it: leave it out"):format(book.TOKEN))
  end
  local identity = iam(opts.iam)
  local body = {
    template = template,
    timeout = base.seconds(opts.timeout, "timeout"),
    metadata = metadata,
    envs = strings(opts.envs, "envs"),
    allow_internet_access = expect(opts.allow_internet_access, "boolean", "allow_internet_access"),
    network = network(opts.network, identity),
    iam = identity,
    volume_mounts = volume_mounts(opts.volume_mounts),
    mcp = mcp(opts.mcp),
  }
  lifecycle(body, opts.lifecycle)
  return body
end

--- The same sandbox over `POST /sandboxes` (v1), whose defaults differ: unsecured, and dead after 15 seconds.
---@param body table
---@return table
function M.body_v1(body)
  local copy = {}
  for key, value in pairs(body) do copy[key] = value end
  copy.secure = true
  copy.timeout = body.timeout or 300
  return copy
end

return M
