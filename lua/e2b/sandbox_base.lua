--- Whom a call on a sandbox is about, and what the operations share.
local core = require("e2b.core")
local options = require("e2b.options")

local M = {}

local raise = options.raise

-- The key under which the metatables of objects and classes hold their binding: nobody else's table has it.
local BINDING = {}

--- Makes the objects and the class of a binding known.
---@param binding e2b.Binding
---@param class_mt table metatable of the class
function M.register(binding, class_mt)
  binding.mt[BINDING] = binding
  class_mt[BINDING] = binding
  setmetatable(binding.class, class_mt)
end

local function registered(value)
  if type(value) ~= "table" then return nil end
  local mt = getmetatable(value)
  return type(mt) == "table" and mt[BINDING] or nil
end

--- The binding a value belongs to when it is a Sandbox object.
---@param value any
---@return e2b.Binding?
function M.binding_of(value)
  local binding = registered(value)
  if binding and value ~= binding.class then return binding end
  return nil
end

--- Whether a value is a Sandbox class (e2b.Sandbox, client.Sandbox).
---@param value any
---@return boolean
function M.is_class(value)
  local binding = registered(value)
  return binding ~= nil and value == binding.class
end

--- Whom a call is about.
---@param binding e2b.Binding
---@param target any
---@param name string the operation, for the message
---@return string sandbox_id
---@return e2b.Sandbox? object
---@return e2b.Binding binding
function M.subject(binding, target, name)
  if type(target) == "string" then
    if target == "" then raise(("Sandbox.%s: the sandbox id is empty"):format(name)) end
    return target, nil, binding
  end
  local owner = M.binding_of(target)
  if owner then return target.sandbox_id, target, owner end
  local form = ("write sandbox:%s(…) or Sandbox.%s(sandbox_id, …)"):format(name, name)
  if M.is_class(target) then
    raise(("Sandbox:%s() names no sandbox: %s"):format(name, form))
  end
  raise(("Sandbox.%s needs a sandbox or its id, got %s: %s"):format(name, type(target), form))
end

--- As subject, for what only an object knows.
---@param _ e2b.Binding
---@param target any
---@param name string
---@return string sandbox_id
---@return e2b.Sandbox object
---@return e2b.Binding binding
function M.object(_, target, name)
  if type(target) == "string" then
    raise(("%s is for an object, not for an id: write sandbox:%s()"):format(name, name))
  end
  local owner = M.binding_of(target)
  if not owner then
    local what = M.is_class(target) and "the class" or type(target)
    raise(("%s needs a sandbox, got %s: write sandbox:%s()"):format(name, what, name))
  end
  return target.sandbox_id, target, owner
end

--- The client of a binding; made at first use, for the environment is not read before.
---@param binding e2b.Binding
---@return e2b.Client
function M.client_of(binding)
  local client = binding.client
  if not client then
    client = binding.source()
    binding.client = client
  end
  return client
end

--- A 404 to a call that names nothing: then it is the address that there is nothing at.
---@param client e2b.Client
---@param message string
---@param err e2b.Error
---@return nil
---@return string message
---@return e2b.Error err
function M.wrong_address(client, message, err)
  if err.kind ~= "not_found" then return nil, message, err end
  local said = err.server_message and ": " .. err.server_message or ""
  err.message = ("%s: %s doesn't answer as E2B's API does (404%s); "
    .. "E2B_API_URL or the option api_url chooses it"):format(
    err.operation, client.base_url, said)
  return nil, err.message, err
end

--- A 404 to a call that only a running sandbox answers: of a paused one it says nothing true.
---@param object e2b.Sandbox? what the call was made on, if it was an object
---@param message string
---@param err e2b.Error
---@return nil
---@return string message
---@return e2b.Error err
function M.maybe_paused(object, message, err)
  if err.kind ~= "not_found" then return nil, message, err end
  if object and object.state == "paused" then
    local said = err.server_message and ": " .. err.server_message or ""
    message = ("%s: sandbox %q is paused (404%s): resume or connect it first"):format(
      err.operation, require("e2b.format").clean(err.sandbox_id), said)
  else
    message = message .. ", or it is paused (resume or connect it first)"
  end
  err.message = message
  return nil, message, err
end

-- The end of a public call that may need several requests; each gets what is left of one request_timeout.
function M.deadline_of(client, opts)
  local seconds = opts and opts.request_timeout or client.request_timeout
  if not seconds or seconds == 0 then return nil end
  return core.now() + seconds
end

-- onResume of the official SDKs: a wrong word would silently restore, so only these two are let through.
function M.memory_of(opts)
  local on_resume = opts and opts.on_resume
  if on_resume == nil or on_resume == "restore" then return nil end
  if on_resume == "reboot" then return false end
  raise("on_resume must be \"restore\" or \"reboot\", got " .. require("e2b.format").value(on_resume))
end

local MAX_SECONDS = 2 ^ 31 - 1

--- Whole seconds for the wire; fractions are rounded up, so that 0.5 never becomes 0.
---@param value any
---@param what string the option's name, for the message
---@return integer?
function M.seconds(value, what)
  if value == nil then return nil end
  if type(value) ~= "number" then
    raise(("%s must be a number of seconds, got %s"):format(what, type(value)))
  end
  if not (value >= 0 and value <= MAX_SECONDS) then
    raise(("%s must be between 0 and %d seconds, got %s"):format(what, MAX_SECONDS, tostring(value)))
  end
  return math.ceil(value)
end

--- A whole number of things, at least one.
---@param value any
---@param what string
---@return integer?
function M.count(value, what)
  if value == nil then return nil end
  if type(value) ~= "number" or value ~= math.floor(value) or value < 1 or value > MAX_SECONDS then
    raise(("%s must be a whole number from 1 on, got %s"):format(what, require("e2b.format").value(value)))
  end
  return value
end

--- A point in time as the caller gave it: seconds since the epoch, or RFC 3339 text.
---@param value any
---@param what string
---@return number?
function M.epoch(value, what)
  if value == nil then return nil end
  local seconds = value
  if type(value) == "string" then
    seconds = core.time_parse(value)
    if not seconds then raise(("%s is no RFC 3339 time: %q"):format(what, value)) end
  elseif type(value) ~= "number" then
    raise(("%s must be seconds since the epoch (os.time()) or RFC 3339 text, got %s"):format(what, type(value)))
  end
  if not (seconds >= 0 and seconds < 2 ^ 40) then
    raise(("%s is out of range: %s"):format(what, tostring(value)))
  end
  return seconds
end

--- Compares as semantic versions: 0.10.0 is newer than 0.9.0. A version that can't be read is taken for a new one.
---@param version string?
---@param least integer[] major, minor, patch
---@return boolean
function M.older_than(version, least)
  local major, minor, patch = tostring(version or ""):match("^v?(%d+)%.(%d+)%.(%d+)")
  if not major then return false end
  local parts = { tonumber(major), tonumber(minor), tonumber(patch) }
  for i = 1, 3 do
    if parts[i] ~= least[i] then return parts[i] < least[i] end
  end
  return false
end
return M
