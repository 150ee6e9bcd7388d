-- fork and its like on every Lua: posix.c, compiled for the running one when a spec first asks for it.
local support = require("spec.support.support")

local here = debug.getinfo(1, "S").source:match("^@(.*)posix%.lua$") or "spec/support/"
local version = rawget(_G, "jit") and "luajit" or _VERSION:match("%d+%.%d+")
local folder = support.tmpdir()
local path = folder .. "/e2b_spec_posix.so"
-- A sanitizer preloaded for the code under test has no business in a compiler.
local output, code = support.shell(string.format(
  "env -u LD_PRELOAD ${CC:-cc} -shared -fPIC -O1 $(%s../../bin/find-lua --cflags %s) -o %s %sposix.c",
  here, version, path, here))
assert(code == 0, output)
local posix = assert(package.loadlib(path, "luaopen_e2b_spec_posix"))()
support.cleanup(folder)
return posix
