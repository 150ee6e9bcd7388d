-- make install and make uninstall, into a folder of their own.
local support = require("spec.support.support")

local quote, shell = support.quote, support.shell
local lua_version = rawget(_G, "jit") and "luajit" or _VERSION:match("%d+%.%d+")
local abi = _VERSION:match("%d+%.%d+")
-- What was said to the make that runs this is not meant for the one it runs.
local CLEAN = "unset MAKEFLAGS MAKELEVEL MFLAGS MAKE BUILD; "

local function succeeds(command)
  local output, code = shell(CLEAN .. command)
  if code ~= 0 then error(command .. "\nended with " .. code .. ":\n" .. output, 2) end
  return output
end

local function files_under(folder)
  return succeeds("cd " .. quote(folder) .. " && find . -type f | sort")
end

describe("make install", function()
  local make = "make --no-print-directory -s LUA_VERSION=" .. lua_version .. " "

  teardown(function() support.cleanup() end)

  it("puts the library, the core and the server below DESTDIR and PREFIX, and uninstall takes them away", function()
    local root = support.tmpdir()
    local where = "DESTDIR=" .. quote(root) .. " PREFIX=/opt/x "
    succeeds(make .. where .. "install")

    local expected = {}
    for file in succeeds("cd lua && find . -name '*.lua' | sed 's,^\\./,,'"):gmatch("[^\n]+") do
      expected[#expected + 1] = "./opt/x/share/lua/" .. abi .. "/" .. file
    end
    expected[#expected + 1] = "./opt/x/lib/lua/" .. abi .. "/e2b/core.so"
    expected[#expected + 1] = "./opt/x/lib/lua/" .. abi .. "/e2b/server/native.so"
    expected[#expected + 1] = "./opt/x/bin/e2b"
    expected[#expected + 1] = "./opt/x/bin/e2b-server"
    table.sort(expected)
    local found = {}
    for file in files_under(root):gmatch("[^\n]+") do found[#found + 1] = file end
    table.sort(found)
    assert.same(expected, found)

    succeeds("touch " .. quote(root .. "/opt/x/share/lua/" .. abi .. "/other.lua"))
    succeeds(make .. where .. "uninstall")
    assert.equal("./opt/x/share/lua/" .. abi .. "/other.lua\n", files_under(root))
    assert.equal("", succeeds("find " .. quote(root) .. " -name e2b"))
  end)

  it("honours INST_LUADIR, INST_LIBDIR and INST_BINDIR", function()
    local root = support.tmpdir()
    succeeds(make .. "INST_LUADIR=" .. quote(root .. "/a") .. " INST_LIBDIR=" .. quote(root .. "/b") ..
      " INST_BINDIR=" .. quote(root .. "/c") .. " install")
    for _, file in ipairs({ "a/e2b/init.lua", "a/e2b/client.lua", "b/e2b/core.so", "c/e2b-server" }) do
      assert.truthy(support.read_file(root .. "/" .. file), file)
    end
  end)

  it("installs what works far from the tree", function()
    local root = support.tmpdir()
    succeeds(make .. "PREFIX=" .. quote(root) .. " install")
    local share, lib = root .. "/share/lua/" .. abi, root .. "/lib/lua/" .. abi
    local child = support.run([[
      local e2b = require("e2b")
      assert(package.searchpath == nil or package.searchpath("e2b", package.path):find(arg[1], 1, true))
      local server = assert(require("e2b.server").start())
      local client = e2b.client({ api_key = server.api_key, api_url = server.url })
      local sandbox = assert(client.Sandbox.create("base"))
      assert(sandbox:kill())
      server:stop()
      io.write("worked")
    ]], {
      args = { root },
      env = {
        LUA_PATH = share .. "/?.lua;" .. share .. "/?/init.lua;;",
        LUA_CPATH = lib .. "/?.so;;",
      },
    })
    assert.equal("worked", child.out, child.err)
    assert.equal(0, child.code)
  end)

  it("installs a server that starts by its name alone", function()
    local root = support.tmpdir()
    succeeds(make .. "PREFIX=" .. quote(root) .. " install")
    local output = succeeds("cd / && env -u LUA_PATH -u LUA_CPATH " .. quote(root .. "/bin/e2b-server") .. " --help")
    assert.truthy(output:find("--port", 1, true), output)
  end)

  it("installs a prompt that starts by its name alone", function()
    local root = support.tmpdir()
    succeeds(make .. "PREFIX=" .. quote(root) .. " install")
    assert.equal("3\n", (succeeds("cd / && env -u LUA_PATH -u LUA_CPATH " .. quote(root .. "/bin/e2b")
      .. " -e '#{ e2b, Sandbox, Template }'")))
  end)
end)
