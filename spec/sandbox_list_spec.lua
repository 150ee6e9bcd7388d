-- Sandbox.list: pages, filters, and services that do less than they should.
local support = require("spec.support.support")
local peer = require("spec.support.peer")
local e2b = require("e2b")
local local_server = require("e2b.server")

local server, client, Sandbox

local function client_of(some, more)
  local opts = { api_url = some.url, sandbox_url = some.url, api_key = some.api_key or "key", getenv = function() end }
  for name, value in pairs(more or {}) do opts[name] = value end
  return assert(e2b.client(opts))
end

local function ids(list)
  local found = {}
  for i, sandbox in ipairs(list) do found[i] = sandbox.sandbox_id end
  return found
end

local function raises(pattern, fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok, "nothing was raised")
  assert.matches(pattern, message, 1, true)
  assert.matches("sandbox_list_spec.lua:%d+: ", message)
end

describe("Sandbox.list", function()
  local first, second, third -- in the order they were made; the second is paused

  setup(function()
    server = local_server.start()
    client = client_of(server)
    Sandbox = client.Sandbox
    first = assert(Sandbox.create("base", { metadata = { job = "1", user = "a b&c=d%" } }))
    second = assert(Sandbox.create("code-interpreter-v1", { metadata = { job = "2" } }))
    assert(second:pause())
    third = assert(Sandbox.create("base", { metadata = { job = "1" } }))
  end)

  teardown(function()
    e2b.close()
    server:stop()
  end)

  before_each(function() server:clear() end)

  local function all(opts)
    return ids(assert(Sandbox.list(opts):all()))
  end

  it("lists running and paused ones, newest first", function()
    assert.same({ third.sandbox_id, second.sandbox_id, first.sandbox_id }, all())
    assert.same({ first.sandbox_id, second.sandbox_id, third.sandbox_id }, all({ order = "asc" }))
    assert.same({ third.sandbox_id, second.sandbox_id, first.sandbox_id }, all({ order = "desc", state = {} }))
  end)

  it("filters", function()
    assert.same({ third.sandbox_id, first.sandbox_id }, all({ state = { "running" } }))
    assert.same({ second.sandbox_id }, all({ state = { "paused" } }))
    assert.equal(3, #all({ state = { "running", "paused" } }))
    assert.same({ third.sandbox_id, first.sandbox_id }, all({ metadata = { job = "1" } }))
    assert.same({ first.sandbox_id }, all({ metadata = { job = "1", user = "a b&c=d%" } }))
    assert.same({}, all({ metadata = { job = "3" } }))
    assert.equal(3, #all({ metadata = {} }))
    assert.same({ second.sandbox_id }, all({ template = "code-interpreter-v1" }))
    assert.same({ second.sandbox_id }, all({ template = second.template_id }))
    assert.same({}, all({ template = "no-such-template" }))
    local info = assert(Sandbox.get_info(first.sandbox_id))
    assert.equal(3, #all({ started_after = info.started_at }))
    assert.equal(3, #all({ started_after = "2020-01-01T00:00:00Z" }))
    assert.same({}, all({ started_after = os.time() + 1000 }))
  end)

  it("finds a template by a name its sandboxes don't show", function()
    local sandbox = assert(Sandbox.create("data-worker"))
    server:clear()
    local found = all({ template = "local/data-worker" })
    assert(sandbox:kill())
    assert.same({ sandbox.sandbox_id }, found)
  end)

  it("makes Sandbox objects of its items", function()
    for sandbox in Sandbox.list({ state = { "running" }, metadata = { job = "1" } }) do
      assert.equal("running", sandbox.state)
      assert.is_nil(sandbox.estimated)
      assert.is_table(sandbox.metadata)
      assert.is_number(sandbox.started_at)
      assert.is_true(sandbox:expires_in() > 0)
      assert.equal(sandbox, sandbox:get_info())
    end
  end)

  it("pages by itself, or by hand", function()
    local seen = {}
    for sandbox in Sandbox.list({ limit = 1 }) do seen[#seen + 1] = sandbox.sandbox_id end
    assert.same(all(), seen)
    assert.equal(4, #server:requests())

    local pages = Sandbox.list({ limit = 2 })
    assert.is_true(pages.has_next)
    local page = assert(pages:next_items())
    assert.equal(2, #page)
    assert.is_true(pages.has_next)
    assert.equal(2, pages.total_running)
    local token = pages.next_token
    assert.is_string(token)
    page = assert(pages:next_items())
    assert.same({ first.sandbox_id }, ids(page))
    assert.is_false(pages.has_next)
    assert.is_nil(pages.next_token)
    raises("no more items", pages.next_items, pages)

    assert.same({ first.sandbox_id }, all({ limit = 2, next_token = token }))
  end)

  it("does nothing before the first item is asked for", function()
    local pages = Sandbox.list()
    assert.is_string(tostring(pages))
    assert.equal(0, #server:requests())
  end)

  it("prints pages as aligned tables", function()
    local text = tostring(assert(Sandbox.list():all()))
    local lines = {}
    for line in text:gmatch("[^\n]+") do lines[#lines + 1] = line end
    assert.equal(4, #lines)
    assert.matches("^sandbox +template +state +started +expires in$", lines[1])
    local time = "%d%d%d%d%-%d%d%-%d%d %d%d:%d%d:%d%d"
    assert.matches("^" .. third.sandbox_id .. "  base +running  " .. time .. " +%dm%d%ds$", lines[2])
    assert.matches("^" .. second.sandbox_id .. "  code%-interpreter%-v1  paused   " .. time .. "$", lines[3])
    assert.equal(#lines[2], #lines[1])
    assert.equal("no sandboxes", tostring(assert(Sandbox.list({ metadata = { job = "none" } }):all())))
  end)

  it("leaves the caller's options alone, and is not changed by them later", function()
    local opts = { metadata = { job = "1" }, limit = 1, request_timeout = 30 }
    local pages = Sandbox.list(opts)
    opts.metadata.job, opts.limit, opts.request_timeout = "2", 50, 0.000001
    assert.same({ third.sandbox_id, first.sandbox_id }, ids(assert(pages:all())))
  end)

  it("answers failures: all() and next_items() return them, for raises the message", function()
    server:set({ fail_next = { status = 500, path = "/v2/sandboxes" } })
    local pages = Sandbox.list()
    local list, message, err = pages:all()
    assert.is_nil(list)
    assert.is_string(message)
    assert.equal("server", err.kind)
    assert.equal("Sandbox.list", err.operation)
    assert.is_true(pages.has_next) -- it may be tried again
    assert.equal(3, #assert(pages:next_items()))

    server:set({ fail_next = { status = 500, path = "/v2/sandboxes" } })
    pages = Sandbox.list()
    local ok
    ok, message = pcall(function() for _ in pages do end end) -- luacheck: ignore 542
    assert.is_false(ok)
    assert.matches("Sandbox.list", message, 1, true)
    assert.equal("server", pages.err.kind)

    list, message, err = Sandbox.list({ next_token = "garbage" }):next_items()
    assert.is_nil(list)
    assert.is_string(message)
    assert.equal("invalid_argument", err.kind)
  end)

  it("raises what is wrong with the options", function()
    raises('state must be a table', Sandbox.list, { state = "running" })
    raises('it has "runing"', Sandbox.list, { state = { "runing" } })
    raises('write metadata.job = "1"', Sandbox.list, { metadata = { job = 1 } })
    raises('order must be "asc" or "desc", got "newest"', Sandbox.list, { order = "newest" })
    raises("(state and metadata are options themselves)", Sandbox.list, { query = { state = { "running" } } })
    raises("limit must be a whole number", Sandbox.list, { limit = 0 })
    raises("limit must be a whole number from 1 on, got \"10\"", Sandbox.list, { limit = "10" })
    raises("started_after must be seconds", Sandbox.list, { started_after = {} })
    raises("template must be a string that isn't empty", Sandbox.list, { template = "" })
    raises("next_token must be a string that isn't empty", Sandbox.list, { next_token = 5 })
    raises("'startedAfter'", Sandbox.list, { startedAfter = 5 })
  end)

  describe("on a service that ignores filters", function()
    setup(function() server:set({ ignore_filters = true }) end)
    teardown(function() server:set({ ignore_filters = false }) end)

    it("drops the rows that don't fit", function()
      assert.equal(3, #all())
      assert.same({ second.sandbox_id }, all({ state = { "paused" } }))
      assert.same({ third.sandbox_id, first.sandbox_id }, all({ metadata = { job = "1" } }))
      assert.same({}, all({ metadata = { job = "1", more = "x" } }))
      assert.same({ second.sandbox_id }, all({ template = "code-interpreter-v1" }))
      assert.same({}, all({ template = "no-such-template" }))
      assert.same({}, all({ started_after = os.time() + 1000 }))
    end)

    it("goes on over pages of which nothing is left", function()
      assert.same({ first.sandbox_id }, all({ limit = 1, metadata = { user = "a b&c=d%" } }))
      local seen = {}
      for sandbox in Sandbox.list({ limit = 1, state = { "paused" } }) do seen[#seen + 1] = sandbox.sandbox_id end
      assert.same({ second.sandbox_id }, seen)
    end)
  end)

  describe("on a service with only the old list", function()
    local old

    setup(function()
      server:set({ no_v2 = true })
      old = client_of(server).Sandbox
    end)
    teardown(function() server:set({ no_v2 = false }) end)

    it("lists running ones, newest first, by metadata", function()
      assert.same({ third.sandbox_id, first.sandbox_id }, ids(assert(old.list({ state = { "running" } }):all())))
      assert.same({ first.sandbox_id },
        ids(assert(old.list({ state = { "running" }, metadata = { user = "a b&c=d%" }, order = "desc" }):all())))
    end)

    it("says of everything else that it is unsupported", function()
      for _, opts in ipairs({
        {}, { state = { "paused" } }, { state = { "running", "paused" } }, { state = { "running" }, order = "asc" },
        { state = { "running" }, limit = 10 }, { state = { "running" }, template = "base" },
        { state = { "running" }, started_after = 1 }, { state = { "running" }, next_token = "x" },
      }) do
        local list, message, err = old.list(opts):all()
        assert.is_nil(list)
        assert.is_string(message)
        assert.equal("unsupported", err.kind)
      end
    end)
  end)

  it("keeps states and fields that it doesn't know, and takes tokens out of rows", function()
    local strange = peer.answers({ { status = 200, headers = { ["Content-Type"] = "application/json" }, body = [==[
      [{"sandboxID":"i1","templateID":"t","state":"hibernating","newField":{"a":1},"envdAccessToken":"secret-token"}]
    ]==] } })
    local page = assert(client_of(strange).Sandbox.list():next_items())
    strange:stop()
    assert.equal("hibernating", page[1].state)
    assert.same({ a = 1 }, page[1].extra.newField)
    assert.is_nil(page[1].envd_access_token)
    support.assert_no_secret("secret-token", page)
    assert.matches("hibernating", tostring(page), 1, true)
  end)

  it("is not caught by a service that ignores the cursor", function()
    local stuck = peer.answers({ { status = 200, body = "[]",
      headers = { ["Content-Type"] = "application/json", ["X-Next-Token"] = "same" } } })
    local list, _, err = client_of(stuck).Sandbox.list():all()
    assert.is_nil(list)
    assert.equal("protocol", err.kind)
    assert.is_true(stuck:count() <= 3)
    stuck:stop()
  end)

  it("fails when it can't be told which template is meant, and drops nothing", function()
    local sandbox = assert(Sandbox.create("data-worker"))
    for _, status in ipairs({ 401, 402, 429, 500, 503 }) do
      server:set({ fail_next = { status = status, path = "/templates/aliases" } })
      local pages = Sandbox.list({ template = "local/data-worker" })
      local list, message, err = pages:all()
      assert.is_nil(list, status)
      assert.is_string(message)
      assert.equal(status, err.status)
      assert.same({ sandbox.sandbox_id }, ids(assert(pages:all())), status)
    end
    for _, status in ipairs({ 400, 403, 404 }) do
      server:set({ fail_next = { status = status, path = "/templates/aliases" } })
      assert.same({}, all({ template = "local/data-worker" }), status)
    end
    server:set({ fail_next = { status = 404, path = "/templates/aliases", body = "<p>", content_type = "text/html" } })
    local list, _, err = Sandbox.list({ template = "local/data-worker" }):all()
    assert.is_nil(list)
    assert.equal("protocol", err.kind)
    assert(sandbox:kill())
  end)

  it("says what stands at a wrong address, and asks v1 only where v2 may be missing", function()
    local page = peer.answers({ { status = 404, headers = { ["Content-Type"] = "text/html" }, body = "<p>no</p>" } })
    local list, message, err = client_of(page).Sandbox.list():all()
    assert.is_nil(list)
    assert.equal("protocol", err.kind)
    assert.matches("E2B_API_URL", message, 1, true)
    assert.equal(1, page:count())
    page:stop()

    local plain = peer.answers({ { status = 404, headers = { ["Content-Type"] = "application/json",
      ["X-E2B-Trace-ID"] = "trace-1" }, body = '{"code":404,"message":"Not found"}' } })
    local there = client_of(plain)
    list, message, err = there.Sandbox.list():all()
    assert.is_nil(list)
    assert.equal("unsupported", err.kind)
    assert.equal("yes", err.sent)
    assert.equal(404, err.status)
    assert.equal("trace-1", err.request_id)
    assert.matches("E2B_API_URL", message, 1, true)
    for _, call in ipairs({
      function() return there.Sandbox.list({ state = { "running" } }):all() end,
      function() return there.Template.list():all() end,
      function() return e2b.check(there) end,
    }) do
      list, message, err = call()
      assert.is_nil(list)
      assert.equal("not_found", err.kind)
      assert.equal(message, err.message)
      assert.matches(plain.url .. " doesn't answer as E2B's API does (404: Not found); E2B_API_URL", message, 1, true)
      assert.is_nil(message:find("template", 1, true))
    end
    list, message = there.Sandbox.create()
    assert.is_nil(list)
    assert.matches(plain.url .. " (E2B_API_URL", message, 1, true)
    list, message = there.Sandbox.create("mine")
    assert.is_nil(list)
    assert.is_nil(message:find("E2B_API_URL", 1, true))
    plain:stop()
  end)

  it("that is looped over as a page raises with the right form", function()
    local pages = Sandbox.list()
    raises("write for _, item in ipairs(page) do", function() for _ in pages:next_items() do end end) -- luacheck: ignore
  end)

  it("leaks nothing", function()
    all({ limit = 1 })
    local before = support.snapshot()
    for _ = 1, 10 do all({ limit = 1 }) end
    support.assert_no_leak(before)
  end)
end)
