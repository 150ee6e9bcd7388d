--- What the operations on a sandbox's files share: checks of what a caller gave, and failures on this side.
local errors = require("e2b.errors")
local format = require("e2b.format")
local options = require("e2b.options")

local M = {}

local raise, types = options.raise, options.types

---@class e2b.FileOptions: e2b.CallOptions
---@field user string? whose home a relative path starts from, and who owns what is made; the sandbox's default user

--- The names and the checks of a call's options.
---@param spec table<string, fun(value: any): string?>
---@return { names: string[], spec: table }
function M.spec(spec)
  spec.user = function(value)
    if type(value) ~= "string" or value == "" then
      return "the name of a user expected, got " .. format.value(value)
    end
    return nil
  end
  local names = {}
  for name in pairs(spec) do names[#names + 1] = name end
  table.sort(names)
  return { names = names, spec = spec }
end

local NONE = {}

--- Checks the options of a call and raises at the caller's line.
---@param opts table?
---@param spec table of M.spec
---@param what string the operation
---@return table opts never nil
function M.options(opts, spec, what)
  if opts == nil then return NONE end
  options.call(opts, spec.names, what)
  for name, value in pairs(opts) do
    local check = spec.spec[name]
    local wrong = check and check(value)
    if wrong then raise(("bad option '%s' for %s (%s)"):format(name, what, wrong)) end
  end
  return opts
end

--- true or a function; see e2b.progress.
function M.progress(value)
  if type(value) ~= "boolean" and type(value) ~= "function" then
    return "true or a function expected, got " .. type(value)
  end
  return nil
end

M.types = types

--- Checks a path in the sandbox.
---@param path any
---@param what string the operation
---@param may_be_empty boolean? "" is the working directory
---@return string path
function M.path(path, what, may_be_empty)
  if type(path) ~= "string" then raise(("%s: the path must be a string, got %s"):format(what, type(path))) end
  if path == "" and not may_be_empty then raise(what .. ": the path is empty") end
  if path:find("%z") then raise(what .. ": a path cannot hold a NUL byte") end
  return path
end

-- ENOSPC, EDQUOT of Linux, EDQUOT of BSD and macOS
local NO_SPACE = { [28] = true, [122] = true, [69] = true }

--- Whether an error of the system's is a full disk.
---@param errno integer?
---@return boolean
function M.is_full(errno)
  return NO_SPACE[errno or 0] == true
end

-- Whether a text is UTF-8: the calls that are JSON can carry no other path.
local function is_utf8(text)
  local at = text:find("[\128-\255]")
  while at do
    local _, stop = text:find("^[\194-\223][\128-\191]", at)
    if not stop then _, stop = text:find("^[\224-\239][\128-\191][\128-\191]", at) end
    if not stop then _, stop = text:find("^[\240-\244][\128-\191][\128-\191][\128-\191]", at) end
    -- Spellings that are longer than they need be, halves of pairs, and what comes after the last character.
    if not stop or text:find("^\224[\128-\159]", at) or text:find("^\237[\160-\191]", at)
      or text:find("^\240[\128-\143]", at) or text:find("^\244[\144-\191]", at) then
      return false
    end
    at = text:find("[\128-\255]", stop + 1)
  end
  return true
end

--- Whether a file in the sandbox can be renamed to a path.
---@param path string
---@param what string the operation
---@param link table
---@return true? ok
---@return string? message
---@return e2b.Error? err
function M.renamable(path, what, link)
  if is_utf8(path) then return true end
  return errors.new("invalid_argument", {
    message = what .. ": atomic = true needs a path in UTF-8: other names can be written, but not renamed",
    operation = what, sandbox_id = link.sandbox_id, sent = "no", bytes_sent = 0, attempts = 0, retryable = false,
  })
end

--- A failure with a file on this side.
---@param what string the operation
---@param text string what the core said, with the path in it
---@param errno integer?
---@param path string
---@param link table
---@return nil
---@return string message
---@return e2b.Error err
function M.local_failure(what, text, errno, path, link)
  return errors.new(NO_SPACE[errno or 0] and "no_space" or "invalid_argument", {
    message = what .. ": " .. format.clean(text), operation = what, sandbox_id = link.sandbox_id,
    resource = "local_file", path = path, errno = errno, retryable = false,
  })
end

--- The failure of a transfer into a local file: libcurl only knows that writing failed.
---@param err e2b.Error
---@param path string
---@return nil
---@return string message
---@return e2b.Error err
function M.sink_failure(err, path)
  local errno = err.os_errno
  if not errno then return nil, err.message, err end
  err.kind = NO_SPACE[errno] and "no_space" or err.kind
  err.path, err.resource, err.retryable = path, "local_file", false
  err.message = ("%s: cannot write '%s': %s"):format(err.operation, format.clean(path),
    NO_SPACE[errno] and "no space left on device" or "error " .. tostring(errno))
  return nil, err.message, err
end

local REFUSED = {
  invalid_argument = true, authentication = true, forbidden = true, not_found = true, rate_limit = true, quota = true,
  unsupported = true,
}

--- Whether a failed upload cannot have changed the file: nothing was sent, or the answer refuses before a byte is
--- written. A full disk (507) is told after bytes were.
---@param err e2b.Error
---@param sent number? bytes that had been sent
---@param is_string boolean? all of it was ready to be sent at once
---@return boolean
function M.untouched(err, sent, is_string)
  if err.sent == "no" then return true end
  if not err.status then return false end
  if REFUSED[err.kind] then return true end
  -- The proxy knows of no sandbox, before it forwards anything. When one is killed in the middle, bytes were sent.
  if err.kind == "sandbox_gone" then return err.status == 502 and (is_string or (sent or 0) == 0) end
  -- The daemon passes the system's words on, and they begin with what failed.
  local said = err.kind == "server" and err.server_message or ""
  if said:find("write ", 1, true) then return false end
  return said:find("%f[%a]open /") ~= nil or said:find("%f[%a]mkdir /") ~= nil or said:find("%f[%a]l?stat /") ~= nil
end

--- Adds to the message of a failure.
---@param err e2b.Error
---@param text string
---@return nil
---@return string message
---@return e2b.Error err
function M.add(err, text)
  err.message = err.message .. text
  return nil, err.message, err
end

return M
