-- Template.list against the local server.
local support = require("spec.support.support")
local peer = require("spec.support.peer")
local e2b = require("e2b")
local local_server = require("e2b.server")

describe("Template.list", function()
  local server, Template

  local function client_of(some)
    return assert(e2b.client({ api_url = some.url, api_key = some.api_key, getenv = function() end }))
  end

  setup(function()
    server = local_server.start()
    Template = client_of(server).Template
  end)

  teardown(function()
    e2b.close()
    server:stop()
  end)

  before_each(function() server:clear() end)

  it("gives templates as plain tables", function()
    local base
    for template in Template.list() do
      assert.is_string(template.template_id)
      assert.is_table(template.names)
      assert.is_table(template.aliases)
      if template.names[1] == "base" then base = template end
    end
    assert.is_table(base)
    assert.equal(2, base.cpu_count)
    assert.equal(512, base.memory_mb)
    assert.equal(5120, base.disk_size_mb)
    assert.is_true(base.public)
    assert.is_number(base.created_at)
    assert.is_nil(base.last_spawned_at)
    if math.type then assert.equal("integer", math.type(base.created_at)) end -- luacheck: ignore 143
    assert.matches("^Template%(" .. base.template_id .. ", base, 2 CPU, 512 MiB%)$", tostring(base))
  end)

  it("pages", function()
    local everything = assert(Template.list():all())
    server:clear()
    local pages = Template.list({ limit = 2 })
    local page = assert(pages:next_items())
    assert.equal(2, #page)
    local token = pages.next_token
    local rest = assert(pages:all())
    assert.equal(#everything - 2, #rest)
    assert.equal(everything[3].template_id, rest[1].template_id)
    local again = assert(Template.list({ limit = 2, next_token = token }):next_items())
    assert.equal(rest[1].template_id, again[1].template_id)
    for _, request in ipairs(server:requests()) do assert.equal("/v2/templates", request.path) end
  end)

  it("prints pages as aligned tables", function()
    local lines = {}
    for line in tostring(assert(Template.list():all())):gmatch("[^\n]+") do lines[#lines + 1] = line end
    assert.matches("^template +name +cpus +memory MiB +disk MiB +public +created$", lines[1])
    local at = lines[1]:find("name", 1, true)
    for i = 2, #lines do assert.matches("^[^ ]", lines[i]:sub(at)) end
  end)

  it("takes a template that has no name and nothing else", function()
    local bare = peer.answers({ { status = 200, body = '[{"templateID":"t1","createdBy":null,"newField":[1]}]' } })
    local page = assert(client_of({ url = bare.url, api_key = "key" }).Template.list():next_items())
    bare:stop()
    assert.same({}, page[1].names)
    assert.same({}, page[1].aliases)
    assert.same({ newField = { 1 } }, page[1].extra)
    assert.is_nil(page[1].created_by)
    assert.equal("Template(t1)", tostring(page[1]))
    assert.matches("\nt1$", tostring(page))
  end)

  it("falls back to the old list, which has no pages", function()
    server:set({ no_v2 = true })
    local old = client_of(server).Template
    assert.is_true(#assert(old.list():all()) > 1)
    local list, message, err = old.list({ limit = 1 }):all()
    server:set({ no_v2 = false })
    assert.is_nil(list)
    assert.is_string(message)
    assert.equal("unsupported", err.kind)
  end)

  it("raises what is wrong with the call", function()
    for pattern, call in pairs({
      ["write Template.list({"] = function() Template:list() end,
      ["limit must be a whole number"] = function() Template.list({ limit = 1.5 }) end,
      ["next_token must be a string"] = function() Template.list({ next_token = 1 }) end,
      ["'lmit'"] = function() Template.list({ lmit = 1 }) end,
    }) do
      local ok, message = pcall(call)
      assert.is_false(ok)
      assert.matches(pattern, message, 1, true)
      assert.matches("template_spec.lua:%d+: ", message)
    end
  end)

  it("answers failures", function()
    server:set({ fail_next = { status = 403, path = "/v2/templates" } })
    local list, _, err = Template.list():all()
    assert.is_nil(list)
    assert.equal("forbidden", err.kind)
    assert.equal("Template.list", err.operation)
  end)

  it("leaks nothing", function()
    Template.list():all()
    local before = support.snapshot()
    for _ = 1, 10 do Template.list({ limit = 3 }):all() end
    support.assert_no_leak(before)
  end)
end)
