--- What was probably meant by the name of an option that there is not. Loaded when a program has such a name.
local M = {}

-- Names from the official SDKs and from habit, where converting the case is not enough. A name is only suggested when
-- the call has it.
local ALIASES = {
  timeout_ms = "timeout", request_timeout_ms = "request_timeout", connect_timeout_ms = "connect_timeout",
  idle_timeout_ms = "idle_timeout", env_vars = "envs", env = "envs", environment = "envs", env_variables = "envs",
  template_id = "template", template_name = "template", key = "api_key", apikey = "api_key", token = "api_key",
  access_token = "api_key", url = "api_url", base_url = "api_url", endpoint = "api_url", host = "api_url",
  max_retries = "retries", retry = "retries", retry_count = "retries", ttl = "timeout", lifetime = "timeout",
  auto_pause = "lifecycle", auto_resume = "lifecycle", allow_out = "network", deny_out = "network",
  internet = "allow_internet_access", allow_internet = "allow_internet_access", volumes = "volume_mounts",
  mounts = "volume_mounts", start = "from", ["end"] = "to", cursor = "next_token",
  page_token = "next_token", page_size = "limit", ca = "ca_file", ca_bundle = "ca_file", cainfo = "ca_file",
  max_connections = "connections", log = "logger", agent = "user_agent", tags = "metadata",
  states = "state", labels = "metadata", started_at = "started_after", on_data = "on_stdout", on_output = "on_stdout",
  workdir = "cwd", working_dir = "cwd", dir = "cwd", username = "user", input = "stdin",
  stream_idle_timeout = "idle_timeout", stream_idle_timeout_ms = "idle_timeout", exclude = "ignore",
  expires_in = "use_signature_expiration",
  expiration = "use_signature_expiration", output = "to", on_progress = "progress",
}

-- requestTimeoutMs -> request_timeout_ms, accessURL -> access_url
local function snake(name)
  name = name:gsub("(%l)(%u)", "%1_%2"):gsub("(%u+)(%u%l)", "%1_%2"):gsub("[-%s]", "_")
  return name:lower()
end

-- Edit distance with neighbours swapped counted as one.
local function distance(a, b)
  local before, last = {}, {}
  for j = 0, #b do last[j] = j end
  for i = 1, #a do
    local row = { [0] = i }
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      local cost = math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (same and 0 or 1))
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        cost = math.min(cost, before[j - 2] + 1)
      end
      row[j] = cost
    end
    before, last = last, row
  end
  return last[#b]
end

--- The name that was probably meant.
---@param name string
---@param known table<string, any> keyed by the names there are
---@return string? suggestion
---@return boolean? seconds true when the caller wrote milliseconds
function M.suggest(name, known)
  local plain = snake(name)
  local milliseconds = plain:find("_ms$") ~= nil
  local alias = ALIASES[plain] or plain:match("^(.*)_ms$")
  if known[plain] then return plain end
  if alias and known[alias] then return alias, milliseconds end
  if #plain > 64 then return nil end
  local best, least
  for candidate in pairs(known) do
    local far = distance(plain, candidate)
    -- The order of pairs is not the same twice: ties go to the first in the alphabet.
    if not least or far < least or far == least and candidate < best then best, least = candidate, far end
  end
  if best and least <= math.max(1, math.floor(#plain / 3)) then return best end
  return nil
end

-- What only e2b.client takes; a call that is given one of these is told so.
local CLIENT_ONLY = {
  api_key = true, domain = true, api_url = true, sandbox_url = true, debug = true, headers = true, api_headers = true,
  proxy = true, ca_file = true, user_agent = true, integration = true, logger = true, connections = true,
  max_answer_bytes = true, loop = true, getenv = true, validate_api_key = true,
}

-- What is written in another form altogether: the form, and an option the call must have for it.
local FORMS = {
  query = { "state", "state and metadata are options themselves" },
  on_event = { "recursive", "the events come from watcher:next() or watcher:events()" },
  on_exit = { "recursive", "watcher:next() says how the watch ended, and watcher.err" },
  background = { "on_stdout", "write sandbox.commands:start, which returns a handle" },
  size = { "cols", "cols and rows are options themselves" },
  on_timeout = { "lifecycle", "did you mean lifecycle = { on_timeout = \"pause\" }?" },
  auto_pause = { "lifecycle", "did you mean lifecycle = { on_timeout = \"pause\" }?" },
  auto_resume = { "lifecycle", "did you mean lifecycle = { on_timeout = \"pause\", auto_resume = true }?" },
}

--- The sentence about a name that a call doesn't take.
---@param name any
---@param known table<string, any> keyed by the names there are
---@param what string the operation: "Sandbox.create"
---@return string
function M.unknown(name, known, what)
  if type(name) ~= "string" then
    return ("unknown option [%s] for %s (options have names: { name = value })"):format(tostring(name), what)
  end
  local shown = name:gsub("%c", "?"):sub(1, 64)
  local plain, hint = snake(name), ""
  if CLIENT_ONLY[plain] and not known[plain] then
    hint = (" ('%s' is an option of e2b.client)"):format(plain)
  elseif FORMS[plain] and known[FORMS[plain][1]] then
    hint = (" (%s)"):format(FORMS[plain][2])
  else
    local meant, in_seconds = M.suggest(name, known)
    if meant then hint = (" (did you mean '%s'?%s)"):format(meant, in_seconds and " It is in seconds." or "") end
  end
  return ("unknown option '%s' for %s%s"):format(shown, what, hint)
end

-- Members that people look for and that there are not, with what to say about them.
local ABSENT = {
  commands = "it belongs to a sandbox: sandbox.commands:run(…)",
  files = "it belongs to a sandbox: sandbox.files:read(…)",
  pty = "it belongs to a sandbox: sandbox.pty:create(…)",
  git = "it belongs to a sandbox: sandbox.git:clone(…)",
  new = "write Sandbox.create", beta_create = "write Sandbox.create", beta_pause = "write sandbox:pause()",
}

local FIELDS = {
  sandbox_id = true, template_id = true, started_at = true, end_at = true, envd_version = true, sandbox_domain = true,
  cpu_count = true, memory_mb = true, disk_size_mb = true, allow_internet_access = true, volume_mounts = true,
}

--- What to say of a member that neither a sandbox nor the class has; nil for one that is merely absent.
---@param name string
---@param class table
---@return string?
function M.member(name, class)
  local plain = snake(name)
  local text = ABSENT[plain]
  if text then return ("there is no '%s': %s"):format(name:gsub("%c", "?"):sub(1, 64), text) end
  if plain ~= name and (FIELDS[plain] or rawget(class, plain) ~= nil) then
    return ("there is no '%s': write %s"):format(name, plain)
  end
  return nil
end

-- Methods by their names in the official SDKs, where they are others.
local METHODS = { send_input = "send_stdin", get_new_events = "read" }

--- What to say of a method that there isn't; nil when nothing is known of the name.
---@param name string
---@param methods table<string, function>
---@return string?
function M.method(name, methods)
  local plain = snake(name)
  local meant = METHODS[plain] or plain
  if meant == name or methods[meant] == nil then return nil end
  return ("there is no '%s': write %s"):format(name:gsub("%c", "?"):sub(1, 64), meant)
end

return M
