--- Leaving a scope kills the sandbox: `<close>` and `with`. Garbage collection never does.
local compat = require("e2b.compat")
local format = require("e2b.format")
local options = require("e2b.options")
local base = require("e2b.sandbox_base")
local calls = require("e2b.sandbox_calls")
local start = require("e2b.sandbox_start")
local tasks = require("e2b.tasks")

local M = {}

--- A program that is leaving must not hang on a service that doesn't answer.
M.KILL_SECONDS = 10

--- Kills for good measure: shielded from cancelling, never raising; a sandbox that stays behind is named where its
--- owner will see it, for it costs money until its timeout.
---@param sandbox e2b.Sandbox
function M.close(sandbox)
  if sandbox.state == "killed" then return end
  local binding = base.binding_of(sandbox)
  local returned, killed, message = tasks.pcall(tasks.shield, function()
    return calls.kill(binding, sandbox)
  end, M.KILL_SECONDS)
  if returned and killed then return end
  local why = tostring(returned and message or killed)
  local text = ("sandbox %s could not be killed and goes on until its timeout: %s"):format(
    format.clean(sandbox.sandbox_id), why)
  pcall(function()
    if binding.client then
      binding.client:log({
        method = "DELETE", path = "/sandboxes/" .. sandbox.sandbox_id, operation = "Sandbox.kill",
        sandbox_id = sandbox.sandbox_id, message = text,
      })
    end
  end)
  io.stderr:write("e2b: ", text, "\n")
end

local function cancelled(sandbox)
  M.close(sandbox)
  return require("e2b.errors").new("cancelled", {
    message = "Sandbox.with: cancelled while the sandbox was made; it was killed again",
    operation = "Sandbox.with", sandbox_id = sandbox.sandbox_id, retryable = false,
  })
end

--- Creates a sandbox, hands it to `fn`, kills it. Making it is shielded as well: a cancel in the middle would leave a
--- sandbox behind that nobody knows of.
---@param binding e2b.Binding
---@param opts string|table|nil
---@param fn fun(sandbox: e2b.Sandbox): ...
---@return any ... what fn returned
function M.with(binding, opts, fn)
  if type(fn) ~= "function" then
    options.raise(("with takes options and a function: e2b.with({ timeout = 60 }, function(sandbox) … end), "
      .. "got %s and %s"):format(type(opts), type(fn)))
  end
  local prepared = start.prepare(opts)
  local sandbox, message, err = tasks.shield(function() return start.send(binding, prepared) end)
  if not sandbox then return nil, message, err end
  if tasks.cancelled() then return cancelled(sandbox) end
  local results = compat.pack(tasks.pcall(fn, sandbox))
  M.close(sandbox)
  if not results[1] then error(results[2], 0) end
  return compat.unpack(results, 2, results.n)
end

return M
