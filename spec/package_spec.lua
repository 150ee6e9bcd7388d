-- The rock: what it lists is what there is, and luarocks make installs one that works.
local support = require("spec.support.support")

local quote, shell = support.quote, support.shell
local abi = _VERSION:match("%d+%.%d+")
local CLEAN = "unset MAKEFLAGS MAKELEVEL MFLAGS MAKE BUILD; "
local ROCKSPEC = "e2b-scm-1.rockspec"

local function succeeds(command)
  local output, code = shell(CLEAN .. command)
  if code ~= 0 then error(command .. "\nended with " .. code .. ":\n" .. output, 2) end
  return output
end

local function rockspec()
  local env = {}
  local load_in = rawget(_G, "setfenv")
  local chunk
  if load_in then
    chunk = load_in(assert(loadfile(ROCKSPEC)), env)
  else
    chunk = assert(loadfile(ROCKSPEC, "t", env)) -- luacheck: ignore
  end
  chunk()
  return env
end

local function lines_of(command)
  local lines = {}
  for line in succeeds(command):gmatch("[^\n]+") do lines[#lines + 1] = line end
  table.sort(lines)
  return lines
end

describe("the rockspec", function()
  it("lists every Lua file under its module name, and nothing else", function()
    local expected, listed = {}, {}
    for _, file in ipairs(lines_of("find lua -name '*.lua'")) do
      expected[file:gsub("^lua/", ""):gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", ".")] = file
    end
    for name, file in pairs(rockspec().build.modules) do
      if type(file) == "string" then listed[name] = file end
    end
    assert.same(expected, listed)
  end)

  it("lists every C file", function()
    local listed = {}
    for _, name in ipairs({ "e2b.core", "e2b.server.native" }) do
      for _, file in ipairs(rockspec().build.modules[name].sources) do listed[#listed + 1] = file end
    end
    table.sort(listed)
    assert.same(lines_of("find csrc -name '*.c'"), listed)
  end)

  it("has no ceiling on Lua's version and asks for libcurl's library only", function()
    local spec = rockspec()
    assert.equal("3.0", spec.rockspec_format)
    assert.same({ "lua >= 5.1", "lua-cjson >= 2.1.0" }, spec.dependencies)
    assert.same({ CURL = { library = "curl" }, ZLIB = { library = "z" } }, spec.external_dependencies)
    assert.equal("MIT", spec.description.license)
  end)
end)

describe("luarocks make", function()
  teardown(function() support.cleanup() end)

  it("installs a rock that works, offline, and leaves the tree as it was", function()
    local folder = support.tmpdir()
    local source, tree = folder .. "/source", folder .. "/tree"
    succeeds("mkdir " .. quote(source) .. " && cp -R csrc lua bin doc LICENSE " .. ROCKSPEC .. " " .. quote(source))

    -- Debian's lua-cjson is no rock, so the configuration says that it is there.
    support.write_file(folder .. "/config.lua", table.concat({
      "rocks_provided = { ['lua-cjson'] = '2.1.0-1' }",
      "rocks_servers = {}",
      "rocks_trees = {}",
      "home_tree = " .. string.format("%q", folder .. "/home"),
      "local_cache = " .. string.format("%q", folder .. "/cache"),
      "variables = {",
      "  CFLAGS = '-O0 -fPIC',",
      "  LUA_INCDIR = " .. string.format("%q", (succeeds("bin/find-lua --cflags " ..
        (rawget(_G, "jit") and "luajit" or abi)):match("%-I(%S+)"))) .. ",",
      "}",
    }, "\n"))
    succeeds("cd " .. quote(source) .. " && export HOME=" .. quote(folder) ..
      " LUAROCKS_CONFIG=" .. quote(folder .. "/config.lua") ..
      " && timeout 300 luarocks --lua-version " .. abi .. " --tree " .. quote(tree) .. " make " .. ROCKSPEC)

    local share, lib = tree .. "/share/lua/" .. abi, tree .. "/lib/lua/" .. abi
    local child = support.run([[
      local e2b = require("e2b")
      local server = assert(require("e2b.server").start())
      local client = e2b.client({ api_key = server.api_key, api_url = server.url })
      local sandbox = assert(client.Sandbox.create("base", { timeout = 60 }))
      local listed = assert(client.Sandbox.list():all())
      io.write(#listed, " ", listed[1].sandbox_id == sandbox.sandbox_id and "mine" or "not mine")
      assert(sandbox:kill())
      server:stop()
    ]], {
      env = {
        LUA_PATH = share .. "/?.lua;" .. share .. "/?/init.lua;;",
        LUA_CPATH = lib .. "/?.so;;",
      },
    })
    assert.equal("1 mine", child.out, child.err)

    local help = succeeds("cd / && env -u LUA_PATH -u LUA_CPATH " .. quote(tree .. "/bin/e2b-server") .. " --help")
    assert.truthy(help:find("--port", 1, true), help)

    assert.equal("3\n", (succeeds("cd / && env -u LUA_PATH -u LUA_CPATH " .. quote(tree .. "/bin/e2b")
      .. " -e '#{ e2b, Sandbox, Template }'")))

    -- built in the copy; the tree under test has no objects beside its sources
    assert.equal("", (succeeds("find csrc e2b -name '*.o' -o -name '*.so' 2>/dev/null || true")))
  end)
end)
