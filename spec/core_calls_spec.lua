-- The table of REST calls: what goes onto the wire. No server is needed for it.
local core = require("e2b.core")
local request, answer = core._request, core._answer
local decode = core.json_decode

-- The body that a call sends, decoded.
local function sent(call, args)
  local method, path, body, content_type = request(call, args)
  assert.is_truthy(method, path)
  assert.are.equal("application/json", content_type)
  return decode(body), body
end

-- What is wrong with the arguments.
local function refusal(call, args)
  local method, message = request(call, args)
  assert.is_false(method)
  assert.are.equal("string", type(message))
  return message
end

describe("the table of calls", function()
  it("describes every row", function()
    local rows = {
      sandbox_create = "POST /v2/sandboxes", sandbox_create_v1 = "POST /sandboxes", sandbox_list = "GET /v2/sandboxes",
      sandbox_list_v1 = "GET /sandboxes", sandbox_get = "GET /sandboxes/{sandbox_id}",
      sandbox_kill = "DELETE /sandboxes/{sandbox_id}", sandbox_pause = "POST /sandboxes/{sandbox_id}/pause",
      sandbox_resume = "POST /sandboxes/{sandbox_id}/resume",
      sandbox_connect = "POST /v2/sandboxes/{sandbox_id}/connect",
      sandbox_connect_v1 = "POST /sandboxes/{sandbox_id}/connect",
      sandbox_timeout = "POST /sandboxes/{sandbox_id}/timeout",
      sandbox_metrics = "GET /sandboxes/{sandbox_id}/metrics", template_list = "GET /v2/templates",
      template_list_v1 = "GET /templates", envd_health = "GET /health", envd_metrics = "GET /metrics",
      envd_envs = "GET /envs", files_read = "GET /files", files_write = "POST /files",
      files_compose = "POST /files/compose",
    }
    for name, method in pairs({
      process_list = "List", process_start = "Start", process_connect = "Connect", process_update = "Update",
      process_input = "SendInput", process_signal = "SendSignal", process_close_stdin = "CloseStdin",
    }) do
      rows[name] = "POST /process.Process/" .. method
    end
    for name, method in pairs({
      fs_stat = "Stat", fs_make_dir = "MakeDir", fs_move = "Move", fs_remove = "Remove", fs_list = "ListDir",
      dir_watch = "WatchDir", watcher_create = "CreateWatcher", watcher_events = "GetWatcherEvents",
      watcher_remove = "RemoveWatcher",
    }) do
      rows[name] = "POST /filesystem.Filesystem/" .. method
    end
    local streams = { process_start = true, process_connect = true, dir_watch = true }
    for name, expected in pairs(rows) do
      local row = core.calls[name]
      assert.are.equal(name, row.name)
      assert.are.equal(expected, row.method .. " " .. row.path)
      assert.are.equal(row.method == "GET" or row.method == "DELETE", row.idempotent, name)
      assert.are.equal(expected:find("%.") ~= nil, row.rpc, name)
      assert.are.equal(streams[name] or false, row.stream, name)
    end
    assert.are.equal("raw", core.calls.raw.name)
    assert.is_false(core.calls.raw.idempotent)
    for name in pairs(core.calls) do
      assert.is_truthy(rows[name] or name == "raw", name)
    end
  end)

  it("raises for a call that is not in it, and for arguments of no sense", function()
    assert.has_error(function() request("sandbox_list_all") end, "there is no call 'sandbox_list_all'")
    assert.has_error(function() request("sandbox_get", "i1") end)
    assert.has_error(function() request("sandbox_list", { query = "x" }) end)
    assert.has_error(function() request("sandbox_create", { body = "x" }) end)
    assert.has_error(function() request("raw") end)
    assert.has_error(function() request("raw", { method = "GET", path = 1 }) end)
    assert.has_error(function() request("raw", { method = "GET", path = "/", body = 1 }) end)
    assert.has_error(function() answer("no such call", 200, "{}") end)
  end)
end)

describe("a path", function()
  it("holds an id as one segment, whatever it contains", function()
    local function path(id)
      local method, text = request("sandbox_get", { sandbox_id = id })
      assert.are.equal("GET", method)
      return text
    end
    assert.are.equal("/sandboxes/iabc-123", path("iabc-123"))
    assert.are.equal("/sandboxes/a%2Fb", path("a/b"))
    assert.are.equal("/sandboxes/..%2F..%2Fteams", path("../../teams"))
    assert.are.equal("/sandboxes/%252e%252e", path("%2e%2e"))
    assert.are.equal("/sandboxes/a%3Fb%23c%3Bd", path("a?b#c;d"))
    assert.are.equal("/sandboxes/a%0D%0AX-Y%3A%20z", path("a\r\nX-Y: z"))
    assert.are.equal("/sandboxes/a%00b", path("a\0b"))
    assert.are.equal("/sandboxes/%C3%A9%F0%9F%98%80", path("\195\169\240\159\152\128"))
    assert.are.equal("/sandboxes/...", path("..."))
    assert.are.equal(#"/sandboxes/" + 2 ^ 20, #path(("x"):rep(2 ^ 20)))
    assert.are.equal("/sandboxes/..%00", path("..\0"))
  end)

  it("refuses an id that would be a step between folders, or nothing", function()
    for _, id in ipairs({ ".", "..", "" }) do
      assert.is_truthy(refusal("sandbox_kill", { sandbox_id = id }):find("^sandbox_id: "))
    end
    assert.is_truthy(refusal("sandbox_kill", {}):find("^sandbox_id: "))
    assert.is_truthy(refusal("sandbox_kill"):find("^sandbox_id: "))
    assert.is_truthy(refusal("sandbox_kill", { sandbox_id = 5 }):find("^sandbox_id: a string expected, got a number"))
  end)

  it("is finished by what the row says", function()
    local _, path, body = request("sandbox_pause", { sandbox_id = "i 1" })
    assert.are.equal("/sandboxes/i%201/pause", path)
    assert.are.equal("{}", body)
  end)
end)

describe("a query", function()
  local function query(call, values)
    local method, path, body, content_type = request(call, { query = values, sandbox_id = "i1" })
    assert.are.equal("GET", method)
    assert.is_nil(body)
    assert.is_nil(content_type)
    return path:match("%?(.*)$") or ""
  end

  it("is left out when nothing was given", function()
    for _, values in ipairs({ {}, { metadata = {} }, { state = {} }, { next_token = "" },
      { metadata = {}, state = {} } }) do
      local _, path = request("sandbox_list", { query = values })
      assert.are.equal("/v2/sandboxes", path)
    end
    assert.are.equal("/v2/sandboxes", (select(2, request("sandbox_list"))))
  end)

  it("encodes metadata in three layers", function()
    assert.are.equal("metadata=k%3Da%252520b", query("sandbox_list", { metadata = { k = "a b" } }))
    assert.are.equal("metadata=user%3Dabc", query("sandbox_list", { metadata = { user = "abc" } }))
    assert.are.equal("metadata=user%3Dabc", query("sandbox_list_v1", { metadata = { user = "abc" } }))
    assert.are.equal("metadata=a%3D1%26b%3D2%26c%3D", query("sandbox_list",
      { metadata = { c = "", a = "1", b = "2" } }))
  end)

  it("gives a server its metadata back, whatever that is", function()
    local function unescape(text)
      return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
    end
    math.randomseed(3)
    local function random_string(least)
      local bytes = {}
      for i = 1, math.random(least, 8) do
        bytes[i] = string.char(math.random(0, 255))
      end
      return table.concat(bytes)
    end
    for _ = 1, 500 do
      local metadata, count = {}, 0
      for _ = 1, math.random(1, 5) do
        metadata[random_string(0)] = random_string(0)
      end
      local text = query("sandbox_list", { metadata = metadata })
      assert.is_nil(text:find("[^%w%%=%-%._~]"), text)
      -- what the service does: decode the query, unescape it all, split it, unescape the parts
      local whole = unescape(unescape(text:match("^metadata=(.*)$")))
      local found, previous = {}, nil
      for pair in (whole .. "&"):gmatch("(.-)&") do
        local key, value = pair:match("^(.-)=(.*)$")
        key = unescape(key)
        found[key] = unescape(value)
        count = count + 1
        assert.is_true(previous == nil or previous < key, "keys are in order")
        previous = key
      end
      assert.are.same(metadata, found)
    end
  end)

  it("carries every parameter of a list, in one order", function()
    assert.are.equal("metadata=a%3D1&state=running,paused&order=asc&startedAfter=2023-11-14T22%3A13%3A20Z"
      .. "&template=ns%2Fname&limit=50&nextToken=a%2Bb%3D", query("sandbox_list", {
      next_token = "a+b=", limit = 50.0, template = "ns/name", started_after = 1700000000, order = "asc",
      state = { "running", "paused" }, metadata = { a = "1" } }))
    assert.are.equal("startedAfter=2023-11-14T22%3A13%3A20.250Z", query("sandbox_list",
      { started_after = 1700000000.25 }))
    assert.are.equal("state=some%2Cthing%26", query("sandbox_list", { state = { "some,thing&" } }))
    assert.are.equal("limit=1&nextToken=x", query("template_list", { limit = 1, next_token = "x" }))
    assert.are.equal("teamID=t", query("template_list_v1", { team_id = "t" }))
  end)

  it("asks for metrics in whole seconds around the range", function()
    assert.are.equal("start=1700000000&end=1700000011", query("sandbox_metrics",
      { from = 1700000000.9, to = 1700000010.1 }))
    assert.are.equal("start=0&end=0", query("sandbox_metrics", { from = 0, to = 0 }))
    assert.are.equal("end=100000000000000", query("sandbox_metrics", { to = 1e14 }))
  end)

  it("refuses values of the wrong type and names it does not have", function()
    local function wrong(values, place)
      local message = refusal("sandbox_list", { query = values })
      assert.is_truthy(message:find(place, 1, true), message)
    end
    wrong({ metadata = "a=b" }, "metadata: a table expected, got a string")
    wrong({ metadata = { a = 1 } }, "metadata.a: a string expected, got a number")
    wrong({ metadata = { "a" } }, "metadata: the keys must be strings")
    wrong({ state = "running" }, "state: a list expected")
    wrong({ state = { x = "running" } }, "state: a list expected")
    wrong({ state = { {} } }, "state[1]: ")
    wrong({ order = 1 }, "order: a string expected")
    wrong({ started_after = "2026" }, "started_after: a time in seconds")
    wrong({ started_after = 1e300 }, "started_after: ")
    wrong({ started_after = 0 / 0 }, "started_after: ")
    wrong({ template = {} }, "template: ")
    wrong({ limit = 1.5 }, "limit: a whole number")
    wrong({ limit = "1" }, "limit: a number")
    wrong({ limit = 1 / 0 }, "limit: a finite number")
    wrong({ limit = 1e16 }, "limit: a whole number")
    wrong({ next_token = false }, "next_token: ")
    wrong({ nextToken = "x" }, "nextToken: there is no such field")
    wrong({ 1 }, "only named fields")
    assert.is_truthy(refusal("sandbox_list_v1", { query = { state = {} } }):find("^state: there is no such field"))
    assert.is_truthy(refusal("sandbox_get", { sandbox_id = "i", query = { limit = 1 } }):find("^limit: "))
  end)
end)

describe("a request body", function()
  it("holds only what was given", function()
    assert.are.equal('{"templateID":"base"}', select(2, sent("sandbox_create", { body = { template = "base" } })))
    assert.are.equal("{}", select(2, sent("sandbox_create")))
    for _, call in ipairs({ "sandbox_pause", "sandbox_resume", "sandbox_connect", "sandbox_connect_v1" }) do
      assert.are.equal("{}", select(2, sent(call, { sandbox_id = "i" })))
      assert.are.equal("{}", select(2, sent(call, { sandbox_id = "i", body = {} })))
    end
  end)

  it("has the server's names for every field of a create", function()
    local body = {
      template = "ns/base:v1", timeout = 300, auto_pause = false, auto_pause_memory = true,
      auto_resume = { enabled = false }, allow_internet_access = false,
      metadata = { job_id = "1", ["1"] = "one", ["a.b"] = "" }, envs = { PATH_X = "y", sandbox_id = "z" },
      network = {
        allow_public_traffic = false, allow_out = { "1.1.1.1" }, deny_out = { "0.0.0.0/0" },
        mask_request_host = "h:${PORT}", https_ports = { 8443, 443.0 },
        egress_proxy = { address = "p:1", username = "u", password = "secret" },
        rules = { ["*.example.com"] = { { transform = { headers = { ["X-Allow_Out"] = "${e2b.secrets.X}" } } } },
          allow_out = { {} } },
      },
      iam = { tokens = { token_type = { audience = "aud", token_type = "JWT-SVID" } } },
      volume_mounts = { { name = "data", path = "/mnt" } },
      mcp = { some_server = { api_key = "k", list = { 1, 2 }, empty = {} } },
    }
    local expected = {
      templateID = "ns/base:v1", timeout = 300, autoPause = false, autoPauseMemory = true,
      autoResume = { enabled = false }, allow_internet_access = false, metadata = body.metadata, envVars = body.envs,
      network = {
        allowPublicTraffic = false, allowOut = { "1.1.1.1" }, denyOut = { "0.0.0.0/0" }, maskRequestHost = "h:${PORT}",
        httpsPorts = { 8443, 443 }, egressProxy = { address = "p:1", username = "u", password = "secret" },
        rules = { ["*.example.com"] = { { transform = { headers = { ["X-Allow_Out"] = "${e2b.secrets.X}" } } } },
          allow_out = { {} } },
      },
      iam = { tokens = { token_type = { audience = "aud", tokenType = "JWT-SVID" } } },
      volumeMounts = body.volume_mounts, mcp = body.mcp,
    }
    local found, text = sent("sandbox_create", { body = body })
    assert.are.same(expected, found)
    assert.is_truthy(text:find('"httpsPorts":[8443,443]', 1, true))
    body.secure, expected.secure = true, true
    assert.are.same(expected, (sent("sandbox_create_v1", { body = body })))
    assert.is_truthy(refusal("sandbox_create", { body = { secure = true } }):find("^secure: there is no such field"))
  end)

  it("reads its tables raw, and leaves them as they were", function()
    local meta = { __index = error, __newindex = error, __pairs = error, __len = error }
    local body = setmetatable({ timeout = 1.5, metadata = setmetatable({ a = "b" }, meta) }, meta)
    assert.are.same({ timeout = 2, metadata = { a = "b" } }, (sent("sandbox_create", { body = body })))
    assert.are.equal(1.5, rawget(body, "timeout"))
    local query = setmetatable({ state = setmetatable({ "running" }, meta) }, meta)
    assert.are.equal("/v2/sandboxes?state=running", (select(2, request("sandbox_list", { query = query }))))
  end)

  it("takes true and false for auto_resume", function()
    assert.are.same({ autoResume = { enabled = true } }, (sent("sandbox_create", { body = { auto_resume = true } })))
    assert.are.same({ autoResume = { enabled = false } }, (sent("sandbox_create", { body = { auto_resume = false } })))
  end)

  it("writes empty maps as {} and leaves empty lists out", function()
    local _, text = sent("sandbox_create", { body = { metadata = {}, envs = {}, mcp = {},
      network = { allow_out = {}, rules = {} }, volume_mounts = {}, iam = { tokens = {} } } })
    assert.is_nil(text:find("[", 1, true), text)
    assert.are.same({ metadata = {}, envVars = {}, mcp = {}, network = { rules = {} }, iam = { tokens = {} } },
      decode(text))
  end)

  it("carries whole seconds, rounded up, as integers", function()
    for _, pair in ipairs({ { 300, "300" }, { 300.0, "300" }, { 0, "0" }, { 0.001, "1" }, { 14.2, "15" },
      { 86400, "86400" } }) do
      local given, text = pair[1], pair[2]
      for _, call in ipairs({ "sandbox_timeout", "sandbox_connect", "sandbox_resume" }) do
        assert.are.equal('{"timeout":' .. text .. "}", (select(3, request(call,
          { sandbox_id = "i", body = { timeout = given } }))))
      end
    end
    local keep = { sandbox_id = "i", body = { memory = false } }
    assert.are.equal('{"memory":false}', (select(3, request("sandbox_pause", keep))))
  end)

  it("keeps the user's keys and values byte for byte", function()
    local metadata = { ["with \"quotes\" \\ and \1 control \127"] = "\240\159\152\128 \r\n\0 </script>", [""] = "",
      ["10"] = "x" }
    assert.are.same({ metadata = metadata, envVars = metadata }, (sent("sandbox_create",
      { body = { metadata = metadata, envs = metadata } })))
    local long = ("\195\169"):rep(2 ^ 19)
    assert.are.equal(long, sent("sandbox_create", { body = { metadata = { k = long } } }).metadata.k)
    assert.are.equal('{"metadata":{"7":"x"}}', (select(3, request("sandbox_create",
      { body = { metadata = { [7] = "x" } } }))))
  end)

  it("refuses what a field can't hold, and names the field", function()
    local function wrong(body, place)
      local message = refusal("sandbox_create", { body = body })
      assert.is_truthy(message:find(place, 1, true), message)
    end
    for _, value in ipairs({ 1, true, {}, print }) do
      wrong({ template = value }, "template: a string expected")
    end
    wrong({ timeout = "300" }, "timeout: a number expected, got a string")
    wrong({ timeout = 0 / 0 }, "timeout: a finite number")
    wrong({ timeout = 1 / 0 }, "timeout: ")
    wrong({ timeout = 1e300 }, "timeout: ")
    wrong({ auto_pause = "yes" }, "auto_pause: a boolean expected")
    wrong({ auto_resume = 1 }, "auto_resume: a boolean expected")
    wrong({ auto_resume = { on = true } }, "auto_resume.on: there is no such field")
    wrong({ allow_internet_access = 0 }, "allow_internet_access: a boolean")
    wrong({ metadata = "a" }, "metadata: a table")
    wrong({ metadata = { a = 1 } }, "metadata.a: a string expected, got a number")
    wrong({ metadata = { a = { b = "c" } } }, "metadata.a: a string expected, got an object")
    wrong({ metadata = { [true] = "x" } }, "metadata: the keys")
    wrong({ envs = { A = true } }, "envs.A: a string expected")
    wrong({ network = { allowOut = {} } }, "network.allowOut: there is no such field")
    wrong({ network = { allow_out = "x" } }, "network.allow_out: a list expected")
    wrong({ network = { allow_out = { 1 } } }, "network.allow_out[1]: a string expected")
    wrong({ network = { allow_out = { "a", nil, "c" } } }, "network.allow_out: a list expected")
    wrong({ network = { allow_out = { a = "b" } } }, "network.allow_out: a list expected")
    wrong({ network = { https_ports = { 443.5 } } }, "network.https_ports[1]: a whole number")
    wrong({ network = { rules = { x = { { transform = { headers = { a = 1 } } } } } } },
      "network.rules.x[1].transform.headers.a: ")
    wrong({ network = { egress_proxy = { address = "a", port = 1 } } }, "network.egress_proxy.port: ")
    wrong({ network = { egress_proxy = { password = 12345678 } } }, "network.egress_proxy.password: a string")
    wrong({ iam = { tokens = { t = { tokenType = "x" } } } }, "iam.tokens.t.tokenType: there is no such field")
    wrong({ volume_mounts = { name = "x" } }, "volume_mounts: a list expected")
    wrong({ volume_mounts = { { name = 1 } } }, "volume_mounts[1].name: ")
    wrong({ mcp = { a = print } }, "mcp.a: a value that JSON has")
    wrong({ timout = 1 }, "timout: there is no such field")
    wrong({ "base" }, "only named fields")
    local loop = {}
    loop.loop = loop
    wrong({ mcp = loop }, "mcp: nested deeper than 100 levels")
  end)

  it("never shows a value in a message", function()
    for _, body in ipairs({ { envs = { TOKEN = { "s3cret" } } }, { metadata = "s3cret" },
      { network = { egress_proxy = "s3cret" } },
      { mcp = { a = { "s3cret", x = "s3cret" } } }, { timeout = "s3cret" } }) do
      assert.is_nil(refusal("sandbox_create", { body = body }):find("s3cret", 1, true))
    end
  end)
end)

describe("the raw call", function()
  local function raw(args)
    local method, path, body, content_type = request("raw", args)
    assert.is_truthy(method, path)
    return method, path, body, content_type
  end

  it("sends method, path and query as they are", function()
    assert.are.same({ "GET", "/teams" }, { raw({ method = "GET", path = "/teams" }) })
    assert.are.same({ "DELETE", "/a/%2F/b?x=1" }, { raw({ method = "DELETE", path = "/a/%2F/b?x=1" }) })
    assert.are.equal("/a?b=2", (select(2, raw({ method = "GET", path = "/a", query = { b = 2 } }))))
    assert.are.equal("/a?x=1&b=2", (select(2, raw({ method = "GET", path = "/a?x=1", query = { b = 2 } }))))
    assert.are.equal("/caf%C3%A9", (select(2, raw({ method = "GET", path = "/caf\195\169" }))))
    assert.are.equal("/a?B=1&a=x%20y%26&b=true&c=1,two,false&d=1.5&e=1000000000000000&f%20g=false&y=",
      (select(2, raw({ method = "GET", path = "/a", query = {
        ["f g"] = false, e = 1e15, d = 1.5, c = { 1, "two", false }, b = true, a = "x y&", B = 1.0, z = {},
          y = "" } }))))
  end)

  it("sends a table as JSON under the names it has, a string as it is", function()
    local method, _, body, content_type = raw({ method = "POST", path = "/x",
      body = { sandbox_id = { 1, 2 }, o = {} } })
    assert.are.equal("POST", method)
    assert.are.same({ sandbox_id = { 1, 2 }, o = {} }, decode(body))
    assert.are.equal("application/json", content_type)
    assert.are.same({ "PUT", "/x", "a\0b", "text/plain" }, { raw({ method = "PUT", path = "/x", body = "a\0b",
      content_type = "text/plain" }) })
    assert.are.same({ "POST", "/x", "{}", "application/json" }, { raw({ method = "POST", path = "/x", body = {} }) })
    assert.are.same({ "POST", "/x", "", "application/json" }, { raw({ method = "POST", path = "/x", body = "" }) })
  end)

  it("refuses what would not stay in its place", function()
    local function wrong(args, place)
      local message = refusal("raw", args)
      assert.is_truthy(message:find(place, 1, true), message)
    end
    for _, path in ipairs({ "", "x", "http://x/", "/a b", "/a\r\nX: y", "/a\0", "/a\127", "/a#b", "/a\tb" }) do
      wrong({ method = "GET", path = path }, "path: ")
    end
    wrong({ method = "GET" }, "path: ")
    for _, method in ipairs({ "", "get", "GET ", "GET\r\n", "G-T", ("A"):rep(17) }) do
      wrong({ method = method, path = "/" }, "method: ")
    end
    wrong({ path = "/" }, "method: ")
    wrong({ method = "GET", path = "/", query = { a = {  { } } } }, "query.a[1]: ")
    wrong({ method = "GET", path = "/", query = { a = { x = 1 } } }, "query.a: a list")
    wrong({ method = "GET", path = "/", query = { a = print } }, "query.a: ")
    wrong({ method = "GET", path = "/", query = { a = 0 / 0 } }, "query.a: ")
    wrong({ method = "GET", path = "/", query = { "x" } }, "query: the keys")
    wrong({ method = "POST", path = "/", body = { a = { print } } }, "body.a[1]: ")
    wrong({ method = "POST", path = "/", body = "x", content_type = "a\r\nb" }, "content_type: ")
    wrong({ method = "POST", path = "/", body = "x", content_type = "" }, "content_type: ")
  end)
end)
