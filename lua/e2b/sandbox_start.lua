--- The operations after which a sandbox runs: create, connect, resume.
local errors = require("e2b.errors")
local options = require("e2b.options")
local base = require("e2b.sandbox_base")
local book = require("e2b.sandbox_book")
local calls = require("e2b.sandbox_calls")
local lazy = require("e2b.lazy")

local tasks = lazy("e2b.tasks")

local M = {}

local raise = options.raise
local subject, client_of = base.subject, base.client_of

-- connect and resume -------------------------------------------------------------------------------------------------

local CONNECT = { operation = "Sandbox.connect", resource = "sandbox" }
local START_OPTIONS = { "timeout", "on_resume" }
local CONNECT_OPTIONS = { "timeout", "on_resume", "kill_on_exit" }

-- The object after an answer that carries a Sandbox: the one the method was called on, or a new one.
local function started(binding, client, object, id, row, meta, timeout, resumed)
  local now = book.learn(binding, meta)
  local end_at = now + timeout
  -- Connecting to a running sandbox never shortens its life: `end_at` is the least it has left. Of 0 seconds that says
  -- nothing, unless the object knows more.
  local unknown = not resumed and timeout == 0
  if not object then
    object = setmetatable({ sandbox_id = id }, binding.mt)
  elseif not resumed and object.end_at and object.end_at > end_at then
    end_at, unknown = object.end_at, false
  end
  local entry = { state = "running", end_at = end_at }
  if resumed then entry.started_at = now end
  book.enter(object, row, entry)
  if unknown then object.end_at = nil end
  if object.sandbox_domain == nil then object.sandbox_domain = client.domain end
  return object
end

local function connect(binding, client, id, object, timeout, memory, opts, context)
  local row, meta, err = client:call_either("sandbox_connect", "sandbox_connect_v1",
    { sandbox_id = id, body = { timeout = timeout, memory = memory } },
    function() return { sandbox_id = id, body = { timeout = timeout or 300, memory = memory } } end,
    opts, context)
  if row == nil then return nil, meta, err end
  return started(binding, client, object, id, row, meta, timeout or 300, meta.status == 201)
end

---@return e2b.Sandbox? sandbox
---@return string? message
---@return e2b.Error? err
function M.connect(binding, target, opts)
  local id, object
  id, object, binding = subject(binding, target, "connect")
  local timeout, memory
  if opts ~= nil then
    options.call(opts, CONNECT_OPTIONS, "Sandbox.connect")
    timeout, memory = base.seconds(opts.timeout, "timeout"), base.memory_of(opts)
  end
  local client = client_of(binding)
  if client.debug then
    return object or setmetatable({ sandbox_id = id, sandbox_domain = client.domain }, binding.mt)
  end
  if opts and opts.kill_on_exit then
    return require("e2b.kill_on_exit").connect(binding, id, CONNECT, opts, function(context)
      return connect(binding, client, id, object, timeout, memory, opts, context)
    end)
  end
  return connect(binding, client, id, object, timeout, memory, opts, CONNECT)
end

local RESUME = { operation = "Sandbox.resume", resource = "sandbox" }
-- The route's own default is 15 seconds, too short to be meant by anybody.
local RESUME_TIMEOUT = 300

-- The way out belongs into the message: the official SDKs know only connect, and it does what was probably meant.
local function running_already(id, err)
  local said = err.server_message and (" (%d: %s)"):format(err.status, err.server_message) or ""
  err.message = ("Sandbox.resume: sandbox %s is running already, or changing its state%s; "):format(id, said)
    .. "Sandbox.connect extends a running sandbox and resumes a paused one"
  return nil, err.message, err
end

---@return e2b.Sandbox? sandbox
---@return string? message
---@return e2b.Error? err
function M.resume(binding, target, opts)
  local id, object
  id, object, binding = subject(binding, target, "resume")
  local timeout, memory = RESUME_TIMEOUT, nil
  if opts ~= nil then
    options.call(opts, START_OPTIONS, "Sandbox.resume")
    timeout, memory = base.seconds(opts.timeout, "timeout") or RESUME_TIMEOUT, base.memory_of(opts)
  end
  local client = client_of(binding)
  local deadline = base.deadline_of(client, opts)
  local row, meta, err = client:call("sandbox_resume",
    { sandbox_id = id, body = { timeout = timeout, memory = memory } }, opts, RESUME)
  if row ~= nil then return started(binding, client, object, id, row, meta, timeout, true) end
  if err.kind == "conflict" then return running_already(id, err) end
  if err.status ~= 405 and err.status ~= 410 then return nil, meta, err end
  -- The service has dropped the route. connect would also extend a running sandbox, which resume doesn't do.
  local context = { operation = "Sandbox.resume", resource = "sandbox", deadline = deadline }
  row, meta, err = calls.fetch(binding, client, id, opts, context)
  if row == nil then return nil, meta, err end
  if row.state == "running" then
    local _, _, conflict = errors.new("conflict", {
      operation = "Sandbox.resume", sandbox_id = id, sent = "yes", retryable = false,
    })
    return running_already(id, conflict)
  end
  return connect(binding, client, id, object, timeout, memory, opts, context)
end

-- create -------------------------------------------------------------------------------------------------------------

local OLDEST_ENVD = { 0, 1, 0 }

-- Who asked for the sandbox is gone (a request of nginx that was aborted): nobody would ever kill it.
local function kill_of(binding, prepared)
  local outcome = prepared.outcome
  return function(ok, row)
    if outcome then outcome(ok and row.sandbox_id, row) end
    if ok then require("e2b.sandbox_scope").close(book.adopt(binding, row)) end
  end
end

-- A sandbox made from a template that is too old for every SDK is of no use to anybody and would cost money.
local function refuse_old(binding, object, opts)
  local id, version = object.sandbox_id, object.envd_version
  local killed, why = calls.kill(binding, object, { request_timeout = opts and opts.request_timeout })
  local message = ("Sandbox.create: the template %s is too old (envd %s, 0.1.0 is needed): rebuild it; "):format(
    tostring(object.name or object.template_id), tostring(version))
  if killed then
    message = message .. "its sandbox was killed"
  else
    message = message .. ("its sandbox %s could not be killed (%s)"):format(id, tostring(why))
  end
  return errors.new("unsupported", {
    message = message, operation = "Sandbox.create", sandbox_id = id, sent = "yes", retryable = false,
  })
end

--- Checks and copies what create was given; the caller's mistakes raise here, before anything is done.
---@param template string|table|nil
---@param opts table?
---@return { body: table, opts: table, unnamed: boolean } prepared
function M.prepare(template, opts)
  local passed = base.is_class(template) and "the class" or base.binding_of(template) and "a sandbox"
  if passed then
    raise(("Sandbox:create() passes %s as the template: write Sandbox.create(template, { … })"):format(passed))
  end
  if type(template) == "table" then
    if opts ~= nil then
      raise("Sandbox.create takes a template and options, or options alone: the first argument is a table already")
    end
    template, opts = nil, template
  elseif template ~= nil and type(template) ~= "string" then
    raise(("Sandbox.create: the template must be a string, got %s"):format(type(template)))
  end
  local create = require("e2b.sandbox_create")
  if opts ~= nil then options.call(opts, create.OPTIONS, "Sandbox.create") end
  opts = opts or {}
  if opts.template ~= nil then
    if template ~= nil then raise("Sandbox.create: the template is given twice") end
    template = opts.template
    if type(template) ~= "string" then
      raise(("template must be a string, got %s"):format(type(template)))
    end
  end
  if template == "" then raise("Sandbox.create: the template is empty; leave it out for \"base\"") end
  local unnamed = template == nil
  return { body = create.body(template or opts.mcp and "mcp-gateway" or "base", opts), opts = opts, unnamed = unnamed }
end

-- A sandbox that was made for its gateway is of no use without: it is killed, whichever way the start failed.
local function with_gateway(binding, object, opts)
  local ok, runs, message, err = tasks.pcall(require("e2b.mcp").start, binding, object, opts)
  if ok and runs then return object end
  require("e2b.sandbox_scope").close(object)
  if not ok then error(runs, 0) end
  return nil, message, err
end

local function post(client, prepared, body, context)
  local row, meta, err = client:call_either("sandbox_create", "sandbox_create_v1", { body = body },
    function() return { body = require("e2b.sandbox_create").body_v1(body) } end, prepared.opts, context)
  if row == nil and prepared.unnamed and err.kind == "not_found" then
    -- Every team has "base", so the address is as likely to be wrong.
    err.message = ("%s; the template is \"%s\", for none was named, and the service is %s (E2B_API_URL or the "
      .. "option api_url chooses it)"):format(err.message, body.template, client.base_url)
    meta = err.message
  end
  return row, meta, err
end

-- The sandbox that an answer tells of.
local function enter(binding, body, row, meta)
  local now = book.learn(binding, meta)
  row.metadata = body.metadata
  if row.template_id == nil then row.template_id = body.template end
  local object = book.adopt(binding, row)
  return book.note(object, { state = "running", started_at = now, end_at = now + (body.timeout or 300) })
end

local function send(binding, prepared)
  local body, opts = prepared.body, prepared.opts
  local client = client_of(binding)
  if client.debug then
    return setmetatable({
      sandbox_id = "debug_sandbox_id", template_id = body.template, envd_version = "99.99.99", state = "running",
      sandbox_domain = client.domain, metadata = body.metadata or {}, estimated = true,
    }, binding.mt)
  end
  local orphan = kill_of(binding, prepared)
  local object, message, err
  if opts.exactly_once or client.journal then
    object, message, err = require("e2b.sandbox_once").create(binding, prepared,
      function(marked, context)
        context.orphan = orphan
        return post(client, prepared, marked, context)
      end,
      function(row, meta) return enter(binding, body, row, meta) end)
  else
    object, message, err = post(client, prepared, body, {
      operation = "Sandbox.create", resource = "template", deadline = prepared.deadline, token = prepared.token,
      orphan = orphan,
    })
    if object ~= nil then object = enter(binding, body, object, message) end
  end
  if object == nil then return nil, message, err end
  if object.sandbox_domain == nil then object.sandbox_domain = client.domain end
  if base.older_than(object.envd_version, OLDEST_ENVD) then return refuse_old(binding, object, opts) end
  if opts.mcp ~= nil then return with_gateway(binding, object, opts) end
  return object
end

--- Sends what was prepared.
---@param binding e2b.Binding
---@param prepared { body: table, opts: table, unnamed: boolean?, deadline: number?, token: string?, outcome: fun()? }
---  token: of the mark that is in the metadata already; deadline on the clock of core.now(); outcome: gets the id, or
---  false and why there is none, when whoever asked for the sandbox is gone
---@return e2b.Sandbox? sandbox
---@return string? message
---@return e2b.Error? err
function M.send(binding, prepared)
  local client, guarded = client_of(binding), prepared.opts.kill_on_exit
  if guarded == nil then guarded = client.kill_on_exit end
  if guarded and not client.debug then return require("e2b.kill_on_exit").create(binding, prepared, send) end
  return send(binding, prepared)
end

---@return e2b.Sandbox? sandbox
---@return string? message
---@return e2b.Error? err
function M.create(binding, template, opts)
  return M.send(binding, M.prepare(template, opts))
end

return M
