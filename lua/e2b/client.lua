--- The client: who calls, and under which settings.
local core = require("e2b.core")
local access = require("e2b.access")
local calls = require("e2b.call")
local config = require("e2b.config")
local lazy = require("e2b.lazy")
local loops = require("e2b.loop.init")
local options = require("e2b.options")

local describe, streams = lazy("e2b.describe"), lazy("e2b.stream_open")

-- csrc/e2b.h has the same number.
local ABI = 3
if core.ABI ~= ABI then
  error(("e2b: the C part on this machine (e2b.core, interface %s) is not of the version of the Lua files "
    .. "(interface %d); install both again, with make install or luarocks"):format(tostring(core.ABI), ABI), 0)
end

local M = {}

local NONE = {}

---@class e2b.Client
---@field base_url string where calls go
---@field domain string
---@field debug boolean
---@field request_timeout number seconds; 0 = none
---@field kill_on_exit boolean? of the sandboxes it creates
---@field key_form "e2b"|"other"|nil whether the key looks like one of E2B's, where it is known
---@field key_mark string? with a journal: what tells this key from others there, where it is known
---@field journal e2b.Journal?
local METHOD = "^%u+$"

local REQUEST = { "query", "body", "content_type" }

local function request(state, method, path, opts)
  if type(method) ~= "string" or not method:upper():find(METHOD) then
    options.raise(("bad argument #1 to client:request (an HTTP method expected, got %s)"):format(describe.show(method)))
  end
  if type(path) ~= "string" or path:sub(1, 1) ~= "/" then
    options.raise(("bad argument #2 to client:request (a path that begins with / expected, got %s)"):format(
      type(path) == "string" and describe.show(path) or type(path)))
  end
  opts = opts == nil and NONE or options.call(opts, REQUEST, "client:request")
  if opts.query ~= nil and type(opts.query) ~= "table" then
    options.raise("bad option 'query' for client:request (table expected, got " .. type(opts.query) .. ")")
  end
  if opts.body ~= nil and type(opts.body) ~= "table" and type(opts.body) ~= "string" then
    options.raise("bad option 'body' for client:request (table or string expected, got " .. type(opts.body) .. ")")
  end
  method = method:upper()
  return calls.call(state, "raw", {
    method = method, path = path, query = opts.query, body = opts.body, content_type = opts.content_type,
  }, opts, { operation = method .. " " .. describe.clean(path:gsub("[?#].*$", "")) })
end

--- Makes a client. Reads the environment, sends nothing. Raises on options that are not right.
---@param opts table? see e2b.ClientOptions
---@param resources table<string, fun(client: e2b.Client): any>? what the client carries, made when first asked for
---@return e2b.Client client
function M.new(opts, resources)
  local cfg, key = config.resolve(config.read(opts))
  local public = {
    base_url = cfg.api_url, domain = cfg.domain, debug = cfg.debug, request_timeout = cfg.request_timeout,
    kill_on_exit = cfg.kill_on_exit,
  }
  local state = { config = cfg, gates = {}, old = {}, public = public, plan = { max_bytes = cfg.max_answer_bytes } }
  local client = {}

  if cfg.journal then public.journal = require("e2b.journal").new(cfg.journal) end
  access.open(state, key)

  --- Sees to it that the key is known before anything is noted of a call: a function is asked for it now.
  ---@param context table? operation
  ---@return true? ok
  ---@return string? message
  ---@return e2b.Error? err
  function public.ready(_, context)
    if state.target then return true end
    local possible, why_not = loops.choose(cfg.loop).may_wait()
    if not possible then return access.refuse("unsupported", why_not, context) end
    local target, message, err = access.target(state, context)
    if not target then return nil, message, err end
    return true
  end

  --- Makes one REST call: floor 4's way to the service.
  ---@param row string name of the call
  ---@param args table? path parameters, query, body
  ---@param call_opts table? request_timeout, connect_timeout, idle_timeout, retries
  ---@param context table? operation, sandbox_id, resource, target, deadline
  ---@return any value
  ---@return table|string meta_or_message
  ---@return e2b.Error? err
  function public.call(_, row, args, call_opts, context)
    return calls.call(state, row, args, call_opts, context)
  end

  --- Sends a call and doesn't wait: its answer is read, or its request written, while it runs.
  ---@param row string name of the call
  ---@param args table?
  ---@param call_opts table?
  ---@param context table? as for call; timeout (seconds for the whole), first (seconds until something comes)
  ---@return e2b.Stream? stream
  ---@return string? message
  ---@return e2b.Error? err
  function public.open(_, row, args, call_opts, context)
    return streams.open(state, row, args, call_opts, context)
  end

  --- Makes a call by its v2 route, on an older service by its v1 route.
  ---@return any value
  ---@return table|string meta_or_message
  ---@return e2b.Error? err
  function public.call_either(_, v2, v1, args, args_of_v1, call_opts, context)
    return calls.call_either(state, v2, v1, args, args_of_v1, call_opts, context)
  end

  --- Calls any endpoint of the service under the rules of every other call: deadline, retries, errors.
  ---@param method string "GET"
  ---@param path string "/sandboxes/abc"; parts of it must be percent-encoded already
  ---@param request_opts table? query, body (a table becomes JSON), content_type, and what every call takes
  ---@return any value the decoded answer under the server's names; true when there is none
  ---@return table|string meta_or_message { date, status, next_token, total_running, request_id, attempts }
  ---@return e2b.Error? err
  function public.request(_, method, path, request_opts) return request(state, method, path, request_opts) end

  --- Where a sandbox is reached. The API key never goes there.
  ---@param domain string? the sandbox's own
  ---@param sandbox_id string
  ---@param access_token string?
  ---@return userdata? target
  ---@return string? message
  ---@return e2b.Error? err
  function public.sandbox_target(_, domain, sandbox_id, access_token)
    return access.sandbox_target(state, domain, sandbox_id, access_token)
  end

  --- The base of the URLs that are handed to users: what fetches them sends none of our headers.
  ---@param domain string? the sandbox's own
  ---@param sandbox_id string
  ---@return string? url
  ---@return string? message
  function public.direct_url(_, domain, sandbox_id) return config.sandbox_base(cfg, domain, sandbox_id, true) end

  --- What to wait in when a terminal is waited for as well.
  ---@return table? loop nil: where this client waits that can't be done
  function public.input_loop(_)
    local loop = loops.choose(cfg.loop)
    return loop.watches_input and loop.may_wait() and loop or nil
  end

  --- What kills this client's sandboxes when the process is gone.
  ---@return e2b.GuardProcess
  function public.guard(_) return require("e2b.guard_process").of(state) end

  --- Tells the logger something; without one, nobody.
  ---@param event table
  function public.log(_, event)
    if cfg.logger then require("e2b.attempts").log(state, event) end
  end

  setmetatable(public, {
    __index = function(_, name)
      local make = resources and resources[name]
      if not make then return nil end
      local value = make(client)
      rawset(public, name, value)
      return value
    end,
  })
  return setmetatable(client, {
    __name = "e2b.Client",
    __index = public,
    __newindex = function(_, name)
      options.raise(("a client is immutable: field '%s' can't be set; make another with e2b.client"):format(
        tostring(name)))
    end,
    __tostring = function() return ("Client(%s)"):format(cfg.api_url) end,
    __metatable = "e2b.Client",
  })
end

return M
