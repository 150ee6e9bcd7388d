-- The local server's lists of sandboxes: filters, order, pages, cursors.
local local_server = require("e2b.server")
local http_client = require("spec.support.http_client")
local text = require("e2b.server.text")

local function encode(value)
  return (value:gsub("[^%w_.~-]", function(char)
    return string.format("%%%02X", char:byte())
  end))
end

-- The layers of the service: each part, the pairs, the whole.
local function metadata(map)
  local pairs_of = {}
  for key, value in pairs(map) do
    pairs_of[#pairs_of + 1] = encode(encode(key)) .. "=" .. encode(encode(value))
  end
  return "metadata=" .. encode(table.concat(pairs_of, "&"))
end

describe("lists of sandboxes on the local server", function()
  local server, client, ids

  setup(function()
    server = local_server.start()
    client = http_client.new(server)
    ids = {}
    for i = 1, 5 do
      ids[i] = client:create({
        templateID = i == 5 and "desktop" or "base",
        metadata = { odd = tostring(i % 2), ["k &=%+ü😀"] = "v &=%+/" .. i },
      })
    end
    client:post("/sandboxes/" .. ids[2] .. "/pause")
  end)

  teardown(function()
    server:stop()
  end)

  local function list(query)
    local answer = client:get("/v2/sandboxes" .. (query and "?" .. query or ""))
    assert.equal(200, answer.status, answer.body)
    local found = {}
    for i, row in ipairs(answer.json) do
      for n, id in ipairs(ids) do
        if id == row.sandboxID then
          found[i] = n
        end
      end
    end
    return found, answer
  end

  local function refused(query, message)
    local answer = client:get("/v2/sandboxes?" .. query)
    assert.equal(400, answer.status, query)
    assert.equal(400, answer.json.code)
    if message then
      assert.matches(message, answer.json.message)
    end
  end

  it("are newest first and hold running and paused ones together", function()
    local found, answer = list()
    assert.same({ 5, 4, 3, 2, 1 }, found)
    assert.equal("4", answer.headers["x-total-running"])
    assert.is_nil(answer.headers["x-next-token"])
    assert.equal("paused", answer.json[4].state)
    assert.equal("desktop", answer.json[1].alias)
    for _, name in ipairs({ "templateID", "clientID", "startedAt", "endAt", "envdVersion" }) do
      assert.is_string(answer.json[1][name])
    end
    assert.is_nil(answer.json[1].envdAccessToken)
    assert.same({ 1, 2, 3, 4, 5 }, (list("order=asc")))
    assert.same({ 5, 4, 3, 2, 1 }, (list("order=desc")))
  end)

  it("are empty arrays for another team", function()
    local other = local_server.start()
    local answer = http_client.new(other):get("/v2/sandboxes")
    assert.equal("[]", answer.body)
    assert.equal("0", answer.headers["x-total-running"])
    other:stop()
  end)

  it("are filtered by state", function()
    local found, answer = list("state=paused")
    assert.same({ 2 }, found)
    assert.is_nil(answer.headers["x-total-running"])
    assert.same({ 5, 4, 3, 1 }, (list("state=running")))
    assert.same({ 5, 4, 3, 2, 1 }, (list("state=running,paused")))
    assert.same({ 5, 4, 3, 2, 1 }, (list("state=running%2Cpaused")))
    refused("state=dead", "allowed values")
    refused("state=")
    refused("state=running,")
  end)

  it("are filtered by metadata, all pairs exactly", function()
    local found, answer = list(metadata({ odd = "1" }))
    assert.same({ 5, 3, 1 }, found)
    assert.equal("3", answer.headers["x-total-running"])
    assert.same({ 3 }, (list(metadata({ odd = "1", ["k &=%+ü😀"] = "v &=%+/3" }))))
    assert.same({}, (list(metadata({ odd = "1", ["k &=%+ü😀"] = "v &=%+/2" }))))
    assert.same({}, (list(metadata({ Odd = "1" }))))
    assert.same({}, (list(metadata({ odd = "" }))))
    assert.same({ 5, 3, 1 }, (list("metadata=odd%3D1")))
    refused("metadata=", "metadata")
    refused("metadata=odd")
    refused("metadata=a%3Db%3Dc")
    refused("metadata=a%3D%25zz")
    refused("metadata=%zz")
  end)

  it("are filtered by start, to the microsecond and inclusive", function()
    local started = client:info(ids[3]).startedAt
    assert.same({ 5, 4, 3 }, (list("startedAfter=" .. encode(started))))
    local shifted = started:gsub("Z$", "+00:00")
    assert.same({ 5, 4, 3 }, (list("startedAfter=" .. encode(shifted))))
    local clock = require("e2b.server.clock")
    assert.same({ 5, 4 }, (list("startedAfter=" .. encode(clock.format(clock.parse(started) + 1)))))
    assert.same({}, (list("startedAfter=2999-01-01T00:00:00Z")))
    refused("startedAfter=yesterday", "startedAfter")
    refused("startedAfter=1700000000")
    refused("startedAfter=2026-01-01T00:00:00")
    -- A raw plus sign is a space.
    refused("startedAfter=2026-01-01T00:00:00+00:00")
  end)

  it("are filtered by template, by id or name", function()
    assert.same({ 5 }, (list("template=desktop")))
    assert.same({ 4, 3, 2, 1 }, (list("template=" .. client:info(ids[1]).templateID)))
    assert.same({}, (list("template=no-such-template")))
    assert.same({}, (list("template=other-team-secret")))
    refused("template=base:default", "tag")
  end)

  it("come in pages that join into the whole", function()
    for _, order in ipairs({ "asc", "desc" }) do
      local whole, paged, token = (list("order=" .. order)), {}, nil
      repeat
        local found, answer = list("limit=2&order=" .. order .. (token and "&nextToken=" .. encode(token) or ""))
        assert.is_true(#found <= 2)
        assert.equal("4", answer.headers["x-total-running"])
        for _, n in ipairs(found) do
          paged[#paged + 1] = n
        end
        token = answer.headers["x-next-token"]
        assert.is_true(#paged <= #whole)
      until not token
      assert.same(whole, paged)
    end
    local _, last = list("limit=5")
    assert.is_nil(last.headers["x-next-token"])
  end)

  it("have cursors bound to their order", function()
    local _, down = list("limit=1")
    local _, up = list("limit=1&order=asc")
    down, up = down.headers["x-next-token"], up.headers["x-next-token"]
    assert.matches("^%d+%-%d+%-%d+T[%d:.]+Z__i[a-z0-9]+$", text.unbase64url(down))
    assert.matches("__asc$", text.unbase64url(up))
    refused("nextToken=" .. encode(up), "different sort order")
    refused("order=asc&nextToken=" .. encode(down), "different sort order")
    for _, wrong in ipairs({ "x", "AAAA", "%25", encode(text.base64url("yesterday__i0")),
      encode(text.base64url("2026-01-01T00:00:00Z__i0__desc")) }) do
      refused("nextToken=" .. wrong, "next token")
    end
    assert.same({ 5, 4, 3, 2, 1 }, (list("nextToken=")))
  end)

  it("go on after the place of a sandbox that is gone", function()
    local extra = client:create()
    local _, answer = list("limit=1")
    local token = answer.headers["x-next-token"]
    client:delete("/sandboxes/" .. extra)
    assert.same({ 5, 4, 3, 2, 1 }, (list("nextToken=" .. encode(token))))
  end)

  it("have limits from 1 to 100", function()
    for _, wrong in ipairs({ "0", "101", "-1", "x", "1.5", "", "99999999999999999999" }) do
      refused("limit=" .. wrong, "limit")
    end
    assert.same({ 5, 4, 3, 2, 1 }, (list("limit=100")))
  end)

  it("are running ones only in v1, filtered by metadata", function()
    local answer = client:get("/sandboxes")
    assert.equal(4, #answer.json)
    assert.equal(ids[5], answer.json[1].sandboxID)
    assert.equal(3, #client:get("/sandboxes?" .. metadata({ odd = "1" })).json)
    assert.equal(400, client:get("/sandboxes?metadata=").status)
  end)

  it("can ignore every filter, as some compatible servers do", function()
    server:set({ ignore_filters = true })
    assert.same({ 5, 4, 3, 2, 1 }, (list("state=paused&template=desktop&" .. metadata({ odd = "1" }))))
    server:set({ ignore_filters = false })
    assert.same({ 2 }, (list("state=paused")))
  end)

  it("can be those of a server without v2 routes", function()
    local old = local_server.start({ no_v2 = 405 })
    local it_client = http_client.new(old)
    assert.equal(405, it_client:get("/v2/sandboxes").status)
    assert.equal(405, it_client:post("/v2/sandboxes", { templateID = "base" }).json.code)
    assert.equal(201, it_client:post("/sandboxes", { templateID = "base" }).status)
    assert.equal(1, #it_client:get("/sandboxes").json)
    old:set({ no_v2 = true })
    assert.equal(404, it_client:get("/v2/sandboxes").status)
    assert.equal(404, it_client:get("/v2/templates").status)
    old:set({ no_v2 = false })
    assert.equal(200, it_client:get("/v2/sandboxes").status)
    old:stop()
  end)
end)
