--- The eight platform tools as data for an agent: what a model is told, and one `call` that does it.
--- Results are plain tables that any JSON library can write: no objects, no tokens, times as RFC 3339 text.
local core = require("e2b.core")
local errors = require("e2b.errors")
local lazy = require("e2b.lazy")
local options = require("e2b.options")
local schema = require("e2b.schema")

local start, suggest = lazy("e2b.sandbox_start"), lazy("e2b.suggest")

local M = {}

---@class e2b.Tool
---@field name string
---@field title string
---@field access "read"|"write"
---@field description string
---@field input_schema table JSON Schema

local function text(description)
  return { type = "string", minLength = 1, description = description }
end

local function flag(description)
  return { type = "boolean", description = description }
end

local function word(words, description)
  return { type = "string", enum = words, description = description }
end

local function page_size(what)
  return { type = "integer", minimum = 1, maximum = 100, description = what .. " on the page; 100 if not given." }
end

local function sandbox_id()
  return text("Id of the sandbox, as create_sandbox and list_sandboxes give it.")
end

local function seconds(description, minimum)
  return { type = "integer", minimum = minimum, maximum = 2147483647, description = description }
end

local function texts(description)
  return { type = "object", additionalProperties = { type = "string" }, description = description }
end

local function object(properties, required)
  return { type = "object", properties = properties, required = required, additionalProperties = false }
end

local function strings(description)
  return { type = "array", items = { type = "string" }, description = description }
end

local function definitions()
  return {
    {
      name = "list_sandboxes", title = "List Sandboxes", access = "read",
      description = "Lists sandboxes of the team, running and paused ones unless a state is asked for, newest first. "
        .. "Answers one page: when next_token comes back, call again with it for more.",
      input_schema = object({
        state = {
          type = "array", items = word({ "running", "paused" }), description = "Only sandboxes in these states.",
        },
        metadata = texts("Only sandboxes that have all these metadata pairs."),
        template = text("Only sandboxes of this template (id or name, no tag)."),
        started_after = text("Only sandboxes started at this time or later, RFC 3339, as 2026-01-02T03:04:05Z."),
        order = word({ "asc", "desc" }, "By start time; desc is newest first."),
        limit = page_size("Sandboxes"),
        next_token = text("next_token of the page before."),
      }),
    },
    {
      name = "create_sandbox", title = "Create Sandbox", access = "write",
      description = "Starts a new sandbox, a small cloud machine that costs money until it is killed or its timeout is "
        .. "over. Answers its sandbox_id.",
      input_schema = object({
        template = text("Template to start from (id or name); base if not given."),
        timeout = seconds("Seconds until the sandbox ends by itself; 300 if not given.", 1),
        metadata = texts("Labels of your own, text to text; list_sandboxes can filter by them."),
        envs = texts("Environment variables of every process in the sandbox."),
        allow_internet_access = flag("Whether the sandbox can reach the internet; true if not given."),
        lifecycle = object({
          on_timeout = word({ "kill", "pause" }, "What happens at the timeout; kill if not given."),
          auto_resume = flag("Wake the paused sandbox on incoming traffic; needs on_timeout pause."),
        }),
        network = object({
          allow_public_traffic = flag("Whether its ports can be reached without a token."),
          allow_out = strings("Addresses, CIDR ranges or domains it may reach; wins over deny_out."),
          deny_out = strings("Addresses or CIDR ranges it may not reach; 0.0.0.0/0 is everything."),
        }),
      }),
    },
    {
      name = "get_sandbox", title = "Get Sandbox", access = "read",
      description = "Tells what is known of one sandbox: state, template, sizes, start and end, metadata.",
      input_schema = object({ sandbox_id = sandbox_id() }, { "sandbox_id" }),
    },
    {
      name = "kill_sandbox", title = "Kill Sandbox", access = "write",
      description = "Ends a sandbox for good, running or paused; everything in it is lost. killed is false when it was "
        .. "gone already.",
      input_schema = object({ sandbox_id = sandbox_id() }, { "sandbox_id" }),
    },
    {
      name = "list_templates", title = "List Templates", access = "read",
      description = "Lists the templates sandboxes can be made from. Answers one page: when next_token comes back, "
        .. "call again with it for more.",
      input_schema = object({
        limit = page_size("Templates"),
        next_token = text("next_token of the page before."),
      }),
    },
    {
      name = "pause_sandbox", title = "Pause Sandbox", access = "write",
      description = "Stops a running sandbox and keeps its files and memory; resume_sandbox wakes it. paused_now is "
        .. "false when it was paused already.",
      input_schema = object({
        sandbox_id = sandbox_id(),
        keep_memory = flag("false keeps the files only: processes are lost."),
      }, { "sandbox_id" }),
    },
    {
      name = "resume_sandbox", title = "Resume Sandbox", access = "write",
      description = "Wakes a paused sandbox. Fails with the kind conflict when it is running already.",
      input_schema = object({
        sandbox_id = sandbox_id(),
        timeout = seconds("Seconds from now until the sandbox ends by itself; 300 if not given.", 1),
      }, { "sandbox_id" }),
    },
    {
      name = "set_sandbox_timeout", title = "Set Sandbox Timeout", access = "write",
      description = "Makes a running sandbox end this many seconds from now, later or sooner than before; 0 ends it at "
        .. "once.",
      input_schema = object({
        sandbox_id = sandbox_id(),
        timeout = seconds("Seconds from now.", 0),
      }, { "sandbox_id", "timeout" }),
    },
  }
end

local TIMES = { started_at = true, end_at = true, created_at = true, updated_at = true, last_spawned_at = true }

-- Leaves the metatable behind, and with it the methods; what is in an object is plain already. Fields that this version
-- doesn't know may be anything, a token among them.
local function row(item)
  local copy = {}
  for key, value in pairs(item) do
    copy[key] = TIMES[key] and core.time_format(value) or value
  end
  copy.extra = nil
  return copy
end

-- The values of headers that the service puts into requests are secrets as a rule; their names tell enough.
local function rule_of(rule)
  local transform = type(rule) == "table" and rule.transform
  local headers = type(transform) == "table" and transform.headers
  if type(headers) ~= "table" then return {} end
  local names = {}
  for name in pairs(headers) do names[#names + 1] = tostring(name) end
  table.sort(names)
  return { header_names = names }
end

local PLAIN = { "allow_public_traffic", "allow_out", "deny_out", "mask_request_host", "https_ports" }

local function network_of(network)
  local copy = {}
  for _, name in ipairs(PLAIN) do copy[name] = network[name] end
  if type(network.rules) == "table" then
    copy.rules = {}
    for host, rules in pairs(network.rules) do
      copy.rules[host] = {}
      for index, rule in ipairs(type(rules) == "table" and rules or {}) do copy.rules[host][index] = rule_of(rule) end
    end
  end
  local proxy = network.egress_proxy
  if type(proxy) == "table" and type(proxy.address) == "string" then
    copy.egress_proxy = { address = (proxy.address:gsub("^(.-)[^/]*@", "%1")) }
  end
  return copy
end

local function described(sandbox)
  local copy = row(sandbox)
  if type(copy.network) == "table" then copy.network = network_of(copy.network) end
  local left = sandbox:expires_in()
  if left and left > 0 then copy.expires_in = left end
  return copy
end

local function refused(name, message)
  return errors.new("invalid_argument", {
    message = message, operation = "tools." .. tostring(name), sent = "no", retryable = false,
  })
end

-- Tells what options.raise raises from all else: there it is called by nobody but us, at the caller's mistake.
local function mark(raised)
  for level = 2, 4 do
    local info = debug.getinfo(level, "f")
    if info and info.func == options.raise then
      return { misuse = (tostring(raised):gsub("^[^\n]-:%d+: ", "")) }
    end
  end
  return { raised = raised }
end

-- Checks what was given, before anything is sent: what Sandbox.create would raise about a combination that no schema
-- can forbid is here a mistake of the model. Any other raise (Ctrl-C, memory) is none, and goes on to the caller.
local function checked(name, fn, args)
  local ok, value = xpcall(function() return fn(args) end, mark)
  if ok then return value end
  if type(value) == "table" and value.misuse and not errors.is_interrupt(value.misuse) then
    return refused(name, value.misuse)
  end
  if type(value) == "table" then value = value.raised or value.misuse end
  error(value, 0)
end

local function page(pages, message, err, name, describe)
  if not pages then return nil, message, err end
  local items
  items, message, err = pages:next_items()
  if not items then return nil, message, err end
  local rows = {}
  for index, item in ipairs(items) do rows[index] = describe(item) end
  return { [name] = rows, count = #rows, next_token = pages.next_token }
end

local function calls(Sandbox, Template)
  return {
    list_sandboxes = function(args)
      local pages, message, err = checked("list_sandboxes", Sandbox.list, args)
      return page(pages, message, err, "sandboxes", described)
    end,
    create_sandbox = function(args)
      local right, message, err = checked("create_sandbox", start.prepare, args)
      if not right then return nil, message, err end
      local sandbox
      sandbox, message, err = Sandbox.create(args)
      if not sandbox then return nil, message, err end
      return described(sandbox)
    end,
    get_sandbox = function(args)
      local sandbox, message, err = Sandbox.get_info(args.sandbox_id)
      if not sandbox then return nil, message, err end
      return described(sandbox)
    end,
    kill_sandbox = function(args)
      local ok, existed, err = Sandbox.kill(args.sandbox_id)
      if not ok then return nil, existed, err end
      return { sandbox_id = args.sandbox_id, killed = existed }
    end,
    list_templates = function(args)
      local pages, message, err = checked("list_templates", Template.list, args)
      return page(pages, message, err, "templates", row)
    end,
    pause_sandbox = function(args)
      local ok, paused, err = Sandbox.pause(args.sandbox_id, { keep_memory = args.keep_memory })
      if not ok then return nil, paused, err end
      return { sandbox_id = args.sandbox_id, state = "paused", paused_now = paused }
    end,
    resume_sandbox = function(args)
      local sandbox, message, err = Sandbox.resume(args.sandbox_id, { timeout = args.timeout })
      if not sandbox then return nil, message, err end
      return described(sandbox)
    end,
    set_sandbox_timeout = function(args)
      local ok, message, err = Sandbox.set_timeout(args.sandbox_id, args.timeout)
      if not ok then return nil, message, err end
      return { sandbox_id = args.sandbox_id, timeout = args.timeout }
    end,
  }
end

-- The part of a tool's name that makes the difference: names that have nothing but "sandbox" in common are not near.
local function core_of(name)
  return (name:gsub("_?[sS]andbox[es]*", ""))
end

local function unknown_tool(name, names)
  local known = table.concat(names, ", ")
  if type(name) ~= "string" then
    return refused("call", ("the name of a tool must be a string, got %s; there are: %s"):format(type(name), known))
  end
  local by_core, hint = {}, ""
  for _, tool in ipairs(names) do by_core[core_of(tool)] = tool end
  local near = suggest.suggest(core_of(name), by_core)
  if near then hint = (" (did you mean %s?)"):format(by_core[near]) end
  local shown = name:gsub("%c", "?"):sub(1, 64)
  return refused(shown, ("there is no tool %s%s; there are: %s"):format(shown, hint, known))
end

-- A success is one value, so that encode(tools.call(…)) is right.
local function only(value, message, err)
  if value ~= nil then return value end
  return nil, message, err
end

--- Makes the tools of a client: a list of eight, with `call`.
---@param Sandbox e2b.SandboxClass
---@param Template e2b.TemplateClass
---@return e2b.Tools
function M.bind(Sandbox, Template)
  ---@class e2b.Tools: e2b.Tool[]
  local tools = definitions()
  local by_name, names = {}, {}
  for index, tool in ipairs(tools) do
    by_name[tool.name] = tool.input_schema
    names[index] = tool.name
  end
  local run = calls(Sandbox, Template)
  local methods = {}

  ---Does what a tool's name says. The arguments come from a model: nothing about them raises.
  ---Errors: invalid_argument (unknown tool; arguments that don't fit the schema, named in the message), and those of
  ---the operation itself.
  ---@param name string one of the eight names
  ---@param args table? as `input_schema` describes it; a null counts as not given
  ---@return table? result plain values; times as RFC 3339 text, `expires_in` in seconds
  ---@return string? message
  ---@return e2b.Error? err
  function methods.call(name, args)
    if name == tools then
      options.raise("tools:call() passes the tools as the name: write tools.call(name, args), with a dot")
    end
    local fn = type(name) == "string" and run[name]
    if not fn then return unknown_tool(name, names) end
    if args == nil then args = {} end
    local fitting, message = schema.check(by_name[name], args)
    if fitting == nil then return refused(name, ("%s: %s"):format(name, message)) end
    return only(fn(fitting))
  end

  -- Not a field: the list itself stays a JSON array.
  return setmetatable(tools, {
    __name = "e2b.Tools",
    __index = methods,
    __tostring = function(list)
      return require("e2b.table_view").render({
        { title = "name", value = function(tool) return tool.name end },
        { title = "access", value = function(tool) return tool.access end },
        { title = "title", value = function(tool) return tool.title end },
      }, list)
    end,
  })
end

return M
