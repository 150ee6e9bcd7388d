-- The rest of the local server's platform API: templates, network, forks, snapshots, volumes, metrics, logs, and the
-- health check of sandboxes.
local local_server = require("e2b.server")
local http_client = require("spec.support.http_client")
local support = require("spec.support.support")
local json = require("e2b.server.json")

describe("the local server's platform API", function()
  local server, client

  setup(function()
    server = local_server.start()
    client = http_client.new(server)
  end)

  teardown(function()
    server:stop()
  end)

  local function status(answer, wanted, text)
    assert.equal(wanted, answer.status, answer.body)
    if wanted >= 400 then
      assert.equal(wanted, answer.json.code)
      assert.is_string(answer.json.message)
    end
    if text then
      assert.matches(text, answer.json.message)
    end
    return answer
  end

  local function put_network(id, body)
    return client:request("PUT", "/sandboxes/" .. id .. "/network", { body = body })
  end

  describe("templates", function()
    it("are listed newest first, by v1 and in pages by v2", function()
      local v1 = status(client:get("/templates"), 200)
      local names = {}
      for i, row in ipairs(v1.json) do
        names[i] = row.names[1]
      end
      assert.same({
        "local/data-worker", "mcp-gateway", "desktop", "code-interpreter-v1", "base", "local/legacy-python",
      }, names)
      local paged, token = {}, nil
      repeat
        local page = status(client:get("/v2/templates?limit=4" .. (token and "&nextToken=" .. token or "")), 200)
        for _, row in ipairs(page.json) do
          paged[#paged + 1] = row.names[1]
        end
        token = page.headers["x-next-token"]
        assert.is_true(#paged <= #names)
      until not token
      assert.same(names, paged)
      status(client:get("/v2/templates?limit=0"), 400)
      status(client:get("/v2/templates?nextToken=x"), 400)
    end)

    it("have all the fields of the schema, null where they may be", function()
      local spawned = client:info((client:create({ templateID = "desktop" }))).templateID
      for _, row in ipairs(status(client:get("/v2/templates"), 200).raw) do
        for _, name in ipairs({ "templateID", "buildID", "createdAt", "updatedAt", "envdVersion", "buildStatus" }) do
          assert.is_string(row[name])
        end
        for _, name in ipairs({ "cpuCount", "memoryMB", "diskSizeMB", "spawnCount", "buildCount" }) do
          assert.is_number(row[name])
        end
        assert.is_boolean(row.public)
        assert.is_true(json.is_array(row.aliases) and json.is_array(row.names))
        assert.equal(row.public, row.createdBy == json.null)
        if row.templateID == spawned then
          assert.is_string(row.lastSpawnedAt)
          assert.is_true(row.spawnCount >= 1)
        end
      end
    end)

    it("are found by id, name and alias", function()
      local base = status(client:get("/templates/base"), 200).json
      assert.equal("base", base.aliases[1])
      assert.equal("ready", base.builds[1].status)
      status(client:get("/templates/" .. base.templateID), 200)
      status(client:get("/templates/no-such-template"), 404)
      status(client:get("/templates/a%20b"), 400)
      assert.same({ templateID = base.templateID, public = true },
        status(client:get("/templates/aliases/base"), 200).json)
      status(client:get("/templates/aliases/local%2Fdata-worker%3Av2"), 200)
      status(client:get("/templates/aliases/data-worker:v9"), 404)
      status(client:get("/templates/aliases/other-team-secret"), 403)
      status(client:get("/templates/aliases/no-such-template"), 404)
      assert.equal("default", status(client:get("/templates/data-worker/tags"), 200).json[1].tag)
    end)

    it("are deleted by their owner when nothing runs on them", function()
      status(client:delete("/templates/base"), 403)
      status(client:delete("/templates/other-team-secret"), 404)
      local id = client:create({ templateID = "data-worker" })
      status(client:delete("/templates/data-worker"), 400, "sandboxes using it")
      client:delete("/sandboxes/" .. id)
      status(client:delete("/templates/data-worker"), 204)
      status(client:get("/templates/data-worker"), 404)
    end)
  end)

  describe("network updates", function()
    it("replace the egress part and keep the rest", function()
      local id = client:create({ network = { allowPublicTraffic = false, denyOut = json.array({ "1.1.1.1" }) } })
      status(put_network(id, { allowOut = json.array({ "8.8.8.8" }), allow_internet_access = false }), 204)
      local info = client:info(id)
      assert.same({ allowPublicTraffic = false, allowOut = { "8.8.8.8" } }, info.network)
      assert.is_false(info.allowInternetAccess)
      status(put_network(id, {}), 204)
      assert.same({ allowPublicTraffic = false }, client:info(id).network)
      status(put_network(id, { denyOut = json.array({ "x.example" }) }), 400)
      status(client:request("PUT", "/sandboxes/" .. id .. "/network"), 400)
      client:post("/sandboxes/" .. id .. "/pause")
      status(put_network(id, {}), 404)
    end)
  end)

  describe("forks", function()
    it("are new sandboxes like the source, with the route's own 15 seconds", function()
      local id = client:create({ metadata = { a = "b" } })
      local list = status(client:post("/sandboxes/" .. id .. "/fork", { count = 2 }), 201).json
      assert.equal(2, #list)
      assert.not_equal(list[1].sandbox.sandboxID, list[2].sandbox.sandboxID)
      local copy = client:info(list[1].sandbox.sandboxID)
      assert.same({ a = "b" }, copy.metadata)
      local clock = require("e2b.server.clock")
      assert.equal(15000000, clock.parse(copy.endAt) - clock.parse(copy.startedAt))
      assert.equal("running", client:info(id).state)
      list = status(client:request("POST", "/v2/sandboxes/" .. id .. "/fork"), 201).json
      copy = client:info(list[1].sandbox.sandboxID)
      assert.equal(300000000, clock.parse(copy.endAt) - clock.parse(copy.startedAt))
      status(client:post("/sandboxes/" .. id .. "/fork", { count = 0 }), 400)
      status(client:post("/sandboxes/" .. id .. "/fork", { count = 101 }), 400)
      client:post("/sandboxes/" .. id .. "/pause")
      status(client:post("/sandboxes/" .. id .. "/fork"), 409, "resume it first")
    end)

    it("fail one by one when the quota is reached", function()
      local narrow = local_server.start({ max_sandboxes = 4 })
      local narrow_client = http_client.new(narrow)
      local id = narrow_client:create()
      narrow_client:create()
      local answer = narrow_client:post("/sandboxes/" .. id .. "/fork", { count = 3 })
      assert.equal(201, answer.status)
      assert.is_table(answer.json[1].sandbox)
      assert.is_table(answer.json[2].sandbox)
      assert.equal(429, answer.json[3].error.code)
      assert.equal(400, narrow_client:post("/sandboxes/" .. id .. "/fork", { count = 4 }).status)
      narrow:stop()
    end)
  end)

  describe("snapshots", function()
    it("are made, listed, started from and deleted", function()
      local id = client:create()
      local plain = status(client:post("/sandboxes/" .. id .. "/snapshots", {}), 201)
      assert.matches("^[a-z0-9]+:default$", plain.json.snapshotID)
      assert.matches('"names":[]', plain.body, 1, true)
      local named = status(client:post("/sandboxes/" .. id .. "/snapshots", { name = "mine:v1" }), 201).json
      assert.same({ "local/mine:v1" }, named.names)
      local listed = status(client:get("/snapshots?sandboxID=" .. id), 200).json
      assert.equal(named.snapshotID, listed[1].snapshotID)
      assert.equal(2, #listed)
      assert.equal(1, #status(client:get("/snapshots?name=mine"), 200).json)
      assert.equal(1, #status(client:get("/snapshots?name=mine:v1"), 200).json)
      assert.equal("[]", client:get("/snapshots?name=mine:v2").body)
      assert.equal("[]", client:get("/snapshots?name=other").body)
      local first = status(client:get("/snapshots?limit=1"), 200)
      local second = client:get("/snapshots?limit=1&nextToken=" .. first.headers["x-next-token"])
      assert.equal(plain.json.snapshotID, second.json[1].snapshotID)
      local copy = client:create({ templateID = named.snapshotID })
      status(client:delete("/templates/mine"), 400)
      client:delete("/sandboxes/" .. copy)
      status(client:delete("/templates/" .. named.snapshotID:gsub(":", "%%3A")), 204)
      status(client:delete("/templates/" .. named.snapshotID:gsub(":", "%%3A")), 404)
      status(client:request("POST", "/sandboxes/" .. id .. "/snapshots"), 400)
      status(client:post("/sandboxes/" .. id .. "/snapshots", { name = "no name!" }), 400)
      status(client:post("/sandboxes/" .. id .. "/snapshots", { name = "another/mine" }), 400)
      client:post("/sandboxes/" .. id .. "/pause")
      status(client:post("/sandboxes/" .. id .. "/snapshots", {}), 404)
    end)
  end)

  describe("volumes", function()
    it("are names that sandboxes can mount", function()
      assert.equal("[]", status(client:get("/volumes"), 200).body)
      local volume = status(client:post("/volumes", { name = "data_1" }), 201).json
      status(client:post("/volumes", { name = "data_1" }), 400, "already exists")
      status(client:post("/volumes", { name = "da ta" }), 400)
      assert.same(volume, status(client:get("/volumes/" .. volume.volumeID), 200).json)
      assert.equal("data_1", client:get("/volumes").json[1].name)
      local mounts = json.array({ { name = "data_1", path = "/mnt/data" } })
      local id = client:create({ volumeMounts = mounts })
      assert.same({ { name = "data_1", path = "/mnt/data" } }, client:info(id).volumeMounts)
      client:post("/sandboxes/" .. id .. "/pause")
      assert.is_nil(client:info(id).volumeMounts)
      local function refused(list, text)
        status(client:post("/v2/sandboxes", { templateID = "base", volumeMounts = json.array(list) }), 400, text)
      end
      refused({ { name = "none", path = "/x" } }, "volume 'none' not found")
      refused({ { name = "data_1", path = "x" } }, "absolute")
      refused({ { name = "data_1", path = "/a/../b" } }, "components")
      refused({ { name = "data_1", path = "/a" }, { name = "data_1", path = "/a" } }, "#1: path '/a' is already used")
      status(client:get("/volumes/nope"), 400)
      status(client:delete("/volumes/" .. volume.volumeID), 204)
      status(client:delete("/volumes/" .. volume.volumeID), 404)
    end)
  end)

  describe("metrics and logs", function()
    it("have points within the life of the sandbox", function()
      local id = client:create()
      local points = support.wait_for(function()
        local list = status(client:get("/sandboxes/" .. id .. "/metrics"), 200).json
        return list[1] and list
      end, 3, "a first point")
      local point = points[1]
      assert.is_string(point.timestamp)
      assert.is_true(point.cpuUsedPct > 0 and point.memUsed < point.memTotal and point.diskUsed < point.diskTotal)
      assert.is_true(math.abs(point.timestampUnix - os.time()) < 5 * support.slack)
      assert.equal("[]", client:get("/sandboxes/" .. id .. "/metrics?end=1000").body)
      assert.equal("[]", client:get("/sandboxes/" .. id .. "/metrics?start=4000000000").body)
      status(client:get("/sandboxes/" .. id .. "/metrics?start=5&end=4"), 400)
      status(client:get("/sandboxes/" .. id .. "/metrics?start=-1"), 400)
      status(client:get("/sandboxes/" .. id .. "/metrics?start=x"), 400)
      local latest = status(client:get("/sandboxes/metrics?sandbox_ids=" .. id .. ",i00000000000000000000"), 200)
      assert.equal(2, latest.json.sandboxes[id].cpuCount)
      assert.is_nil(latest.json.sandboxes.i00000000000000000000)
      assert.equal('{"sandboxes":{}}', client:get("/sandboxes/metrics?sandbox_ids=i0").body)
      status(client:get("/sandboxes/metrics"), 400)
      status(client:get("/sandboxes/metrics?sandbox_ids=a,a"), 400, "duplicate")
      status(client:get("/sandboxes/metrics?sandbox_ids=" .. ("a,"):rep(101) .. "b"), 400, "100")
    end)

    it("have no log lines yet", function()
      local id = client:create()
      assert.equal('{"logEntries":[],"logs":[]}', client:get("/sandboxes/" .. id .. "/logs").body)
      assert.equal('{"logs":[]}', client:get("/v2/sandboxes/" .. id .. "/logs").body)
      status(client:get("/v2/sandboxes/" .. id .. "/logs?limit=1001"), 400)
      status(client:get("/v2/sandboxes/" .. id .. "/logs?direction=up"), 400)
      status(client:get("/v2/sandboxes/" .. id .. "/logs?search=" .. ("x"):rep(257)), 400)
    end)
  end)

  describe("health", function()
    local function health(id, port, path)
      return client:with_key(false):get(path or "/health", { ["E2b-Sandbox-Id"] = id, ["E2b-Sandbox-Port"] = port })
    end

    it("of the server needs no key", function()
      assert.equal(200, client:with_key(false):get("/health").status)
    end)

    it("of a sandbox is 204 while it runs and 502 in JSON after", function()
      local id = client:create()
      local up = health(id, "49983")
      assert.equal(204, up.status)
      assert.is_nil(up.headers["content-length"])
      client:post("/sandboxes/" .. id .. "/pause")
      local answer = status(health(id, "49983"), 502, "The sandbox was not found")
      assert.equal(id, answer.json.sandboxId)
      client:post("/v2/sandboxes/" .. id .. "/connect")
      assert.equal(204, health(id, "49983").status)
      client:delete("/sandboxes/" .. id)
      status(health(id, "49983"), 502)
      status(health("i00000000000000000000", "49983"), 502)
    end)

    it("needs both headers, and both well-formed", function()
      local id = client:create()
      local function refused(answer, text)
        assert.equal(400, answer.status)
        assert.equal("text/plain; charset=utf-8", answer.headers["content-type"])
        assert.equal(text, answer.body)
      end
      refused(health(id, nil), "missing header")
      refused(health(nil, "49983"), "missing header")
      refused(health(id, "0"), "Invalid sandbox port")
      refused(health(id, "x"), "Invalid sandbox port")
      refused(health(id, "65536"), "Invalid sandbox port")
      refused(health("NOPE", "49983"), "Invalid sandbox ID")
      refused(client:get("/health", { Host = "49983-" .. id }), "Invalid host")
      refused(client:get("/health", { Host = "49983-a_b.e2b.example" }), "Invalid sandbox ID")
    end)

    it("is routed by the host name too", function()
      local id = client:create()
      local host = "49983-" .. id .. ".e2b.example"
      assert.equal(204, client:with_key(false):get("/health", { Host = host }).status)
      assert.equal(204, client:get("/health", { Host = "49983-" .. id .. "-6532622b.e2b.example:80" }).status)
      client:delete("/sandboxes/" .. id)
      assert.equal(502, client:with_key(false):get("/health", { Host = host }).status)
    end)

    it("is all there is to be had without a token", function()
      local id = client:create({ network = { allowPublicTraffic = false } })
      status(health(id, "3000", "/"), 403, "traffic access token")
      local token = client:post("/v2/sandboxes/" .. id .. "/connect").json.trafficAccessToken
      local closed = client:get("/", { ["E2b-Sandbox-Id"] = id, ["E2b-Sandbox-Port"] = "3000",
        ["E2b-Traffic-Access-Token"] = token })
      assert.equal(3000, status(closed, 502, "port is not open").json.port)
      assert.equal("/init", status(health(id, "49983", "/init"), 404, "control plane").json.path)
      -- The platform API is not reached with these headers.
      status(health(id, "49983", "/v2/sandboxes"), 401)
    end)

    it("wakes a sandbox that was made so", function()
      local id = client:create({ autoPause = true, autoResume = { enabled = true }, timeout = 60 })
      client:post("/sandboxes/" .. id .. "/pause")
      assert.equal(204, health(id, "49983").status)
      local info = client:info(id)
      assert.equal("running", info.state)
      local clock = require("e2b.server.clock")
      assert.equal(300000000, clock.parse(info.endAt) - clock.parse(info.startedAt))
      -- Without its memory it would boot afresh, and traffic may not cause that.
      client:post("/sandboxes/" .. id .. "/pause", { memory = false })
      status(health(id, "49983"), 502)
      assert.equal("paused", client:info(id).state)
    end)
  end)
end)
