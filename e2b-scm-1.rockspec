rockspec_format = "3.0"
package = "e2b"
version = "scm-1"

source = {
  url = "git+https://github.com/e2b-dev/e2b-lua.git",
  branch = "main",
}

description = {
  summary = "The Lua SDK for E2B sandboxes",
  detailed = [[
Start, list, pause, resume and kill E2B sandboxes from Lua: a C core on libcurl and lua-cjson with plain Lua objects on
top. One source for Lua 5.1, 5.2, 5.3, 5.4 and LuaJIT; many calls at once without threads or an event loop of its own.]],
  homepage = "https://github.com/e2b-dev/e2b-lua",
  license = "MIT",
  labels = { "sandbox", "cloud", "http", "api" },
}

dependencies = {
  "lua >= 5.1",
  "lua-cjson >= 2.1.0",
}

-- The library only: LuaRocks looks for libraries in Debian's multiarch folders, but not for headers, so asking for
-- curl/curl.h fails where it is installed. csrc says what to install when it really is missing.
external_dependencies = {
  CURL = { library = "curl" },
}

build = {
  type = "builtin",
  modules = {
    ["e2b.format"] = "lua/e2b/format.lua",
    ["e2b.sandbox_base"] = "lua/e2b/sandbox_base.lua",
    ["e2b.sandbox_book"] = "lua/e2b/sandbox_book.lua",
    ["e2b.sandbox_calls"] = "lua/e2b/sandbox_calls.lua",
    ["e2b.sandbox_create"] = "lua/e2b/sandbox_create.lua",
    ["e2b.sandbox_start"] = "lua/e2b/sandbox_start.lua",
    ["e2b.server.clock"] = "lua/e2b/server/clock.lua",
    ["e2b.server.json"] = "lua/e2b/server/json.lua",
    ["e2b.server.router"] = "lua/e2b/server/router.lua",
    ["e2b.server.text"] = "lua/e2b/server/text.lua",
    ["e2b.table_view"] = "lua/e2b/table_view.lua",
    ["e2b.core"] = {
      sources = {
        "csrc/json.c",
        "csrc/shape.c",
        "csrc/timefmt.c",
        "csrc/url.c",
      },
      defines = { "_GNU_SOURCE" },
      incdirs = { "$(CURL_INCDIR)" },
      libdirs = { "$(CURL_LIBDIR)" },
      libraries = { "curl" },
    },
  },
  install = {
    bin = { ["e2b-server"] = "bin/e2b-server" },
  },
}

test_dependencies = {
  "busted >= 2.0",
  "http >= 0.4",
}

test = {
  type = "busted",
}
