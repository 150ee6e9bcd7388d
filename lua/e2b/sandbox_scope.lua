--- Leaving a scope kills the sandbox: `<close>` and `with`. Garbage collection never does.
--- Whatever closing may need is loaded with this file, which is before the sandbox is there: later it may be out of
--- reach (another directory, another user, another package.path).
require("e2b.attempts")
require("e2b.gate")
local core = require("e2b.core")
local compat = require("e2b.compat")
local errors = require("e2b.errors")
local format = require("e2b.format")
local loops = require("e2b.loop.init")
local options = require("e2b.options")
local base = require("e2b.sandbox_base")
local calls = require("e2b.sandbox_calls")
local start = require("e2b.sandbox_start")
local tasks = require("e2b.tasks")

local M = {}

--- A program that is leaving must not hang on a service that doesn't answer.
M.KILL_SECONDS = 10

local function kill(binding, sandbox)
  return tasks.pcall(tasks.shield, function() return calls.kill(binding, sandbox) end, M.KILL_SECONDS)
end

-- Named where its owner will see it, for it costs money until its timeout.
local function left_behind(binding, sandbox, why, err, seconds)
  local id = format.clean(sandbox.sandbox_id)
  local text = ("sandbox %s could not be killed and goes on until its timeout: %s"):format(id, tostring(why))
  loops.report(text)
  if not binding.client then return end
  err = errors.is(err) and err or {}
  binding.client:log({
    method = "DELETE", path = "/sandboxes/" .. core.escape(sandbox.sandbox_id), attempt = err.attempts or 0,
    seconds = seconds, status = err.status, request_id = err.request_id, kind = err.kind or "raised",
    operation = "Sandbox.kill", sandbox_id = sandbox.sandbox_id, message = text,
  })
end

--- Kills for good measure: shielded from cancelling, and a failure of the kill is not raised. A signal (Ctrl-C) is: it
--- is not the kill's, so the kill is tried once more, and then it goes on to the caller.
---@param sandbox e2b.Sandbox
function M.close(sandbox)
  if sandbox.state == "killed" then return end
  local binding = base.binding_of(sandbox)
  local began = core.now()
  local returned, killed, message, err = kill(binding, sandbox)
  local interrupt = not returned and errors.is_interrupt(killed) and killed
  -- Shielded from the cancels of tasks, so that this one was Ctrl-C as well, where that is no error (Neovim).
  local cancelled = returned and not killed and errors.is(err) and err.kind == "cancelled"
  if interrupt or cancelled then returned, killed, message, err = kill(binding, sandbox) end
  if not (returned and killed) then
    left_behind(binding, sandbox, returned and message or killed, err, core.now() - began)
  end
  if interrupt then error(interrupt, 0) end
end

local function cancelled(sandbox)
  M.close(sandbox)
  return errors.new("cancelled", {
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
