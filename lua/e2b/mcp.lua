--- The MCP gateway of a sandbox that was created with `mcp`. Its token is kept beside the objects, never in them.
local core = require("e2b.core")
local describe = require("e2b.describe")
local errors = require("e2b.errors")
local options = require("e2b.options")
local base = require("e2b.sandbox_base")
local reach = require("e2b.sandbox_reach")
local auth = require("e2b.git_auth")

local M = {}

local PORT = 50005
local TOKEN_FILE = "/etc/mcp-gateway/.token"
local START = "Sandbox.create"
local PATIENCE = 60 -- seconds for the gateway to start

local tokens = setmetatable({}, { __mode = "k" })

-- A random UUID from the system's source of keys.
local function uuid()
  local source = io.open("/dev/urandom", "rb")
  local bytes = source and source:read(16)
  if source then source:close() end
  if not bytes or #bytes < 16 then return nil end
  local b = { bytes:byte(1, 16) }
  b[7] = 0x40 + b[7] % 16
  b[9] = 0x80 + b[9] % 64
  local hex = {}
  for i = 1, 16 do hex[i] = ("%02x"):format(b[i]) end
  local text = table.concat(hex)
  return table.concat({ text:sub(1, 8), text:sub(9, 12), text:sub(13, 16), text:sub(17, 20), text:sub(21) }, "-")
end

-- The settings of servers hold their keys: whatever has a name of that kind is shown to nobody.
local NAMES = { "key", "token", "secret", "password", "credential", "auth", "pat$" }

local function collect(value, is_secret, list)
  if type(value) == "table" then
    for name, item in pairs(value) do
      local hidden = is_secret
      for _, word in ipairs(NAMES) do
        hidden = hidden or type(name) == "string" and name:lower():find(word) ~= nil
      end
      collect(item, hidden, list)
    end
  elseif is_secret and type(value) == "string" and value ~= "" then
    list[#list + 1] = value
  end
end

local function failure(kind, object, text, fields)
  fields = fields or {}
  fields.message, fields.operation = START .. ": the MCP gateway did not start: " .. text, START
  fields.sandbox_id, fields.retryable = object.sandbox_id, false
  return errors.new(kind, fields)
end

--- Starts the gateway in a fresh sandbox.
---@param _ e2b.Binding
---@param object e2b.Sandbox
---@param opts table of create, with `mcp`
---@return true? ok
---@return string? message
---@return e2b.Error? err
function M.start(_, object, opts)
  local settings, fault = core.json_encode(opts.mcp)
  if not settings then return failure("invalid_argument", object, "mcp: " .. tostring(fault)) end
  local token = uuid()
  if not token then return failure("unsupported", object, "there is no /dev/urandom to make its token from") end
  -- A login shell for its PATH; the settings are an argument, and no shell reads them.
  local result, message, err = object.commands:run(
    { "/bin/bash", "-l", "-c", 'exec "$0" "$@"', "mcp-gateway", "--config", settings },
    { user = "root", envs = { GATEWAY_ACCESS_TOKEN = token }, timeout = PATIENCE,
      request_timeout = opts.request_timeout })
  if result == nil then
    if type(err) == "table" then
      message = START .. ": the MCP gateway did not start: " .. message
      err.message, err.operation = message, START
    end
    return nil, message, err
  end
  if result.exit_code ~= 0 then
    local secrets = { token }
    collect(opts.mcp, false, secrets)
    table.sort(secrets, function(a, b) return #a > #b end)
    local stderr = auth.mask(result.stderr, secrets)
    local said = describe.clean(stderr)
    return failure("exit", object, ("it ended with exit code %s%s"):format(tostring(result.exit_code),
      said and ": " .. said or ""), {
      exit_code = result.exit_code, stderr = stderr, stdout = auth.mask(result.stdout, secrets), sent = "yes",
    })
  end
  tokens[object] = token
  return true
end

--- The address of the gateway.
---@param object e2b.Sandbox
---@return string url
function M.get_mcp_url(object)
  local binding = base.binding_of(object)
  local scheme = base.client_of(binding).debug and "http" or "https"
  return ("%s://%s/mcp"):format(scheme, reach.get_host(binding, object, PORT))
end

--- The token of the gateway.
---@param object e2b.Sandbox
---@param opts table?
---@return string? token
---@return string? message
---@return e2b.Error? err
function M.get_mcp_token(object, opts)
  if opts ~= nil then options.call(opts, nil, "sandbox:get_mcp_token") end
  if tokens[object] then return tokens[object] end
  local own = options.copy(opts)
  own.user = "root"
  local text, message, err = object.files:read(TOKEN_FILE, own)
  if text == nil then
    message = message:gsub("^sandbox%.files:read", "sandbox:get_mcp_token")
    err.message, err.operation = message, "sandbox:get_mcp_token"
    return nil, message, err
  end
  local token = text:match("^%s*(.-)%s*$")
  tokens[object] = token
  return token
end

return M
