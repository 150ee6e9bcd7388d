--- The way into a sandbox: what the calls of commands, files, pty and git have in common. A link adds to each call
--- where the sandbox is, its token and the user, and knows what the daemon in there can do.
local core = require("e2b.core")
local errors = require("e2b.errors")
local options = require("e2b.options")
local base = require("e2b.sandbox_base")
local book = require("e2b.sandbox_book")
local calls = require("e2b.sandbox_calls")

local M = {}

local raise, tokens = options.raise, book.tokens
local NONE = {}

---@class e2b.Link
---@field sandbox e2b.Sandbox
---@field client e2b.Client
---@field sandbox_id string
local methods = {}
local mt = { __name = "e2b.Link", __index = methods }

-- Links by object. Both weak: on 5.1 a value that names its key would keep it for ever.
local links = setmetatable({}, { __mode = "kv" })

--- The link of a sandbox.
---@param sandbox e2b.Sandbox
---@return e2b.Link link
function M.link(sandbox)
  local link = links[sandbox]
  if not link then
    local binding = base.binding_of(sandbox)
    link = setmetatable({
      sandbox = sandbox, sandbox_id = sandbox.sandbox_id, binding = binding, client = base.client_of(binding),
    }, mt)
    links[sandbox] = link
  end
  return link
end

--- For the first line of a method: was it called with a colon?
---@param object any
---@param resource_mt table the metatable it must have
---@param name string how it is written: "sandbox.commands:run"
function M.self(object, resource_mt, name)
  if type(object) == "table" and getmetatable(object) == resource_mt then return end
  raise(("%s needs the colon, got %s first: write %s(…)"):format(name:gsub(":", "."), type(object), name))
end

-- The token that an item of a list comes without: fetched once, and only that.
local function learn(self, opts, context)
  local sandbox, client = self.sandbox, self.client
  if client.debug or book.told(sandbox) then return true end
  local row, message, err = calls.fetch(self.binding, client, self.sandbox_id, opts, {
    operation = context.operation, resource = "sandbox", deadline = context.deadline,
  })
  if row == nil then return nil, message, err end
  book.keep_tokens(sandbox, row)
  for _, field in ipairs({ "sandbox_domain", "envd_version" }) do
    if sandbox[field] == nil then sandbox[field] = row[field] end
  end
  return true
end

local function target_of(self)
  local sandbox = self.sandbox
  local token, domain = tokens(sandbox), sandbox.sandbox_domain
  if self.target and token == self.token_used and domain == self.domain_used then return self.target end
  local target, message, err = self.client:sandbox_target(domain, self.sandbox_id, token)
  if not target then return nil, message, err end
  self.target, self.token_used, self.domain_used = target, token, domain
  return target
end

-- nil when it can be sent, else what is wrong.
local function user_fault(user)
  if type(user) ~= "string" then return "a user name expected, got " .. type(user) end
  if user == "" then return "the user name is empty" end
  if user:find("[%c:]") then return "a user name has no colon and no control characters" end
  return nil
end

-- "Authorization: Basic <user:>", which is how a call names the user whose files and processes it is about.
local basic = setmetatable({}, { __mode = "k" })
local function authorization(user)
  local text = basic[user]
  if not text then
    text = "Basic " .. core.base64_encode(user .. ":")
    basic[user] = text
  end
  return text
end

-- Completes the arguments and the context of a call; its failures are about this sandbox.
local function complete(self, row, args, opts, context)
  local user = opts.user
  if user ~= nil then
    local fault = user_fault(user)
    if fault then raise(("bad option 'user' for %s (%s)"):format(context.operation or row, fault)) end
  end
  local spent = 0
  if not book.told(self.sandbox) then
    local began = core.now()
    local ok, message, err = learn(self, opts, context)
    if not ok then return nil, message, err end
    spent = core.now() - began
  end
  local target, message, err = target_of(self)
  if not target then return nil, message, err end
  if user == nil and not self:at_least(0, 4, 0) then user = "user" end
  local own = { target = target, sandbox_id = self.sandbox_id }
  for name, value in pairs(context) do own[name] = value end
  if user then
    if row:find("^files_") then
      local copy = {}
      for name, value in pairs(args) do copy[name] = value end
      copy.query = {}
      for name, value in pairs(args.query or NONE) do copy.query[name] = value end
      if copy.query.username == nil then copy.query.username = user end
      args = copy
    else
      local headers = {}
      for i, text in ipairs(context.headers or NONE) do headers[i] = text end
      headers[#headers + 1] = "Authorization"
      headers[#headers + 1] = authorization(user)
      own.headers = headers
    end
  end
  return own, args, spent
end

--- Makes a call to the daemon in the sandbox.
---@param row string name of the call
---@param args table?
---@param opts table? what every call takes, and `user`
---@param context table? as for client:call; target and sandbox_id are added
---@return any value
---@return table|string meta_or_message
---@return e2b.Error? err
function methods:call(row, args, opts, context)
  opts, context = opts or NONE, context or NONE
  if context.deadline == nil and not (context.transfer and context.transfer.timeout)
    and not book.told(self.sandbox) then
    -- Two requests, one clock.
    local copy = { deadline = base.deadline_of(self.client, opts) }
    for name, value in pairs(context) do copy[name] = value end
    context = copy
  end
  local own, checked, err = complete(self, row, args or NONE, opts, context)
  if not own then return nil, checked, err end
  return self.client:call(row, checked, opts, own)
end

--- Opens a stream to the daemon in the sandbox: sends, and doesn't wait.
---@param row string name of the call
---@param args table?
---@param opts table? what every call takes, and `user`
---@param context table? as for client:open; target and sandbox_id are added
---@return e2b.Stream? stream
---@return string? message
---@return e2b.Error? err
function methods:open(row, args, opts, context)
  local own, checked, spent = complete(self, row, args or NONE, opts or NONE, context or NONE)
  if not own then return nil, checked, spent end
  if own.timeout and own.timeout > 0 then own.timeout = math.max(own.timeout - spent, 0.001) end
  return self.client:open(row, checked, opts, own)
end

local function version_of(self)
  if self.client.debug then return nil end -- whatever runs on this machine is taken for a new one
  return self.sandbox.envd_version
end

--- Whether the daemon is of this version or a later one. One that can't be read is taken for a new one.
---@param major integer
---@param minor integer
---@param patch integer
---@return boolean
function methods:at_least(major, minor, patch)
  local version = version_of(self)
  if version ~= self.version_read then
    local a, b, c = tostring(version or ""):match("^v?(%d+)%.(%d+)%.(%d+)")
    self.version_read, self.version = version, a and { tonumber(a), tonumber(b), tonumber(c) } or nil
  end
  local own = self.version
  if not own then return true end
  if own[1] ~= major then return own[1] > major end
  if own[2] ~= minor then return own[2] > minor end
  return own[3] >= patch
end

--- Whether the daemon has what a call needs.
---@param operation string the call
---@param feature string what it needs, as the beginning of a sentence: "closing the standard input"
---@param major integer
---@param minor integer
---@param patch integer
---@return true? ok
---@return string? message
---@return e2b.Error? err `unsupported`
function methods:gate(operation, feature, major, minor, patch)
  if self:at_least(major, minor, patch) then return true end
  return errors.new("unsupported", {
    message = ("%s: %s needs envd %d.%d.%d, and the sandbox has %s: rebuild its template"):format(operation, feature,
      major, minor, patch, tostring(version_of(self))),
    operation = operation, sandbox_id = self.sandbox_id, sent = "no", attempts = 0, retryable = false,
  })
end

--- The token that file URLs are signed with; it goes nowhere else.
---@param operation string the call, for the message of a failure
---@param opts table? what every call takes
---@return string|false|nil token false: the sandbox has none
---@return string? message
---@return e2b.Error? err
function methods:token(operation, opts)
  local ok, message, err = learn(self, opts or NONE, { operation = operation })
  if not ok then return nil, message, err end
  return (tokens(self.sandbox)) or false
end

--- The base of the URLs that are handed to users, without a slash at its end.
---@return string? url
---@return string? message
---@return e2b.Error? err
function methods:direct_url()
  local url, fault = self.client:direct_url(self.sandbox.sandbox_domain, self.sandbox_id)
  if url then return url end
  return errors.new("invalid_argument", {
    message = fault, sandbox_id = self.sandbox_id, sent = "no", attempts = 0, retryable = false,
  })
end

return M
