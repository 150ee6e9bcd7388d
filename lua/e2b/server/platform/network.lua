--- The network settings of a sandbox: schema, the service's further rules, and what is shown of them.
-- @module e2b.server.platform.network

local json = require("e2b.server.json")
local reply = require("e2b.server.reply")

local network = {}

local string_list = { type = "array", items = { type = "string" } }

local transform = { type = "object", fields = { headers = { type = "object", map = { type = "string" } } } }

local rules = {
  type = "object",
  map = { type = "array", items = { type = "object", fields = { transform = transform } } },
}

local proxy = {
  type = "object", nullable = true, required = { "address" },
  fields = {
    address = { type = "string" },
    username = { type = "string", max_length = 255 },
    password = { type = "string", max_length = 255 },
  },
}

--- Schema of `network` in a create.
network.config = {
  type = "object",
  fields = {
    allowPublicTraffic = { type = "boolean" }, allowOut = string_list, denyOut = string_list, egressProxy = proxy,
    maskRequestHost = { type = "string" }, rules = rules,
    httpsPorts = { type = "array", items = { type = "integer", min = 1, max = 65535 } },
  },
}

--- Schema of an update: the egress part only.
network.update = {
  type = "object",
  fields = {
    allowOut = string_list, denyOut = string_list, egressProxy = proxy, rules = rules,
    allow_internet_access = { type = "boolean" },
  },
}

local ALL_TRAFFIC = "0.0.0.0/0"
local ENVD_PORT = 49983

local function is_ipv4(address)
  local a, b, c, d = address:match("^(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)$")
  if not a then return false end
  for _, part in ipairs({ a, b, c, d }) do
    if tonumber(part) > 255 or part:find("^0%d") then return false end
  end
  return true
end

local function is_ipv6(address)
  if not address:find(":", 1, true) or address:find(":::", 1, true) or address:find("[^%x:]") then return false end
  local groups, longest = 0, 0
  for group in address:gmatch("%x+") do
    groups, longest = groups + 1, math.max(longest, #group)
  end
  local _, gaps = address:gsub("::", "")
  if longest > 4 or gaps > 1 then return false end
  if gaps == 1 then return groups < 8 end
  return groups == 8 and not address:find("^:") and not address:find(":$")
end

local function is_address(value)
  local address, bits = value:match("^(.-)/(%d%d?%d?)$")
  address = address or value
  if is_ipv4(address) then return not bits or tonumber(bits) <= 32 end
  if is_ipv6(address) then return not bits or tonumber(bits) <= 128 end
  return false
end

local function is_domain(value)
  local name = value:match("^%*%.(.+)$") or value
  if #value > 253 or name:find("^[%d.]+$") then return false end
  for label in (name .. "."):gmatch("([^.]*)%.") do
    if #label > 63 or not (label:find("^%w[%w-]*%w$") or label:find("^%w$")) then return false end
  end
  return true
end

local function check_rules(map)
  local count = 0
  for domain, list in pairs(map) do
    count = count + 1
    if count > 10 then reply.raise(400, "Network rules may name at most 10 domains") end
    if #domain > 128 or not is_domain(domain) then
      reply.raise(400, string.format("Invalid domain in network rules: '%s'", domain))
    end
    if #list > 1 then reply.raise(400, string.format("Only one rule is allowed for domain '%s'", domain)) end
    local headers, references = 0, 0
    for name, value in pairs(list[1] and list[1].transform and list[1].transform.headers or {}) do
      headers = headers + 1
      local _, found = value:gsub("%${e2b%.secrets%.", "")
      references = references + found
      if name == "" or #name > 64 or name:find("[^%w!#$%%&'*+.^_`|~-]") then
        reply.raise(400, string.format("Invalid header name in the rule for '%s'", domain))
      elseif #value > 2048 or value:find("[%c\127]") then
        reply.raise(400, string.format("Invalid value of header '%s' in the rule for '%s'", name, domain))
      end
    end
    if headers > 20 then
      reply.raise(400, string.format("At most 20 headers are allowed in the rule for '%s'", domain))
    end
    if references > 32 then
      reply.raise(400, string.format("At most 32 secret references are allowed in the rule for '%s'", domain))
    end
  end
end

local function check_proxy(settings)
  local host, port = settings.address:match("^(.+):(%d+)$")
  if not host or tonumber(port) < 1 or tonumber(port) > 65535 then
    reply.raise(400, "Invalid egress proxy address: it must be host:port")
  end
  if host == "localhost" or host:find("^127%.") or host:find("^10%.") or host:find("^192%.168%.") then
    reply.raise(400, "Invalid egress proxy address: it must be public")
  end
  if settings.password and settings.password ~= json.null and (settings.username or "") == "" then
    reply.raise(400, "An egress proxy password needs a username")
  end
end

---Checks what the schema cannot say. `json.null` for the proxy means none.
---@param settings table
function network.check(settings)
  for _, entry in ipairs(settings.denyOut or {}) do
    if not is_address(entry) then
      reply.raise(400, string.format("Invalid denied address '%s': only IP addresses and CIDR blocks can be denied",
        entry))
    end
  end
  local domains, everything = false, false
  for _, entry in ipairs(settings.allowOut or {}) do
    if not is_address(entry) then
      if not is_domain(entry) then reply.raise(400, string.format("Invalid allowed address '%s'", entry)) end
      domains = true
    end
  end
  for _, entry in ipairs(settings.denyOut or {}) do everything = everything or entry == ALL_TRAFFIC end
  if domains and not everything then
    reply.raise(400, "When specifying allowed domains in allow out, you must include 'ALL_TRAFFIC' in deny out "
      .. "to block all other traffic.")
  end
  check_rules(settings.rules or {})
  if settings.egressProxy and settings.egressProxy ~= json.null then check_proxy(settings.egressProxy) end
  for _, port in ipairs(settings.httpsPorts or {}) do
    if port == ENVD_PORT then reply.raise(400, "Port 49983 cannot be an HTTPS port") end
  end
  local host = settings.maskRequestHost
  if host and (host == "" or host:gsub("%${PORT}", ""):find("[^%w.:_-]")) then
    reply.raise(400, "Invalid mask request host")
  end
end

local EGRESS = { "allowOut", "denyOut", "rules", "egressProxy" }

---Replaces the egress part; a field left out is cleared.
---@param current table|nil
---@param update table
---@return table settings
function network.replace(current, update)
  local settings = {}
  for name, value in pairs(current or {}) do settings[name] = value end
  for _, name in ipairs(EGRESS) do settings[name] = update[name] end
  return settings
end

---@param settings table|nil
---@return table|nil shown without the proxy's password
function network.shown(settings)
  if not settings then return nil end
  local shown = {}
  for name, value in pairs(settings) do shown[name] = value end
  local egress = settings.egressProxy
  if egress == json.null then
    shown.egressProxy = nil
  elseif egress then
    shown.egressProxy = {}
    for name, value in pairs(egress) do
      if name ~= "password" then shown.egressProxy[name] = value end
    end
  end
  if settings.rules then
    shown.rules = {}
    for domain, list in pairs(settings.rules) do shown.rules[domain:lower()] = list end
  end
  return shown
end

return network
