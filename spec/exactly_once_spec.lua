-- Sandbox.create with exactly_once: whatever is cut, never two sandboxes, and none that nobody knows of.
local cutter = require("spec.support.cutter")
local peer = require("spec.support.peer")
local platform = require("spec.support.platform")
local support = require("spec.support.support")
local e2b = require("e2b")
local once = require("e2b.sandbox_once")
local tokens = require("e2b.sandbox_token")

local raises = platform.raises
local KEY = "e2b_lua_token"

describe("a create with exactly_once", function()
  local here, server, between, client, Sandbox
  local after, pause = once.AFTER, tokens.PAUSE

  local function connect(options)
    between = cutter.start(server)
    local all = { sandbox_url = server.url }
    for name, value in pairs(options or {}) do all[name] = value end
    client = platform.client_of({ url = between.url, api_key = server.api_key }, all)
    Sandbox = client.Sandbox
  end

  before_each(function()
    here = platform.start()
    server = here.server
    connect()
    once.AFTER = 0.7 * support.slack
  end)
  after_each(function()
    once.AFTER, tokens.PAUSE = after, pause
    here:stop()
    between:stop()
  end)
  teardown(function() support.cleanup() end)

  local function options(case, more)
    local opts = { exactly_once = true, request_timeout = 0.8 * support.slack, metadata = { case = case } }
    for name, value in pairs(more or {}) do opts[name] = value end
    return opts
  end

  -- What is on the server, by case: ids. Asked for directly, and raw.
  local function on_server()
    local by_case = {}
    for _, row in ipairs(assert(here.client:request("GET", "/sandboxes"))) do
      local case = row.metadata and row.metadata.case or "none"
      by_case[case] = by_case[case] or {}
      table.insert(by_case[case], row.sandboxID)
    end
    return by_case
  end

  local function count(case)
    return #(on_server()[case] or {})
  end

  -- How often the create of each case was sent.
  local function sent()
    local by_case = {}
    for _, event in ipairs(between:events("create")) do by_case[event.case] = (by_case[event.case] or 0) + 1 end
    return by_case
  end

  it("looks until ten seconds after the deadline", function()
    assert.equal(10, after)
  end)

  it("says that it was created when the answer comes, and shows no mark", function()
    local sandbox = assert(Sandbox.create("base", options("pass")))
    assert.is_false(sandbox.adopted)
    assert.same({ case = "pass" }, sandbox.metadata)
    assert.same({ case = "pass" }, assert(Sandbox.get_info(sandbox.sandbox_id)).metadata)
    assert.same({ case = "pass" }, assert(Sandbox.list():all())[1].metadata)
    assert.same({ case = "pass" }, assert(sandbox:get_info()).metadata)
    local raw = assert(here.client:request("GET", "/sandboxes/" .. sandbox.sandbox_id))
    assert.matches("^" .. ("%x"):rep(32) .. "$", raw.metadata[KEY])
    assert.is_nil(assert(Sandbox.create()).adopted)
  end)

  it("is never two, wherever the connection is cut, and one when it answers one", function()
    local lengths
    assert(Sandbox.create("base", options("respond-0000")))
    lengths = between:events("lengths")[1]
    assert.is_true(lengths.request > 300 and lengths.answer > 200)
    local function cut(cases, seconds, check)
      local results = e2b.map(cases, function(case)
        return Sandbox.create("base", options(case, { request_timeout = seconds * support.slack }))
      end, { limit = 100 })
      local there, times = on_server(), sent()
      for i, case in ipairs(cases) do
        local ids = there[case] or {}
        assert.equal(1, times[case], case)
        assert.is_true(#ids <= 1, case .. ": two sandboxes")
        check(case, results[i], ids)
      end
    end

    local without, with = {}, {}
    for k = 0, lengths.request - 1 do without[k + 1] = ("request-%04d"):format(k) end
    with[1] = ("request-%04d"):format(lengths.request)
    for k = 1, lengths.answer do with[k + 1] = ("respond-%04d"):format(k) end
    cut(with, 10, function(case, result, ids)
      assert.is_true(result.ok, case .. ": " .. tostring(result.message))
      assert.same({ result.value.sandbox_id }, ids, case)
      assert.equal(case ~= ("respond-%04d"):format(lengths.answer), result.value.adopted, case)
    end)
    tokens.PAUSE = 0.5 -- there are hundreds of them, and nothing to be found
    cut(without, 1, function(case, result, ids)
      assert.equal(0, #ids, case)
      assert.is_false(result.ok, case)
      assert.equal("maybe", result.err.sent, case)
      assert.matches("^" .. ("%x"):rep(32) .. "$", result.err.token)
    end)
  end)

  it("waits for a sandbox that is made only after the cut", function()
    once.AFTER = 8 * support.slack -- it ends when it is found
    local results = e2b.map({ "late-50", "late-200", "late-500", "late-800" }, function(case)
      return Sandbox.create("base", options(case))
    end)
    for _, result in ipairs(results) do
      assert(result.ok, result.message)
      assert.is_true(result.value.adopted)
      assert.equal(1, count(result.value.metadata.case))
      assert.equal(1, sent()[result.value.metadata.case])
    end
  end)

  it("gives a token for one that comes later still, by which reap ends it", function()
    once.AFTER = 0.7
    local opts = options("late-2500", { request_timeout = 0.3 })
    local seconds, sandbox, message, err = support.timed(Sandbox.create, "base", opts)
    assert.is_nil(sandbox)
    assert.equal("maybe", err.sent)
    assert.is_false(err.retryable)
    assert.is_true(seconds > 0.4 and seconds < 1 + support.tolerance, seconds .. " s")
    assert.truthy(message:find("e2b.reap(err.token)", 1, true), message)
    assert.equal(0, count("late-2500"))
    assert.same({ {}, {}, {} }, { client:reap(err.token) })
    between:wait_event("late")
    local id = on_server()["late-2500"][1]
    local killed, failed, left = client:reap(err.token)
    assert.same({ { id }, {}, {} }, { killed, failed, left })
    assert.equal(0, count("late-2500"))
    assert.same({ {}, {}, {} }, { client:reap(err.token) })
  end)

  it("keeps one and kills the surplus when something in between sent it twice", function()
    local sandbox = assert(Sandbox.create("base", options("twice")))
    assert.is_true(sandbox.adopted)
    assert.same({ sandbox.sandbox_id }, on_server().twice)
    local killed = 0
    for _, request in ipairs(server:requests()) do
      if request.method == "DELETE" and request.status == 204 then killed = killed + 1 end
    end
    assert.equal(1, killed)
  end)

  for _, how in ipairs({ "down", "hang" }) do
    it("stands a service that is gone for a while (" .. how .. ")", function()
      once.AFTER = 8 * support.slack
      local case = how .. "-700"
      local sandbox = assert(Sandbox.create("base", options(case)))
      assert.is_true(sandbox.adopted)
      assert.same({ sandbox.sandbox_id }, on_server()[case])
    end)
  end

  it("takes nobody else's sandbox for its own where filters are ignored", function()
    server:set({ ignore_filters = true })
    for _ = 1, 3 do assert(here.Sandbox.create("base", { metadata = { case = "stranger" } })) end
    local other = assert(Sandbox.create("base", options("pass")))
    local sandbox = assert(Sandbox.create("base", options("respond-0")))
    assert.is_true(sandbox.adopted)
    assert.same({ sandbox.sandbox_id }, on_server()["respond-0"])
    assert.not_equal(other.sandbox_id, sandbox.sandbox_id)
    local _, _, err = Sandbox.create("base", options("request-5"))
    assert.equal("maybe", err.sent)
    assert.same({ {}, {}, {} }, { client:reap(err.token) })
    assert.equal(3, count("stranger"))
  end)

  it("works on a service that knows only the old routes", function()
    server:set({ no_v2 = 404 })
    assert(Sandbox.create()):kill() -- from here on it is known
    local sandbox = assert(Sandbox.create("base", options("respond-0")))
    assert.is_true(sandbox.adopted)
    assert.same({ sandbox.sandbox_id }, on_server()["respond-0"])
    assert.is_true(sandbox:expires_in() > 200)
  end)

  it("makes an adopted sandbox as good as a created one", function()
    local sandbox = assert(Sandbox.create("base", options("respond-9", {
      timeout = 100, network = { allow_public_traffic = false },
    })))
    assert.is_true(sandbox.adopted)
    assert.equal("running", sandbox.state)
    platform.near(100, sandbox:expires_in(), 2)
    assert.same({ case = "respond-9" }, sandbox.metadata)
    assert.is_string(sandbox.template_id)
    assert.is_string(sandbox.sandbox_domain)
    assert.is_string(sandbox:traffic_access_token())
    assert.equal("hi\n", assert(sandbox.commands:run("echo hi")).stdout)
    assert.is_true(sandbox:kill())
  end)

  it("doesn't look where nothing can have been made", function()
    local _, _, err = Sandbox.create("no-such-template", options("pass"))
    assert.equal("not_found", err.kind)
    assert.equal("yes", err.sent)
    assert.is_nil(err.token)
    local nobody = platform.client_of({ url = "http://127.0.0.1:" .. peer.free_port() }, { retries = 0 })
    _, _, err = nobody.Sandbox.create("base", options("pass"))
    assert.equal("no", err.sent)
    assert.is_nil(err.token)
    assert.equal(0, between:count("call"))
  end)

  it("doesn't look on with a key that is refused", function()
    local other = platform.client_of({ url = between.url, api_key = "wrong" })
    once.AFTER = 60
    local seconds, _, message, err = support.timed(other.Sandbox.create, "base", options("request-5"))
    assert.equal("maybe", err.sent)
    assert.is_true(seconds < 5 * support.slack)
    assert.matches("the last time: ", message)
    support.assert_no_secret(server.api_key, message, err)
  end)

  it("is looked for as well when the request was cut while it was sent", function()
    local own = platform.client_of({ url = between.url, api_key = server.api_key },
      { headers = { ["X-Case"] = "part-5000" } })
    local _, _, err = own.Sandbox.create("base", options("x", { metadata = { big = ("x"):rep(4 * 1024 * 1024) } }))
    assert.equal("maybe", err.sent)
    assert.is_string(err.token)
    assert.same({}, on_server())
  end)

  it("kills the sandbox again when its task is cancelled", function()
    for _, case in ipairs({ "pass", "respond-0", "late-200" }) do
      server:set({ latency = 0.1 })
      local task = e2b.spawn(function() return Sandbox.create("base", options(case)) end)
      e2b.sleep(0.05)
      task:cancel()
      local sandbox, message, err = task:wait()
      assert.is_nil(sandbox)
      assert.equal("cancelled", err.kind)
      assert.equal("no", err.sent, case)
      assert.is_nil(err.token)
      assert.matches("it was killed again", message)
      assert.equal(1, sent()[case])
    end
    server:set({ latency = false })
    assert.same({}, on_server())
    between:forget()
    local task = e2b.spawn(function()
      e2b.sleep(1)
      return Sandbox.create("base", options("pass"))
    end)
    e2b.sleep(0.01)
    task:cancel()
    assert.equal("no", select(3, task:wait()).sent)
    assert.equal(0, between:count("create"))
  end)

  it("kills it again when Ctrl-C came where that is no error, as in Neovim", function()
    local blocking = require("e2b.loop.blocking")
    local pressed = false
    between:stop()
    connect({ loop = {
      may_wait = blocking.may_wait,
      await = function(start, deadline)
        if pressed then return blocking.await(start, deadline) end
        pressed = true
        blocking.await(start, require("e2b.core").now() + 0.1)
        return nil, "cancelled"
      end,
    } })
    server:set({ latency = 0.3 })
    local sandbox, message, err = Sandbox.create("base", options("pass", { request_timeout = 10 }))
    server:set({ latency = false })
    assert.is_nil(sandbox)
    assert.equal("cancelled", err.kind)
    assert.matches("it was killed again", message)
    assert.same({}, on_server())
  end)

  it("names the token when an error comes first, as Ctrl-C in a script", function()
    local blocking, loops = require("e2b.loop.blocking"), require("e2b.loop.init")
    local pressed, report, said = false, loops.report, nil
    between:stop()
    connect({ loop = {
      may_wait = blocking.may_wait,
      await = function(start, deadline)
        if pressed then return blocking.await(start, deadline) end
        pressed = true
        blocking.await(function(done)
          start(done)
          return function() end
        end, require("e2b.core").now() + 0.1)
        error("interrupted!", 0)
      end,
    } })
    server:set({ latency = 0.3 })
    loops.report = function(text) said = text end
    local ok, raised = pcall(Sandbox.create, "base", options("pass"))
    loops.report = report
    server:set({ latency = false })
    assert.same({ false, "interrupted!" }, { ok, raised })
    local token = said:match('e2b.reap%("(%x+)"%) ends it')
    support.wait_for(function() return count("pass") == 1 end)
    assert.equal(1, #client:reap(token))
    assert.same({}, on_server())
  end)

  it("is killed by with, adopted or not", function()
    assert.equal(7, Sandbox.with(options("respond-0"), function(sandbox)
      assert.is_true(sandbox.adopted)
      return 7
    end))
    assert.same({}, on_server())
  end)

  it("raises for what isn't possible", function()
    raises("exactly_once must be a boolean, got string", Sandbox.create, "base", { exactly_once = "yes" })
    raises("metadata.e2b_lua_token is another sandbox's", Sandbox.create, "base",
      { metadata = { [KEY] = ("0a"):rep(16) } })
    raises("e2b.reap takes a token", client.reap, client, "x")
    raises("e2b.reap takes a token", e2b.reap, {})
    raises("e2b.reap() needs a journal", client.reap, client)
    raises("write client:reap(token), with a colon", client.reap)
    raises("write e2b.reap(token)", e2b.reap, e2b)
    assert.equal(0, between:count("create"))
  end)
end)
