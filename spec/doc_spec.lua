-- Every public function says what it does, what it takes and what it answers; and the pages come out of that.
local support = require("spec.support.support")
local surface = require("meta.surface")
local annotations = require("meta.annotations")

local function write(text)
  local path = support.tmpdir() .. "/sample.lua"
  support.write_file(path, text)
  return annotations.read(path)
end

local function problems_of(text)
  local file = write(text)
  local line = math.huge
  for number in pairs(file.functions) do line = math.min(line, number) end
  return (annotations.problems(file, line, #file.lines))
end

describe("the reference", function()
  teardown(function() support.cleanup() end)

  it("leaves no public function without words, parameters and results", function()
    local problems, functions = {}, 0
    for _, page in ipairs(surface.pages()) do
      assert.is_true(#page.members > 0, page.title .. " has no functions")
      for _, member in ipairs(page.members) do
        functions = functions + 1
        for _, problem in ipairs(member.problems) do
          problems[#problems + 1] = page.title .. "." .. member.name .. ": " .. problem
        end
      end
    end
    assert.equal("", table.concat(problems, "\n"))
    assert.is_true(functions > 30, functions .. " functions are not all")
  end)

  it("knows the functions a reader looks for", function()
    local known = {}
    for _, page in ipairs(surface.pages()) do
      for _, member in ipairs(page.members) do known[page.title .. "." .. member.name] = true end
    end
    for name in ([[e2b.client e2b.E2B e2b.check e2b.with e2b.map e2b.all e2b.spawn e2b.run e2b.sleep e2b.pcall e2b.help
      Sandbox.create Sandbox.list Sandbox.get_info Sandbox.kill Sandbox.pause Sandbox.resume Sandbox.connect
      Sandbox.set_timeout Sandbox.is_running Sandbox.get_host Sandbox.get_metrics Sandbox.expires_in Template.list
      tools.call client.request paginator.next_items paginator.all task.wait task.cancel
      server.start]]):gmatch("%S+") do
      assert.is_true(known[name] == true, name)
    end
  end)

  it("becomes pages that link to each other", function()
    local folder = support.tmpdir()
    local result = support.run(nil, { file = "meta/doc.lua", args = { folder } })
    assert.equal("", result.err)
    assert.equal(0, result.code)
    local anchors, links = {}, {}
    local names = support.shell("cd " .. support.quote(folder) .. " && ls *.html")
    for name in names:gmatch("%S+") do
      local text = assert(support.read_file(folder .. "/" .. name))
      anchors[name] = true
      for id in text:gmatch(' id="([^"]+)"') do anchors[name .. "#" .. id] = true end
      for link in text:gmatch(' href="([^"]+)"') do links[link:find("^#") and name .. link or link] = name end
    end
    assert.is_true(anchors["Sandbox.html#create"])
    assert.is_true(anchors["types.html#e2b.Error"])
    for link, from in pairs(links) do assert.is_true(anchors[link] == true, from .. " links to " .. link) end
    local text = support.read_file(folder .. "/Sandbox.html")
    assert.truthy(text:find("sandbox, message, err = Sandbox.create(template?, opts?)", 1, true))
  end)
end)

describe("the description of the C core", function()
  local core = require("e2b.core")
  local file = annotations.read("meta/core.lua")

  local function described(holder)
    local names, problems = {}, {}
    for line, entry in pairs(file.functions) do
      if entry.holder == holder then
        names[entry.name] = true
        for _, problem in ipairs((annotations.problems(file, line, line))) do
          problems[#problems + 1] = holder .. "." .. entry.name .. ": " .. problem
        end
      end
    end
    assert.equal("", table.concat(problems, "\n"))
    return names
  end

  local function there(from)
    local names = {}
    for name, member in pairs(from) do
      if type(member) == "function" and not name:find("^_") then names[name] = true end
    end
    return names
  end

  it("has each of its functions and no other", function()
    assert.same(there(core), described("core"))
    local target = assert(core.target({ url = "http://127.0.0.1:9", headers = {} }))
    local transfer = assert(core.transfer(target, "template_list", {}, {}))
    assert.same(there(debug.getmetatable(core.engine()).__index), described("engine"))
    assert.same(there(debug.getmetatable(transfer).__index), described("transfer"))
    transfer:cancel()
  end)
end)

describe("the reader of annotations", function()
  teardown(function() support.cleanup() end)

  it("is content with a documented function", function()
    assert.same({}, problems_of([[
---Does it.
---@param a string
---@param opts { b: integer? }? seconds
---@param ... any
---@return true? ok
---@return string? message
---@return e2b.Error? err
function M.f(a, opts,
             ...)
  local inner = function() return 1, 2, 3, 4 end
  if a then return nil, "a, b", inner end
  return true
end]]))
  end)

  it("misses words, parameters and results", function()
    assert.truthy(problems_of("function M.f() end")[1]:find("no comment", 1, true))
    assert.truthy(problems_of("---@param a string\nfunction M.f(a) end")[1]:find("not a word", 1, true))
    assert.same({ "@param b is missing" }, problems_of("---X.\n---@param a string\nfunction M.f(a, b) end"))
    assert.same({ "@param ... is missing" }, problems_of("---X.\nfunction M.f(...) end"))
    assert.same({ "@param b is no parameter of it" },
      problems_of("---X.\n---@param a string\n---@param b string\nfunction M:f(a) end"))
    assert.same({ "@return is missing" }, problems_of("---X.\nfunction M.f()\nif x then\nreturn 1 end\nend"))
    assert.same({ "it returns up to 3 values, and 1 @return lines" },
      problems_of("---X.\n---@return integer n\nfunction M.f() return 1, (2), { 3, 4 } end"))
  end)

  it("reads types with spaces in them", function()
    local file = write([[
---X.
---@param a fun(x: string, ...): table<string, integer>?, string? called
---@param b "asc"|"desc"|nil order
---@param c { d: { e: string }[], f: fun(): any }[] rows
---@return number seconds, any ... what it returned
function f(a, b, c) end]])
    local block = file.functions[6].block
    assert.same({ "fun(x: string, ...): table<string, integer>?, string?", '"asc"|"desc"|nil',
      "{ d: { e: string }[], f: fun(): any }[]" }, { block.params[1].type, block.params[2].type, block.params[3].type })
    assert.same({ "called", "order", "rows" }, { block.params[1].text, block.params[2].text, block.params[3].text })
    assert.same({ { type = "number", name = "seconds", text = "" },
      { type = "any", name = "...", text = "what it returned" } }, block.returns)
  end)

  it("reads a type that goes on in the next line", function()
    local file = write([[
---X.
---@param a { b: integer,
---  c: fun(d: string): any }? rows
---  of two
---@return number seconds
function f(a) end]])
    local block = file.functions[6].block
    assert.same({ "{ b: integer, c: fun(d: string): any }?", "rows of two" },
      { block.params[1].type, block.params[1].text })
    assert.equal("number", block.returns[1].type)
  end)

  it("names the place of what it can't read", function()
    local ok, message = pcall(write, "\n---@param\nfunction f() end")
    assert.is_false(ok)
    assert.truthy(message:find("sample.lua:2: can't read this annotation: ---@param", 1, true), message)
  end)
end)
