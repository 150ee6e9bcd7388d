--- What follows when the first attempt of a call was not the last one, or could not be made at once: retries, waits
--- and the gate, under the call's deadline. And what the logger is told, which is of each attempt.
local core = require("e2b.core")
local access = require("e2b.access")
local describe = require("e2b.describe")
local errors = require("e2b.errors")
local exchange = require("e2b.exchange")
local lazy = require("e2b.lazy")
local loops = require("e2b.loop.init")
local retry = require("e2b.retry")
local waits = require("e2b.wait")

local gate, probe, tasks = lazy("e2b.gate"), lazy("e2b.probe"), lazy("e2b.tasks")

local M = {}

local now, refuse = core.now, access.refuse

local function path_of(row, args)
  if row.name == "raw" then return (tostring(args.path):gsub("[?#].*$", "")) end
  return (row.path:gsub("{([%w_]+)}", function(name) return core.escape(tostring(args[name])) end))
end

--- Tells the logger. Its own errors don't disturb the call; the first is shown, lest a logger that never logs is taken
--- for a program that never calls.
---@param state table of the client
---@param event table
function M.log(state, event)
  local ok, raised = pcall(state.config.logger, event)
  if ok then return end
  if errors.is_interrupt(raised) then error(raised, 0) end
  if state.logger_raised then return end
  state.logger_raised = true
  loops.report("the logger raised an error (not shown again): "
    .. (describe.clean(raised) or "a value of the type " .. type(raised)))
end

--- Tells the logger of an attempt; the last arguments are those of transfer:result().
---@param state table of the client
---@param row table of core.calls
---@param args table
---@param attempt integer
---@param began number on the clock of core.now()
---@param inside boolean it went to a sandbox
function M.log_attempt(state, row, args, attempt, began, inside, ok, a, b, c, d, e, request_id)
  M.log(state, {
    method = row.name == "raw" and args.method or row.method, path = path_of(row, args), attempt = attempt,
    seconds = now() - began, status = ok and c or not ok and a.status or nil,
    request_id = ok and request_id or not ok and a.request_id or nil,
    kind = not ok and errors.kind(a, inside) or nil,
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
    resource = context.resource, creates = row.name:find("^sandbox_create") ~= nil, token = context.token,
    host = context.target and (context.host or "the sandbox's host") or cfg.api_host, api = context.target == nil,
    ca_file = cfg.ca_file, connect_timeout = opts.connect_timeout or cfg.connect_timeout,
    idle_timeout = context.transfer and context.transfer.idle_timeout or opts.idle_timeout or cfg.idle_timeout,
    max_bytes = context.transfer and context.transfer.max_bytes or cfg.max_answer_bytes, timeout = context.timeout,
  }
end

--- The failure of a call. One whose connection to a sandbox broke asks what became of the sandbox.
---@param state table of the client
---@param row table of core.calls
---@param args table
---@param opts table
---@param context table
---@param facts table of transfer:result()
---@param work table attempts, idempotent, tried, began, deadline
---@return nil
---@return string message
---@return e2b.Error err
local function give_up(state, row, args, opts, context, facts, work)
  local info = describe_call(state, row, args, opts, context)
  info.attempts, info.idempotent, info.tried = work.attempts, work.idempotent, work.tried
  info.request_timeout = work.request_timeout or work.deadline and work.deadline - work.began
  if work.idle_timeout then info.idle_timeout = work.idle_timeout end
  if context.target and probe.wanted(facts) and row.name ~= "envd_health" then
    info.probe = probe.ask(state, context.target, work.deadline)
  end
  return errors.from_facts(facts, info)
end
M.give_up = give_up

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

local function attempt(state, target, row, args, opts, work, loop, orphan)
  local transfer, facts = exchange.prepare(state, target, row.name, args, opts, work.deadline, work.headers,
    work.transfer)
  if not transfer then return false, facts end
  work.attempts = work.attempts + 1
  if not state.config.logger then return exchange.run(transfer, work.deadline, loop, work.progress, orphan) end
  local began = now()
  local ok, a, b, c, d, e, f = exchange.run(transfer, work.deadline, loop, work.progress, orphan)
  M.log_attempt(state, row, args, work.attempts, began, work.inside, ok, a, b, c, d, e, f)
  return ok, a, b, c, d, e, f
end

local function answer_gate(gate_, returned, ok, facts)
  local outcome = "unknown"
  if returned and ok then
    outcome = "passed"
  elseif returned and facts.cause == "http" then
    local wait = facts.status == 429 and errors.retry_after(facts.retry_after)
    outcome = wait and "refused" or "passed"
    if wait then gate_:close(now() + wait) end
  end
  gate_:answer(outcome)
end

local function answer_as_orphan(gate_, orphan)
  return function(ok, facts, ...)
    answer_gate(gate_, true, ok, facts)
    if orphan then return orphan(ok, facts, ...) end
  end
end

-- A gated attempt owes the gate an answer, whatever happens to it.
local function gated_attempt(gate_, state, target, row, args, opts, work, loop)
  local function finish(returned, ok, facts, ...)
    answer_gate(gate_, returned, ok, facts)
    if not returned then error(ok, 0) end
    return ok, facts, ...
  end
  local orphan = answer_as_orphan(gate_, work.orphan)
  return finish(tasks.pcall(attempt, state, target, row, args, opts, work, loop, orphan))
end

-- Waits before the next attempt. nil: go on; else how the call ends.
local function wait_for_gate(state, row, work, loop, first)
  local gate_ = state.gates[row.name]
  local result = gate_:wait(work.patience, first, loop)
  if result ~= "through" and gate_:idle() then state.gates[row.name] = nil end
  return result, gate_
end

--- Makes attempts until the call is over.
---@param state table of the client
---@param target userdata
---@param row table of core.calls
---@param args table
---@param opts table
---@param context table
---@param work table attempts made, began, deadline
---@param loop table
---@param failed table? facts of a first attempt that was made already
---@return any value
---@return table|string meta_or_message
---@return e2b.Error? err
function M.perform(state, target, row, args, opts, context, work, loop, failed)
  work.patience = work.deadline or work.began + retry.PATIENCE
  work.idempotent, work.inside = row.idempotent, context.target ~= nil
  if row.name == "raw" then work.idempotent = RAW_IDEMPOTENT[args.method] or false end
  local laid = context.transfer
  work.headers, work.transfer, work.orphan = context.headers, laid, context.orphan
  work.progress = context.progress and exchange.teller(context.progress, row.method ~= "GET")
  -- Half of a body may be in the sink already, or gone from the source.
  if laid and (laid.sink or laid.source) then work.idempotent = false end
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
      ok, a, b, c, d, e, f = attempt(state, target, row, args, opts, work, loop, work.orphan)
    end
    if ok then return exchange.succeed(work.attempts, a, b, c, d, e, f) end
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
      if a.sent ~= "no" then work.tried = true end
      local _, why = waits.await(idle, now() + wait, loop)
      if why == "cancelled" then
        return give_up(state, row, args, opts, context, { cause = "cancelled", sent = a.sent }, work)
      end
    end
  end
end

return M
