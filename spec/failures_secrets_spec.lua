-- A key or a token shows nowhere: not in messages, not in tables, not in the log, not on stderr, not in a process list;
-- not even when the server says it aloud.
local exchange = require("spec.support.exchange")
local failing = require("spec.support.failing")
local support = require("spec.support.support")

-- A server that repeats what it was given, in every place that gets into an error.
local PARROT = [[
  local key = request.headers["x-api-key"] or request.headers["x-access-token"] or "none"
  local status = tonumber(request.path:match("status%-(%d+)")) or 500
  if status >= 300 and status < 400 then
    conn:respond(status, "", { Location = "http://" .. key .. ".example.com/" .. key })
  elseif request.path:match("html") then
    conn:respond(status, "<p>" .. key .. "</p>", { ["Content-Type"] = "text/html; key=" .. key })
  else
    local body = '{"code":' .. status .. ',"message":"the key ' .. key .. ' (' .. key .. ') is wrong","error_code":"'
      .. key .. '"}'
    conn:respond(status, body, {
      ["X-E2B-Trace-ID"] = status > 200 and "trace " .. key or nil, ["Retry-After"] = key,
      ["Content-Type"] = "application/json",
    })
  end
]]

describe("a server that repeats the key", function()
  for name, key in pairs({ ["of E2B's shape"] = failing.KEY, ["of another shape"] = "sk-5ec4e7-another.shape/=" }) do
    for _, status in ipairs({ 200, 302, 400, 401, 403, 404, 409, 429, 500, 503 }) do
      it("(" .. status .. ", a key " .. name .. ") doesn't bring it into the error", failing.test(function(t)
        local server = t:peer(PARROT)
        local client = t:client(server, { api_key = key, retries = 0 })
        for _, id in ipairs({ "status-" .. status, "html-status-" .. status }) do
          local _, message, err = client.Sandbox.get_info(id)
          assert.is_string(message)
          support.assert_no_secret({ key }, message, err, t.log)
          _, message, err = client:request("POST", "/" .. id, { body = { a = 1 } })
          if _ == nil then
            support.assert_no_secret({ key }, message, err, t.log)
          end
        end
        assert.equal(key, server:requests()[1].headers["x-api-key"])
        t:works(client)
      end))
    end
  end
end)

-- libcurl quotes the URL of a proxy that it can't use.
describe("the password of a proxy", function()
  local SECRET = "5ec4e7c0ffee"
  local PROXIES = {
    "http://user:" .. SECRET .. "@proxy.example.com:99999999",
    "user:" .. SECRET .. "@proxy.example.com:99999999",
    "nothing://user:" .. SECRET .. "@proxy.example.com:1",
    "http://user:" .. SECRET .. "@" .. SECRET .. "@proxy.example.com:99999999",
    "http://user:a'b/" .. SECRET .. "@proxy.example.com:99999999",
    "user:" .. SECRET .. "://" .. SECRET .. "@proxy.example.com:99999999",
    "http://user:" .. SECRET .. "@127.0.0.1:1",
    "http://user:" .. SECRET:rep(40) .. "@proxy.example.com:99999999", -- longer than libcurl's message can be
  }
  local PRINT = [[
    local e2b = require("e2b")
    local options = { api_key = "e2b_" .. ("a"):rep(40), api_url = "https://api.e2b.example", retries = 0,
      request_timeout = 5, proxy = arg[1] }
    local made, client, refusal = pcall(e2b.client, options)
    if not made or not client then return print("refused", client, refusal) end
    local sandbox, message, err = client.Sandbox.get_info("x")
    print(sandbox, message, tostring(err))
    for name, value in pairs(err) do print(name, value) end
  ]]

  for i, proxy in ipairs(PROXIES) do
    it("doesn't show when it is an option (" .. i .. ")", function()
      local result = support.run(PRINT, { args = { proxy } })
      assert.equal(0, result.code, result.err)
      assert.is_truthy(result.out:find("^nil") or result.out:find("^refused"), result.out)
      support.assert_no_secret({ SECRET }, result.out, result.err)
      -- and whatever the client lets through
      local target = exchange.target("http://127.0.0.1:1", { proxy = proxy })
      support.assert_no_secret({ SECRET }, exchange.fail(exchange.raw(target, "/")))
    end)

    it("doesn't show when it is in the environment (" .. i .. ")", function()
      local result = support.run(PRINT, { env = { https_proxy = proxy } })
      assert.equal(0, result.code, result.err)
      assert.is_truthy(result.out:find("^nil\t"), result.out)
      support.assert_no_secret({ SECRET }, result.out, result.err)
    end)
  end

  it("leaves the host to be read", function()
    local result = support.run(PRINT, { env = { https_proxy = PROXIES[3] } })
    assert.is_truthy(result.out:find("nothing://***@proxy.example.com:1", 1, true), result.out)
  end)
end)

describe("what a program prints", function()
  -- Everything a curious program can print, of things that hold secrets and of calls that fail.
  local CURIOUS = [[
    local failing = require("spec.support.failing")
    local e2b = require("e2b")
    require("e2b.retry").backoff = function() return 0.01 end
    local key = table.concat({ "e2b_5ec4e7c0ffee5ec4e7c0ffee", "5ec4e7c0ffee1234" })
    assert(key == failing.KEY)

    local function dump(value, seen)
      seen = seen or {}
      print(tostring(value))
      if type(value) == "table" and not seen[value] then
        seen[value] = true
        for k, v in next, value do dump(k, seen) dump(v, seen) end
        local meta = getmetatable(value)
        if type(meta) == "table" then dump(meta, seen) end
      end
    end

    local options = { api_key = key, api_url = arg[1], sandbox_url = arg[1], getenv = function() end, retries = 1,
      logger = function(event) dump(event) end }
    local client = e2b.client(options)
    options.api_key = nil
    local lazy = e2b.client({ api_key = function() return key end, api_url = arg[1], getenv = function() end })
    local wrong = e2b.client({ api_key = key .. "\r\n", api_url = arg[1], getenv = function() end })
    local nowhere = e2b.client({ api_key = key, api_url = "http://127.0.0.1:1", retries = 0, getenv = function() end })
    local bearer = e2b.client({ api_key = key, api_url = arg[1], getenv = function() end,
      headers = { Authorization = "Bearer bearer-5ec4e7" } })

    for _, each in ipairs({ client, lazy, wrong, nowhere, bearer }) do
      dump(each)
      for _, call in ipairs({
        function() return each.Sandbox.create({ metadata = { a = "1" } }) end,
        function() return each.Sandbox.get_info("ok") end,
        function() return each.Sandbox.get_info("status-401") end,
        function() return each.Sandbox.get_info("status-302") end,
        function() return each.Sandbox.get_info("html-status-502") end,
        function() return each.Sandbox.list():next_items() end,
        function() return each.Sandbox.list() end,
        function() return each.Sandbox.is_running("status-500") end,
        function() return each.Sandbox.get_info("cut") end,
        function() return each.Template.list():all() end,
        function() return each:request("POST", "/status-400", { body = { token = "x" } }) end,
        function() return each.Sandbox.get_info("ok", { api_key = key }) end,
        function() return each.Sandbox.get_info("ok", { [key] = 1 }) end,
        function() return each.tools end,
        function() return e2b.check(each) end,
        function() return e2b.help(each.Sandbox) end,
      }) do
        local results = { pcall(call) }
        for i = 1, 5 do dump(results[i]) end
        if type(results[2]) == "table" and results[2].sandbox_id then
          pcall(function() dump(e2b.help(results[2])) end)
          pcall(function() print(results[2]:is_running()) end)
          pcall(function() dump(results[2]:get_info()) end)
        end
      end
    end
    -- a task that raises and is never looked at, and one that is left over
    e2b.spawn(function() error("a task with " .. tostring(client)) end)
    e2b.spawn(function() return client.Sandbox.get_info("ok") end)
    e2b.sleep(0)
    io.stderr:write(tostring(client), "\n")
    local cmdline = io.open("/proc/self/cmdline")
    if cmdline then print(cmdline:read("*a")) end
  ]]

  it("holds no secret, on stdout and on stderr", failing.test(function(t)
    local server = t:peer([[
      if request.path == "/sandboxes/cut" then
        conn:close()
      elseif request.path == "/v2/sandboxes" and request.method == "POST" then
        conn:respond(201, CREATED)
      elseif request.path:match("^/v2/sandboxes") then
        conn:respond(200, "[" .. OK .. "]")
      elseif request.path == "/sandboxes/made" then
        conn:respond(200, (OK:gsub('"ok"', '"made"')))
      else
    ]] .. PARROT .. " end")
    local result = support.run(CURIOUS, { args = { server.url } })
    assert.equal(0, result.code, result.err)
    assert.is_true(t:count(server) > 20)
    local secrets = { "5ec4e7" }
    -- the wrong option's name is the caller's own text, and shown on purpose: everything else must be clean
    local out = result.out:gsub("[^\n]*unknown option[^\n]*", "")
    support.assert_no_secret(secrets, out)
    support.assert_no_secret(secrets, result.err)
  end))

  it("is not needed to keep the key: Lua has forgotten it when the client is made", function()
    local result = support.run([[
      local failing_key = { "e2b_5ec4e7c0ffee5ec4", "e7c0ffee5ec4e7c0ffee1234" }
      local e2b = require("e2b")
      local function make()
        local asked
        return e2b.client({ api_key = table.concat(failing_key), api_url = "http://127.0.0.1:1", retries = 0,
          getenv = function() end }),
          e2b.client({ api_key = function() asked = true return table.concat(failing_key) end,
            api_url = "http://127.0.0.1:1", retries = 0, getenv = function() end })
      end
      local one, two = make()
      print(one.Sandbox.get_info("x"))
      print(two.Sandbox.get_info("x"))
      collectgarbage() collectgarbage()
      -- whatever can be reached from the registry and from here: tables, upvalues, locals of this coroutine
      local seen, found = {}, 0
      local function walk(value)
        local kind = type(value)
        if kind == "string" then
          if value:find("5ec4e7c0ffee5ec4e7c0ffee", 1, true) then found = found + 1 end
        elseif kind == "table" and not seen[value] then
          seen[value] = true
          for k, v in next, value do walk(k) walk(v) end
          walk(debug.getmetatable(value))
        elseif kind == "function" and not seen[value] then
          seen[value] = true
          for i = 1, 255 do
            local name, upvalue = debug.getupvalue(value, i)
            if not name then break end
            walk(upvalue)
          end
        elseif kind == "userdata" and not seen[value] then
          seen[value] = true
          walk(debug.getmetatable(value))
          walk((debug.getuservalue or debug.getfenv)(value))
        end
      end
      walk({ one, two })
      walk(debug.getregistry())
      walk(_G)
      print("found " .. found)
    ]])
    assert.equal("found 0", result.out:match("found %d+"), result.out .. result.err)
  end)

  it("of a sandbox never goes to the API, nor the key to a sandbox", failing.test(function(t)
    local api = t:peer("conn:respond(201, CREATED)")
    local inside = t:peer("conn:respond(204)")
    local client = t:client(api, {
      sandbox_url = inside.url, headers = { ["X-Mine"] = "1" }, api_headers = { Authorization = "Bearer mine" },
    })
    local sandbox = assert(client.Sandbox.create())
    assert.is_true((sandbox:is_running()))
    local request = inside:requests()[1]
    assert.equal("/health", request.path)
    assert.equal("made", request.headers["e2b-sandbox-id"])
    for _, header in ipairs({ "x-api-key", "authorization", "x-mine", "cookie" }) do
      assert.is_nil(request.headers[header])
    end
    support.assert_no_secret({ failing.KEY, "Bearer mine" }, request)
    support.assert_no_secret({ failing.ENVD_TOKEN, failing.TRAFFIC_TOKEN }, api:requests()[1])
  end))
end)
