-- What is public, found by looking at the library itself, and the comment that stands above each function.
local annotations = require("meta.annotations")

local M = {}

-- One of each thing that a program gets into its hands.
local function things()
  local e2b = require("e2b")
  local client = assert(e2b.client({ api_key = "e2b_" .. ("0"):rep(40), api_url = "http://127.0.0.1:9" }))
  assert(client.reap) -- made when it is first asked for
  local task = e2b.spawn(function() end)
  task:cancel()
  local started = require("e2b.server").start()
  started:stop()
  local server = { start = require("e2b.server").start }
  for name, fn in pairs(debug.getmetatable(started).__index) do server[name] = fn end

  local function thing(title, value, classes, about)
    return { title = title, value = value, classes = classes or {}, about = about }
  end
  -- Of an object only what it has from its class: its own fields are its state.
  local function methods_of(object) return debug.getmetatable(object).__index end
  return {
    thing("e2b", e2b, nil, 'The module: `local e2b = require("e2b")`.'),
    thing("Sandbox", client.Sandbox, { "e2b.Sandbox", "e2b.SandboxClass" },
      "`e2b.Sandbox`, `client.Sandbox`. What takes a `target` is a method of sandboxes as well: `Sandbox.kill(id)` is "
      .. "`sandbox:kill()`."),
    thing("commands", require("e2b.commands").methods, { "e2b.Commands" },
      "`sandbox.commands`: processes in a sandbox."),
    thing("handle", require("e2b.command_handle").methods, { "e2b.CommandHandle" },
      "What `sandbox.commands:start` and `connect` answer, and those of `sandbox.pty`."),
    thing("files", require("e2b.files").methods, { "e2b.Files" }, "`sandbox.files`: the files of a sandbox."),
    thing("reader", require("e2b.file_read").methods, { "e2b.FileReader" },
      'What `sandbox.files:read(path, { format = "stream" })` answers.'),
    thing("watcher", require("e2b.watcher").methods, { "e2b.Watcher" }, "What `sandbox.files:watch_dir` answers."),
    thing("pty", require("e2b.pty").methods, { "e2b.Pty" }, "`sandbox.pty`: terminals in a sandbox."),
    thing("git", require("e2b.git").methods, { "e2b.Git" }, "`sandbox.git`: repositories in a sandbox."),
    thing("Template", client.Template, { "e2b.TemplateInfo", "e2b.TemplateClass" },
      "`e2b.Template`, `client.Template`."),
    thing("tools", client.tools, { "e2b.Tools" },
      "`e2b.tools`, `client.tools`: the platform tools as data for an agent."),
    thing("client", methods_of(client), { "e2b.Client" }, "What `e2b.client` answers."),
    thing("paginator", methods_of(client.Template.list()), { "e2b.Paginator" }, "What `list` answers."),
    thing("task", methods_of(task), { "e2b.Task" }, "What `e2b.spawn` answers."),
    thing("server", server, nil, 'The local server: `local server = require("e2b.server").start()`.'),
  }
end

-- How the resources reach the service through their client; not for programs.
local INTERNAL = {
  client = { call = true, call_either = true, open = true, sandbox_target = true, direct_url = true, log = true },
}

local files = {}
local function file_of(path)
  path = path:gsub("^%./", "")
  if files[path] == nil then files[path] = annotations.read(path) end
  return files[path]
end

local function functions_of(value)
  local found, seen = {}, {}
  local function collect(from)
    if type(from) ~= "table" or seen[from] then return end
    seen[from] = true
    for name, member in pairs(from) do
      if type(name) == "string" and type(member) == "function" and not name:find("^_") and not found[name] then
        found[name] = member
      end
    end
    local mt = debug.getmetatable(from)
    if mt then collect(rawget(mt, "__index")) end
  end
  collect(value)
  return found
end

--- Everything public, in the order a reader wants it.
---@return table[] pages { title, about, classes (names), members }, a member: { name, entry (what the source says, see
---  annotations.read), problems (what is missing there), other (the member it is another name of) }
function M.pages()
  local pages = {}
  for _, thing in ipairs(things()) do
    local page = { title = thing.title, about = thing.about, classes = thing.classes, members = {} }
    local first_name = {}
    local names = {}
    local functions = functions_of(thing.value)
    for name in pairs(functions) do
      if not (INTERNAL[thing.title] and INTERNAL[thing.title][name]) then names[#names + 1] = name end
    end
    table.sort(names, function(a, b)
      local lower_a, lower_b = a:find("^%l") ~= nil, b:find("^%l") ~= nil
      if lower_a ~= lower_b then return lower_a end -- so that `E2B` is the other name of `client`
      return a < b
    end)
    for _, name in ipairs(names) do
      local fn = functions[name]
      local info = debug.getinfo(fn, "S")
      local member = { name = name, page = page }
      if first_name[fn] then
        member.other, member.problems = first_name[fn], {}
      elseif info.what == "C" then
        member.problems = { "it is a C function, so nothing is written above it" }
      else
        first_name[fn] = name
        local path = info.source:match("^@(.+)$")
        member.problems, member.entry = annotations.problems(file_of(path), info.linedefined, info.lastlinedefined)
        -- nil, message, err is one thing
        local returns = member.entry and member.entry.block and member.entry.block.returns or {}
        for i, answer in ipairs(returns) do
          if answer.name == "message" and answer.type:find("^string") and not returns[i + 1] then
            member.problems[#member.problems + 1] = "@return err is missing after message"
          end
        end
      end
      local block = member.entry and member.entry.block
      if not (block and block.private) then page.members[#page.members + 1] = member end
    end
    table.sort(page.members, function(a, b)
      local line_a, line_b = a.entry and a.entry.line or math.huge, b.entry and b.entry.line or math.huge
      if line_a ~= line_b then return line_a < line_b end
      return a.name < b.name
    end)
    pages[#pages + 1] = page
  end
  return pages
end

--- The classes of the library's files, without the local server's insides.
---@param paths string[]
---@return table<string, table> classes by name
---@return string[] names sorted
function M.classes(paths)
  local classes, names = {}, {}
  for _, path in ipairs(paths) do
    for _, class in ipairs(file_of(path).classes) do
      if not class.private then
        if not classes[class.class] then names[#names + 1] = class.class end
        if not classes[class.class] or #class.fields > 0 then classes[class.class] = class end
      end
    end
  end
  table.sort(names)
  return classes, names
end

return M
