local client_module = require("e2b.client")
local core = require("e2b.core")
local tasks = require("e2b.tasks")
local version = require("e2b.version")
local support = require("spec.support.support")
local peer = require("spec.support.peer")

local KEY = "e2b_0123456789abcdef0123456789abcdef01234567"
local SANDBOX = '{"sandboxID":"i1","templateID":"base","surprise":7}'

local function client_of(server, opts)
  local copy = { getenv = function() end }
  for name, value in pairs(opts or {}) do copy[name] = value end
  copy.api_url = copy.api_url or server and server.url
  if copy.api_key == nil then copy.api_key = KEY end
  return client_module.new(copy)
end

local function get(client, opts)
  return client:call("sandbox_get", { sandbox_id = "i1" }, opts,
    { operation = "Sandbox.get_info", resource = "sandbox" })
end

local function create(client, opts)
  return client:call("sandbox_create", { body = { template = "base" } }, opts, { operation = "Sandbox.create" })
end

describe("client", function()
  local servers, before

  local function serve(answers, options)
    local server
    if type(answers) == "string" then
      server = peer.start(answers)
    else
      server = peer.answers(answers, options)
    end
    servers[#servers + 1] = server
    return server
  end

  before_each(function()
    servers = {}
    before = support.snapshot()
  end)
  after_each(function()
    for _, server in ipairs(servers) do server:stop() end
    support.assert_no_leak({ transfers = before.transfers, in_flight = before.in_flight })
  end)

  it("gives the value and what came with it", function()
    local server = serve({ {
      status = 200, body = SANDBOX,
      headers = { Date = "Fri, 02 Jan 2026 03:04:05 GMT", ["X-E2B-Trace-ID"] = "trace-1", ["X-Next-Token"] = "next",
        ["X-Total-Running"] = "12" },
    } })
    local value, meta, err = get(client_of(server))
    assert.is_nil(err)
    assert.equal("i1", value.sandbox_id)
    assert.equal(7, value.extra.surprise)
    assert.same({
      date = 1767323045, status = 200, request_id = "trace-1", next_token = "next", total_running = 12, attempts = 1,
    }, meta)
  end)

  it("sends the key, the User-Agent and the caller's headers", function()
    local server = serve({ { status = 200, body = SANDBOX } })
    assert.is_truthy((get(client_of(server, { headers = { ["X-Mine"] = "1" }, integration = "tool/1" }))))
    local request = server:requests()[1]
    assert.equal("GET", request.method)
    assert.equal("/sandboxes/i1", request.path)
    assert.same({ KEY, "e2b-lua-sdk/" .. version .. " tool/1", "1" }, {
      request.headers["x-api-key"], request.headers["user-agent"], request.headers["x-mine"],
    })
  end)

  it("lets the caller's headers win, the key's too", function()
    local server = serve({ { status = 200, body = SANDBOX } })
    assert.is_truthy((get(client_of(server, { headers = { ["x-api-key"] = "other", ["USER-agent"] = "mine" } }))))
    local request = server:requests()[1]
    assert.equal("other", request.headers["x-api-key"])
    assert.equal("mine", request.headers["user-agent"])
    server:forget()
    -- then no key of ours is needed
    assert.is_truthy((client_module.new({
      api_url = server.url, getenv = function() end, api_headers = { ["X-Api-Key"] = "other" },
    }):request("GET", "/")))
    assert.equal("other", server:requests()[1].headers["x-api-key"])
  end)

  describe("without a key that can be used", function()
    it("says where to get one and which variable to set, before anything is sent", function()
      local server = serve({ { status = 200, body = SANDBOX } })
      for _, opts in ipairs({ { api_key = "" }, { api_key = false } }) do
        local given = { api_url = server.url, getenv = function() end }
        if opts.api_key then given.api_key = opts.api_key end
        local client = client_module.new(given)
        local value, message, err = get(client)
        assert.is_nil(value)
        assert.equal("authentication", err.kind)
        assert.same({ "no", 0, false }, { err.sent, err.attempts, err.retryable })
        assert.is_nil(err.status)
        assert.matches("^Sandbox.get_info: ", message)
        assert.matches("E2B_API_KEY", message, 1, true)
        assert.matches("https://e2b.dev/dashboard", message, 1, true)
      end
      assert.equal(0, server:count("connection"))
    end)

    it("refuses one with control characters and does not show it", function()
      local server = serve({ { status = 200, body = SANDBOX } })
      for _, key in ipairs({ "hidden\r\nX-Evil: 1", "hidden\n", "\0hidden", "hid\127den" }) do
        local client = client_of(server, { api_key = key })
        local value, message, err = get(client)
        assert.is_nil(value)
        assert.equal("authentication", err.kind)
        assert.equal("no", err.sent)
        assert.matches("the API key contains a line end or another control character", message, 1, true)
        support.assert_no_secret({ "hidden", "hid\127den" }, message, err, client)
      end
      assert.equal(0, server:count("connection"))
    end)

    it("takes a key of any other look", function()
      local server = serve({ { status = 200, body = SANDBOX } })
      local client = client_of(server, { api_key = "sk-live 42!" })
      assert.is_truthy((get(client)))
      assert.equal("sk-live 42!", server:requests()[1].headers["x-api-key"])
      assert.equal("other", client.key_form)
      assert.equal("e2b", client_of(server).key_form)
    end)
  end)

  describe("with a function for the key", function()
    it("calls it at first use, once", function()
      local server = serve({ { status = 200, body = SANDBOX } })
      local calls = 0
      local client = client_of(server, { api_key = function()
        calls = calls + 1
        return KEY
      end })
      assert.equal(0, calls)
      assert.is_truthy((get(client)))
      assert.is_truthy((get(client)))
      assert.equal(1, calls)
      assert.equal(KEY, server:requests()[2].headers["x-api-key"])
    end)

    it("lets go of it when it has the key", function()
      local server = serve({ { status = 200, body = SANDBOX } })
      local weak = setmetatable({}, { __mode = "k" })
      local client
      do
        local key = KEY
        local function ask() return key end
        weak[ask] = true
        client = client_of(server, { api_key = ask })
      end
      support.collect()
      assert.is_truthy(next(weak))
      assert.is_truthy((get(client)))
      support.collect()
      assert.is_nil(next(weak))
    end)

    it("lets it wait, and calls it once for many calls at the same time", function()
      local server = serve({ { status = 200, body = SANDBOX } })
      local calls = 0
      local client = client_of(server, { api_key = function()
        calls = calls + 1
        tasks.sleep(0.05)
        return KEY
      end })
      local _, failed = tasks.map({ 1, 2, 3 }, function() return get(client) end)
      assert.equal(0, failed)
      assert.equal(1, calls)
      assert.equal(3, server:count())
    end)

    it("lets a signal through to the caller, without the words before it", function()
      local server = serve({ { status = 200, body = SANDBOX } })
      local calls = 0
      local client = client_of(server, { api_key = function()
        calls = calls + 1
        if calls == 1 then error("script.lua:3: interrupted!", 0) end
        if calls == 2 then error("hidden key interrupted!", 0) end
        return KEY
      end })
      local ok, raised = pcall(get, client)
      assert.is_false(ok)
      assert.equal("interrupted!", raised)
      local _, message, err = get(client)
      assert.equal("authentication", err.kind)
      support.assert_no_secret("hidden", message, err)
      assert.is_truthy((get(client)))
    end)

    it("turns its failure into an authentication error and asks it again the next time", function()
      local server = serve({ { status = 200, body = SANDBOX } })
      local answers = {
        function() error("hidden reason") end, function() end, function() return "" end, function() return 5 end,
        function() return "hid\nden" end, function() return KEY end,
      }
      local calls = 0
      local client = client_of(server, { api_key = function()
        calls = calls + 1
        return answers[calls]()
      end })
      for i = 1, 5 do
        local value, message, err = get(client)
        assert.is_nil(value)
        assert.equal("authentication", err.kind, tostring(i))
        assert.equal("no", err.sent)
        support.assert_no_secret({ "hidden", "hid\nden" }, message, err)
      end
      assert.equal(0, server:count("connection"))
      assert.is_truthy((get(client)))
    end)
  end)

  it("answers a variable that can't be used before anything is sent", function()
    local client = client_module.new({
      api_key = KEY, getenv = function(name) return name == "E2B_API_URL" and "api.e2b.app" or nil end,
    })
    local value, message, err = get(client)
    assert.is_nil(value)
    assert.equal("invalid_argument", err.kind)
    assert.matches("E2B_API_URL", message, 1, true)
  end)

  it("reads the environment when it is made, never at require", function()
    local result = support.run([[
      local asked = {}
      local real = os.getenv
      os.getenv = function(name) asked[#asked + 1] = name return real(name) end
      local client = require("e2b.client")
      print(#asked)
      client.new()
      print(#asked > 0)
      local count = #asked
      client.new():call("sandbox_get", { sandbox_id = "i1" })
      print(#asked == 2 * count)
    ]], { env = { E2B_API_KEY = false } })
    assert.equal("0\ntrue\ntrue\n", result.out, result.err)
  end)

  it("shows its key nowhere", function()
    local server = serve({ { status = 401, body = '{"code":401,"message":"bad key ' .. KEY .. '"}' } })
    local events = {}
    local client = client_of(server, { logger = function(event) events[#events + 1] = event end })
    local _, message, err = get(client)
    assert.equal("authentication", err.kind)
    support.assert_no_secret(KEY, client, message, err, events)
    for name in pairs(client) do error("a client has nothing to be listed, but " .. tostring(name)) end
    assert.equal(("Client(%s)"):format(server.url), tostring(client))
  end)

  it("is immutable", function()
    local client = client_of(nil, { api_url = "http://127.0.0.1:1" })
    for _, name in ipairs({ "debug", "request_timeout", "new_field" }) do
      local ok, message = pcall(function() client[name] = 1 end)
      assert.is_false(ok)
      assert.matches("^%S*client_spec%.lua:%d+: a client is immutable: field '" .. name .. "'", message)
    end
    assert.is_nil(client.new_field)
    assert.equal(60, client.request_timeout)
    assert.is_string(getmetatable(client))
  end)

  it("does not see what happens to the caller's tables afterwards", function()
    local server = serve({ { status = 200, body = SANDBOX } })
    local opts = { api_url = server.url, api_key = KEY, headers = { ["X-A"] = "1" }, getenv = function() end }
    local client = client_module.new(opts)
    opts.api_key, opts.headers["X-A"], opts.api_url = "changed", "changed", "http://127.0.0.1:1"
    local call_opts = setmetatable({ request_timeout = 5 }, { __newindex = function() error("changed") end })
    assert.is_truthy((get(client, call_opts)))
    assert.same({ KEY, "1" }, { server:requests()[1].headers["x-api-key"], server:requests()[1].headers["x-a"] })
  end)

  it("carries what it is given, made when first asked for", function()
    local made = 0
    local client = client_module.new({ api_key = KEY, getenv = function() end }, {
      Thing = function(owner)
        made = made + 1
        return { owner = owner }
      end,
    })
    assert.equal(0, made)
    assert.equal(client, client.Thing.owner)
    assert.equal(client.Thing, client.Thing)
    assert.equal(1, made)
    assert.is_nil(client.Nothing)
  end)

  it("is one of several that know nothing of each other", function()
    local one, two = serve({ { status = 200, body = SANDBOX } }), serve({ { status = 200, body = SANDBOX } })
    local a, b = client_of(one, { api_key = "key-a" }), client_of(two, { api_key = "key-b" })
    assert.is_truthy((get(a)))
    assert.is_truthy((get(b)))
    assert.equal("key-a", one:requests()[1].headers["x-api-key"])
    assert.equal("key-b", two:requests()[1].headers["x-api-key"])
  end)

  describe("request", function()
    it("reaches any endpoint, with the server's names", function()
      local server = serve({ { status = 200, body = '{"sandboxID":"i1","list":[1,null]}' }, { status = 204 } })
      local client = client_of(server)
      local value, meta = client:request("post", "/some/thing", {
        query = { limit = 5, name = "a b&c" }, body = { someName = { 1, 2 } },
      })
      assert.equal("i1", value.sandboxID)
      assert.equal(200, meta.status)
      local request = server:requests()[1]
      assert.equal("POST", request.method)
      assert.matches("^/some/thing%?", request.path)
      assert.matches("limit=5", request.path, 1, true)
      assert.matches("name=a%%20b%%26c", request.path)
      assert.same({ someName = { 1, 2 } }, core.json_decode(request.body))
      assert.equal("application/json", request.headers["content-type"])
      assert.is_true((client:request("DELETE", "/some/thing")))
    end)

    it("sends text as it is", function()
      local server = serve({ { status = 200, body = "{}" } })
      assert.is_truthy((client_of(server):request("PUT", "/x", { body = "a\0b", content_type = "text/plain" })))
      local request = server:requests()[1]
      assert.equal("a\0b", request.body)
      assert.equal("text/plain", request.headers["content-type"])
    end)

    it("takes GET and DELETE for calls that may be repeated, and others not", function()
      for method, attempts in pairs({ GET = 2, DELETE = 2, POST = 1, PUT = 1, PATCH = 1 }) do
        local server = serve({ { status = 200, body = "{}", cut = "before" }, { status = 200, body = "{}" } })
        local _, _, err = client_of(server):request(method, "/x")
        assert.equal(attempts == 1 and "network" or nil, err and err.kind, method)
        assert.equal(attempts, server:count(), method)
      end
    end)

    it("names method and path in its failure, without the query", function()
      local server = serve({ { status = 404, body = '{"code":404,"message":"nothing here"}' } })
      local _, message, err = client_of(server):request("GET", "/x?secret=1")
      assert.equal("not_found", err.kind)
      assert.equal("GET /x", err.operation)
      assert.matches("^GET /x: not found %(404: nothing here%)", message)
      assert.is_nil(message:find("secret", 1, true))
    end)

    it("raises on misuse, at the caller's line", function()
      local client = client_of(nil, { api_url = "http://127.0.0.1:1" })
      for _, args in ipairs({
        { nil, "/" }, { "GE T", "/" }, { "GET" }, { "GET", "x" }, { "GET", 5 }, { "GET", "/", "x" },
        { "GET", "/", { querry = {} } }, { "GET", "/", { query = "a=b" } }, { "GET", "/", { body = 5 } },
        { "GET", "/", { retries = -1 } },
      }) do
        local ok, message = pcall(function() client:request(args[1], args[2], args[3]) end)
        assert.is_false(ok)
        assert.matches("^%S*client_spec%.lua:%d+: ", message)
      end
    end)

    it("refuses what would break the request line", function()
      local server = serve({ { status = 200, body = "{}" } })
      local client = client_of(server)
      for _, path in ipairs({ "/a b", "/a\r\nHost: evil", "/a\0b" }) do
        local value, _, err = client:request("GET", path)
        assert.is_nil(value)
        assert.equal("invalid_argument", err.kind)
        assert.equal("no", err.sent)
      end
      assert.equal(0, server:count("connection"))
    end)
  end)

  it("says what is wrong with arguments, before anything is sent", function()
    local server = serve({ { status = 200, body = SANDBOX } })
    local value, message, err = client_of(server):call("sandbox_get", { sandbox_id = ".." }, nil,
      { operation = "Sandbox.get_info" })
    assert.is_nil(value)
    assert.equal("invalid_argument", err.kind)
    assert.same({ "no", 0, false, ".." }, { err.sent, err.attempts, err.retryable, err.sandbox_id })
    assert.matches("^Sandbox.get_info: ", message)
    assert.equal(0, server:count("connection"))
  end)

  describe("clocks", function()
    it("end a call that gets no answer, on time", function()
      local server = serve([[conn:read_request() conn:wait_closed()]])
      local took, value, message, err = support.timed(create, client_of(server, { request_timeout = 0.2 }))
      assert.is_nil(value)
      assert.is_true(took >= 0.2 and took < 0.2 + support.tolerance, took)
      assert.same({ "timeout", "request_timeout", "maybe", 1, false },
        { err.kind, err.deadline, err.sent, err.attempts, err.retryable })
      assert.matches("0.2 s (request_timeout)", message, 1, true)
      assert.matches("may have been made", message, 1, true)
    end)

    it("take the call's seconds before the client's", function()
      local server = serve([[conn:read_request() conn:wait_closed()]])
      local took, _, _, err = support.timed(get, client_of(server, { request_timeout = 30 }), { request_timeout = 0.1 })
      assert.equal("request_timeout", err.deadline)
      assert.is_true(took < 0.1 + support.tolerance, took)
    end)

    it("end an answer that stops in the middle", function()
      local server = serve([[
        conn:read_request()
        conn:begin_chunked(200)
        conn:chunk("{")
        conn:wait_closed()
      ]])
      local took, _, _, err = support.timed(get, client_of(server, { idle_timeout = 0.2, retries = 0 }))
      assert.equal("timeout", err.kind)
      assert.equal("idle_timeout", err.deadline)
      assert.is_true(took >= 0.2 and took < 0.2 + support.tolerance, took)
    end)

    it("end an answer that drips for ever", function()
      local server = serve([[
        conn:read_request()
        conn:begin_chunked(200)
        for i = 1, 5000 do
          if not conn:chunk(" ") then return end
          conn:sleep(0.01)
        end
      ]])
      local took, _, _, err = support.timed(get, client_of(server, { request_timeout = 0.4, idle_timeout = 0.2 }))
      assert.equal("request_timeout", err.deadline)
      assert.is_true(took < 0.4 + support.tolerance, took)
    end)

    it("do not begin a call whose time is over", function()
      local server = serve({ { status = 200, body = SANDBOX } })
      local value, _, err = client_of(server):call("sandbox_get", { sandbox_id = "i1" }, nil,
        { operation = "x", deadline = core.now() - 1 })
      assert.is_nil(value)
      assert.same({ "timeout", "no" }, { err.kind, err.sent })
      assert.equal(0, server:count("connection"))
    end)

    it("can be switched off", function()
      local server = serve({ { status = 200, body = SANDBOX, delay = 0.1 } })
      assert.is_truthy((get(client_of(server, { request_timeout = 0, connect_timeout = 0, idle_timeout = 0 }))))
    end)
  end)

  it("refuses an answer that is too large", function()
    local server = serve({ { status = 200, body = '{"x":"' .. ("y"):rep(5000) .. '"}' } })
    local value, message, err = get(client_of(server, { max_answer_bytes = 1000 }))
    assert.is_nil(value)
    assert.equal("too_large", err.kind)
    assert.matches("1000 bytes (max_answer_bytes)", message, 1, true)
  end)

  it("never follows a redirect", function()
    local other = serve({ { status = 200, body = SANDBOX } })
    local server = serve({ { status = 302, headers = { Location = other.url .. "/x" } } })
    local value, message, err = get(client_of(server))
    assert.is_nil(value)
    assert.equal("protocol", err.kind)
    assert.matches("127.0.0.1", message, 1, true)
    assert.equal(0, other:count("connection"))
  end)

  it("answers protocol for answers that are not E2B's, and goes on working", function()
    local list = { "", "<html>", '{"sandboxID":', '{"sandboxID":5,"templateID":"base"}', "null", "[1]" }
    local answers = {}
    for i, body in ipairs(list) do answers[i] = { status = 200, body = body } end
    answers[#answers + 1] = { status = 200, body = SANDBOX }
    local client = client_of(serve(answers))
    for _, body in ipairs(list) do
      local value, _, err = get(client)
      assert.is_nil(value, body)
      assert.equal("protocol", err.kind, body)
      assert.equal("yes", err.sent)
      assert.equal(200, err.status)
    end
    assert.is_truthy((get(client)))
  end)

  describe("logger", function()
    it("is told of each attempt: no headers, no bodies, no query", function()
      local server = serve({ { status = 502 }, {
        status = 200, body = SANDBOX, headers = { ["X-E2B-Trace-ID"] = "t2" },
      } })
      local events = {}
      local client = client_of(server, { logger = function(event) events[#events + 1] = event end })
      assert.is_truthy((get(client)))
      assert.equal(2, #events)
      for i, event in ipairs(events) do
        assert.is_number(event.seconds)
        event.seconds = nil
        assert.equal(i, event.attempt)
      end
      assert.same({ method = "GET", path = "/sandboxes/i1", status = 502, attempt = 1, kind = "server" }, events[1])
      assert.same({ method = "GET", path = "/sandboxes/i1", status = 200, attempt = 2, request_id = "t2" }, events[2])
      client:request("GET", "/x?secret=1", { query = { also = "secret" } })
      assert.equal("/x", events[3].path)
    end)

    it("is told of attempts without an answer", function()
      local events = {}
      local client = client_of(nil, {
        api_url = "http://127.0.0.1:" .. peer.free_port(), retries = 0,
        logger = function(event) events[#events + 1] = event end,
      })
      get(client)
      assert.equal("network", events[1].kind)
      assert.is_nil(events[1].status)
    end)

    it("breaks no call by its own errors, the first of which is shown", function()
      local server = serve({ { status = 200, body = SANDBOX } })
      local result = support.run([[
        local e2b = require("e2b")
        local function client(logger)
          return e2b.client({ api_key = arg[2], api_url = arg[1], getenv = function() end, logger = logger })
        end
        local one = client(function() error("broken with\n" .. arg[2]) end)
        for _ = 1, 3 do print((assert(one.Sandbox.get_info("i1")).sandbox_id)) end
        one:log({ method = "x" })
        client():log({ method = "x" })
        assert(client(function() error({}) end).Sandbox.get_info("i1"))
      ]], { args = { server.url, KEY } })
      assert.equal("i1\ni1\ni1\n", result.out)
      local lines = {}
      for line in result.err:gmatch("[^\n]+") do lines[#lines + 1] = line end
      assert.equal(2, #lines, result.err)
      assert.matches("^e2b: the logger raised an error %(not shown again%): .*", lines[1])
      assert.matches("script%.lua:5: broken with e2b_…$", lines[1])
      assert.matches("a value of the type table$", lines[2])
      support.assert_no_secret(KEY, result.err)
    end)

    it("lets a signal through to the caller", function()
      local server = serve({ { status = 200, body = SANDBOX } })
      local client = client_of(server, { logger = function() error("interrupted!", 0) end })
      local ok, raised = pcall(get, client)
      assert.is_false(ok)
      assert.equal("interrupted!", raised)
    end)
  end)

  describe("call_either", function()
    local V2 = [[
      local status = %d
      conn:serve(function(request)
        if request.path:find("^/v2/") then
          conn:respond(status, '{"code":' .. status .. ',"message":"v2 says no"}')
        else
          conn:respond(shared.v1 or %d, '{"sandboxID":"i1","templateID":"base","code":400,"message":"v1 says no"}')
        end
      end)
    ]]

    local function either(client, args_of_v1)
      return client:call_either("sandbox_create", "sandbox_create_v1", { body = { template = "base" } },
        args_of_v1 or function() return { body = { template = "base", timeout = 300, secure = true } } end, nil,
        { operation = "Sandbox.create" })
    end

    it("goes to v1 after 404 or 405, and stays there once that succeeded", function()
      for _, status in ipairs({ 404, 405 }) do
        local server = serve(V2:format(status, 201))
        local client = client_of(server)
        assert.equal("i1", either(client).sandbox_id)
        assert.equal(2, server:count())
        assert.equal("i1", either(client).sandbox_id)
        assert.equal(3, server:count())
        assert.equal("/sandboxes", server:requests()[3].path)
        assert.same({ templateID = "base", timeout = 300, secure = true }, core.json_decode(server:requests()[3].body))
        -- another client finds out by itself
        assert.is_truthy((either(client_of(server))))
        assert.equal(5, server:count())
      end
    end)

    it("stays with v2, and its answer, when v1 knows no better", function()
      local server = serve(V2:format(404, 404))
      local client = client_of(server)
      for i = 1, 2 do
        local value, message, err = either(client)
        assert.is_nil(value)
        assert.equal(404, err.status)
        assert.matches("v2 says no", message, 1, true)
        assert.equal(2 * i, server:count())
      end
    end)

    it("gives v1's failure when that is of another kind, and does not remember it", function()
      local server = serve(V2:format(404, 400))
      local client = client_of(server)
      local _, message, err = either(client)
      assert.equal(400, err.status)
      assert.matches("v1 says no", message, 1, true)
      either(client)
      assert.equal(4, server:count())
    end)

    it("asks v1 for nothing else", function()
      for _, status in ipairs({ 400, 401, 403, 409, 500, 503 }) do
        local server = serve(V2:format(status, 201))
        assert.equal(status, select(3, either(client_of(server))).status)
        assert.equal(1, server:count())
      end
    end)

    it("passes on why v1 can't do what was asked for", function()
      local server = serve(V2:format(404, 201))
      local value, message, err = either(client_of(server), function()
        return require("e2b.errors").new("unsupported", { message = "v1 has no such filter" })
      end)
      assert.is_nil(value)
      assert.equal("v1 has no such filter", message)
      assert.equal("unsupported", err.kind)
      assert.equal(1, server:count())
    end)

    it("has one deadline for both", function()
      local server = serve([[
        conn:serve(function(request)
          conn:sleep(0.15)
          conn:respond(404, "{}")
        end)
      ]])
      local took, _, _, err = support.timed(either, client_of(server, { request_timeout = 0.25 }))
      assert.equal("timeout", err.kind)
      assert.is_true(took >= 0.25 and took < 0.25 + support.tolerance, took)
    end)
  end)

  describe("sandbox_target", function()
    it("carries no key and no header of the caller", function()
      local server = serve({ { status = 204 } })
      local client = client_of(server, {
        sandbox_url = server.url, headers = { ["X-Mine"] = "1" }, user_agent = "mine/1",
      })
      local target = assert(client:sandbox_target("e2b.app", "i1", "token-1"))
      assert.is_true((client:call("envd_health", {}, nil, { operation = "Sandbox.is_running", target = target })))
      local request = server:requests()[1]
      assert.equal("/health", request.path)
      assert.same({ "i1", "49983", "token-1", "mine/1" }, {
        request.headers["e2b-sandbox-id"], request.headers["e2b-sandbox-port"], request.headers["x-access-token"],
        request.headers["user-agent"],
      })
      for name, value in pairs(request.headers) do
        assert.is_nil((name .. value):find(KEY, 1, true))
        assert.are_not.equal("x-mine", name)
        assert.are_not.equal("lang", name)
      end
    end)

    it("refuses an id that can't be part of it", function()
      local client = client_module.new({ api_key = KEY, domain = "own.example", getenv = function() end })
      for _, id in ipairs({ "a.evil.example/", "a\r\nb" }) do
        local target, message, err = client:sandbox_target(nil, id)
        assert.is_nil(target)
        assert.is_string(message)
        assert.equal("invalid_argument", err.kind)
      end
    end)
  end)

  it("makes fifty calls side by side in the time of one", function()
    local server = serve({ { status = 200, body = SANDBOX, delay = 0.2 } })
    local client, list = client_of(server), {}
    for i = 1, 50 do list[i] = i end
    local took, _, failed = support.timed(tasks.map, list, function() return get(client) end)
    assert.equal(0, failed)
    assert.is_true(took < 0.2 + 3 * support.tolerance, took)
    assert.equal(50, server:count())
  end)

  it("keeps to the number of connections it is given", function()
    local server = serve([[
      conn:serve(function()
        shared.now = (shared.now or 0) + 1
        shared.most = math.max(shared.most or 0, shared.now)
        conn:sleep(0.02)
        shared.now = shared.now - 1
        conn:respond(200, '{"sandboxID":"i1","templateID":"x' .. shared.most .. '"}')
      end)
    ]])
    local client = client_of(server, { connections = 2 })
    core.engine():close() -- idle connections of other specs count, too
    local results, failed = tasks.map({ 1, 2, 3, 4, 5, 6 }, function() return get(client) end)
    core.engine():connections(100)
    assert.equal(0, failed)
    for _, entry in ipairs(results) do assert.is_true(entry.value.template_id <= "x2", entry.value.template_id) end
  end)

  it("waits by the loop it is given", function()
    local server = serve({ { status = 200, body = SANDBOX } })
    local blocking, waits = require("e2b.loop.blocking"), 0
    local client = client_of(server, { loop = {
      may_wait = function() return true end,
      await = function(start, deadline)
        waits = waits + 1
        return blocking.await(start, deadline)
      end,
    } })
    assert.is_truthy((get(client)))
    assert.equal(1, waits)
    client = client_of(server, { loop = { may_wait = function() return nil, "not here" end, await = function() end } })
    local value, message, err = get(client)
    assert.is_nil(value)
    assert.equal("unsupported", err.kind)
    assert.equal("Sandbox.get_info: not here", message)
  end)

  it("calls it a timeout when the loop's clock was the first", function()
    local server = serve([[conn:read_request() conn:wait_closed()]])
    local client = client_of(server, { loop = {
      may_wait = function() return true end,
      await = function(start)
        start(function() end)()
        return nil, "deadline"
      end,
    } })
    local value, _, err = get(client)
    assert.is_nil(value)
    assert.same({ "timeout", "request_timeout", 1 }, { err.kind, err.deadline, err.attempts })
  end)

  it("says so when the C part is of another version", function()
    local result = support.run([[
      local core = require("e2b.core")
      package.loaded["e2b.core"] = setmetatable({ ABI = 999 }, { __index = core })
      print(pcall(require, "e2b.client"))
    ]])
    assert.matches("is not of the version of the Lua files", result.out, 1, true)
    assert.matches("999", result.out, 1, true)
  end)

  it("says so when the answer's cursor and totals are missing: nothing", function()
    local _, meta = get(client_of(serve({ { status = 200, body = SANDBOX } })))
    assert.is_nil(meta.next_token)
    assert.is_nil(meta.total_running)
    assert.is_nil(meta.request_id)
  end)

  it("leaves memory flat", function()
    local server = serve({ { status = 200, body = SANDBOX } })
    local client = client_of(server)
    local function many(n)
      for _ = 1, n do assert.is_truthy((get(client))) end
      support.collect()
      return collectgarbage("count")
    end
    many(50)
    local first = many(100)
    local last = many(100)
    assert.is_true(last - first < 20, last - first)
  end)
end)
