--- Credentials for git. They reach it in its environment, where a credential helper given with -c takes them from: they
--- are in no argument, in no file, and go to the one host they are for.
local M = {}

local STARS = "***"

local NAME, PASSWORD = "E2B_GIT_USERNAME", "E2B_GIT_PASSWORD"

-- printf belongs to the shell, so no process has the password among its arguments here either.
local HELPER = ('!f() { test "$1" = get && printf "username=%%s\\npassword=%%s\\n" "$%s" "$%s"; }; f'):format(
  NAME, PASSWORD)

-- "https", "user:token" or nil, "host:443", "/path"
local function split(url)
  local scheme, rest = url:match("^(%a[%w+.-]*)://(.*)$")
  if not scheme then return nil end
  local authority, path = rest:match("^([^/?#]*)(.*)$")
  local userinfo, host = authority:match("^(.*)@([^@]*)$")
  return scheme:lower(), userinfo, host or authority, path
end

local function is_web(scheme)
  return scheme == "https" or scheme == "http"
end

local function decode(text)
  return (text:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end))
end

local function encode(text)
  return (text:gsub("[^%w%-._~]", function(c) return ("%%%02X"):format(c:byte()) end))
end

--- What is wrong with a user name or a password; git's protocol for them is made of lines.
---@param text string
---@return boolean
function M.is_fit(text)
  return not text:find("[%z\n\r]")
end

---@class e2b.GitAddress
---@field url string without credentials
---@field origin string? "https://host:port"; nil for what is not http(s)
---@field username string? of the address itself, as it is meant
---@field password string?
---@field userinfo string? as it stood there
---@field host string?
---@field path string?

--- Takes an address apart.
---@param url string
---@return e2b.GitAddress
function M.address(url)
  local scheme, userinfo, host, path = split(url)
  if not is_web(scheme) then return { url = url } end
  local found = { origin = scheme .. "://" .. host, host = host, path = path, userinfo = userinfo }
  found.url = found.origin .. path
  if userinfo then
    local name, password = userinfo:match("^([^:]*):(.*)$")
    name = decode(name or userinfo)
    found.username = name ~= "" and name or nil
    found.password = password and decode(password)
  end
  return found
end

--- Whether git's -c can name a host.
---@param address e2b.GitAddress
---@return boolean
function M.is_plain(address)
  return address.host ~= nil and address.host:find("^[%w%.%-_%[%]:]+$") ~= nil
end

--- An address with credentials in it.
---@param address e2b.GitAddress
---@param username string
---@param password string
---@return string url
function M.with_credentials(address, username, password)
  local scheme = address.origin:match("^%a+")
  return ("%s://%s:%s@%s%s"):format(scheme, encode(username), encode(password), address.host, address.path)
end

--- Sets an item of git's configuration for one command, out of sight (git 2.31 and later; older ones don't see it).
---@param envs table<string, string> is added to
---@param key string
---@param value string
function M.configure(envs, key, value)
  local n = tonumber(envs.GIT_CONFIG_COUNT) or 0
  envs.GIT_CONFIG_COUNT = tostring(n + 1)
  envs["GIT_CONFIG_KEY_" .. n], envs["GIT_CONFIG_VALUE_" .. n] = key, value
end

--- What makes git use these credentials for one host, and none that it knows from elsewhere.
---@param envs table<string, string> is added to
---@param origin string "https://host:port"
---@param username string
---@param password string? nil: git may have one for this user
---@return string[] args to stand after "git"
function M.use(envs, origin, username, password)
  if not password then
    M.configure(envs, "credential." .. origin .. ".username", username)
    return {}
  end
  envs[NAME], envs[PASSWORD] = username, password
  return { "-c", "credential.helper=", "-c", "credential." .. origin .. ".helper=" .. HELPER }
end

--- Makes git take a remote's address, which has credentials in it, for the same without them.
---@param envs table<string, string> is added to
---@param address e2b.GitAddress
---@param url string as the remote has it
function M.overrule(envs, address, url)
  M.configure(envs, "url." .. address.url .. ".insteadOf", url)
end

--- An editor for `git config --edit` that gives a remote an address out of the environment.
---@param remote string
---@param url string
---@return table<string, string> envs
function M.write_address(remote, url)
  local quoted = '"' .. url:gsub('[\\"]', "\\%0") .. '"'
  return {
    E2B_GIT_CONFIG = ('[remote "%s"]\n\turl = %s\n'):format(remote, quoted),
    GIT_EDITOR = [[f() { printf '%s' "$E2B_GIT_CONFIG" >>"$1"; }; f]],
  }
end

--- The lines that `git credential approve` reads.
---@return string
function M.approval(protocol, host, username, password)
  return ("protocol=%s\nhost=%s\nusername=%s\npassword=%s\n\n"):format(protocol, host, username, password)
end

-- gsub without patterns.
local function replace(text, from, to)
  local parts, at = {}, 1
  while true do
    local first, last = text:find(from, at, true)
    if not first then break end
    parts[#parts + 1] = text:sub(at, first - 1)
    at = last + 1
  end
  if at == 1 then return text end
  parts[#parts + 1] = text:sub(at)
  return table.concat(parts, to)
end

-- The longest first: one may be a part of another.
local function by_length(secrets)
  local list = {}
  for _, secret in ipairs(secrets) do
    if secret ~= "" then list[#list + 1] = secret end
  end
  table.sort(list, function(a, b) return #a > #b end)
  return list
end

--- Puts stars over credentials: those given, and whatever stands before the last @ of an address. A password may have
--- an @ or a slash in it; rather is too much of an address covered than too little.
---@param text string
---@param secrets string[]?
---@return string
function M.mask(text, secrets)
  -- As they are first: what looks like an address may end in the middle of one.
  for _, secret in ipairs(by_length(secrets or {})) do
    text = replace(text, secret, STARS)
    text = replace(text, encode(secret), STARS)
  end
  text = text:gsub("(https?://)[^%s'\"]*@", "%1" .. STARS .. "@")
  text = text:gsub("(%a[%w+.-]*://[^/%s@:'\"]*:)[^%s'\"]*@", "%1" .. STARS .. "@")
  return text
end

return M
