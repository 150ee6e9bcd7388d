-- What the specs of floor 4 share: a local server with a client on it, and sandboxes that don't outlive a spec.
local support = require("spec.support.support")
local local_server = require("e2b.server")
local e2b = require("e2b")

local platform = {}
local methods = {}
local meta = { __index = methods }

--- An id that no server has given out.
platform.UNKNOWN = "i00000000000000000000"

local function no_environment() end

--- A client of a server or a peer (anything with a `url`).
---@param some { url: string, api_key: string? }
---@param options? table more options for e2b.client
---@return e2b.Client
function platform.client_of(some, options)
  local all = { api_url = some.url, sandbox_url = some.url, api_key = some.api_key or "key", getenv = no_environment }
  for name, value in pairs(options or {}) do all[name] = value end
  return assert(e2b.client(all))
end

--- Starts a local server.
---@param options? table of e2b.server
---@return table fixture server, client, Sandbox, Template and the methods below
function platform.start(options)
  local server = local_server.start(options)
  local client = platform.client_of(server)
  return setmetatable({
    server = server, client = client, Sandbox = client.Sandbox, Template = client.Template, made = {},
  }, meta)
end

function methods:stop()
  e2b.close()
  self.server:stop()
end

--- Requests since the last call, as "METHOD path".
---@return string[]
function methods:requests()
  local lines = {}
  for i, request in ipairs(self.server:requests()) do lines[i] = request.method .. " " .. request.path end
  self.server:clear()
  return lines
end

--- Creates a sandbox; `cleanup` kills it. The requests so far are forgotten.
---@return e2b.Sandbox
function methods:create(...)
  local sandbox = assert(self.Sandbox.create(...))
  self.made[#self.made + 1] = sandbox.sandbox_id
  self.server:clear()
  return sandbox
end

function methods:cleanup()
  for i = #self.made, 1, -1 do
    self.Sandbox.kill(self.made[i])
    self.made[i] = nil
  end
end

--- What the server says about a sandbox.
---@return e2b.Sandbox another object
function methods:facts(sandbox)
  return assert(self.Sandbox.get_info(sandbox.sandbox_id))
end

--- Whether the server still has it.
---@param id string
---@return boolean
function methods:alive(id)
  local sandbox, message, err = self.Sandbox.get_info(id)
  if not sandbox and err.kind ~= "not_found" then error(message, 2) end
  return sandbox ~= nil
end

--- Waits for something that tasks or the server bring about; tasks go on meanwhile.
function platform.wait_for(condition, what)
  return support.wait_for(function()
    e2b.sleep(0.01)
    return condition()
  end, 5, what)
end

--- Numbers of seconds that are the same but for the ticking of whole-second clocks.
---@param expected number
---@param actual number
---@param tolerance? number seconds (1)
function platform.near(expected, actual, tolerance)
  tolerance = (tolerance or 1) * support.slack
  if type(actual) ~= "number" or math.abs(expected - actual) > tolerance then
    error(("%s is not near %s"):format(tostring(actual), tostring(expected)), 2)
  end
end

--- Expects a raise whose message contains a text and stands at a line of the spec.
---@param text string
---@param fn function
function platform.raises(text, fn, ...)
  local ok, message = pcall(fn, ...)
  if ok then error("nothing was raised", 2) end
  if type(message) ~= "string" or not message:find(text, 1, true) then
    error(("raised %q, which doesn't contain %q"):format(tostring(message), text), 2)
  end
  -- Called by pcall directly, the caller is this file.
  if not message:find("^[^\n]-_spec%.lua:%d+: ") and not message:find("^[^\n]-platform%.lua:%d+: ") then
    error(("raised %q, which is not at the caller's line"):format(message), 2)
  end
end

return platform
