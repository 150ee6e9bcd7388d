--- Sandbox: one class a client, its statics and the methods of its objects. This file is what users see; what each
--- operation does is in sandbox_calls (on a sandbox that is there), sandbox_start, sandbox_list and sandbox_scope.
local base = require("e2b.sandbox_base")
local book = require("e2b.sandbox_book")
local calls = require("e2b.sandbox_calls")
local options = require("e2b.options")

local M = {}

---A sandbox: a row of facts, and what can be done with it. Fields an answer didn't have are nil.
---@class e2b.Sandbox: e2b.SandboxClass
---@field sandbox_id string
---@field template_id string?
---@field name string? the template's alias
---@field state string? "running", "paused", "killed", or a word of a newer service
---@field metadata table<string, string>? nil only when no answer told it: after a static connect or resume
---@field started_at integer? seconds since the epoch
---@field end_at integer? seconds since the epoch
---@field estimated boolean? true: `state`, `started_at` and `end_at` were worked out here; `get_info` fetches the facts
---  (after a static connect to a running sandbox `end_at` is the least it can be, nil when nothing is known)
---@field envd_version string?
---@field sandbox_domain string?
---@field cpu_count integer?
---@field memory_mb integer? MiB
---@field disk_size_mb integer? MiB
---@field allow_internet_access boolean?
---@field network table? as in create; without the password of an egress proxy
---@field lifecycle { on_timeout: string, auto_resume: boolean }?
---@field volume_mounts { name: string, path: string }[]?
---@field commands e2b.Commands run programs in the sandbox
---@field files e2b.Files read, write and watch its files
---@field pty e2b.Pty terminals
---@field git e2b.Git git repositories in it
---@field adopted boolean? after a create with `exactly_once`: false when its answer came, true when the answer was lost
---  and the sandbox was found and taken over
---@field extra table? fields this version doesn't know or finds of another type, under the service's names

---@class e2b.CallOptions options of every call that goes to the service
---@field request_timeout number? seconds for the whole call with all its attempts and waits; 0 = none
---@field connect_timeout number? seconds for DNS, TCP and TLS
---@field idle_timeout number? seconds between two bytes of the answer; 0 = none
---@field retries integer? extra attempts; 0 = none

---@class e2b.CreateOptions: e2b.CallOptions
---@field template string? id, name, `namespace/name`, with or without `:tag` ("base")
---@field timeout number? seconds until the sandbox ends; the service's default is 300
---@field metadata table<string, string>? yours; `list` can filter by it
---@field envs table<string, string>? environment of every process in the sandbox
---@field allow_internet_access boolean?
---@field lifecycle { on_timeout: string|{ action: string, keep_memory: boolean? }?, auto_resume: boolean? }?
---@field network e2b.NetworkOptions?
---@field volume_mounts table<string, string|table>? mount path to volume, or its name
---@field iam { tokens: table<string, { audience: string, token_type: string }> }?
---@field secure true? without effect: sandboxes are always secured
---@field exactly_once boolean? when the answer is lost, look for the sandbox and take it over (`sandbox.adopted`),
---  until 10 seconds after the deadline; then the failure has `err.token`, for `e2b.reap`. Never sends a second create.
---  A cancelled task waits for the end of this, and the sandbox is killed again
---@field kill_on_exit boolean? the sandbox is killed when this process ends, also when it crashes or is killed: a
---  process of its own sees to that. Puts `e2b_lua_token` into the metadata (the client's kill_on_exit if not given)
---@field mcp table? the MCP servers to run in the sandbox, by name, with their settings; starts the gateway

---@class e2b.NetworkOptions
---@field allow_public_traffic boolean? false: requests to the sandbox need its traffic token
---@field allow_out string[]|fun(context: { all_traffic: string, rules: table }): string[]
---@field deny_out string[]|fun(context: { all_traffic: string, rules: table }): string[]
---@field rules table<string, { transform: { headers: table<string, string> }|function }[]>?
---@field egress_proxy { address: string, username: string?, password: string? }?
---@field mask_request_host string?
---@field https_ports integer[]?

---@class e2b.ListOptions: e2b.CallOptions
---@field state string[]? { "running" }, { "paused" } or both, which is also the default
---@field metadata table<string, string>? all pairs have to match
---@field order "asc"|"desc"|nil by the time of the start; newest first if not given
---@field started_after number|string|nil inclusive; seconds since the epoch or RFC 3339 text
---@field template string? id or name, without a tag
---@field limit integer? sandboxes a page (100), not in all
---@field next_token string? where an earlier paginator stopped

---@class e2b.StartOptions: e2b.CallOptions
---@field timeout number? seconds
---@field kill_on_exit boolean? only of connect: as in create
---@field on_resume "restore"|"reboot"|nil "reboot" starts from the disk and drops the memory

---@class e2b.MetricsOptions: e2b.CallOptions
---@field from number|string|nil seconds since the epoch or RFC 3339 text
---@field to number|string|nil likewise

---@class e2b.Metric
---@field timestamp integer seconds since the epoch
---@field cpu_count integer
---@field cpu_used_pct number
---@field mem_used integer bytes
---@field mem_total integer bytes
---@field mem_cache integer bytes
---@field disk_used integer bytes
---@field disk_total integer bytes

-- Names that are looked for and that there are not, whatever is said about them; any other unknown field is nil.
local LOOKED_FOR = {
  commands = true, files = true, pty = true, git = true, new = true, beta_create = true, beta_pause = true,
}

-- What can be done inside of a sandbox: fields of its objects that are made when they are first asked for. They are
-- kept beside the objects, where no pairs() sees them, and weakly, for they name the object (on 5.1 it would stay).
local INSIDE = {}
for name, module in pairs({ commands = "e2b.commands", files = "e2b.files", pty = "e2b.pty", git = "e2b.git" }) do
  INSIDE[name] = { module = module, made = setmetatable({}, { __mode = "kv" }) }
end

local function inside(object, resource)
  local value = resource.made[object]
  if not value then
    value = require(resource.module).new(object)
    resource.made[object] = value
  end
  return value
end

local function missing(class, key)
  if type(key) == "string" and (LOOKED_FOR[key] or key:find("%u")) then
    local text = require("e2b.suggest").member(key, class)
    if text then options.raise(text) end
  end
  return nil
end

--- Makes the Sandbox class of a client.
---@param source fun(): e2b.Client hands out the client, when one is needed
---@param name string what the class prints as
---@return e2b.SandboxClass
function M.bind(source, name)
  ---@class e2b.SandboxClass
  local Sandbox = {}

  local binding = { source = source, class = Sandbox, offset = 0 }

  -- For what makes a sandbox run: what closing it takes is loaded before it is there.
  local function start()
    require("e2b.sandbox_scope")
    return require("e2b.sandbox_start")
  end

  ---Starts a sandbox. `Sandbox.create(template, opts)`, or `Sandbox.create(opts)` with `opts.template`.
  ---Only what is given is sent. E2B API: POST /v2/sandboxes (POST /sandboxes on services without it).
  ---Errors: not_found (template), quota, rate_limit, busy, unsupported (a template too old; its sandbox is killed. With
  ---`kill_on_exit`: no Lua is found that could run the guard process).
  ---@param template string|e2b.CreateOptions|nil "base" if not given
  ---@param opts e2b.CreateOptions?
  ---@return e2b.Sandbox? sandbox
  ---@return string? message
  ---@return e2b.Error? err
  function Sandbox.create(template, opts)
    return start().create(binding, template, opts)
  end

  ---Lists sandboxes, page by page; nothing is fetched before the first item is asked for. Each row is checked against
  ---the filter again, and rows that don't fit are dropped. E2B API: GET /v2/sandboxes. On a service that has only
  ---GET /sandboxes, whatever that can't do (anything but running ones, newest first, filtered by metadata) is
  ---`unsupported`.
  ---@param opts e2b.ListOptions?
  ---@return e2b.Paginator paginator of e2b.Sandbox
  function Sandbox.list(opts)
    return require("e2b.sandbox_list").list(binding, opts)
  end

  ---Fetches the facts. The method refreshes and returns the object itself, the static makes a new one.
  ---E2B API: GET /sandboxes/{id}. Errors: not_found.
  ---@param target string|e2b.Sandbox
  ---@param opts e2b.CallOptions?
  ---@return e2b.Sandbox? sandbox
  ---@return string? message
  ---@return e2b.Error? err
  function Sandbox.get_info(target, opts)
    return calls.get_info(binding, target, opts)
  end

  ---Ends a sandbox for good, running or paused. E2B API: DELETE /sandboxes/{id}. Errors: protocol (a 404 that isn't the
  ---service's: nothing is known then).
  ---@param target string|e2b.Sandbox
  ---@param opts e2b.CallOptions?
  ---@return true? ok
  ---@return boolean|string existed false when it was gone before this call; the message after a failure
  ---@return e2b.Error? err
  function Sandbox.kill(target, opts)
    return calls.kill(binding, target, opts)
  end

  ---Lets a sandbox outlive this process although it was created, or connected to, with `kill_on_exit`, or created by a
  ---client with a journal. No request is made. Whatever kills a sandbox releases it as well.
  ---@param target string|e2b.Sandbox
  ---@return boolean guarded false: it was not to be killed at the end of this process
  function Sandbox.release(target)
    return require("e2b.kill_on_exit").release(binding, target)
  end

  ---Stops a sandbox and keeps its disk, and its memory unless `keep_memory = false`.
  ---E2B API: POST /sandboxes/{id}/pause. Errors: not_found, conflict (it is changing its state), busy (it runs on).
  ---@param target string|e2b.Sandbox
  ---@param opts { keep_memory: boolean? }? and e2b.CallOptions
  ---@return true? ok
  ---@return boolean|string paused false when it was paused already; the message after a failure
  ---@return e2b.Error? err
  function Sandbox.pause(target, opts)
    return calls.pause(binding, target, opts)
  end

  ---Wakes a paused sandbox, which ends `timeout` seconds (300) from now. A running one is a `conflict`; see connect.
  ---E2B API: POST /sandboxes/{id}/resume; on services without it, GET /sandboxes/{id}, then
  ---POST /v2/sandboxes/{id}/connect. The method returns the object itself. Errors: not_found, conflict.
  ---@param target string|e2b.Sandbox
  ---@param opts e2b.StartOptions?
  ---@return e2b.Sandbox? sandbox
  ---@return string? message
  ---@return e2b.Error? err
  function Sandbox.resume(target, opts)
    return start().resume(binding, target, opts)
  end

  ---Resumes a paused sandbox and extends a running one to `timeout` seconds (the service's 300) from now, never
  ---shortens it. E2B API: POST /v2/sandboxes/{id}/connect (POST /sandboxes/{id}/connect on services without it).
  ---The method returns the object itself, the static a new one. Errors: not_found, conflict.
  ---@param target string|e2b.Sandbox
  ---@param opts e2b.StartOptions?
  ---@return e2b.Sandbox? sandbox
  ---@return string? message
  ---@return e2b.Error? err
  function Sandbox.connect(target, opts)
    return start().connect(binding, target, opts)
  end

  ---Makes a running sandbox end `seconds` from now, be that later or sooner than before; 0 ends it at once.
  ---E2B API: POST /sandboxes/{id}/timeout. Errors: not_found (unknown or paused), conflict.
  ---@param target string|e2b.Sandbox
  ---@param seconds number
  ---@param opts e2b.CallOptions?
  ---@return true? ok
  ---@return string? message
  ---@return e2b.Error? err
  function Sandbox.set_timeout(target, seconds, opts)
    return calls.set_timeout(binding, target, seconds, opts)
  end

  ---Asks the sandbox itself whether it is up. False for one that is killed, paused or unknown. envd: GET /health.
  ---@param target string|e2b.Sandbox
  ---@param opts e2b.CallOptions?
  ---@return boolean? running
  ---@return string? message
  ---@return e2b.Error? err
  function Sandbox.is_running(target, opts)
    return require("e2b.sandbox_reach").is_running(binding, target, opts)
  end

  ---The public host name of a port of the sandbox, without a scheme. No request is made.
  ---@param target string|e2b.Sandbox
  ---@param port integer 1 to 65535
  ---@return string host
  function Sandbox.get_host(target, port)
    return require("e2b.sandbox_reach").get_host(binding, target, port)
  end

  ---Use of CPU, memory and disk over time; empty outside the sandbox's life. E2B API: GET /sandboxes/{id}/metrics.
  ---Errors: not_found, unsupported (the sandbox's envd is older than 0.1.5).
  ---@param target string|e2b.Sandbox
  ---@param opts e2b.MetricsOptions?
  ---@return e2b.Metric[]? metrics
  ---@return string? message
  ---@return e2b.Error? err
  function Sandbox.get_metrics(target, opts)
    return require("e2b.sandbox_reach").get_metrics(binding, target, opts)
  end

  ---Seconds until the sandbox ends, by the server's clock. Negative once that is past; nil when it is paused or killed,
  ---or when the end isn't known. No request is made.
  ---@param target e2b.Sandbox
  ---@return number? seconds
  function Sandbox.expires_in(target)
    local _, object, owner = base.object(binding, target, "expires_in")
    return book.expires_in(owner, object)
  end

  ---The token that requests to the sandbox's ports need when `network.allow_public_traffic` is false, for the header
  ---`e2b-traffic-access-token`. Kept out of the fields so that no print shows it.
  ---@param target e2b.Sandbox
  ---@return string? token nil when there is none
  function Sandbox.traffic_access_token(target)
    local _, object = base.object(binding, target, "traffic_access_token")
    local _, traffic = book.tokens(object)
    return traffic
  end

  ---A URL from which a file of the sandbox can be fetched without a key; signed when the sandbox is secured. It is good
  ---for ever if no `use_signature_expiration` (seconds from now) is given, which raises when the sandbox isn't secured.
  ---No request is made (but one for the token of an item of a list). With `sandbox_url` (E2B_SANDBOX_URL) it begins
  ---with that, as in the official SDKs, and then it names no sandbox: what serves many under one address can't tell
  ---whose file is meant, unless whoever fetches it sends the headers E2b-Sandbox-Id and E2b-Sandbox-Port (49983).
  ---envd: GET /files. Errors: invalid_argument.
  ---@param target e2b.Sandbox
  ---@param path string in the sandbox; a relative one begins at the user's home
  ---@param opts { user: string?, use_signature_expiration: integer? }? and e2b.CallOptions
  ---@return string? url
  ---@return string? message
  ---@return e2b.Error? err
  function Sandbox.download_url(target, path, opts)
    local _, object = base.object(binding, target, "download_url")
    return require("e2b.file_urls").download_url(object, path, opts)
  end

  ---A URL to which a file can be posted without a key; signed when the sandbox is secured. It is good for ever if no
  ---`use_signature_expiration` (seconds from now) is given, which raises when the sandbox is not secured. No request is
  ---made (but one for the token of an item of a list). With `sandbox_url` it names no sandbox; see download_url.
  ---envd: POST /files. Errors: invalid_argument.
  ---@param target e2b.Sandbox
  ---@param path string? in the sandbox; nil: whoever posts names the file
  ---@param opts { user: string?, use_signature_expiration: integer? }? and e2b.CallOptions
  ---@return string? url
  ---@return string? message
  ---@return e2b.Error? err
  function Sandbox.upload_url(target, path, opts)
    local _, object = base.object(binding, target, "upload_url")
    return require("e2b.file_urls").upload_url(object, path, opts)
  end

  ---Attaches this terminal to a shell in the sandbox until that ends: keys go there raw, changes of the window's size
  ---follow, and the settings of the terminal are restored whatever happens, also when this process is killed. "~."
  ---after the return key detaches, as in ssh ("~?" tells more); what runs goes on, and shell({ pid = pid }) comes back.
  ---envd: POST /process.Process/Start. Errors: unsupported (no terminal here, or a loop that can't wait for one), and
  ---what a stream can fail with; `err.pid` is of what still may run.
  ---@param target e2b.Sandbox
  ---@param opts e2b.ShellOptions?
  ---@return integer|false|nil exit_code false: detached
  ---@return string|integer|nil message_or_pid
  ---@return e2b.Error? err
  function Sandbox.shell(target, opts)
    local _, object = base.object(binding, target, "shell")
    return require("e2b.shell").shell(object, opts)
  end

  ---The address of the sandbox's MCP gateway, which runs in a sandbox created with `mcp`. No request is made.
  ---@param target e2b.Sandbox
  ---@return string url
  function Sandbox.get_mcp_url(target)
    local _, object = base.object(binding, target, "get_mcp_url")
    return require("e2b.mcp").get_mcp_url(object)
  end

  ---The token that the sandbox's MCP gateway asks for: known to the object that `create` returned, else read from the
  ---sandbox. envd: GET /files. Errors: not_found (no gateway runs there).
  ---@param target e2b.Sandbox
  ---@param opts e2b.CallOptions?
  ---@return string? token
  ---@return string? message
  ---@return e2b.Error? err
  function Sandbox.get_mcp_token(target, opts)
    local _, object = base.object(binding, target, "get_mcp_token")
    return require("e2b.mcp").get_mcp_token(object, opts)
  end

  ---Creates a sandbox, calls `fn` with it, kills it: also when `fn` raises or its task is cancelled.
  ---@param opts e2b.CreateOptions|string|nil
  ---@param fn fun(sandbox: e2b.Sandbox): ...
  ---@return any ... what fn returned; nil, message, err when the sandbox could not be created
  function Sandbox.with(opts, fn)
    return require("e2b.sandbox_scope").with(binding, opts, fn)
  end

  binding.mt = {
    __name = "e2b.Sandbox",
    __index = function(object, key)
      local value = rawget(Sandbox, key)
      if value ~= nil then return value end
      local resource = INSIDE[key]
      if resource then return inside(object, resource) end
      return missing(Sandbox, key)
    end,
    __tostring = function(object) return book.text(binding, object) end,
    __close = function(object) require("e2b.sandbox_scope").close(object) end,
  }
  base.register(binding, {
    __name = "e2b.SandboxClass",
    __tostring = function() return name end,
    __index = missing,
    __call = function() options.raise("the class can't be called: write Sandbox.create(template, { … })") end,
  })
  return Sandbox
end

return M
