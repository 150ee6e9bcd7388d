--- One call: attempts, waits and the gate, under one deadline.
local core = require("e2b.core")
local access = require("e2b.access")
local exchange = require("e2b.exchange")
local lazy = require("e2b.lazy")
local loops = require("e2b.loop.init")
local waits = require("e2b.wait")

-- What a call that succeeds at once has no need of.
local errors, gate, retry, tasks = lazy("e2b.errors"), lazy("e2b.gate"), lazy("e2b.retry"), lazy("e2b.tasks")

local M = {}

local now, refuse, calls = core.now, access.refuse, core.calls
local NONE = {}

local function path_of(row, args)
  if row.name == "raw" then return (tostring(args.path):gsub("[?#].*$", "")) end
  return (row.path:gsub("{([%w_]+)}", function(name) return core.escape(tostring(args[name])) end))
end

--- Tells the logger. Its own errors are its own.
---@param state table of the client
---@param event table
function M.log(state, event)
  pcall(state.config.logger, event)
end

local function log_attempt(state, row, args, attempt, began, ok, a, b, c, d, e, request_id)
  M.log(state, {
    method = row.name == "raw" and args.method or row.method, path = path_of(row, args), attempt = attempt,
    seconds = now() - began, status = ok and c or not ok and a.status or nil,
    request_id = ok and request_id or not ok and a.request_id or nil,
    kind = not ok and errors.kind(a) or nil,
  })
  return b, d, e
end

local function idle() return function() end end

local RAW_IDEMPOTENT = { GET = true, HEAD = true, DELETE = true }

-- What a call knows about itself, for the policy and for the message of its failure.
local function describe_call(state, row, args, opts, context)
  local cfg = state.config
  return {
    operation = context.operation or row.name, sandbox_id = context.sandbox_id or args.sandbox_id,
    resource = context.resource, creates = row.name:find("^sandbox_create") ~= nil,
    host = context.target and (context.host or "the sandbox's host") or cfg.api_host, api = context.target == nil,
    ca_file = cfg.ca_file, connect_timeout = opts.connect_timeout or cfg.connect_timeout,
    idle_timeout = opts.idle_timeout or cfg.idle_timeout, max_bytes = cfg.max_answer_bytes,
  }
end

local function give_up(state, row, args, opts, context, facts, work)
  local info = describe_call(state, row, args, opts, context)
  info.attempts, info.idempotent = work.attempts, work.idempotent
  info.request_timeout = work.deadline and work.deadline - work.began
  return errors.from_facts(facts, info)
end

-- The call can't wait for the gate: the limiter's wait ends after the call's own time.
local function limited(work, gate_, context, args)
  local wait = math.max(0, math.ceil(gate_.opens - now()))
  return errors.new("rate_limit", {
    message = ("%s: too many requests a moment ago; the service asked to wait for another %d s, "
      .. "which is more than this call has left"):format(context.operation or "call", wait),
    operation = context.operation, sandbox_id = context.sandbox_id or args.sandbox_id, sent = "no",
    attempts = work.attempts, retryable = true, retry_after = wait,
  })
end

-- The transfer of an attempt; or nil and the facts of what can't even be sent. The fields of `plan` are read before
-- anything can be suspended, so there is one table for all calls of a client.
local function prepare(state, target, name, args, opts, deadline)
  local cfg, plan = state.config, state.plan
  local connect, between = opts.connect_timeout or cfg.connect_timeout, opts.idle_timeout or cfg.idle_timeout
  local left = deadline and deadline - now() or nil
  if left and left <= 0 then return nil, { cause = "deadline", deadline = "request_timeout", sent = "no" } end
  plan.timeout = left
  plan.connect_timeout = connect > 0 and connect or nil
  plan.idle_timeout = between > 0 and between or nil
  local transfer, wrong = core.transfer(target, name, args, plan)
  if not transfer then return nil, { cause = "argument", text = wrong, sent = "no" } end
  -- Each time: the engine may be another one by now (after a fork) or have been closed.
  if cfg.connections then core.engine():connections(cfg.connections) end
  return transfer
end

local function attempt(state, target, row, args, opts, work, loop)
  local transfer, facts = prepare(state, target, row.name, args, opts, work.deadline)
  if not transfer then return false, facts end
  work.attempts = work.attempts + 1
  if not state.config.logger then return exchange.run(transfer, work.deadline, loop) end
  local began = now()
  local ok, a, b, c, d, e, f = exchange.run(transfer, work.deadline, loop)
  log_attempt(state, row, args, work.attempts, began, ok, a, b, c, d, e, f)
  return ok, a, b, c, d, e, f
end

-- A gated attempt owes the gate an answer, whatever happens to it.
local function gated_attempt(gate_, ...)
  local function finish(returned, ok, facts, ...)
    local outcome = "unknown"
    if returned and ok then
      outcome = "passed"
    elseif returned and facts.cause == "http" then
      local wait = facts.status == 429 and errors.retry_after(facts.retry_after)
      outcome = wait and "refused" or "passed"
      if wait then gate_:close(now() + wait) end
    end
    gate_:answer(outcome)
    if not returned then error(ok, 0) end
    return ok, facts, ...
  end
  return finish(tasks.pcall(attempt, ...))
end

local function succeed(attempts, value, date, status, next_token, total_running, request_id)
  return value, {
    date = date, status = status, next_token = next_token, total_running = total_running, request_id = request_id,
    attempts = attempts,
  }
end

-- Waits before the next attempt. nil: go on; else how the call ends.
local function wait_for_gate(state, row, work, loop, first)
  local gate_ = state.gates[row.name]
  local result = gate_:wait(work.patience, first, loop)
  if result ~= "through" and gate_:idle() then state.gates[row.name] = nil end
  return result, gate_
end

-- `failed`: the facts of a first attempt that was made already.
local function perform(state, target, row, args, opts, context, work, loop, failed)
  local retries = opts.retries or state.config.retries
  local api = context.target == nil
  local gate_, refused -- the gate this attempt has gone through; the 429 of the attempt before
  while true do
    local closed = not failed and state.gates[row.name]
    if closed and not refused and closed:idle() then
      -- Left behind by a wait that Ctrl-C broke off.
      state.gates[row.name], closed = nil, nil
    end
    if closed and api and retries > 0 then
      local result
      result, gate_ = wait_for_gate(state, row, work, loop, refused ~= nil)
      if result == "cancelled" then
        return give_up(state, row, args, opts, context, { cause = "cancelled", sent = refused and "yes" or "no" }, work)
      elseif result ~= "through" then
        if refused then return give_up(state, row, args, opts, context, refused, work) end
        return limited(work, gate_, context, args)
      end
    end
    local ok, a, b, c, d, e, f
    if failed then
      ok, a, failed = false, failed, nil
    elseif gate_ then
      ok, a, b, c, d, e, f = gated_attempt(gate_, state, target, row, args, opts, work, loop)
      if gate_:idle() and state.gates[row.name] == gate_ then state.gates[row.name] = nil end
      gate_ = nil
    else
      ok, a, b, c, d, e, f = attempt(state, target, row, args, opts, work, loop)
    end
    if ok then return succeed(work.attempts, a, b, c, d, e, f) end
    if a.cause == "argument" then return refuse("invalid_argument", a.text, context, args) end
    local reason, wait = retry.decide(a, work.attempts, retries, work.idempotent, api)
    if not reason or now() + wait >= work.patience then
      return give_up(state, row, args, opts, context, a, work)
    elseif reason == "rate_limit" then
      refused = a
      closed = state.gates[row.name]
      if closed then
        closed:close(now() + wait)
      else
        state.gates[row.name] = gate.new(now() + wait)
      end
    else
      refused = nil
      local _, why = waits.await(idle, now() + wait, loop, true)
      if why == "cancelled" then
        return give_up(state, row, args, opts, context, { cause = "cancelled", sent = a.sent }, work)
      end
    end
  end
end

--- Makes a REST call.
---@param state table of the client
---@param name string row of the table of calls
---@param args table? path parameters, query, body
---@param opts table? request_timeout, connect_timeout, idle_timeout, retries
---@param context table? operation, sandbox_id, resource; target for what isn't the API; deadline (clock of core.now())
---@param deadline number? of a larger whole
---@return any value
---@return table|string meta_or_message
---@return e2b.Error? err
local function call(state, name, args, opts, context, deadline)
  opts, context, args = opts or NONE, context or NONE, args or NONE
  local row, cfg = calls[name], state.config
  local timeout = opts.request_timeout or cfg.request_timeout
  local began = now()
  deadline = deadline or context.deadline or timeout > 0 and began + timeout or nil
  local limit = waits.limit()
  if limit and not (deadline and deadline < limit) then deadline = limit end
  local loop = loops.choose(cfg.loop)
  local possible, why_not = loop.may_wait()
  if not possible then return refuse("unsupported", why_not, context, args) end
  local target = context.target or state.target
  if not target then
    local message, err
    target, message, err = access.target(state, context, args)
    if not target then return nil, message, err end
  end
  local attempts, failed = 0, nil
  if not state.gates[name] and not cfg.logger then
    -- Nearly every call ends here.
    local transfer
    transfer, failed = prepare(state, target, name, args, opts, deadline)
    if transfer then
      attempts = 1
      local ok, a, b, c, d, e, f = exchange.run(transfer, deadline, loop)
      if ok then return succeed(1, a, b, c, d, e, f) end
      failed = a
    end
  end
  local idempotent = row.idempotent
  if name == "raw" then idempotent = RAW_IDEMPOTENT[args.method] or false end
  return perform(state, target, row, args, opts, context, {
    attempts = attempts, began = began, deadline = deadline, patience = deadline or began + retry.PATIENCE,
    idempotent = idempotent,
  }, loop, failed)
end

M.call = call

--- Makes a call by its v2 route and, where the service doesn't know that, by its v1 route. v1 is remembered only when
--- it succeeded: a 404 can as well be about the sandbox or the template.
---@param state table of the client
---@param v2 string row
---@param v1 string row
---@param args table
---@param args_of_v1 fun(): table?, string?, e2b.Error? the arguments for v1, or why it can't do this
---@param opts table?
---@param context table?
---@return any value
---@return table|string meta_or_message
---@return e2b.Error? err
function M.call_either(state, v2, v1, args, args_of_v1, opts, context)
  local timeout = opts and opts.request_timeout or state.config.request_timeout
  local deadline = context and context.deadline or timeout > 0 and now() + timeout or nil
  local value, meta, err
  if not state.old[v2] then
    value, meta, err = call(state, v2, args, opts, context, deadline)
    if value ~= nil or err.status ~= 404 and err.status ~= 405 then return value, meta, err end
  end
  local old_args, message, old_err = args_of_v1()
  if old_args == nil then
    -- On a new service the 404 was about the thing asked for, and v1 would be no better.
    return nil, message, old_err
  end
  local old_value, old_meta
  old_value, old_meta, old_err = call(state, v1, old_args, opts, context, deadline)
  if old_value ~= nil then
    state.old[v2] = true
    return old_value, old_meta
  end
  -- Both don't know it: v2's word, unless that was about the route (405) and v1's is about the thing asked for (404).
  local about_route = old_err.status == 405 or old_err.status == 404 and err and err.status == 404
  if err and about_route then return nil, meta, err end
  return nil, old_meta, old_err
end

return M
