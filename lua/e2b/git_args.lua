--- What callers give to the methods of sandbox.git, checked before anything is run.
local auth = require("e2b.git_auth")
local options = require("e2b.options")

local M = {}

local raise = options.raise

local function bad(operation, what, text)
  raise(("bad argument '%s' to %s (%s)"):format(what, operation, text))
end
M.bad = bad

--- A text that is not empty.
---@param operation string
---@param value any
---@param what string the argument's name
---@return string value
function M.text(operation, value, what)
  if type(value) ~= "string" then bad(operation, what, "a string expected, got " .. type(value)) end
  if value == "" then bad(operation, what, "it is empty") end
  if value:find("%z") then bad(operation, what, "it has a NUL byte") end
  return value
end

--- A text that git must not take for an option.
---@return string value
function M.word(operation, value, what)
  M.text(operation, value, what)
  if value:sub(1, 1) == "-" then bad(operation, what, "it begins with a dash, git would take it for an option") end
  return value
end

--- As word; nil stays nil.
---@return string? value
function M.optional(operation, value, what)
  if value == nil then return nil end
  return M.word(operation, value, what)
end

--- A list of paths; one string is a list of one.
---@return string[] list
function M.list(operation, value, what)
  if type(value) == "string" then value = { value } end
  if type(value) ~= "table" then bad(operation, what, "a list of paths expected, got " .. type(value)) end
  if #value == 0 then bad(operation, what, "the list is empty") end
  local copy = {}
  for i, path in ipairs(value) do copy[i] = M.text(operation, path, what .. "[" .. i .. "]") end
  return copy
end

--- true, false or nil.
---@return boolean? value
function M.flag(operation, value, what)
  if value ~= nil and type(value) ~= "boolean" then
    bad(operation, what, "true or false expected, got " .. type(value))
  end
  return value
end

--- User name and password of a call.
---@return string? username
---@return string? password
function M.credentials(operation, opts)
  local username, password = opts.username, opts.password
  for what, value in pairs({ username = username or false, password = password or false }) do
    if value and type(value) ~= "string" then bad(operation, what, "a string expected, got " .. type(value)) end
    -- Its text goes into no message.
    if value and not auth.is_fit(value) then bad(operation, what, "it has a line end or a NUL byte") end
  end
  if username == "" then bad(operation, "username", "it is empty") end
  if password and not username then bad(operation, "password", "there is no username; a token needs one as well") end
  return username, password
end

local SCOPES = { global = true, ["local"] = true, system = true }

--- Where a setting is kept.
---@return string scope
---@return string? path of the repository
function M.scope(operation, opts)
  local scope = opts.scope or "global"
  if not SCOPES[scope] then bad(operation, "scope", 'one of "global", "local", "system" expected') end
  if scope ~= "local" then return scope, nil end
  if opts.path == nil then bad(operation, "path", 'the scope "local" needs the path of a repository') end
  return scope, M.text(operation, opts.path, "path")
end

--- A value as git's configuration holds it.
---@return string
function M.setting(operation, value, what)
  if type(value) == "number" or type(value) == "boolean" then return tostring(value) end
  if type(value) ~= "string" then bad(operation, what, "a string expected, got " .. type(value)) end
  return value
end

local MODES = { soft = true, mixed = true, hard = true, merge = true, keep = true }

--- How far a reset goes.
---@return string? mode
function M.mode(operation, value)
  if value ~= nil and not MODES[value] then bad(operation, "mode", "one of soft, mixed, hard, merge, keep expected") end
  return value
end

return M
