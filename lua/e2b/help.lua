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
      { "reap", "e2b.reap(token?)", "kill what dead processes left, by the journal, or what one token names" },
      { "client", "e2b.client(opts)", "a client with its own key and settings; see e2b.help(\"client\")" },
      { "E2B", "e2b.E2B(opts)", "the same function" },
      { "tools", "e2b.tools", "the eight platform tools as data for an agent; e2b.tools.call(name, args)" },
      { "map", "e2b.map(list, fn, opts?)", "fn for every item at once: results, failed" },
      { "all", "e2b.all(f, …)", "all functions at once: results, failed" },
      { "spawn", "e2b.spawn(fn, on_done?)", "start a task: task:wait(timeout?), task:cancel(), task.state" },
      { "run", "e2b.run(timeout?)", "finish the tasks that were spawned" },
      { "sleep", "e2b.sleep(seconds)", "wait without holding up other tasks" },
      { "pcall", "e2b.pcall(fn, …)", "pcall that tasks can wait inside of, on Lua 5.1 too" },
      { "use_loop", "e2b.use_loop(name)", "\"uv\": this program runs plain luv; most hosts need no word" },
      { "pollable", "e2b.pollable(wake?)", "pollfd(), timeout() and step() for a loop of your own" },
      { "help", "e2b.help(what?)", "this; what: Sandbox, an object, \"commands\", \"files\", \"task\" …" },
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
      { "release", "sandbox:release()", "let it outlive this process, though made with kill_on_exit" },
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
      { "download_url", "sandbox:download_url(path, opts?)", "a signed URL to fetch a file" },
      { "upload_url", "sandbox:upload_url(path?, opts?)", "a signed URL to send a file to" },
      { "shell", "sandbox:shell(opts?)", "this terminal becomes a shell of the sandbox: its exit code" },
      { "get_mcp_url", "sandbox:get_mcp_url()", "where the MCP gateway is" },
      { "get_mcp_token", "sandbox:get_mcp_token()", "the token the gateway wants" },
    },
  },
  {
    name = "commands", about = "sandbox.commands. A string goes to bash -l -c, a list is a program and its arguments.",
    entries = {
      { "run", "sandbox.commands:run(cmd, opts?)", "to its end: exit_code, stdout, stderr" },
      { "start", "sandbox.commands:start(cmd, opts?)", "a handle, at once" },
      { "connect", "sandbox.commands:connect(pid, opts?)", "a handle of one that runs already" },
      { "list", "sandbox.commands:list(opts?)", "what runs: pid, cmd, args, tag …" },
      { "kill", "sandbox.commands:kill(pid, opts?)", "true, true; true, false when there was none" },
      { "send_stdin", "sandbox.commands:send_stdin(pid, data)", "to a process started with stdin = true" },
      { "close_stdin", "sandbox.commands:close_stdin(pid)", "the end of its input" },
    },
  },
  {
    name = "handle", about = "What start, connect and pty:create return: pid, stdout, stderr, exit_code so far.",
    entries = {
      { "wait", "handle:wait(opts?)", "read to the end: exit_code, stdout, stderr" },
      { "read", "handle:read()", "the next piece: stream, data; nil at the end" },
      { "read_line", "handle:read_line()", "the next line: line, stream; nil at the end" },
      { "output", "handle:output()", "for stream, data in handle:output() do … end" },
      { "lines", "handle:lines()", "for line, stream in handle:lines() do … end" },
      { "send_stdin", "handle:send_stdin(data)", "to its input" },
      { "close_stdin", "handle:close_stdin()", "the end of its input" },
      { "resize", "handle:resize(cols, rows)", "of a terminal" },
      { "kill", "handle:kill()", "true, true; true, false when it was over" },
      { "disconnect", "handle:disconnect()", "stop reading; the process goes on" },
    },
  },
  {
    name = "files", about = "sandbox.files. Relative paths begin at the user's home.",
    entries = {
      { "read", "sandbox.files:read(path, opts?)", "a string; to = local path or function; format = \"stream\"" },
      { "write", "sandbox.files:write(path, data, opts?)", "a string, { path = local } or a function" },
      { "write_files", "sandbox.files:write_files(list, opts?)", "many at once: { { path = …, data = … }, … }" },
      { "list", "sandbox.files:list(path, opts?)", "entries; depth = 2 goes deeper" },
      { "exists", "sandbox.files:exists(path)", "true or false" },
      { "get_info", "sandbox.files:get_info(path)", "one entry: type, size, permissions …" },
      { "rename", "sandbox.files:rename(old, new)", "the new entry" },
      { "remove", "sandbox.files:remove(path)", "a file or a whole tree; none is fine" },
      { "make_dir", "sandbox.files:make_dir(path)", "true; false when it was there" },
      { "watch_dir", "sandbox.files:watch_dir(path, opts?)", "a watcher; recursive, include_entry" },
      { "put_tree", "sandbox.files:put_tree(local, remote, opts?)", "a whole tree up; ignore = { patterns }" },
      { "get_tree", "sandbox.files:get_tree(remote, local, opts?)", "a whole tree down" },
    },
  },
  {
    name = "reader", about = "What files:read(path, { format = \"stream\" }) returns.",
    entries = {
      { "read", "reader:read()", "the next piece; nil at the end" },
      { "read_line", "reader:read_line()", "the next line" },
      { "chunks", "reader:chunks()", "for bytes in reader:chunks() do … end" },
      { "lines", "reader:lines()", "for line in reader:lines() do … end" },
      { "close", "reader:close()", "stop before the end" },
    },
  },
  {
    name = "watcher", about = "What watch_dir returns.",
    entries = {
      { "events", "watcher:events()", "for event in watcher:events() do print(event.type, event.name) end" },
      { "next", "watcher:next(timeout?)", "the next event; false when none came in time" },
      { "get_new_events", "watcher:get_new_events()", "those that came, without waiting" },
      { "stop", "watcher:stop()", "no more" },
    },
  },
  {
    name = "pty", about = "sandbox.pty: terminals for programs. For yourself: sandbox:shell().",
    entries = {
      { "create", "sandbox.pty:create{ cols, rows }", "bash on a terminal: a handle" },
      { "connect", "sandbox.pty:connect(pid, opts?)", "a handle of one that runs already" },
      { "send_stdin", "sandbox.pty:send_stdin(pid, data)", "as typed" },
      { "resize", "sandbox.pty:resize(pid, { cols, rows })", "its new size" },
      { "kill", "sandbox.pty:kill(pid)", "true, true; true, false when there was none" },
    },
  },
  {
    name = "git", about = "sandbox.git: results are those of the command; credentials go through its environment.",
    entries = {
      { "clone", "sandbox.git:clone(url, path?, opts?)", "branch, depth, username, password" },
      { "init", "sandbox.git:init(path, opts?)", "bare, initial_branch" },
      { "remote_add", "sandbox.git:remote_add(path, name, url, opts?)", "fetch, overwrite" },
      { "remote_get", "sandbox.git:remote_get(path, name)", "its URL, or false" },
      { "status", "sandbox.git:status(path)", "branch, files, counts" },
      { "branches", "sandbox.git:branches(path)", "branches, current_branch" },
      { "create_branch", "sandbox.git:create_branch(path, branch)", "and check it out" },
      { "checkout_branch", "sandbox.git:checkout_branch(path, branch)", "one that is there" },
      { "delete_branch", "sandbox.git:delete_branch(path, branch, opts?)", "force" },
      { "add", "sandbox.git:add(path, opts?)", "files, all" },
      { "commit", "sandbox.git:commit(path, message, opts?)", "author_name, author_email, allow_empty" },
      { "reset", "sandbox.git:reset(path, opts?)", "mode, target, paths" },
      { "restore", "sandbox.git:restore(path, paths, opts?)", "staged, worktree, source" },
      { "push", "sandbox.git:push(path, opts?)", "remote, branch, username, password" },
      { "pull", "sandbox.git:pull(path, opts?)", "remote, branch, username, password" },
      { "set_config", "sandbox.git:set_config(key, value, opts?)", "scope, path" },
      { "get_config", "sandbox.git:get_config(key, opts?)", "its value, or false" },
      { "configure_user", "sandbox.git:configure_user(name, email, opts?)", "scope, path" },
      { "dangerously_authenticate", "sandbox.git:dangerously_authenticate(user, password)", "stores them there" },
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
      { "reap", "client:reap(token?)", "kill what dead processes left: killed, failed, left" },
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
  local known = {
    sandboxclass = "sandbox", templateclass = "template", templateinfo = "template", commandhandle = "handle",
    filereader = "reader",
  }
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

--- The names that something of this library answers to, among them what is made when it is first asked for.
---@param what table
---@param e2b table the module
---@return string[]? names nil: it is none of ours
function M.names(what, e2b)
  local topic = topic_of(what, e2b)
  if not topic then return nil end
  local names = {}
  for _, entry in ipairs(topic.entries) do
    -- Not Sandbox.list: a class has its functions in it, and its objects can't do that.
    if not entry[2]:find("^%u") then names[#names + 1] = entry[1] end
  end
  -- sandbox.commands, sandbox.files …: topics of their own.
  for _, other in ipairs(M.topics) do
    local ok, part = pcall(function() return what[other.name] end)
    if ok and part ~= nil then names[#names + 1] = other.name end
  end
  return names
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
