-- e2b.help: its table and the functions there are say the same.
local e2b = require("e2b")
local help = require("e2b.help")
local tasks = require("e2b.tasks")

local client = e2b.client({ api_url = "http://127.0.0.1:9", api_key = "key", getenv = function() end })

local paginator_may_lack = { next_token = true, err = true, total_running = true }

local function topic(name)
  for _, entry in ipairs(help.topics) do
    if entry.name == name then return entry end
  end
  error("no topic " .. name)
end

local function names_of(name)
  local names = {}
  for i, entry in ipairs(topic(name).entries) do names[i] = entry[1] end
  table.sort(names)
  return names
end

local function keys_of(value)
  local names = {}
  for name in pairs(value) do names[#names + 1] = name end
  table.sort(names)
  return names
end

describe("help", function()
  it("names every member of e2b, and nothing else", function()
    for _, name in ipairs({ "Sandbox", "Template", "tools" }) do assert.is_table(e2b[name]) end
    assert.same(keys_of(e2b), names_of("e2b"))
  end)

  it("names every function of Sandbox and Template, and nothing else", function()
    assert.same(keys_of(client.Sandbox), names_of("Sandbox"))
    assert.same(keys_of(client.Template), names_of("Template"))
  end)

  it("names every method of what works inside a sandbox, and nothing else", function()
    for name, module in pairs({
      commands = "commands", handle = "command_handle", files = "files", reader = "file_read", watcher = "watcher",
      pty = "pty", git = "git",
    }) do
      assert.same(keys_of(require("e2b." .. module).methods), names_of(name))
    end
  end)

  it("names what paginators, tasks and clients have", function()
    local paginator = client.Template.list()
    local task = tasks.spawn(function() end)
    task:wait()
    for _, name in ipairs({ "next_items", "all" }) do assert.is_function(paginator[name]) end
    for _, entry in ipairs(topic("paginator").entries) do
      assert.is_true(paginator[entry[1]] ~= nil or paginator_may_lack[entry[1]], entry[1])
    end
    for _, entry in ipairs(topic("task").entries) do assert.is_not_nil(task[entry[1]], entry[1]) end
    for _, entry in ipairs(topic("tools").entries) do assert.is_function(client.tools[entry[1]]) end
    for _, entry in ipairs(topic("client").entries) do assert.is_not_nil(client[entry[1]], entry[1]) end
  end)

  it("is one short line each", function()
    for _, entry in ipairs(help.topics) do
      for line in help.text(entry.name, e2b):gmatch("[^\n]+") do
        assert.is_true(#line <= 110, #line .. ": " .. line)
      end
      for _, member in ipairs(entry.entries) do
        assert.matches(member[1], member[2], 1, true)
        assert.is_true(#member[3] > 3)
      end
    end
  end)

  it("finds its topic by value and by name", function()
    local e2b_text, sandbox_text = help.text(nil, e2b), help.text("Sandbox", e2b)
    assert.not_equal(e2b_text, sandbox_text)
    assert.equal(e2b_text, help.text(e2b, e2b))
    assert.equal(sandbox_text, help.text(e2b.Sandbox, e2b))
    assert.equal(sandbox_text, help.text(client.Sandbox, e2b))
    assert.equal(sandbox_text, help.text(e2b.client({ debug = true, getenv = function() end }).Sandbox.create(), e2b))
    assert.equal(help.text("template", e2b), help.text(e2b.Template, e2b))
    assert.equal(help.text("paginator", e2b), help.text(client.Template.list(), e2b))
    assert.equal(help.text("client", e2b), help.text(client, e2b))
    assert.equal(help.text("tools", e2b), help.text(client.tools, e2b))
    assert.equal(help.text("task", e2b), help.text(tasks.spawn(function() end), e2b))
    tasks.run()
  end)

  it("tells about one member", function()
    assert.matches("^sandbox:kill%(%)", help.text("kill", e2b))
    assert.equal(help.text("kill", e2b), help.text("Sandbox.kill", e2b))
    assert.equal(help.text("kill", e2b), help.text(e2b.Sandbox.kill, e2b))
    assert.matches("^e2b.map", help.text(e2b.map, e2b))
  end)

  it("says what there is help about", function()
    assert.matches('no help about 5; there is help about "e2b", "Sandbox"', help.text(5, e2b), 1, true)
  end)

  it("is printed by e2b.help", function()
    local printed
    local original = print
    _G.print = function(text) printed = text end
    e2b.help(e2b.Sandbox)
    _G.print = original
    assert.equal(help.text("Sandbox", e2b), printed)
  end)
end)
