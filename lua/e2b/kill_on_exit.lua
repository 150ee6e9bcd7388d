--- kill_on_exit: sandboxes that don't outlive the process that made them, however it ends. The guard process is told of
--- a sandbox before it is asked for (by a token that goes into its metadata) and again when its id is known.
local base = require("e2b.sandbox_base")
local tokens = require("e2b.sandbox_token")

local M = {}

local CREATE = { operation = "Sandbox.create", resource = "template" }

-- Whether a failed create surely made nothing, or nothing that still is.
local function made_nothing(err)
  if err.sent == "no" then return true end
  return err.status ~= nil and err.status >= 400 and err.status < 500 and err.status ~= 408
end

local function watch_kills(binding, guard)
  binding.released = function(id) return guard:release(id) end
end

-- Also called for a request of nginx that has ended meanwhile, hence made in a function of its own: see e2b.exchange.
local function listener(guard, token)
  return function(id, err)
    if id then
      guard:hold(id, token)
    elseif made_nothing(err) then
      guard:forget(token)
    end
  end
end

--- Creates a sandbox under guard.
---@param binding e2b.Binding
---@param prepared table what create sends
---@param send fun(binding: e2b.Binding, prepared: table): e2b.Sandbox?, string?, e2b.Error?
---@return e2b.Sandbox? sandbox
---@return string? message
---@return e2b.Error? err
function M.create(binding, prepared, send)
  local client = base.client_of(binding)
  local guard = client:guard()
  prepared.deadline = prepared.deadline or base.deadline_of(client, prepared.opts)
  local ok, message, err = guard:start(CREATE, prepared.deadline)
  if not ok then return nil, message, err end
  local token = tokens.new()
  prepared.token, prepared.body = token, tokens.mark(prepared.body, token)
  watch_kills(binding, guard)
  prepared.outcome = listener(guard, token)
  guard:expect(token, prepared.deadline)
  local sandbox
  sandbox, message, err = send(binding, prepared)
  prepared.outcome(sandbox and sandbox.sandbox_id, err)
  return sandbox, message, err
end

--- Connects to a sandbox and takes charge of it.
---@param binding e2b.Binding
---@param id string
---@param context table of the call
---@param opts table
---@param connect fun(context: table): e2b.Sandbox?, string?, e2b.Error?
---@return e2b.Sandbox? sandbox
---@return string? message
---@return e2b.Error? err
function M.connect(binding, id, context, opts, connect)
  local client = base.client_of(binding)
  local guard = client:guard()
  local deadline = base.deadline_of(client, opts)
  local ok, message, err = guard:start({ operation = context.operation, sandbox_id = id }, deadline)
  if not ok then return nil, message, err end
  local sandbox
  sandbox, message, err = connect({ operation = context.operation, resource = context.resource, deadline = deadline })
  if sandbox then
    watch_kills(binding, guard)
    guard:hold(id)
  end
  return sandbox, message, err
end

--- Lets a sandbox outlive this process.
---@param binding e2b.Binding
---@param target string|e2b.Sandbox
---@return boolean guarded
function M.release(binding, target)
  local id, _, owner = base.subject(binding, target, "release")
  local guarded = owner.released ~= nil and owner.released(id)
  local journal = base.client_of(owner).journal
  if journal then journal:gone(id) end
  return guarded
end

return M
