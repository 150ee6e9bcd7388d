--- e2b.help: what there is, one line each. One table; a spec compares it with the functions there are.
local width = require("e2b.table_view").width

local M = {}

---@class e2b.HelpEntry
---@field [1] string name of the member
---@field [2] string how it is written
---@field [3] string what it does

--- What can be asked about: the members of each thing, in the order a reader wants them.
---@type { name: string, about: string, entries: e2b.HelpEntry[] }[]
M.topics = {
  {
    name = "e2b", about = "E2B sandboxes from Lua. Failures are nil, message, err; match on err.kind.",
    entries = {
      { "Sandbox", "e2b.Sandbox", "sandboxes, configured by the environment; see e2b.help(e2b.Sandbox)" },
      { "Template", "e2b.Template", "what sandboxes are made from; see e2b.help(e2b.Template)" },
      { "with", "e2b.with(opts, fn)", "create a sandbox, call fn with it, kill it" },
      { "check", "e2b.check(client?)", "does the key work? true, or what to do" },
      { "client", "e2b.client(opts)", "a client with its own key and settings; see e2b.help(\"client\")" },
      { "E2B", "e2b.E2B(opts)", "the same function" },
      { "tools", "e2b.tools", "the eight platform tools as data for an agent; e2b.tools.call(name, args)" },
      { "map", "e2b.map(list, fn, opts?)", "fn for every item at once: results, failed" },
      { "all", "e2b.all(f, …)", "all functions at once: results, failed" },
      { "spawn", "e2b.spawn(fn, on_done?)", "start a task: task:wait(timeout?), task:cancel(), task.state" },
      { "run", "e2b.run(timeout?)", "finish the tasks that were spawned" },
      { "sleep", "e2b.sleep(seconds)", "wait without holding up other tasks" },
      { "pcall", "e2b.pcall(fn, …)", "pcall that tasks can wait inside of, on Lua 5.1 too" },
      { "help", "e2b.help(what?)", "this; what: Sandbox, Template, an object, \"task\", \"paginator\"" },
      { "version", "e2b.version", "the version of this library" },
      { "close", "e2b.close()", "drop the connections that are kept open; the next call opens new ones" },
    },
  },
  {
    name = "Sandbox",
    about = "Sandbox.kill(id) and sandbox:kill() are the same. Every call takes { request_timeout = seconds }.",
    entries = {
      { "list", "Sandbox.list(opts?)", "for s in Sandbox.list({ state = { \"running\" } }) do … end" },
      { "create", "Sandbox.create(template?, opts?)", "start one: timeout, metadata, envs, lifecycle, network …" },
      { "get_info", "sandbox:get_info()", "fetch the facts; Sandbox.get_info(id) makes an object" },
      { "kill", "sandbox:kill()", "end it: true, true; true, false when it was gone" },
      { "pause", "sandbox:pause(opts?)", "stop it and keep its memory: true, true; true, false when it was paused" },
      { "resume", "sandbox:resume(opts?)", "wake a paused one, 300 seconds if no timeout is given" },
      { "set_timeout", "sandbox:set_timeout(seconds)", "end it so many seconds from now" },
      { "connect", "sandbox:connect(opts?)", "wake it if paused, extend it if running" },
      { "is_running", "sandbox:is_running()", "ask the sandbox itself: true or false" },
      { "expires_in", "sandbox:expires_in()", "seconds left, without a request" },
      { "get_host", "sandbox:get_host(port)", "public host name of a port" },
      { "get_metrics", "sandbox:get_metrics(opts?)", "CPU, memory and disk over time; from, to" },
      { "traffic_access_token", "sandbox:traffic_access_token()", "token for ports that are not public" },
      { "with", "Sandbox.with(opts, fn)", "as e2b.with" },
    },
  },
  {
    name = "Template", about = "Items are tables: template_id, names, cpu_count, memory_mb, disk_size_mb, public …",
    entries = {
      { "list", "Template.list(opts?)", "for t in Template.list() do … end" },
    },
  },
  {
    name = "tools", about = "The eight platform tools: name, title, access, description, input_schema (JSON Schema).",
    entries = {
      { "call", "e2b.tools.call(name, args)", "check args against the schema, do it, answer a plain table" },
    },
  },
  {
    name = "paginator", about = "What list returns. for item in paginator do … end, or by hand:",
    entries = {
      { "next_items", "paginator:next_items()", "the next page, a list that prints as a table" },
      { "all", "paginator:all()", "everything that is left, in one list" },
      { "has_next", "paginator.has_next", "whether there may be more" },
      { "next_token", "paginator.next_token", "where the next page begins" },
      { "err", "paginator.err", "what ended a generic for" },
      { "total_running", "paginator.total_running", "Sandbox.list: running ones in all, when the service told it" },
    },
  },
  {
    name = "task", about = "What e2b.spawn returns.",
    entries = {
      { "wait", "task:wait(timeout?)", "its results, or nil, message, err" },
      { "cancel", "task:cancel()", "its pending wait returns nil, message, err of the kind cancelled" },
      { "state", "task.state", "how far it is" },
    },
  },
  {
    name = "client", about = "What e2b.client returns; immutable.",
    entries = {
      { "Sandbox", "client.Sandbox", "as e2b.Sandbox, with this client's settings" },
      { "Template", "client.Template", "as e2b.Template" },
      { "tools", "client.tools", "as e2b.tools" },
      { "request", "client:request(method, path, opts?)", "any endpoint of the service: opts.query, opts.body" },
    },
  },
}

local by_name = {}
for _, topic in ipairs(M.topics) do by_name[topic.name:lower()] = topic end

-- Which topic a value belongs to.
local function topic_of(what, e2b)
  if what == nil or what == e2b then return by_name.e2b end
  if type(what) == "string" then return by_name[what:lower()] end
  if type(what) ~= "table" then return nil end
  local mt = getmetatable(what)
  local name = mt -- a client's metatable is hidden behind its name
  if type(mt) == "table" then name = rawget(mt, "__name") end
  if type(name) ~= "string" then return nil end
  name = name:lower():gsub("^e2b%.", "")
  local known = { sandboxclass = "sandbox", templateclass = "template", templateinfo = "template" }
  return by_name[known[name] or name]
end

local function lines_of(topic)
  local wide = 0
  for _, entry in ipairs(topic.entries) do wide = math.max(wide, width(entry[2])) end
  local lines = { topic.about }
  for _, entry in ipairs(topic.entries) do
    lines[#lines + 1] = ("  %s%s  %s"):format(entry[2], (" "):rep(wide - width(entry[2])), entry[3])
  end
  return lines
end

-- One member, by name ("Sandbox.kill", "kill") or by the function itself.
local function member_of(what, e2b)
  for _, topic in ipairs(M.topics) do
    for _, entry in ipairs(topic.entries) do
      local owner = topic.name == "e2b" and e2b or topic.name == "Sandbox" and e2b.Sandbox
        or topic.name == "Template" and e2b.Template
      if type(what) == "function" and owner and owner[entry[1]] == what
        or what == entry[1] or what == topic.name .. "." .. entry[1] then
        return { entry[2] .. "  " .. entry[3] }
      end
    end
  end
  return nil
end

--- The text about something.
---@param what any
---@param e2b table the module
---@return string
function M.text(what, e2b)
  local topic = topic_of(what, e2b)
  local lines = topic and lines_of(topic) or member_of(what, e2b)
  if not lines then
    local names = {}
    for i, entry in ipairs(M.topics) do names[i] = ("%q"):format(entry.name) end
    return ("no help about %s; there is help about %s"):format(tostring(what), table.concat(names, ", "))
  end
  return table.concat(lines, "\n")
end

return M
