-- The local server's state machine: pause, resume, connect, time to live, with their 404s and 409s.
local local_server = require("e2b.server")
local http_client = require("spec.support.http_client")
local support = require("spec.support.support")
local clock = require("e2b.server.clock")

describe("the life of a sandbox on the local server", function()
  local server, client

  setup(function()
    server = local_server.start({ max_timeout = 7200 })
    client = http_client.new(server)
  end)

  teardown(function()
    server:stop()
  end)

  local function call(id, what, body)
    return client:post("/sandboxes/" .. id .. "/" .. what, body)
  end

  local function status(answer, wanted)
    assert.equal(wanted, answer.status, answer.body)
    if wanted >= 400 then
      assert.equal(wanted, answer.json.code)
    end
    return answer
  end

  local function left(id)
    return (clock.parse(client:info(id).endAt) - clock.now()) / 1000000
  end

  local function about(wanted, actual)
    assert.is_true(math.abs(wanted - actual) < 2 * support.slack, actual .. " is not about " .. wanted)
  end

  it("is paused once", function()
    local id = client:create()
    local before = client:info(id)
    status(call(id, "pause"), 204)
    local info = client:info(id)
    assert.equal("paused", info.state)
    assert.is_true(clock.parse(info.endAt) < clock.parse(before.endAt))
    about(0, left(id))
    assert.matches("already paused", status(call(id, "pause"), 409).json.message)
    status(client:request("POST", "/sandboxes/" .. client:create() .. "/pause"), 204)
    status(call(client:create(), "pause", { memory = false }), 204)
    status(call(id, "pause", { memory = "no" }), 400)
  end)

  it("is resumed with the route's own 15 seconds, or the timeout given", function()
    local id, made = client:create()
    local before = client:info(id)
    assert.matches("already running", status(call(id, "resume", {}), 409).json.message)
    call(id, "pause")
    local answer = status(client:request("POST", "/sandboxes/" .. id .. "/resume"), 201)
    assert.equal(id, answer.json.sandboxID)
    assert.equal(made.json.envdAccessToken, answer.json.envdAccessToken)
    about(15, left(id))
    local after = client:info(id)
    assert.equal("running", after.state)
    assert.is_true(clock.parse(after.startedAt) > clock.parse(before.startedAt))
    call(id, "pause")
    status(call(id, "resume", { timeout = 90, memory = false }), 201)
    about(90, left(id))
    call(id, "pause")
    status(call(id, "resume", { timeout = 0 }), 400)
    status(call(id, "resume", { timeout = 7201 }), 400)
  end)

  it("is extended by connect and never shortened", function()
    local id = client:create({ timeout = 100 })
    local v2 = "/v2/sandboxes/" .. id .. "/connect"
    local before = client:info(id).endAt
    assert.equal(id, status(client:post(v2, { timeout = 10 }), 200).json.sandboxID)
    status(client:post(v2, { timeout = 0 }), 200)
    assert.equal(before, client:info(id).endAt)
    -- No body, and an empty one, mean 300 seconds.
    status(client:request("POST", v2), 200)
    about(300, left(id))
    status(client:post(v2, { timeout = 1000 }), 200)
    about(1000, left(id))
    status(client:post(v2, { timeout = 7201 }), 400)
    status(client:post(v2, { timeout = "x" }), 400)
  end)

  it("is resumed by connect", function()
    local id = client:create()
    call(id, "pause")
    status(client:post("/v2/sandboxes/" .. id .. "/connect", {}), 201)
    about(300, left(id))
    call(id, "pause")
    status(call(id, "connect", { timeout = 50 }), 201)
    about(50, left(id))
    status(call(id, "connect", { timeout = 60, memory = true }), 200)
  end)

  it("needs a timeout in v1 connect", function()
    local id = client:create()
    status(call(id, "connect", {}), 400)
    status(client:request("POST", "/sandboxes/" .. id .. "/connect"), 400)
  end)

  it("is set to a time, longer or shorter, within the longest allowed", function()
    local id = client:create()
    local answer = status(call(id, "timeout", { timeout = 30 }), 204)
    assert.equal("", answer.body)
    about(30, left(id))
    status(call(id, "timeout", { timeout = 600 }), 204)
    about(600, left(id))
    -- Clamped, not refused.
    status(call(id, "timeout", { timeout = 100000 }), 204)
    local info = client:info(id)
    assert.equal(7200 * 1000000, clock.parse(info.endAt) - clock.parse(info.startedAt))
    status(call(id, "timeout", {}), 400)
    status(call(id, "timeout", { timeout = -1 }), 400)
    call(id, "pause")
    status(call(id, "timeout", { timeout = 30 }), 404)
  end)

  it("ends at once with timeout 0: killed, or paused when it was made so", function()
    local id = client:create()
    status(call(id, "timeout", { timeout = 0 }), 204)
    status(client:get("/sandboxes/" .. id), 404)
    id = client:create({ autoPause = true })
    status(call(id, "timeout", { timeout = 0 }), 204)
    assert.equal("paused", client:info(id).state)
  end)

  it("ends by itself when its time is over", function()
    local mortal, sleeper = client:create({ timeout = 1 }), client:create({ timeout = 1, autoPause = true })
    local start = support.now()
    support.wait_for(function()
      return client:get("/sandboxes/" .. mortal).status == 404
    end, 3, "the end of a sandbox")
    local seconds = support.now() - start
    assert.is_true(seconds > 0.9 and seconds < 1 + 0.5 * support.slack, seconds)
    -- It was made a moment later.
    support.wait_for(function() return client:info(sleeper).state == "paused" end, 1, "the pause")
  end)

  it("is refreshed by 15 seconds at least, and only extended", function()
    local id = client:create({ timeout = 5 })
    status(call(id, "refreshes", { duration = 1 }), 204)
    about(15, left(id))
    status(call(id, "refreshes", { duration = 100 }), 204)
    about(100, left(id))
    status(client:request("POST", "/sandboxes/" .. id .. "/refreshes"), 204)
    about(100, left(id))
    status(call(id, "refreshes", { duration = 3601 }), 400)
  end)

  it("answers 404 to every call once it is gone, and 400 to a bad id", function()
    local id = client:create()
    client:delete("/sandboxes/" .. id)
    for _, gone in ipairs({ { id, 404 }, { "i00000000000000000000", 404 }, { "NOT_AN_ID", 400 } }) do
      local name, wanted = gone[1], gone[2]
      status(call(name, "pause"), wanted)
      status(call(name, "resume"), wanted)
      status(call(name, "connect", { timeout = 10 }), wanted)
      status(client:post("/v2/sandboxes/" .. name .. "/connect"), wanted)
      status(call(name, "timeout", { timeout = 10 }), wanted)
      status(call(name, "refreshes"), wanted)
      status(call(name, "fork"), wanted)
      status(call(name, "snapshots", {}), wanted)
      status(client:request("PUT", "/sandboxes/" .. name .. "/network", { body = {} }), wanted)
      status(client:get("/sandboxes/" .. name .. "/metrics"), wanted)
      status(client:get("/v2/sandboxes/" .. name .. "/logs"), wanted)
    end
  end)

  it("may be killed while paused", function()
    local id = client:create()
    call(id, "pause")
    status(client:delete("/sandboxes/" .. id), 204)
    status(client:delete("/sandboxes/" .. id), 404)
  end)

  describe("in transition", function()
    before_each(function()
      server:set({ transition = 0.4 * support.slack })
    end)

    after_each(function()
      server:set({ transition = 0 })
    end)

    -- Sends a request and does not wait for its answer.
    local function begin(id, what)
      local connection = client:connect()
      connection:send("POST /sandboxes/" .. id .. "/" .. what .. " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        .. "Content-Type: application/json\r\nContent-Length: 2\r\nX-API-Key: " .. server.api_key .. "\r\n\r\n{}")
      support.wait_for(function()
        return call(id, "timeout", { timeout = 60 }).status == 409 or what == "snapshots"
      end, 2, "the transition")
      return connection
    end

    it("is shown as paused, refuses changes and lets connect wait", function()
      local id = client:create()
      local pausing = begin(id, "pause")
      assert.equal("paused", client:info(id).state)
      status(call(id, "timeout", { timeout = 60 }), 409)
      status(call(id, "fork"), 409)
      status(call(id, "snapshots", {}), 409)
      status(client:request("PUT", "/sandboxes/" .. id .. "/network", { body = {} }), 409)
      assert.matches(id, client:get("/v2/sandboxes?state=paused").body, 1, true)
      assert.is_nil(client:get("/v2/sandboxes?state=running").body:find(id, 1, true))
      local answer = status(client:post("/v2/sandboxes/" .. id .. "/connect"), 201)
      assert.equal(id, answer.json.sandboxID)
      assert.equal(204, http_client.read(pausing).status)
      pausing:close()
      assert.equal("running", client:info(id).state)
    end)

    it("joins a second pause and lets resume wait", function()
      local id = client:create()
      local pausing = begin(id, "pause")
      status(call(id, "pause"), 204)
      assert.equal(204, http_client.read(pausing).status)
      pausing:close()
      status(call(id, "pause"), 409)
      client:delete("/sandboxes/" .. id)
      id = client:create()
      pausing = begin(id, "pause")
      status(call(id, "resume", { timeout = 60 }), 201)
      pausing:close()
    end)

    it("can be killed", function()
      local id = client:create()
      local pausing = begin(id, "pause")
      status(client:delete("/sandboxes/" .. id), 204)
      assert.equal(404, http_client.read(pausing).status)
      pausing:close()
      status(client:get("/sandboxes/" .. id), 404)
    end)

    it("pauses by itself through the same states", function()
      local id = client:create({ autoPause = true })
      status(call(id, "timeout", { timeout = 0 }), 204)
      status(call(id, "timeout", { timeout = 10 }), 409)
      support.wait_for(function()
        return call(id, "pause").status == 409
      end, 3, "the pause")
    end)

    it("refuses resume and pause while a snapshot is taken", function()
      local id = client:create()
      local copying = begin(id, "snapshots")
      support.wait_for(function()
        return call(id, "fork").status == 409
      end, 2, "the snapshot")
      status(call(id, "resume"), 409)
      status(call(id, "pause"), 409)
      assert.equal("running", client:info(id).state)
      assert.equal(201, http_client.read(copying).status)
      copying:close()
      status(call(id, "timeout", { timeout = 10 }), 204)
    end)
  end)
end)
