--- What is asked of a sandbox itself, or about its inside: is_running, get_host, get_metrics.
local errors = require("e2b.errors")
local options = require("e2b.options")
local base = require("e2b.sandbox_base")

local M = {}

local raise = options.raise
local subject, client_of = base.subject, base.client_of

---@return boolean? running
---@return string? message
---@return e2b.Error? err
function M.is_running(binding, target, opts)
  local id, object
  id, object, binding = subject(binding, target, "is_running")
  if opts ~= nil then options.call(opts, nil, "Sandbox.is_running") end
  local client = client_of(binding)
  local where, message, err = client:sandbox_target(object and object.sandbox_domain, id)
  if not where then return nil, message, err end
  local up
  up, message, err = client:call("envd_health", {}, opts,
    { operation = "Sandbox.is_running", resource = "sandbox", sandbox_id = id, target = where })
  if up ~= nil then return true end
  -- The proxy in front of the sandboxes answers 502 for one that is killed, paused or unknown.
  if err.status == 502 then return false end
  return nil, message, err
end

---@return string host
function M.get_host(binding, target, port)
  local id, object
  id, object, binding = subject(binding, target, "get_host")
  if type(port) ~= "number" or port ~= math.floor(port) or port < 1 or port > 65535 then
    raise(("get_host needs a port (1 to 65535), got %s%s"):format(
      type(port) == "string" and "the string " or "", require("e2b.format").value(port)))
  end
  if not id:find("^[%w_-]+$") then
    raise(("get_host: %q can't be part of a host name"):format(id:gsub("%c", "?"):sub(1, 64)))
  end
  local client = client_of(binding)
  if client.debug then return ("localhost:%d"):format(port) end
  return ("%d-%s.%s"):format(port, id, object and object.sandbox_domain or client.domain)
end

local METRICS = { operation = "Sandbox.get_metrics", resource = "sandbox" }
local METRICS_OPTIONS = { "from", "to" }

---@return e2b.Metric[]? metrics
---@return string? message
---@return e2b.Error? err
function M.get_metrics(binding, target, opts)
  local id, object
  id, object, binding = subject(binding, target, "get_metrics")
  local query = {}
  if opts ~= nil then
    options.call(opts, METRICS_OPTIONS, "Sandbox.get_metrics")
    query.from, query.to = base.epoch(opts.from, "from"), base.epoch(opts.to, "to")
  end
  local client = client_of(binding)
  if client.debug then return {} end
  if object and base.older_than(object.envd_version, { 0, 1, 5 }) then
    return errors.new("unsupported", {
      message = ("Sandbox.get_metrics: sandbox %s has none, its template's envd %s is older than 0.1.5"):format(
        id, tostring(object.envd_version)),
      operation = "Sandbox.get_metrics", sandbox_id = id, sent = "no", retryable = false,
    })
  end
  local rows, meta, err = client:call("sandbox_metrics", { sandbox_id = id, query = query }, opts, METRICS)
  if rows == nil then return base.maybe_paused(object, meta, err) end
  return rows
end

return M
