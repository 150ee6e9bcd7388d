--- Creates that leave a mark: those with `exactly_once`, and all of a client with a journal.
---
--- exactly_once: one create is sent, and never a second after one that may have reached the service. When its answer is
--- lost, the sandbox is looked for by its mark until the create's deadline and 10 seconds more have passed, and taken
--- over. All of it is shielded: a cancel in the middle would leave a sandbox behind that nobody knows of.
local core = require("e2b.core")
local compat = require("e2b.compat")
local errors = require("e2b.errors")
local files = require("e2b.file_base")
local format = require("e2b.format")
local loops = require("e2b.loop.init")
local base = require("e2b.sandbox_base")
local tasks = require("e2b.tasks")
local tokens = require("e2b.sandbox_token")

local M = {}

--- Seconds beyond the create's deadline in which a sandbox is looked for.
M.AFTER = 10

-- With the deadline off, a journal takes a create for over after so many seconds.
local ENDLESS = 600

-- Nothing is made that a later process could not find.
local function not_journaled(message, errno)
  return errors.new(files.is_full(errno) and "no_space" or "invalid_argument", {
    message = "Sandbox.create: " .. format.clean(message), operation = "Sandbox.create", resource = "local_file",
    errno = errno, sent = "no", attempts = 0, retryable = false,
  })
end

-- More than one came of one create (something in between sent it twice): those nobody holds are ended.
local function keep_first(found)
  for i = #found, 2, -1 do
    require("e2b.sandbox_scope").close(found[i])
    found[i] = nil
  end
  return found[1]
end

-- The tokens of a sandbox's ports come with the answer that was lost, and with that of a connect, which here can't
-- shorten anything. The daemon's own is fetched when it is first needed, as for every item of a list.
local function complete(binding, object, body)
  if not (body.network and body.network.allow_public_traffic == false) then return end
  require("e2b.sandbox_start").connect(binding, object, { timeout = body.timeout or 300, request_timeout = 5 })
end

local function adopt(binding, found, body)
  local object = keep_first(found)
  complete(binding, object, body)
  object.adopted = true
  return object
end

local function lost(err, why)
  err.sent, err.retryable = "maybe", false
  err.message = ("%s; it was looked for, until %g s after the deadline at the latest"):format(err.message, M.AFTER)
  if why then err.message = ("%s (the last time: %s)"):format(err.message, why.message) end
  return nil, err.message, err
end

-- What the object's owner would have been told, had it not been cancelled.
local function cancelled(object, token)
  require("e2b.sandbox_scope").close(object)
  local killed = object.state == "killed"
  return errors.new("cancelled", {
    message = "Sandbox.create: cancelled while the sandbox was made; "
      .. (killed and "it was killed again" or "it could not be killed: e2b.reap(err.token) ends it"),
    operation = "Sandbox.create", sandbox_id = object.sandbox_id, sent = killed and "no" or "maybe",
    token = not killed and token or nil, retryable = false,
  })
end

--- Sends a create with a mark.
---@param binding e2b.Binding
---@param prepared { body: table, opts: table, token: string?, deadline: number? } of sandbox_start.prepare; token and
---  deadline when somebody else has to know them
---@param post fun(body: table, context: table): table?, table|string, e2b.Error? sends it
---@param enter fun(row: table, meta: table): e2b.Sandbox makes the answer a sandbox
---@return e2b.Sandbox? object
---@return string? message
---@return e2b.Error|string|nil err_or_token
---@return boolean? unwanted
local function create(binding, prepared, post, enter)
  local body, opts, client = prepared.body, prepared.opts, binding.client
  local journal, token = client.journal, prepared.token or tokens.new()
  local deadline = prepared.deadline or base.deadline_of(client, opts)
  if journal then
    -- Whose create it is has to be known by then: what a key doesn't find may be another key's.
    local ready, why, err = client:ready({ operation = "Sandbox.create" })
    if not ready then return nil, why, err end
    local seconds = deadline and deadline - core.now()
    local noted, message, errno = journal:create(token, client, (seconds or ENDLESS) + M.AFTER)
    if not noted then return not_journaled(message, errno) end
  end
  local row, meta, err = post(tokens.mark(body, token), {
    operation = "Sandbox.create", resource = "template", deadline = deadline, token = token,
    headers = { "Idempotency-Key", token },
  })
  local object
  if row ~= nil then
    object = enter(row, meta)
    if opts.exactly_once then object.adopted = false end
  elseif not err.token then
    if journal then journal:none(token) end
    return nil, meta, err
  elseif not opts.exactly_once then
    return nil, meta, err
  else
    local last = (deadline or core.now()) + M.AFTER
    local found, why = tokens.wait_for(binding.class, token, last, {
      connect_timeout = opts.connect_timeout, idle_timeout = opts.idle_timeout,
    })
    if not found then return lost(err, why) end
    object = adopt(binding, found, body)
  end
  if journal then journal:made(token, object.sandbox_id, client) end
  -- A cancel of the task is not seen in here: this one was Ctrl-C, where that is no error (Neovim).
  return object, nil, token, err ~= nil and err.kind == "cancelled"
end

--- Sends a create with a mark, under a shield if exactly one is to come of it.
---@return e2b.Sandbox? object
---@return string? message
---@return e2b.Error? err
function M.create(binding, prepared, post, enter)
  if not prepared.opts.exactly_once then
    local object, message, err = create(binding, prepared, post, enter)
    if object then return object end
    return nil, message, err
  end
  if tasks.cancelled() then
    return errors.new("cancelled", {
      message = "Sandbox.create: cancelled", operation = "Sandbox.create", sent = "no", attempts = 0, retryable = false,
    })
  end
  prepared.token = prepared.token or tokens.new()
  local results = compat.pack(tasks.pcall(tasks.shield, create, nil, binding, prepared, post, enter))
  if not results[1] then
    -- Ctrl-C in a script: who raises has no err to carry the token.
    loops.report(("Sandbox.create: an error came first, and a sandbox may have been made: e2b.reap(%q) ends it"):format(
      prepared.token))
    error(results[2], 0)
  end
  local object = results[2]
  if not object then return nil, results[3], results[4] end
  if results[5] or tasks.cancelled() then return cancelled(object, results[4]) end
  return object
end

return M
