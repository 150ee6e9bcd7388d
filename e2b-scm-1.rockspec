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
  ZLIB = { library = "z" },
}

build = {
  type = "builtin",
  modules = {
    e2b = "lua/e2b/init.lua",
    ["e2b.access"] = "lua/e2b/access.lua",
    ["e2b.attempts"] = "lua/e2b/attempts.lua",
    ["e2b.call"] = "lua/e2b/call.lua",
    ["e2b.check"] = "lua/e2b/check.lua",
    ["e2b.client"] = "lua/e2b/client.lua",
    ["e2b.compat"] = "lua/e2b/compat.lua",
    ["e2b.config"] = "lua/e2b/config.lua",
    ["e2b.describe"] = "lua/e2b/describe.lua",
    ["e2b.errors"] = "lua/e2b/errors.lua",
    ["e2b.exchange"] = "lua/e2b/exchange.lua",
    ["e2b.format"] = "lua/e2b/format.lua",
    ["e2b.gate"] = "lua/e2b/gate.lua",
    ["e2b.group"] = "lua/e2b/group.lua",
    ["e2b.help"] = "lua/e2b/help.lua",
    ["e2b.lazy"] = "lua/e2b/lazy.lua",
    ["e2b.loop"] = "lua/e2b/loop/init.lua",
    ["e2b.loop.blocking"] = "lua/e2b/loop/blocking.lua",
    ["e2b.loop.driver"] = "lua/e2b/loop/driver.lua",
    ["e2b.options"] = "lua/e2b/options.lua",
    ["e2b.paginator"] = "lua/e2b/paginator.lua",
    ["e2b.queue"] = "lua/e2b/queue.lua",
    ["e2b.repl"] = "lua/e2b/repl.lua",
    ["e2b.retry"] = "lua/e2b/retry.lua",
    ["e2b.sandbox"] = "lua/e2b/sandbox.lua",
    ["e2b.sandbox_base"] = "lua/e2b/sandbox_base.lua",
    ["e2b.sandbox_book"] = "lua/e2b/sandbox_book.lua",
    ["e2b.sandbox_calls"] = "lua/e2b/sandbox_calls.lua",
    ["e2b.sandbox_create"] = "lua/e2b/sandbox_create.lua",
    ["e2b.sandbox_list"] = "lua/e2b/sandbox_list.lua",
    ["e2b.sandbox_reach"] = "lua/e2b/sandbox_reach.lua",
    ["e2b.sandbox_scope"] = "lua/e2b/sandbox_scope.lua",
    ["e2b.sandbox_start"] = "lua/e2b/sandbox_start.lua",
    ["e2b.scheduler"] = "lua/e2b/scheduler.lua",
    ["e2b.schema"] = "lua/e2b/schema.lua",
    ["e2b.server"] = "lua/e2b/server/init.lua",
    ["e2b.server.app"] = "lua/e2b/server/app.lua",
    ["e2b.server.clock"] = "lua/e2b/server/clock.lua",
    ["e2b.server.control"] = "lua/e2b/server/control.lua",
    ["e2b.server.http"] = "lua/e2b/server/http.lua",
    ["e2b.server.json"] = "lua/e2b/server/json.lua",
    ["e2b.server.limits"] = "lua/e2b/server/limits.lua",
    ["e2b.server.main"] = "lua/e2b/server/main.lua",
    ["e2b.server.platform"] = "lua/e2b/server/platform/init.lua",
    ["e2b.server.platform.idempotency"] = "lua/e2b/server/platform/idempotency.lua",
    ["e2b.server.platform.lifecycle"] = "lua/e2b/server/platform/lifecycle.lua",
    ["e2b.server.platform.listing"] = "lua/e2b/server/platform/listing.lua",
    ["e2b.server.platform.metrics"] = "lua/e2b/server/platform/metrics.lua",
    ["e2b.server.platform.network"] = "lua/e2b/server/platform/network.lua",
    ["e2b.server.platform.page"] = "lua/e2b/server/platform/page.lua",
    ["e2b.server.platform.sandboxes"] = "lua/e2b/server/platform/sandboxes.lua",
    ["e2b.server.platform.snapshots"] = "lua/e2b/server/platform/snapshots.lua",
    ["e2b.server.platform.store"] = "lua/e2b/server/platform/store.lua",
    ["e2b.server.platform.templates"] = "lua/e2b/server/platform/templates.lua",
    ["e2b.server.platform.traffic"] = "lua/e2b/server/platform/traffic.lua",
    ["e2b.server.platform.volumes"] = "lua/e2b/server/platform/volumes.lua",
    ["e2b.server.reply"] = "lua/e2b/server/reply.lua",
    ["e2b.server.requirements"] = "lua/e2b/server/requirements.lua",
    ["e2b.server.router"] = "lua/e2b/server/router.lua",
    ["e2b.server.text"] = "lua/e2b/server/text.lua",
    ["e2b.server.validation"] = "lua/e2b/server/validation.lua",
    ["e2b.suggest"] = "lua/e2b/suggest.lua",
    ["e2b.table_view"] = "lua/e2b/table_view.lua",
    ["e2b.tasks"] = "lua/e2b/tasks.lua",
    ["e2b.template"] = "lua/e2b/template.lua",
    ["e2b.timers"] = "lua/e2b/timers.lua",
    ["e2b.tools"] = "lua/e2b/tools.lua",
    ["e2b.version"] = "lua/e2b/version.lua",
    ["e2b.wait"] = "lua/e2b/wait.lua",
    ["e2b.whose"] = "lua/e2b/whose.lua",
    ["e2b.core"] = {
      sources = {
        "csrc/answer.c",
        "csrc/calls.c",
        "csrc/drive.c",
        "csrc/easy.c",
        "csrc/engine.c",
        "csrc/explain.c",
        "csrc/json.c",
        "csrc/module.c",
        "csrc/news.c",
        "csrc/poller.c",
        "csrc/process.c",
        "csrc/query.c",
        "csrc/receive.c",
        "csrc/request.c",
        "csrc/result.c",
        "csrc/shape.c",
        "csrc/slot.c",
        "csrc/socket.c",
        "csrc/stream.c",
        "csrc/target.c",
        "csrc/timefmt.c",
        "csrc/transfer.c",
        "csrc/unshape.c",
        "csrc/url.c",
      },
      defines = { "_GNU_SOURCE" },
      incdirs = { "$(CURL_INCDIR)", "$(ZLIB_INCDIR)" },
      libdirs = { "$(CURL_LIBDIR)", "$(ZLIB_LIBDIR)" },
      libraries = { "curl", "z" },
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
