--- The operations on a sandbox that is there: what each sends, how its answer is read, what the object notes.
--- Every function takes the binding of its client first; `target` is an id or a Sandbox, so that statics and methods
--- are the same code. A Sandbox is always asked through the client that made it.
local lazy = require("e2b.lazy")
local options = require("e2b.options")
local base = require("e2b.sandbox_base")
local book = require("e2b.sandbox_book")

local errors, format = lazy("e2b.errors"), lazy("e2b.format")

local M = {}

local raise = options.raise
local subject, client_of = base.subject, base.client_of

-- kill ---------------------------------------------------------------------------------------------------------------

local KILL = { operation = "Sandbox.kill", resource = "sandbox" }

---@return true? ok
---@return boolean|string existed_or_message
---@return e2b.Error? err
function M.kill(binding, target, opts)
  local id, object
  id, object, binding = subject(binding, target, "kill")
  if opts ~= nil then options.call(opts, nil, "Sandbox.kill") end
  local client = client_of(binding)
  if client.debug then
    if object then book.note(object, { state = "killed" }) end
    return true, true
  end
  local done, meta, err = client:call("sandbox_kill", { sandbox_id = id }, opts, KILL)
  local existed = true
  if done == nil then
    if err.kind ~= "not_found" then return nil, meta, err end
    local stranger, tried = errors.not_found_by(err)
    if stranger then
      -- "It is gone already" is believed only of the service: a sandbox taken for dead goes on costing.
      return errors.new("protocol", {
        message = ("Sandbox.kill: the 404 of %s is not one of E2B's API, so nothing is known of sandbox %q; "):format(
          client.base_url, format.clean(id)) .. "check api_url or E2B_API_URL",
        operation = "Sandbox.kill", sandbox_id = id, status = err.status, request_id = err.request_id,
        attempts = err.attempts, sent = err.sent, retryable = false,
      })
    end
    existed = tried
  end
  if client.journal then client.journal:gone(id) end
  if object then
    book.note(object, { state = "killed", end_at = done and book.learn(binding, meta) or existed and book.now(binding)
      or object.end_at })
  end
  if binding.released then binding.released(id) end
  return true, existed
end

-- get_info -----------------------------------------------------------------------------------------------------------

local GET_INFO = { operation = "Sandbox.get_info", resource = "sandbox" }

function M.fetch(binding, client, id, opts, context)
  local row, meta, err = client:call("sandbox_get", { sandbox_id = id }, opts, context or GET_INFO)
  if row == nil then return nil, meta, err end
  book.learn(binding, meta)
  return row
end

---@return e2b.Sandbox? sandbox
---@return string? message
---@return e2b.Error? err
function M.get_info(binding, target, opts)
  local id, object
  id, object, binding = subject(binding, target, "get_info")
  if opts ~= nil then options.call(opts, nil, "Sandbox.get_info") end
  local client = client_of(binding)
  local row, message, err = M.fetch(binding, client, id, opts)
  if row == nil then
    if object and err.kind == "not_found" then book.note(object, { state = "killed" }) end
    return nil, message, err
  end
  if object then return book.refresh(object, row) end
  row.estimated = false
  return book.adopt(binding, row)
end

-- pause --------------------------------------------------------------------------------------------------------------

local PAUSE = { operation = "Sandbox.pause", resource = "sandbox" }
local PAUSE_OPTIONS = { "keep_memory" }

---@return true? ok
---@return boolean|string was_running_or_message
---@return e2b.Error? err
function M.pause(binding, target, opts)
  local id, object
  id, object, binding = subject(binding, target, "pause")
  local keep_memory
  if opts ~= nil then
    options.call(opts, PAUSE_OPTIONS, "Sandbox.pause")
    keep_memory = opts.keep_memory
    if keep_memory ~= nil and type(keep_memory) ~= "boolean" then
      raise("keep_memory must be a boolean, got " .. type(keep_memory))
    end
  end
  local client = client_of(binding)
  local deadline = base.deadline_of(client, opts)
  local done, meta, err = client:call("sandbox_pause",
    { sandbox_id = id, body = { memory = keep_memory } }, opts, PAUSE)
  if done ~= nil then
    if object then book.note(object, { state = "paused", end_at = book.learn(binding, meta) }) end
    return true, true
  end
  if err.kind ~= "conflict" then return nil, meta, err end
  -- 409 is "paused already" and also "busy with another change"; only the state itself tells which.
  local row = M.fetch(binding, client, id, opts,
    { operation = "Sandbox.pause", resource = "sandbox", deadline = deadline })
  if row == nil or row.state ~= "paused" then return nil, meta, err end
  if object then book.refresh(object, row) end
  return true, false
end

-- set_timeout --------------------------------------------------------------------------------------------------------

local SET_TIMEOUT = { operation = "Sandbox.set_timeout", resource = "sandbox" }

---@return true? ok
---@return string? message
---@return e2b.Error? err
function M.set_timeout(binding, target, seconds, opts)
  local id, object
  id, object, binding = subject(binding, target, "set_timeout")
  if type(seconds) ~= "number" then
    raise(("Sandbox.set_timeout needs a number of seconds, got %s: write sandbox:set_timeout(600)"):format(
      type(seconds)))
  end
  local timeout = base.seconds(seconds, "seconds")
  if opts ~= nil then options.call(opts, nil, "Sandbox.set_timeout") end
  local client = client_of(binding)
  if client.debug and object then return true end
  local done, meta, err = client:call("sandbox_timeout",
    { sandbox_id = id, body = { timeout = timeout } }, opts, SET_TIMEOUT)
  if done == nil then return base.maybe_paused(object, meta, err) end
  if object then book.note(object, { end_at = book.learn(binding, meta) + timeout }) end
  return true
end

return M
