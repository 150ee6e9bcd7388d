-- The MCP gateway: started by create, found by get_mcp_url, its token kept where no print shows it.
local envd_peer = require("spec.support.envd_peer")
local platform = require("spec.support.platform")
local support = require("spec.support.support")
local e2b = require("e2b")

local raises = platform.raises
local KEY = "sk-a-key-of-a-server"
local SERVERS = { exa = { apiKey = KEY, region = "eu" }, plain = { path = "it's \"quoted\" $HOME" } }

local STARTS = "on.Start = function(message) return run(0, 'listening') end"

describe("create with mcp", function()
  local server

  local function serve(source, options)
    server = envd_peer.start(source, options)
    return server
  end

  after_each(function()
    e2b.close()
    if server then server:stop() end
    server = nil
  end)

  local function sent(path)
    local found = {}
    for _, request in ipairs(server:requests()) do
      if request.method .. " " .. request.path == path then found[#found + 1] = request end
    end
    return found
  end

  for _, mode in ipairs(envd_peer.MODES) do
    local function it_(name, fn)
      it(name .. ", in " .. mode.name, function() mode.run(fn) end)
    end

    it_("starts the gateway as root, with a token of its own", function()
      serve(STARTS)
      local sandbox = assert(server.client.Sandbox.create({ mcp = SERVERS, timeout = 60 }))
      local start = envd_peer.messages(server, "Start")[1]
      local process = start.message.process
      local words = process.args
      assert.equal("mcp-gateway", words[#words - 2])
      assert.equal("--config", words[#words - 1])
      assert.same(SERVERS, support.core().json_decode(words[#words]))
      assert.equal("Basic cm9vdDo=", start.headers.authorization)
      local token = process.envs.GATEWAY_ACCESS_TOKEN
      assert.truthy(token:find("^%x%x%x%x%x%x%x%x%-%x%x%x%x%-4%x%x%x%-[89ab]%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$"), token)
      local create = support.core().json_decode(sent("POST /v2/sandboxes")[1].body)
      assert.equal("mcp-gateway", create.templateID)
      assert.same(SERVERS, create.mcp)

      assert.equal(token, sandbox:get_mcp_token())
      assert.equal(0, #sent("GET /files"))
      support.assert_no_secret(token, sandbox)
      assert.equal(0, #sent("DELETE /sandboxes/i1"))
      local other = assert(server.client.Sandbox.create({ template = "mine", mcp = { a = {} } }))
      assert.are_not.equal(token, other:get_mcp_token())
      assert.equal("mine", support.core().json_decode(sent("POST /v2/sandboxes")[2].body).templateID)
    end)

    it_("kills the sandbox when the gateway doesn't start", function()
      serve("on.Start = function(message) return run(2, 'out', 'no such server: exa (" .. KEY .. ")') end")
      local sandbox, message, err = server.client.Sandbox.create({ mcp = SERVERS })
      assert.is_nil(sandbox)
      assert.equal("exit", err.kind)
      assert.equal(2, err.exit_code)
      assert.equal("i1", err.sandbox_id)
      assert.equal("Sandbox.create", err.operation)
      assert.truthy(message:find("the MCP gateway did not start: it ended with exit code 2: no such server: exa", 1,
        true), message)
      local token = envd_peer.messages(server, "Start")[1].message.process.envs.GATEWAY_ACCESS_TOKEN
      support.assert_no_secret({ KEY, token }, message, err)
      assert.equal(1, #sent("DELETE /sandboxes/i1"))
    end)

    it_("kills the sandbox when the gateway can't be reached", function()
      serve([[
        on.Start = function() return conn:respond(502, '{"code":502,"message":"The sandbox was not found"}') end
      ]])
      local sandbox, message, err = server.client.Sandbox.create({ mcp = SERVERS, retries = 0 })
      assert.is_nil(sandbox)
      assert.equal("sandbox_gone", err.kind, message)
      assert.truthy(message:find("^Sandbox%.create: the MCP gateway did not start: "), message)
      assert.equal(1, #sent("DELETE /sandboxes/i1"))
    end)
  end

  it("reads the token of a gateway that was there before, once, as root", function()
    serve([[ function on.files() return conn:respond(200, "the-token\n", { ["Content-Type"] = "text/plain" }) end ]])
    local sandbox = server.sandbox()
    assert.equal("the-token", sandbox:get_mcp_token())
    assert.equal("the-token", sandbox:get_mcp_token({ request_timeout = 1 }))
    local reads = {}
    for _, request in ipairs(server:requests()) do
      if request.path:find("^/files") then reads[#reads + 1] = request.path end
    end
    assert.equal(1, #reads)
    assert.truthy(reads[1]:find("path=%2Fetc%2Fmcp-gateway%2F.token", 1, true), reads[1])
    assert.truthy(reads[1]:find("username=root", 1, true), reads[1])
    support.assert_no_secret("the-token", sandbox)
  end)

  it("says when there is no gateway", function()
    serve([[ function on.files() return answer(404, '{"code":404,"message":"path does not exist"}') end ]])
    local token, message, err = server.sandbox():get_mcp_token()
    assert.is_nil(token)
    assert.equal("not_found", err.kind, message)
    assert.equal("sandbox:get_mcp_token", err.operation)
    assert.matches("^sandbox:get_mcp_token: ", message)
    raises("unknown option", function() return server.sandbox():get_mcp_token({ usr = "x" }) end)
  end)

  it("has an address", function()
    serve("")
    assert.equal("https://50005-i1.e2b.app/mcp", server.sandbox():get_mcp_url())
    local client = assert(e2b.client({ debug = true, api_key = "k", getenv = function() end }))
    assert.equal("http://localhost:50005/mcp", assert(client.Sandbox.create()):get_mcp_url())
  end)
end)
