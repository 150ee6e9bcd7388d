-- The Makefile and the scripts behind it, each tried on a copy of the tree.
local support = require("spec.support.support")

local quote, shell, read_file, write_file = support.quote, support.shell, support.read_file, support.write_file
local lua_version = rawget(_G, "jit") and "luajit" or _VERSION:match("%d+%.%d+")

-- What was said to the make and the bin/test that run this is not meant for those it runs.
local CLEAN = "unset MAKEFLAGS MAKELEVEL MFLAGS MAKE CC BUILD LUAS SPECS WRAP INTERPRETER " ..
  "BUSTED BUSTED_ARGS JOBS SPEC_SECONDS; "

local function copy_of_tree(what)
  local folder = support.tmpdir()
  local output, code = shell("cp -R " .. what .. " " .. quote(folder))
  assert(code == 0, output)
  return folder
end

local function succeeds(command)
  local output, code = shell(CLEAN .. command)
  if code ~= 0 then error(command .. "\nended with " .. code .. ":\n" .. output, 2) end
  return output
end

describe("make", function()
  local tree
  local make

  setup(function()
    tree = copy_of_tree("Makefile bin csrc")
    make = "make -C " .. quote(tree) .. " --no-print-directory LUA_VERSION=" .. lua_version .. " "
  end)
  teardown(function() support.cleanup() end)

  it("builds into a folder of that Lua with the user's flags last, and leaves the sources alone", function()
    local output = succeeds(make .. "CFLAGS='-O0 -DMINE=1' LDFLAGS=-Wl,-O1 -j2")
    assert.truthy(output:find("-O2.-%-O0 %-DMINE=1 "), output)
    assert.truthy(output:find("-shared -O0 -DMINE=1 -Wl,-O1", 1, true), output)
    assert.is_nil(output:find("warning:", 1, true), output)
    assert.truthy(read_file(tree .. "/build/" .. lua_version .. "/e2b/core.so"))
    assert.equal("", (succeeds("find " .. quote(tree .. "/csrc") .. " -name '*.o' -o -name '*.d'")))
  end)

  it("builds nothing twice, what a changed header is in again, and everything again under other flags", function()
    -- A compiler that only notes what each file includes: this is about make's choice.
    local quick = tree .. "/quick-cc"
    write_file(quick, [[#!/bin/sh
out= ; compile=false ; word=
for argument; do
  [ "$word" != -o ] || out=$argument
  [ "$argument" != -c ] || compile=true
  word=$argument
done
$compile || { : > "$out"; exit; }
echo "compiled $word"
: > "$out"
exec cc "$@" -fsyntax-only
]])
    succeeds("chmod +x " .. quote(quick))
    local function compiled(flags)
      local output, files = succeeds(make .. "-s BUILD=build/quick CC=" .. quote(quick) .. " CFLAGS=" .. flags), {}
      for name in output:gmatch("compiled csrc/([%w_/]+)%.c") do files[#files + 1] = name end
      table.sort(files)
      return files
    end
    local function includers(header)
      local files = {}
      local output = succeeds("cd " .. quote(tree) .. " && grep -lw " .. header ..
        " build/quick/obj/*.d build/quick/obj/server/*.d")
      for name in output:gmatch("obj/([%w_/]+)%.d\n") do files[#files + 1] = name end
      table.sort(files)
      return files
    end

    local all = compiled("-O0")
    local _, sources = succeeds("find " .. quote(tree) .. "/csrc -name '*.c'"):gsub("\n", "")
    assert.equal(sources, #all)
    assert.same({}, compiled("-O0"))

    succeeds("touch -d '+5 seconds' " .. quote(tree .. "/csrc/shape.h"))
    local some = compiled("-O0")
    assert.is_true(#some > 0 and #some < #all)
    assert.same(includers("shape.h"), some)
    succeeds("touch " .. quote(tree .. "/csrc/shape.h"))

    assert.same(all, compiled("-O1"))
    assert.same({}, compiled("-O1"))
  end)

  it("may be asked for what is built already by several at a time", function()
    local build = make .. "-s build"
    succeeds(build)
    write_file(tree .. "/together", "for round in 1 2 3 4 5; do pids=\nfor one in 1 2 3 4 5 6; do " .. build ..
      " & pids=\"$pids $!\"\ndone\nfor pid in $pids; do wait $pid || exit 1; done; done\n")
    succeeds("sh " .. quote(tree .. "/together"))
  end)

  it("exports luaopen_ and nothing else, and doesn't link a Lua", function()
    for module, library in pairs({ core = "libcurl", ["server/native"] = "libz" }) do
      local file = quote(tree .. "/build/" .. lua_version .. "/e2b/" .. module .. ".so")
      assert.equal("luaopen_e2b_" .. module:gsub("/", "_") .. "\n",
        (succeeds("nm -D --defined-only " .. file .. " | awk '{ print $3 }'")))
      local needed = succeeds("objdump -p " .. file .. " | grep NEEDED")
      assert.truthy(needed:find(library, 1, true), needed)
      assert.is_nil(needed:find("lua", 1, true), needed)
    end
  end)

  it("takes CC, LUA_INCDIR, CURL_CFLAGS and CURL_LIBS as they are given", function()
    local output = succeeds(make .. "-n -B CC=mycc LUA_INCDIR=/my/lua CURL_CFLAGS=-I/my/curl" ..
      " CURL_LIBS='-L/my -lcurl-my'")
    assert.truthy(output:find("mycc -O2 -fPIC -std=c99", 1, true), output)
    assert.truthy(output:find("-I/my/lua -I/my/curl", 1, true), output)
    assert.truthy(output:find("-L/my -lcurl-my", 1, true), output)
    assert.is_nil(output:find("-I/usr/include/lua", 1, true), output)
  end)

  it("says which package is missing when curl/curl.h is", function()
    -- only the compiler's own headers, and a stand-in for Lua's
    local fake = support.tmpdir()
    write_file(fake .. "/lua.h", "")
    local output, code = shell(CLEAN .. make .. "BUILD=build/none CURL_CFLAGS=-nostdinc LUA_INCDIR=" .. quote(fake))
    assert.not_equal(0, code)
    assert.truthy(output:find("curl/curl.h is missing", 1, true), output)
    assert.truthy(output:find("libcurl4-openssl-dev", 1, true), output)
  end)

  it("says what to do when there are no headers of that Lua", function()
    local output, code = shell(CLEAN .. make .. "LUA_VERSION=5.9")
    assert.not_equal(0, code)
    assert.truthy(output:find("no headers of Lua 5.9", 1, true), output)
    assert.truthy(output:find("make deps", 1, true), output)
    assert.truthy(output:find("LUA_INCDIR", 1, true), output)
  end)

  it("lists every target in make help", function()
    local output = succeeds(make .. "help")
    local names = "deps demo repl server neovim test lint asan valgrind oom bench doc install uninstall clean"
    for name in names:gmatch("%S+") do
      assert.truthy(output:find("\n?  make " .. name .. " "), name)
    end
  end)
end)

describe("bin/test", function()
  local tree
  local build = os.getenv("E2B_BUILD") or ("build/" .. lua_version)

  setup(function()
    tree = copy_of_tree("Makefile bin")
    local support_folder = quote(tree .. "/spec/support")
    succeeds("mkdir -p " .. support_folder .. " && cp spec/support/report.lua " .. support_folder)
  end)
  teardown(function() support.cleanup() end)
  before_each(function() succeeds("rm -f " .. quote(tree) .. "/spec/*_spec.lua") end)

  local function run(env)
    local output, code = shell(CLEAN .. "cd " .. quote(tree) .. " && LUAS=" .. lua_version .. " BUILD=" .. build ..
      " " .. (env or "") .. " bin/test")
    return output, code, output:match("([^\n]*)\n*$")
  end

  local function spec(name, body)
    write_file(tree .. "/spec/" .. name .. "_spec.lua", "describe('a', function()\n" .. body .. "\nend)\n")
  end

  it("counts what passed", function()
    spec("good", "it('one', function() end) it('two', function() end)")
    local output, code, last = run()
    assert.equal("2 passed, 0 failed", last, output)
    assert.equal(0, code)
  end)

  it("counts failures, errors and skipped specs as failed", function()
    spec("bad", [[it('one', function() end) it('two', function() assert.equal(1, 2) end)
      it('three', function() error('x') end) pending('four')]])
    local output, code, last = run()
    assert.equal("1 passed, 3 failed", last, output)
    assert.not_equal(0, code)
  end)

  it("counts a file that doesn't load, and one that holds no spec", function()
    spec("syntax", "it(")
    spec("empty", "")
    local output, code, last = run()
    assert.equal("0 passed, 2 failed", last, output)
    assert.not_equal(0, code)
  end)

  it("counts an interpreter that dies, by a signal or by leaving early, and goes on with the next file", function()
    spec("crash", "it('one', function() end) it('dies', function() os.execute('kill -SEGV $PPID') end)")
    spec("exit", "it('leaves', function() os.exit(0) end)")
    spec("good", "it('one', function() end)")
    local output, code, last = run()
    assert.equal("2 passed, 2 failed", last, output)
    assert.not_equal(0, code)
    local crashed = "CRASHED spec/crash_spec.lua on Lua " .. lua_version .. " (signal 11) in: a dies"
    assert.truthy(output:find(crashed, 1, true), output)
    assert.truthy(output:find("CRASHED spec/exit_spec.lua", 1, true), output)
  end)

  it("ends a file that hangs", function()
    spec("hang", "it('hangs', function() while true do end end)")
    local output, code, last = run("SPEC_SECONDS=1")
    assert.equal("0 passed, 1 failed", last, output)
    assert.not_equal(0, code)
  end)

  it("fails by name for a Lua that isn't there", function()
    spec("good", "it('one', function() end)")
    for _, jobs in ipairs({ 1, 2 }) do
      local output, code, last = run("LUAS='" .. lua_version .. " 5.9' JOBS=" .. jobs)
      assert.equal("1 passed, 1 failed", last, output)
      assert.not_equal(0, code)
      assert.truthy(output:find("Lua 5.9: no interpreter of this name found", 1, true), output)
    end
  end)

  it("keeps the caller's account and proxies away from the specs", function()
    spec("env", [[it('is clean', function()
      for _, name in ipairs({ 'E2B_API_KEY', 'E2B_API_URL', 'E2B_DOMAIN', 'https_proxy', 'HTTP_PROXY' }) do
        assert.is_nil(os.getenv(name), name)
      end
    end)]])
    local output, _, last = run("E2B_API_KEY=e2b_x E2B_API_URL=http://x E2B_DOMAIN=x https_proxy=http://x HTTP_PROXY=x")
    assert.equal("1 passed, 0 failed", last, output)
  end)
end)

describe("bin/deps", function()
  -- A folder of stand-ins is the whole PATH, so that nothing of this machine is asked or changed.
  local tools

  setup(function()
    tools = support.tmpdir()
    succeeds("for tool in sh env sed tr awk dirname grep cat; do ln -s \"$(command -v $tool)\" " .. quote(tools) ..
      "/$tool; done")
  end)
  teardown(function() support.cleanup() end)

  local function stand_in(name, body)
    if body then
      write_file(tools .. "/" .. name, "#!/bin/sh\n" .. body .. "\n")
      succeeds("chmod +x " .. quote(tools .. "/" .. name))
    else
      os.remove(tools .. "/" .. name)
    end
  end

  -- installed: what dpkg-query knows; gone: what the sources don't have
  local function debian(installed, gone)
    stand_in("dpkg-query", "for p in " .. installed .. "; do echo \"$p installed\"; done")
    stand_in("apt-get", "echo \"apt-get $*\"")
    stand_in("apt-cache", "case \" " .. (gone or "") .. " \" in *\" $3 \"*) exit 100 ;; esac")
    stand_in("id", "echo 0")
    stand_in("sudo")
  end

  local function deps(arguments)
    return shell(CLEAN .. "PATH=" .. quote(tools) .. " sh bin/deps " .. arguments)
  end

  it("prints the list and stops when everything is there", function()
    debian("gcc libc6-dev make pkgconf libcurl4-gnutls-dev zlib1g-dev lua-cjson lua5.4 liblua5.4-dev")
    local output, code = deps("build 5.4")
    assert.equal(0, code, output)
    assert.truthy(output:find("Packages for build on Lua 5.4: gcc libc6-dev make", 1, true), output)
    assert.truthy(output:find("Everything is there.", 1, true), output)
    assert.is_nil(output:find("apt-get", 1, true), output)
  end)

  it("installs only what is missing, after the list", function()
    debian("gcc libc6-dev make pkg-config lua5.4 liblua5.4-dev")
    local output, code = deps("demo 5.4")
    assert.equal(0, code, output)
    local missing = "libcurl4-openssl-dev zlib1g-dev lua-cjson lua-http bubblewrap\n"
    local listed = output:find("Missing: " .. missing, 1, true)
    local updated = output:find("apt%-get [^\n]*update\n", listed)
    assert.truthy(output:find("install -y --no-install-recommends " .. missing, updated, true), output)
  end)

  it("uses sudo when it isn't root", function()
    debian("gcc")
    stand_in("id", "echo 1000")
    stand_in("sudo", "echo \"sudo: $*\"")
    local output, code = deps("build 5.4")
    assert.equal(0, code, output)
    assert.truthy(output:find("sudo: env DEBIAN_FRONTEND=noninteractive apt-get", 1, true), output)
  end)

  it("prints the one line to run when there is no sudo", function()
    debian("gcc libc6-dev make pkg-config libcurl4-openssl-dev zlib1g-dev lua5.4 liblua5.4-dev")
    stand_in("id", "echo 1000")
    local output, code = deps("build 5.4")
    assert.equal(1, code, output)
    local line = "\n  apt-get update && apt-get install -y --no-install-recommends lua-cjson\n"
    assert.truthy(output:find(line, 1, true), output)
  end)

  it("fails when the installation does", function()
    debian("gcc")
    stand_in("apt-get", "case \"$*\" in *install*) exit 100 ;; esac")
    local _, code = deps("build 5.4")
    assert.not_equal(0, code)
  end)

  it("goes on without a Lua that the system doesn't have, and says so", function()
    debian("gcc libc6-dev make pkg-config libcurl4-openssl-dev zlib1g-dev lua5.4 liblua5.4-dev", "lua5.2 liblua5.2-dev")
    local output, code = deps("build 5.2 5.4")
    assert.equal(3, code, output)
    assert.truthy(output:find("don't have: lua5.2 liblua5.2-dev", 1, true), output)
    assert.truthy(output:find("install -y --no-install-recommends lua-cjson\n", 1, true), output)
  end)

  it("names the packages of other systems where there is no apt-get", function()
    debian("")
    stand_in("apt-get")
    local output, code = deps("build 5.4")
    assert.equal(1, code, output)
    for _, tool in ipairs({ "dnf install", "apk add", "pacman -S", "brew install" }) do
      assert.truthy(output:find("\n  " .. tool .. " ", 1, true), tool)
    end
    assert.truthy(output:find("Not found here: a-C-compiler libcurl's-headers zlib's-headers Lua-5.4", 1, true), output)
  end)
end)
