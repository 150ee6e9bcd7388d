--- e2b: the Lua SDK for E2B sandboxes. Requiring it does nothing: no environment is read and no connection made before
--- the first call, and what a program doesn't use isn't loaded.
---@class e2b
---@field Sandbox e2b.SandboxClass configured by the environment
---@field Template e2b.TemplateClass configured by the environment
---@field tools e2b.Tools configured by the environment
local e2b = {}

--- The version of this library.
e2b.version = require("e2b.version")

-- What every client carries, made when it is first asked for.
local RESOURCES = {
  Sandbox = function(client)
    return require("e2b.sandbox").bind(function() return client end, "client.Sandbox")
  end,
  Template = function(client)
    return require("e2b.template").bind(function() return client end, "client.Template")
  end,
  tools = function(client)
    return require("e2b.tools").bind(client.Sandbox, client.Template)
  end,
  reap = function(client)
    return require("e2b.reap").bind(client)
  end,
}

-- A colon passes the module as the first argument, and everything after it one place too far.
local function with_dot(first, name, form)
  if first == e2b then
    require("e2b.options").raise(("e2b:%s() passes the module as the first argument: write e2b.%s(%s), with a dot")
      :format(name, name, form))
  end
end

---@class e2b.ClientOptions
---@field api_key string|(fun(): string)|nil the key, or a function that fetches it at first use (E2B_API_KEY)
---@field domain string? (E2B_DOMAIN, e2b.app)
---@field api_url string? (E2B_API_URL, https://api.{domain})
---@field sandbox_url string? where all sandboxes are reached (E2B_SANDBOX_URL); file URLs begin with it, too, and then
---  name no sandbox
---@field debug boolean? everything on this machine, and create, connect and kill without a request (E2B_DEBUG)
---@field request_timeout number? seconds for a whole call (60); 0 = none
---@field connect_timeout number? seconds for DNS, TCP and TLS (10)
---@field idle_timeout number? seconds between two bytes of an answer (60); 0 = none
---@field retries integer? extra attempts after a rate limit or a connection that could not be made (3); 0 = none
---@field headers table<string, string>? sent with every request to the API
---@field api_headers table<string, string>? likewise; wins over `headers`
---@field proxy string|false|nil URL of a proxy, with user:password@ if need be; false = none, despite the environment
---@field ca_file string? PEM file with the certificates to trust
---@field user_agent string? in the place of ours
---@field integration string? "name/version", added to the User-Agent
---@field logger fun(event: table)? told of every request: method, path, status, attempt, seconds, request id
---@field connections integer? at most so many at a time, for all clients of the program; the last word holds (100);
---  up to 400 streams (commands, terminals, watches) come on top
---@field max_answer_bytes integer? larger answers are refused (32 MiB)
---@field kill_on_exit boolean? what `create` does when it isn't told (false): see e2b.CreateOptions
---@field loop string|table|nil how to wait here: "blocking", "uv", "nginx", "cqueues", or a table of the functions
---  may_wait() and await(start, deadline); chosen for each call when not given
---@field await (fun(start: (fun(done: fun(...)): fun()), deadline: number?): ...)? suspends the caller in a way of your
---  own (async.nvim, plenary, your scheduler): calls start(done) and returns what done is called with; not in nginx
---@field journal string? a file in which every create is noted before it is sent, for `client:reap` (E2B_JOURNAL); mode
---  0600, on this machine's own disk; a create that can't be noted is not sent
---@field getenv (fun(name: string): string?)? in the place of os.getenv

---Makes a client with its own key and settings: `client.Sandbox`, `client.Template`, `client.tools`. Clients are
---immutable and know nothing of each other. Nothing is sent; a missing key, or something in the environment that can't
---be used, is an error of each call.
---@param opts e2b.ClientOptions?
---@return e2b.Client client
function e2b.client(opts)
  with_dot(opts, "client", "{ … }")
  return require("e2b.client").new(opts, RESOURCES)
end

---The same function under the official SDKs' name.
e2b.E2B = e2b.client

local default

-- The client of e2b.Sandbox and the rest. The environment is read here, at the first call.
local function default_client()
  default = default or e2b.client()
  return default
end

---Is everything set up? Lists a template and a sandbox, as E2B tells its users to do.
---E2B API: GET /v2/templates, GET /v2/sandboxes.
---@param client e2b.Client? the one the environment configures if not given
---@return true? ok
---@return string? message what to do
---@return e2b.Error? err
function e2b.check(client)
  with_dot(client, "check", "client")
  if client == nil then
    client = default_client()
  elseif type(client) ~= "table" or type(client.call_either) ~= "function" then
    require("e2b.options").raise("e2b.check takes a client, or nothing: e2b.check(e2b.client({ … }))")
  end
  return require("e2b.check").check(client)
end

---Kills what dead processes of ours left behind, by the journal of the client that the environment configures
---(E2B_JOURNAL); the same as `client:reap`. With a token (`err.token` of a create whose answer was lost) it ends what
---that create made: none being there is no failure, and one may come later still.
---E2B API: GET /v2/sandboxes, DELETE /sandboxes/{id}. Errors: invalid_argument (a journal that can't be read).
---@param token string?
---@param opts e2b.CallOptions? of each call
---@return string[]? killed ids
---@return e2b.ReapFailure[]|string failed what could not be ended; the message after a failure of the whole
---@return e2b.ReapLeft[]|e2b.Error left what was not touched, and why; the error after a failure of the whole
function e2b.reap(token, opts)
  with_dot(token, "reap", "token")
  return require("e2b.reap").reap(default_client(), token, opts)
end

---Creates a sandbox, calls `fn` with it, and kills it: also when `fn` raises or its task is cancelled. The kill has 10
---seconds of its own; should it fail, that is not raised: the logger and stderr name the sandbox. Ctrl-C during the
---kill is raised after a second try.
---@param opts e2b.CreateOptions|string|nil
---@param fn fun(sandbox: e2b.Sandbox): ...
---@return any ... what fn returned; nil, message, err when the sandbox could not be created
function e2b.with(opts, fn)
  with_dot(opts, "with", "{ … }, fn")
  return e2b.Sandbox.with(opts, fn)
end

---Calls `fn(item, index)` for every item, many at once, and waits for all.
---@param list any[]
---@param fn fun(item: any, index: integer): ...
---@param opts { limit: integer?, timeout: number? }? at most `limit` (100) at once; `timeout` seconds for all
---@return e2b.MemberResult[] results one entry { ok, value, message, err } an item, in order
---@return integer failed how many are not ok
function e2b.map(list, fn, opts)
  with_dot(list, "map", "list, fn")
  return require("e2b.tasks").map(list, fn, opts)
end

---Calls all functions at once and waits for all.
---@param ... fun(): ...
---@return e2b.MemberResult[] results one entry { ok, value, message, err } a function, in order
---@return integer failed how many are not ok
function e2b.all(...)
  with_dot((...), "all", "fn, …")
  return require("e2b.tasks").all(...)
end

---Starts a task. It runs whenever anything waits; `e2b.run()` finishes what is left.
---@param fn fun(): ...
---@param on_done fun(...)? called with the task's results
---@return e2b.Task task `task:wait(timeout?)`, `task:cancel()`, `task.state`
function e2b.spawn(fn, on_done)
  with_dot(fn, "spawn", "fn")
  return require("e2b.tasks").spawn(fn, on_done)
end

---Waits until all spawned tasks have ended.
---@param timeout number? seconds; the tasks go on when they are over first
---@return true? ok
---@return string? message
---@return e2b.Error? err `timeout`
function e2b.run(timeout)
  with_dot(timeout, "run", "timeout")
  return require("e2b.tasks").run(timeout)
end

---Waits; other tasks go on meanwhile.
---@param seconds number
---@return true? ok
---@return string? message
---@return e2b.Error? err `cancelled`
function e2b.sleep(seconds)
  with_dot(seconds, "sleep", "seconds")
  return require("e2b.tasks").sleep(seconds)
end

---`pcall` for code that waits: on Lua 5.1, too, a task can be suspended inside of it.
---@param fn function
---@param ... any
---@return boolean ok
---@return any ...
function e2b.pcall(fn, ...)
  with_dot(fn, "pcall", "fn, …")
  return require("e2b.tasks").pcall(fn, ...)
end

---How everything waits that doesn't ask for another loop: `"uv"` in a program that runs plain luv, `"blocking"`, or
---a table of the functions may_wait() and await(start, deadline). nil: as the host is, which is right in Neovim, nginx
---and cqueues without a word.
---@param loop string|table|nil
function e2b.use_loop(loop)
  with_dot(loop, "use_loop", "name")
  local wrong = loop ~= nil and require("e2b.config").OPTIONS.loop(loop)
  if wrong then require("e2b.options").raise("bad argument to e2b.use_loop (" .. wrong .. ")") end
  require("e2b.loop.init").use(loop)
end

---All of this library's waiting as one thing that a loop which isn't one of ours can wait on; for clients with the
---option `await` in such a host. When `pollfd()` is readable, or `timeout()` seconds are over (nil: nothing is waited
---for), `step()` has to be called. The names are cqueues' own.
---@param wake fun()? told when that has become sooner than it was; the last one given is told
---@return { pollfd: (fun(): integer), events: (fun(): string), timeout: (fun(): number?), step: fun() } pollable
function e2b.pollable(wake)
  with_dot(wake, "pollable", "wake")
  if wake ~= nil and type(wake) ~= "function" then
    require("e2b.options").raise("bad argument to e2b.pollable (a function expected, got " .. type(wake) .. ")")
  end
  return require("e2b.loop.user").pollable(wake)
end

---Prints what there is, one line each.
---@param what any? e2b.Sandbox, e2b.Template, an object, or a name: "task", "paginator", "client", "Sandbox.kill"
function e2b.help(what)
  print(require("e2b.help").text(what, e2b))
end

---Drops the connections that are kept open. What is in flight ends as `cancelled`; the next call opens new ones.
function e2b.close()
  require("e2b.core").engine():close()
end

local MEMBERS = {
  Sandbox = function() return require("e2b.sandbox").bind(default_client, "e2b.Sandbox") end,
  Template = function() return require("e2b.template").bind(default_client, "e2b.Template") end,
  tools = function() return require("e2b.tools").bind(e2b.Sandbox, e2b.Template) end,
}

return setmetatable(e2b, {
  __name = "e2b",
  __index = function(module, name)
    local make = MEMBERS[name]
    if not make then return nil end
    local value = make()
    rawset(module, name, value)
    return value
  end,
  __tostring = function() return ("e2b %s: e2b.help() lists what there is"):format(e2b.version) end,
})
