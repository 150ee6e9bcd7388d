-- bin/e2b and its prompt: at a terminal with readline and without, and fed by a pipe.
local platform = require("spec.support.platform")
local support = require("spec.support.support")
local terminal = require("spec.support.terminal")
local complete = require("e2b.program.complete")
local core = require("e2b.core")
local history = require("e2b.program.history")
local show = require("e2b.program.show")
local e2b = require("e2b")

local fixture, state

-- The service is the local one, and the history is nobody's.
local function environment(more)
  local env = {
    E2B_DOMAIN = false, E2B_DEBUG = false, E2B_ACCESS_TOKEN = false, TERM = "xterm", XDG_STATE_HOME = state,
    INPUTRC = "/dev/null",
  }
  for name, value in pairs(fixture.server.env) do env[name] = value end
  for name, value in pairs(more or {}) do env[name] = value end
  return env
end

local function program(args, options)
  options = options or {}
  options.file, options.args, options.env = "bin/e2b", args, environment(options.env)
  return support.run(nil, options)
end

-- What the lines of a pipe give.
local function piped(lines, args)
  return program(args or {}, { stdin = table.concat(lines, "\n") .. "\n" })
end

setup(function()
  fixture = platform.start()
  state = support.tmpdir()
end)

teardown(function()
  fixture:stop()
  support.cleanup()
end)

after_each(function()
  terminal.close_all()
  fixture:cleanup()
end)

describe("bin/e2b", function()
  it("says what there is", function()
    local result = program({ "--help" })
    assert.equal(0, result.code)
    for _, name in ipairs({ "repl", "guard", "reap" }) do assert.matches("\n  " .. name .. " ", result.out) end
    result = program({ "rpl" })
    assert.equal(2, result.code)
    assert.equal("e2b: no command is called 'rpl'; there are repl, guard, reap (e2b --help)\n", result.err)
    assert.equal("e2b " .. e2b.version .. "\n", program({ "--version" }).out)
  end)

  it("is the prompt without a word, and takes its options then, too", function()
    for _, args in ipairs({ { "repl", "-e", "1 + 1" }, { "-e", "1 + 1" } }) do
      local result = program(args)
      assert.same({ "2\n", "", 0 }, { result.out, result.err, result.code })
    end
    local result = program({ "repl", "--lokal" })
    assert.equal(2, result.code)
    assert.equal("e2b repl: there is no option '--lokal' (see --help)\n", result.err)
    assert.matches("%-%-local", program({ "repl", "--help" }).out)
    assert.equal(2, program({ "-e" }).code)
  end)

  it("works from another folder, under another name", function()
    local folder = support.tmpdir()
    local here = support.shell("pwd"):match("[^\n]+")
    local name = support.quote(folder .. "/program")
    support.shell("ln -s " .. support.quote(here .. "/bin") .. " " .. name)
    -- What a sanitizer runs on is built into a folder that bin/e2b doesn't know of.
    local build, cpath = os.getenv("E2B_BUILD"), "-u LUA_CPATH"
    if build and build ~= "build/" .. (rawget(_G, "jit") and "luajit" or _VERSION:match("%d+%.%d+")) then
      cpath = "LUA_CPATH=" .. support.quote(here .. "/" .. build .. "/?.so;;")
    end
    local output = support.shell("cd / && env -u LUA_PATH " .. cpath .. " " .. support.quote(support.lua()) .. " "
      .. name .. "/e2b -e e2b.version")
    assert.equal(('"%s"\n'):format(e2b.version), output)
  end)

  it("says when it is not built for this Lua, and how it would be", function()
    local tree = support.tmpdir()
    support.shell("cp -R bin lua " .. support.quote(tree) .. " && rm -f " .. support.quote(tree .. "/lua/e2b/core.so"))
    local version = rawget(_G, "jit") and "luajit" or _VERSION:match("%d+%.%d+")
    local start = "cd " .. support.quote(tree) .. " && env -u LUA_PATH -u LUA_CPATH " .. support.quote(support.lua())
      .. " bin/e2b "
    local output, code = support.shell(start .. "-e 1")
    assert.matches("^e2b: the library's C part is not built for this Lua[^\n]+\n$", output)
    assert.matches("`make LUA_VERSION=" .. version .. "`", output, 1, true)
    assert.equal(1, code)
    assert.matches("guard", (support.shell(start .. "--help")), 1, true)
  end)
end)

describe("the prompt, fed by a pipe", function()
  it("shows values and nothing else", function()
    local result = piped({ "1, nil, 'a\\nb'", "=2", "x = 3", "x", "{ 1, { a = true } }", "-- none", "", "return 4" })
    assert.equal('1\tnil\t"a\\nb"\n2\n3\n{ 1, { a = true } }\n4\n', result.out)
    assert.equal("", result.err)
    assert.equal(0, result.code)
  end)

  it("has e2b, Sandbox and Template ready", function()
    local result = piped({ "s = Sandbox.create()", "s", "Sandbox.list()", "s.commands:run('echo hi')", "s:kill()",
      "Sandbox.list()", "e2b.Template == Template" })
    assert.equal("", result.err)
    assert.matches("^Sandbox%(i%w+…, base, running, %d+m%d+s left%)\nsandbox +template +state +started +expires in\n"
      .. "i%w+ +base +running +[^\n]+\nCommandResult%(exit code 0, stdout \"hi\\n\"%)\ntrue\ttrue\n"
      .. "no sandboxes\ntrue\n$", result.out)
  end)

  it("shows the first page of a paginator, and takes nothing from it", function()
    for _ = 1, 3 do fixture:create() end
    local result = piped({ "p = Sandbox.list({ limit = 2 })", "p", "#p:next_items()", "p", "#p:all()", "p",
      "Sandbox.list()", "#_:all()" })
    assert.equal("", result.err)
    local lines = {}
    for line in result.out:gmatch("[^\n]+") do lines[#lines + 1] = line:match("^%S+ *%S*") end
    assert.equal("sandbox", lines[1]:match("%a+"))
    assert.equal("(and more:", lines[4])
    assert.equal("2", lines[5])
    assert.equal("sandbox", lines[6]:match("%a+"))
    assert.equal("1", lines[8])
    assert.matches("Paginator%(Sandbox%.list, 3 fetched, complete%)", result.out)
    assert.equal("3", lines[#lines])
  end)

  it("tells a failure in one line, and goes on", function()
    local result = piped({ "Sandbox.get_info('i0')", "_.kind", "nil, 'some\\nthing', 2", "Sandbox.list()" })
    assert.matches('^failed: Sandbox%.get_info: there is no sandbox "i0"[^\n]+ %(not_found%)\n"not_found"\n'
      .. "failed: some thing\nno sandboxes\n$", result.out)
    assert.same({ "", 0 }, { result.err, result.code })
    result = program({ "-e", "Sandbox.list()" }, { env = { E2B_API_KEY = false } })
    assert.matches("^failed: Sandbox%.list: [^\n]+ %(authentication%)\n$", result.out)
  end)

  it("tells an error in one line and ends with status 1, as lua does", function()
    for _, case in ipairs({
      { "error('one\\ntwo')", "error: stdin:1: one two\n" },
      { "Sandbox.create('base', { timout = 1 })", "error: stdin:1: unknown option 'timout'[^\n]+\n" },
      { "x = = 1", "error: stdin:1: [^\n]+\n" },
      { "error({})", "error: %(error object is a table value%)\n" },
      { "assert(Sandbox.get_info('i0'))", 'error: [^\n]*Sandbox%.get_info: there is no sandbox "i0"[^\n]+\n' },
      { "for i = 1, 2 do", "error: stdin:1: [^\n]+\n" },
      { ":nothing", "error: there is no :nothing; there are :help and :trace\n", 0 },
    }) do
      local result = piped({ "print('before')", case[1] })
      assert.equal("before\n", result.out)
      assert.matches("^" .. case[2] .. "$", result.err)
      assert.equal(case[3] or 1, result.code)
    end
    local result = piped({ "error('x')", "print('after')" })
    assert.same({ "", 1 }, { result.out, result.code })
    result = program({ "-e", "print(1)", "-e", "error('x')", "-e", "print(2)" })
    assert.same({ "1\n", "error: stdin:1: x\n", 1 }, { result.out, result.err, result.code })
  end)

  it("joins lines to a chunk", function()
    local result = piped({ "function f(", "  a)", "  return a", "end", "f(1)", "{", "  2 }", "[[a", "b]]" })
    assert.same({ '1\n{ 2 }\n"a\\nb"\n', "" }, { result.out, result.err })
  end)

  it("says once that a local ends with its line", function()
    local result = piped({ "local a = 1", "local b = 2 print(b)", "a" })
    assert.same({ "2\nnil\n", "note: a local ends with its line; without the word it stays\n" },
      { result.out, result.err })
  end)

  it("has a private server with --local, which ends with it", function()
    local result = piped({ "s = Sandbox.create()", "s.state", "os.getenv('E2B_API_KEY') ~= '"
      .. fixture.server.api_key .. "'", "os.getenv('E2B_DEBUG')", "e2b.client().base_url",
      "os.execute('env') and nil" }, { "--local" })
    assert.equal("", result.err)
    local kind, key, debug_flag, url = result.out:match('^(%S+)\n(%S+)\n(%S+)\n"(%S+)"\n')
    assert.same({ '"running"', "true", "nil" }, { kind, key, debug_flag })
    assert.not_equal(fixture.server.url, url)
    assert.is_nil(result.out:find(url, result.out:find(url, 1, true) + 1, true), "the environment tells of the server")
    local other = e2b.client({ api_key = fixture.server.api_key, api_url = url, retries = 0 })
    local ok, _, err = other.Sandbox.list():all()
    assert.is_nil(ok)
    assert.equal("network", err.kind)
    assert.same({}, (fixture.Sandbox.list():all()))
  end)
end)

-- At a terminal -------------------------------------------------------------------------------------------------------

local WITHOUT = "package.preload.readline = function() error('not here') end\n"
-- Ended without closing the Lua state: a sanitizer can name what the readline module leaks only while that is loaded.
local SOURCE = "arg[0] = 'bin/e2b' dofile('bin/e2b') os.exit(0)"

local function sit(without, env, args)
  return terminal.run((without and WITHOUT or "") .. SOURCE, { env = environment(env), cols = 100, args = args })
end

-- Types a line and waits for what it gives and for the next prompt: what is typed between two lines is the terminal's.
local function enter(one, line, expected)
  one:type(line .. "\r")
  one:expect(expected or "\n")
  one:expect("> ")
end

local function leave(one)
  one:type("\4")
  assert.equal(0, one:wait())
  support.wait_for(function() return one:settings() == one.before end, 5, "the settings as they were")
end

local has_readline = support.run("assert(require('readline').handler_install)").code == 0

for _, without in ipairs(has_readline and { false, true } or { true }) do
  describe("the prompt at a terminal, " .. (without and "without readline" or "with readline"), function()
    it("greets, asks, goes on in the next line and leaves with Ctrl-D", function()
      local one = sit(without)
      one:expect("e2b " .. e2b.version)
      one:expect("with " .. fixture.server.url)
      one:expect("> ")
      assert.equal(without, one.shown:find("lua-readline", 1, true) ~= nil)
      one:type("for i = 5, 6 do\r")
      one:expect(">> ")
      enter(one, "print(i * 111) end", "555\r\n666\r\n")
      enter(one, "error('no ' .. 'luck')", "error: stdin:1: no luck\r\n")
      assert.is_nil(one.shown:find("traceback", 1, true))
      enter(one, ":trace", "stdin:1: in")
      assert.truthy(one.shown:find("traceback:", 1, true))
      enter(one, ":help", "run whenever anything waits")
      leave(one)
    end)

    it("ends a call with Ctrl-C and not the session, as often as it is asked to", function()
      local one = sit(without)
      one:expect("> ")
      for n = 1, 3 do
        one:type(("print('go' .. %d) e2b.sleep(60)\r"):format(n))
        one:expect("go" .. n .. "\r\n")
        one:type("\3")
        one:expect("interrupted\r\n")
        one:expect("> ")
        one:type("print('half'")
        one:expect("'half'")
        one:type("\3")
        one:expect("\r\n")
        one:expect("> ")
        one:type(("'still ' .. 'here %d'\r"):format(n))
        one:expect(('"still here %d"\r\n'):format(n))
        one:expect("> ")
      end
      one:type("do\r")
      one:expect(">> ")
      one:type("\3")
      one:expect("> ")
      enter(one, "'all ' .. 'forgotten'", '"all forgotten"')
      leave(one)
    end)

    it("can have a module whose loading was interrupted", function()
      local one = sit(without)
      one:expect("> ")
      enter(one, "package.preload.half = function() error('interrupted!', 0) end")
      enter(one, "require('half')", "interrupted\r\n")
      enter(one, "package.preload.half = function() return 'who' .. 'le' end")
      enter(one, "require('half')", '"whole"')
      leave(one)
    end)

    it("lets tasks go on while it waits for a key", function()
      local one = sit(without)
      one:expect("> ")
      enter(one, "t = e2b.spawn(function() e2b.sleep(0.3) io.write('task ', 'over\\n') io.flush() end)")
      one:expect("task over")
      enter(one, "t.state", '"done"')
      leave(one)
    end)
  end)
end

if has_readline then
  describe("line editing", function()
    local path

    before_each(function()
      state = support.tmpdir()
      path = state .. "/e2b/history"
    end)

    it("completes names of globals, objects and methods", function()
      local sandbox = fixture:create()
      local one = sit()
      one:expect("> ")
      enter(one, "sandbox = Sandb\t.conn\t('" .. sandbox.sandbox_id .. "')")
      one:type("sandbox.comm\t:ru\t('echo $((6 * 7))').std\t\t\21")
      one:expect("sandbox.commands")
      one:expect(":run")
      enter(one, "sandbox.commands:ru\t('echo $((6 * 7))').stdout", '"42\\n"')
      one:type("x,sandbox:is_r\t\21")
      one:expect("x,sandbox:is_running")
      enter(one, "sandbox:ki\t()", "true\ttrue")
      leave(one)
    end)

    it("keeps its lines for the next session, for nobody else's eyes, and no keys", function()
      local one = sit()
      one:expect("> ")
      enter(one, "'first' .. 1", '"first1"')
      enter(one, "key = 'e2b_0123456789abcdef'")
      enter(one, "'last' .. 2", '"last2"')
      leave(one)
      assert.equal("'first' .. 1\n'last' .. 2\n", support.read_file(path))
      assert.equal(384, core.fs_stat(path).mode)
      assert.equal(448, core.fs_stat(state .. "/e2b").mode)

      one = sit()
      one:expect("> ")
      enter(one, "\27[A\27[A", '"first1"')
      leave(one)
      assert.equal("'first' .. 1\n'last' .. 2\n'first' .. 1\n", support.read_file(path))
    end)

    it("does without a history where none can be kept", function()
      support.write_file(state .. "/e2b", "a file")
      local one = sit()
      one:expect("> ")
      enter(one, "20 + 22", "42")
      enter(one, "\27[A", "42")
      leave(one)
      assert.equal("a file", support.read_file(state .. "/e2b"))
    end)
  end)
end

-- The parts -----------------------------------------------------------------------------------------------------------

describe("what a prompt shows", function()
  it("is strings as they would be written", function()
    assert.equal([["a\tb\\\"\000\127"]], show.value("a\tb\\\"\0\127"))
    assert.equal('"h\195\169 \226\130\172 \\255\\194"', show.value("h\195\169 \226\130\172 \255\194"))
    assert.equal('"\\194\\155"', show.value("\194\155"))
    assert.equal('"' .. ("x"):rep(8192) .. '"… (10000 bytes)', show.value(("x"):rep(10000)))
  end)

  it("is tables with what is in them, in order and within bounds", function()
    assert.equal("{}", show.value({}))
    assert.equal('{ 1, "b", [-1] = 0, [4] = 4, a = 1, ["b c"] = { true } }',
      show.value({ 1, "b", [4] = 4, [-1] = 0, a = 1, ["b c"] = { true } }))
    local loop = {}
    loop.loop = loop
    assert.equal("{ loop = { itself } }", show.value(loop))
    assert.equal('{\n  a = "xxxxxxxxxx",\n  b = "yyyyyyyyyy"\n}',
      show.value({ a = ("x"):rep(10), b = ("y"):rep(10) }, 20))
    local many = {}
    for i = 1, 250 do many[i] = i end
    assert.matches("200,\n  … 50 more\n}$", show.value(many))
    assert.matches("{ … }", show.value({ { { { { { { 1 } } } } } } }), 1, true)
  end)

  it("is objects as they print themselves, and of others nothing", function()
    assert.equal("me", show.value(setmetatable({ x = 1 }, { __tostring = function() return "me" end })))
    assert.equal("<a.Thing>", show.value(setmetatable({ token = "x" }, { __name = "a.Thing" })))
    assert.matches("can't be shown: .*oh", show.value(setmetatable({}, { __tostring = function() error("oh") end })))
    assert.equal("{ client = " .. tostring(fixture.client) .. " }", show.value({ client = fixture.client }))
  end)
end)

describe("what Tab offers", function()
  local env

  local function words(text)
    local list, from = complete.words(text, env, e2b)
    return table.concat(list, " "), from
  end

  before_each(function()
    env = {
      e2b = e2b, sandbox = fixture:create(), Sandbox = fixture.Sandbox, client = fixture.client,
      list = { { name = "x", nest = 1 } }, text = "t", pages = fixture.Sandbox.list(),
      object = setmetatable({ field = 1 }, { __index = setmetatable({ method = print }, { __index = { far = 2 } }) }),
    }
  end)

  it("is names, fields and methods, with what a lazy object would make", function()
    assert.equal("sandbox.commands", words("sandbox.comm"))
    assert.equal("sandbox.files", words("x = sandbox.fi"))
    assert.equal("sandbox:kill", words("sandbox:ki"))
    assert.equal("sandbox.commands:kill sandbox.commands:list",
      words("sandbox.commands:k") .. " " .. words("sandbox.commands:l"))
    assert.equal("e2b.Sandbox.create", words("print(e2b.Sandbox.cre"))
    assert.equal("Sandbox.list", words("Sandbox.li"))
    assert.equal("client:request", words("client:req"))
    assert.equal("client.Sandbox", words("client.Sa"))
    assert.equal("pages:all", words("pages:a"))
    assert.equal("object.far object.field object.method", words("object."))
    assert.equal("object:method", words("object:"))
    assert.equal("list[1].name list[1].nest", words("list[1].n"))
    assert.equal("text:rep text:reverse", words("text:re"))
    assert.equal("sandbox sandbox.sandbox_id", words("sand") .. " " .. words("list[sandbox.sandbox_i"))
    assert.equal("return", words("retu"))
  end)

  it("names the method where a dot was typed, and nothing where there is nothing", function()
    assert.equal("sandbox:kill", words("sandbox.ki"))
    assert.equal("", words("nothing.x"))
    assert.equal("", words("nothing.at.all:x"))
    assert.equal("", words("f().x"))
    assert.equal("", words("1"))
    assert.equal("", words("sandbox:sandbox_id"))
    assert.is_nil(words("sandbox:"):find("sandbox:list", 1, true))
  end)

  it("begins where the word does", function()
    assert.same({ "sandbox:kill", 7 }, { words("print(sandbox:ki") })
    assert.same({ "sandbox.state", 3 }, { words("a[sandbox.stat") })
  end)

  it("asks no service", function()
    fixture.server:clear()
    words("sandbox.")
    words("sandbox:")
    words("pages.")
    words("pages:")
    assert.same({}, (fixture.server:requests()))
  end)
end)

describe("the history", function()
  it("keeps no line that may hold a secret", function()
    for _, line in ipairs({ "k='e2b_0123ab'", "E2B_ABCDEF", "e2b.client{ api_key = 'x' }", "c['api_key'] = 'x'",
      "{ password = \"x\" }", "x:dangerously_authenticate('a', 'b')", "clone('https://me:pass@host/x')",
      "{ token='x' }", "{ Authorization = x }", "  ", "{ headers = { ['X-API-Key'] = 'x' } }",
      "{ envs = { AWS_SECRET_ACCESS_KEY = [[x]] } }", "{ passwd = 'x' }", "{ envs = { GH_PAT = 'x' } }",
      "s.commands:run('export GH_TOKEN=x; make')", "run(\"K=\\\"a\\\" PRIVATE_KEY=\\\"x\\\" make\")",
      "get('https://host/files?signature=v1_x')", "get(url, 'Bearer x')" }) do
      assert.is_false(history.keeps(line), line)
    end
    for _, line in ipairs({ "Sandbox.list()", "e2b.help()", "'https://host:80/x'", "x.api_key == nil", "token",
      "s = Sandbox.create{ api_key = os.getenv('K') }", "for key, value in pairs(t) do print(key) end" }) do
      assert.is_true(history.keeps(line), line)
    end
  end)

  it("lies where the desktop says, in the home else", function()
    local function path(env) return history.path(function(name) return env[name] end) end
    assert.equal("/s/e2b/history", path({ XDG_STATE_HOME = "/s", HOME = "/h" }))
    assert.equal("/h/.local/state/e2b/history", path({ XDG_STATE_HOME = "relative", HOME = "/h" }))
    assert.is_nil(path({}))
  end)

  it("is made private, and cut when it is long", function()
    local folder = support.tmpdir()
    local path = folder .. "/a/b/history"
    assert.is_true(history.open(path))
    assert.equal("", support.read_file(path))
    local lines = {}
    for i = 1, 2001 do lines[i] = "line " .. i end
    support.write_file(path, table.concat(lines, "\n") .. "\n")
    core.fs_touch(path, 420)
    assert.is_true(history.open(path))
    assert.equal(384, core.fs_stat(path).mode)
    history.add(path, "new\nline")
    local text = support.read_file(path)
    assert.equal("line 1002", text:match("^[^\n]+"))
    assert.equal(1001, select(2, text:gsub("\n", "")))
    assert.matches("\nnew line\n$", text)
  end)
end)
