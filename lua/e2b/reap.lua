--- Ends what a dead process left: sandboxes that its journal knows, and those whose create was never answered.
local errors = require("e2b.errors")
local journals = require("e2b.journal")
local options = require("e2b.options")
local tasks = require("e2b.tasks")
local tokens = require("e2b.sandbox_token")

local M = {}

local raise = options.raise

-- So many at once.
local LIMIT = 10

---@class e2b.ReapFailure
---@field token string?
---@field sandbox_id string?
---@field message string
---@field err e2b.Error

---@class e2b.ReapLeft
---@field token string
---@field sandbox_id string?
---@field reason "alive"|"elsewhere"|"service"|"key"|"late" its process runs; it ran on another machine or in another
---  container, so nothing is known of it; it was made at another service; it isn't found with this key and was made
---  with another; there is none, but its create is so young that one may come

-- What the next one would meet as well.
local function stops_all(err)
  return err.kind == "authentication" or err.kind == "forbidden" or err.kind == "tls" or err.kind == "cancelled"
    or (err.kind == "network" or err.kind == "timeout") and err.sent == "no"
end

local function fail(job, entry, id, message, err)
  if stops_all(err) then job.stopped = job.stopped or { message, err } end
  job.failed[#job.failed + 1] = { token = entry.token, sandbox_id = id, message = message, err = err }
  return false
end

local function leave(job, entry, reason)
  job.left[#job.left + 1] = { token = entry.token, sandbox_id = entry.sandbox_id, reason = reason }
end

-- Whether it is gone now; of one that never was this says nothing.
local function kill(job, entry, id)
  local ok, existed, err = job.client.Sandbox.kill(id, job.opts)
  if not ok then return fail(job, entry, id, existed, err) end
  if existed then job.killed[#job.killed + 1] = id end
  return true, existed
end

local function same_key(job, entry)
  local mark = job.client.key_mark
  return entry.mark == nil or mark == nil or entry.mark == mark
end

-- By its mark: the answer was never noted, or isn't to be relied on.
local function end_marked(job, entry)
  local found, message, err = tokens.find(job.client.Sandbox, entry.token, job.opts)
  if not found then return fail(job, entry, entry.sandbox_id, message, err) end
  local all = true
  for _, sandbox in ipairs(found) do
    if not kill(job, entry, sandbox.sandbox_id) then all = false end
  end
  return all, found[1] ~= nil
end

local function end_entry(job, entry)
  if job.stopped then
    job.failed[#job.failed + 1] = {
      token = entry.token, sandbox_id = entry.sandbox_id, message = "not tried: " .. job.stopped[1],
      err = job.stopped[2],
    }
    return
  end
  local done, existed
  if entry.sandbox_id then done, existed = kill(job, entry, entry.sandbox_id) end
  if done ~= false and (not entry.sandbox_id or job.named) then
    local more
    done, more = end_marked(job, entry)
    existed = existed or more
  end
  if not done then return end
  -- A 404 is "gone" at the service and for the account that had it, and nothing for any other.
  if not existed and entry.url and entry.url ~= job.client.base_url then return leave(job, entry, "service") end
  if not existed and not same_key(job, entry) then return leave(job, entry, "key") end
  if not existed and not entry.sandbox_id and os.time() < (entry.expires or 0) then return leave(job, entry, "late") end
  if entry.time then job.settled[entry.token] = true end
end

-- Whether reap may touch it.
local function may_end(job, entry)
  if entry.settled or not entry.time then return false end -- or its create was settled before
  if entry.url ~= job.client.base_url then return leave(job, entry, "service") end
  local process = journals.process_of(entry)
  if process ~= "dead" then return leave(job, entry, process) end
  return true
end

local function of_journal(job, path, token)
  local entries, message, errno = journals.read(path)
  if not entries then
    return errors.new("invalid_argument", {
      message = "e2b.reap: " .. require("e2b.format").clean(message), operation = "e2b.reap", resource = "local_file",
      errno = errno, sent = "no", retryable = false,
    })
  end
  local list = {}
  for _, entry in ipairs(entries) do
    if token and entry.token == token or not token and may_end(job, entry) then list[#list + 1] = entry end
  end
  return list
end

local function each(job, list)
  -- A member raises for an interrupt, or for a mistake of ours: neither is to be lost.
  for i, result in ipairs((tasks.map(list, function(entry)
    end_entry(job, entry)
    return true
  end, { limit = LIMIT }))) do
    if not result.ok then
      job.failed[#job.failed + 1] = {
        token = list[i].token, sandbox_id = list[i].sandbox_id, message = result.message, err = result.err,
      }
    end
  end
end

-- The lines of what is settled can go.
local function compact(job, path)
  local ok, message, errno = journals.compact(path, job.settled)
  if ok then return end
  local _, text, err = errors.new("invalid_argument", {
    message = "e2b.reap: " .. require("e2b.format").clean(message), operation = "e2b.reap", resource = "local_file",
    errno = errno, retryable = false,
  })
  job.failed[#job.failed + 1] = { message = text, err = err }
end

--- See client:reap.
---@param client e2b.Client
---@param token string?
---@param opts e2b.CallOptions?
---@return string[]? killed
---@return e2b.ReapFailure[]|string failed_or_message
---@return e2b.ReapLeft[]|e2b.Error left_or_err
function M.reap(client, token, opts)
  if token ~= nil and not tokens.is(token) then
    raise(("e2b.reap takes a token (32 hexadecimal digits: err.token of a create), got %s"):format(
      require("e2b.format").value(token)))
  end
  if opts ~= nil then options.call(opts, nil, "e2b.reap") end
  local journal = client.journal
  if not token and not journal then
    raise("e2b.reap() needs a journal: e2b.client({ journal = path }):reap(), or the variable E2B_JOURNAL; "
      .. "or a token: e2b.reap(err.token)")
  end
  local job = {
    client = client, opts = opts, named = token ~= nil, killed = {}, failed = {}, left = {}, settled = {},
  }
  local list = {}
  if journal then
    local message, err
    list, message, err = of_journal(job, journal.path, token)
    if not list then return nil, message, err end
  end
  if token and not list[1] then list[1] = { token = token } end
  each(job, list)
  if journal then compact(job, journal.path) end
  return job.killed, job.failed, job.left
end

--- Makes the method of a client.
---@param client e2b.Client
---@return fun(self: e2b.Client, token: string?, opts: e2b.CallOptions?): string[]?, table|string, table|e2b.Error
function M.bind(client)
  local bound = {}

  ---Kills what dead processes of ours left behind, by the client's journal: never what a living process made, nor what
  ---the journal doesn't know. What it can't end stays in the journal for the next time. With a token (`err.token` of a
  ---create whose answer was lost) it ends what that create made, whoever runs; none being there is no failure, and one
  ---may come later still.
  ---E2B API: GET /v2/sandboxes, DELETE /sandboxes/{id}. Errors: invalid_argument (a journal that can't be read).
  ---@param token string?
  ---@param opts e2b.CallOptions? of each call
  ---@return string[]? killed ids
  ---@return e2b.ReapFailure[]|string failed what could not be ended; the message after a failure of the whole
  ---@return e2b.ReapLeft[]|e2b.Error left what was not touched, and why; the error after a failure of the whole
  function bound.reap(self, token, opts)
    if self ~= client then raise("reap needs its client: write client:reap(token), with a colon") end
    return M.reap(client, token, opts)
  end

  return bound.reap
end

return M
