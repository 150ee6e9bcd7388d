--- One call under one deadline. Here is what nearly every call is: an attempt that succeeds.
local core = require("e2b.core")
local access = require("e2b.access")
local exchange = require("e2b.exchange")
local lazy = require("e2b.lazy")
local loops = require("e2b.loop.init")
local waits = require("e2b.wait")

local attempts = lazy("e2b.attempts")

local M = {}

local now, calls = core.now, core.calls
local prepare, run, succeed = exchange.prepare, exchange.run, exchange.succeed
local NONE = {}

--- Makes a REST call.
---@param state table of the client
---@param name string row of the table of calls
---@param args table? path parameters, query, body
---@param opts table? request_timeout, connect_timeout, idle_timeout, retries
---@param context table? operation, sandbox_id, resource; target for what isn't the API; deadline (clock of core.now());
---  headers (name, value, …) and transfer (options) of this call, whose `timeout` takes the place of request_timeout;
---  progress (a function, told bytes done and in all); orphan (see exchange.run)
---@param deadline number? of a larger whole
---@return any value
---@return table|string meta_or_message
---@return e2b.Error? err
local function call(state, name, args, opts, context, deadline)
  opts, context, args = opts or NONE, context or NONE, args or NONE
  local cfg = state.config
  local laid = context.transfer
  local timeout = laid and laid.timeout or opts.request_timeout or cfg.request_timeout
  local began = now()
  deadline = deadline or context.deadline or timeout > 0 and began + timeout or nil
  local limit = waits.limit()
  if limit and not (deadline and deadline < limit) then deadline = limit end
  local loop = loops.choose(cfg.loop)
  local possible, why_not = loop.may_wait()
  if not possible then return access.refuse("unsupported", why_not, context, args) end
  local target = context.target or state.target
  if not target then
    local message, err
    target, message, err = access.target(state, context, args)
    if not target then return nil, message, err end
  end
  local made, failed = 0, nil
  if not state.gates[name] and not cfg.logger then
    local transfer
    transfer, failed = prepare(state, target, name, args, opts, deadline, context.headers, laid)
    if transfer then
      local progress = context.progress and exchange.teller(context.progress, calls[name].method ~= "GET")
      local ok, a, b, c, d, e, f = run(transfer, deadline, loop, progress, context.orphan)
      if ok then return succeed(1, a, b, c, d, e, f) end
      made, failed = 1, a
    end
  end
  return attempts.perform(state, target, calls[name], args, opts, context,
    { attempts = made, began = began, deadline = deadline }, loop, failed)
end

M.call = call

-- What an error tells of the answer it comes from.
local ANSWERED = { "status", "sent", "request_id", "attempts", "server_message", "error_code" }

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
    -- A web page (protocol) is no old service's word: the address is wrong.
    if value ~= nil or err.kind == "protocol" or err.status ~= 404 and err.status ~= 405 then
      return value, meta, err
    end
  end
  local old_args, message, old_err = args_of_v1()
  if old_args == nil then
    -- On a new service the 404 was about the thing asked for, and v1 would be no better.
    if err then
      for _, field in ipairs(ANSWERED) do old_err[field] = err[field] end
    end
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
