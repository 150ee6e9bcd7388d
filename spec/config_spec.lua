local config = require("e2b.config")
local version = require("e2b.version")

local function resolve(opts, env)
  opts = opts or {}
  opts.getenv = function(name) return env and env[name] end
  return config.resolve(config.read(opts))
end

local function header(cfg, name)
  local found
  for _, entry in ipairs(cfg.headers) do
    if entry[1]:lower() == name:lower() then
      assert.is_nil(found, name .. " is there twice")
      found = entry[2]
    end
  end
  return found
end

describe("config", function()
  it("has E2B's defaults", function()
    local cfg, key = resolve()
    assert.equal("https://api.e2b.app", cfg.api_url)
    assert.equal("api.e2b.app", cfg.api_host)
    assert.equal("e2b.app", cfg.domain)
    assert.is_false(cfg.debug)
    assert.same({ 60, 10, 60, 3, 33554432 },
      { cfg.request_timeout, cfg.connect_timeout, cfg.idle_timeout, cfg.retries, cfg.max_answer_bytes })
    assert.is_nil(key)
    assert.is_nil(cfg.sandbox_url)
    assert.is_nil(cfg.trouble)
  end)

  it("takes options over the environment over defaults", function()
    local env = {
      E2B_API_KEY = "from-env", E2B_DOMAIN = "env.example", E2B_SANDBOX_URL = "https://sandboxes.env",
      E2B_API_CONNECTIONS = "7",
    }
    local cfg, key = resolve({}, env)
    assert.equal("from-env", key)
    assert.equal("https://api.env.example", cfg.api_url)
    assert.equal("https://sandboxes.env", cfg.sandbox_url)
    assert.equal(7, cfg.connections)
    cfg, key = resolve({
      api_key = "given", domain = "given.example", sandbox_url = "https://sandboxes.given", connections = 3,
    }, env)
    assert.equal("given", key)
    assert.equal("https://api.given.example", cfg.api_url)
    assert.equal("https://sandboxes.given", cfg.sandbox_url)
    assert.equal(3, cfg.connections)
    env.E2B_API_URL = "https://url.env/base/"
    assert.equal("https://url.env/base", resolve({ domain = "given.example" }, env).api_url)
    assert.equal("https://url.given", resolve({ api_url = "https://url.given" }, env).api_url)
  end)

  it("takes an empty text for not given, and false and 0 for values", function()
    local cfg, key = resolve({
      api_key = "", domain = "", api_url = "", sandbox_url = "", request_timeout = 0, retries = 0,
    }, { E2B_API_KEY = "", E2B_DOMAIN = "env.example", E2B_API_URL = "", E2B_DEBUG = "" })
    assert.is_nil(key)
    assert.equal("https://api.env.example", cfg.api_url)
    assert.equal(0, cfg.request_timeout)
    assert.equal(0, cfg.retries)
    assert.is_false(resolve({ debug = false }, { E2B_DEBUG = "true" }).debug)
  end)

  it("reads E2B_DEBUG whatever its case; debug is on this machine", function()
    for text, expected in pairs({
      ["true"] = true, TRUE = true, True = true, ["1"] = false, yes = false, ["false"] = false,
    }) do
      assert.equal(expected, resolve({}, { E2B_DEBUG = text }).debug)
    end
    local cfg = resolve({ debug = true })
    assert.equal("http://localhost:3000", cfg.api_url)
    assert.equal("https://api.x", resolve({ debug = true, api_url = "https://api.x" }).api_url)
    assert.equal("http://localhost:49983", config.sandbox_base(cfg, "e2b.app", "i1"))
  end)

  it("raises on options that are not right, and names them", function()
    for name, values in pairs({
      api_key = { 5, {}, true }, domain = { 5, "https://e2b.app", "a b", "a/b", "x\r\ny" },
      api_url = {
        5, "api.e2b.app", "ftp://x", "https://", "https://u:p@x", "https://user@x", "https://x?q", "https://x y",
        "https://x#f",
      },
      sandbox_url = { "x", "file:///etc" }, debug = { "true", 1 }, request_timeout = { -1, "1" }, retries = { 1.5, -1 },
      headers = { "x" },
      proxy = {
        true, 5, "http://", "http://host:99999999", "http://host:0", "http://host:", "ftp://host",
        "gopher://u:p@host:1",
        "http://a b", "http://host\n", "://host", "user:p@", "http://u:p/w@host:80", "http://u:1/w@host",
        "http://u@h@host:1", "http://u:%00@host", "http://u:%1F@host", "http://u:%7f@host",
        "http://a%20b:1", "http://[zz]:1",
        "http://ho{st", "http://[::1", "http://[::1]x",
      }, ca_file = { 5 }, user_agent = { "a\nb", 1 }, integration = { "a\nb" },
      logger = { {}, "x" }, connections = { 0, 1.5, "5" }, max_answer_bytes = { 0 }, loop = { "uv5", {}, 5 },
      getenv = { {} },
    }) do
      for _, value in ipairs(values) do
        local ok, message = pcall(config.read, { [name] = value })
        assert.is_false(ok, name .. " = " .. tostring(value))
        assert.matches("bad option '" .. name .. "' for e2b.client", message, 1, true)
      end
    end
    assert.is_false((pcall(config.read, { apiKey = "x" })))
    assert.is_true((pcall(config.read, { loop = "blocking", proxy = false, validate_api_key = true })))
  end)

  it("takes the proxies that libcurl takes", function()
    for _, value in ipairs({
      "", "proxy", "proxy:8080", "http://proxy:8080/", "HTTPS://user:pass%2Fword@proxy.example:443", "user:p@proxy:1",
      "socks5h://u:p:w@[::1]:1080", "socks4://10.0.0.1", "socks4a://x", "socks5://x_y", "http://[fe80::1%25lo]:1",
      "http://u:a%zz<>{}|^`é\"@host:1",
    }) do
      assert.equal(value, config.read({ proxy = value }).proxy)
    end
  end)

  it("never shows a proxy's password", function()
    for _, value in ipairs({ "http://user:hidden@host:99999999", "ftp://user:hidden@host", "user:hidden/x@host" }) do
      local ok, message = pcall(config.read, { proxy = value })
      assert.is_false(ok)
      assert.is_nil(message:find("hidden", 1, true))
    end
  end)

  it("never shows a URL that may hold a password", function()
    local _, message = pcall(config.read, { api_url = "https://user:hidden@host" })
    assert.is_nil(message:find("hidden", 1, true))
  end)

  it("answers wrong variables with a sentence instead of raising", function()
    for name, value in pairs({
      E2B_API_URL = "api.e2b.app", E2B_SANDBOX_URL = "x", E2B_DOMAIN = "https://e2b.app", E2B_API_CONNECTIONS = "0",
    }) do
      local cfg = resolve({}, { [name] = value })
      assert.matches("the environment variable " .. name, cfg.trouble, 1, true)
    end
    assert.is_nil(resolve({ api_url = "https://x" }, { E2B_API_URL = "broken" }).trouble)
  end)

  it("sends nothing about the machine, and the caller's headers, the later ones winning whatever their case", function()
    local cfg = resolve()
    assert.equal("e2b-lua-sdk/" .. version, cfg.user_agent)
    assert.same({}, cfg.headers)
    cfg = resolve({ headers = { ["X-One"] = "1", ["x-two"] = "a" }, api_headers = { ["X-TWO"] = "b" } })
    assert.equal("1", header(cfg, "x-one"))
    assert.equal("b", header(cfg, "x-two"))
    assert.is_false(cfg.own_key)
    assert.is_true(resolve({ api_headers = { ["x-api-KEY"] = "k" } }).own_key)
  end)

  it("builds the User-Agent: integration after ours, the caller's in its place", function()
    assert.equal("e2b-lua-sdk/" .. version .. " tool/1.2", resolve({ integration = "tool/1.2" }).user_agent)
    assert.equal("mine/1", resolve({ user_agent = "mine/1", integration = "tool/1.2" }).user_agent)
    local cfg = resolve({ headers = { ["user-AGENT"] = "header/1" }, user_agent = "mine/1" })
    assert.equal("header/1", cfg.user_agent)
    assert.is_nil(header(cfg, "user-agent"))
    assert.equal("mine/1", cfg.envd_agent) -- the caller's headers never reach a sandbox
  end)

  it("tells loopback from elsewhere, and keeps the environment's proxy away from it", function()
    for url, loopback in pairs({
      ["http://localhost:3000"] = true, ["http://127.0.0.1"] = true, ["http://[::1]:80/x"] = true,
      ["http://127.1.2.3:9"] = true, ["http://10.0.0.1"] = false, ["http://localhost.example"] = false,
      ["http://127.0.0.1.example"] = false, ["https://e2b.app"] = false,
    }) do
      assert.equal(loopback, config.url(url).loopback, url)
    end
    assert.is_false(config.proxy({}, true))
    assert.is_nil(config.proxy({}, false))
    assert.equal("http://p", config.proxy({ proxy = "http://p" }, true))
    assert.is_false(config.proxy({ proxy = false }, false))
  end)

  it("finds a sandbox by E2B's rules", function()
    local cfg = resolve()
    assert.equal("https://sandbox.e2b.app", config.sandbox_base(cfg, nil, "i1"))
    for _, domain in ipairs({ "e2b.app", "e2b.dev", "e2b.pro", "e2b-staging.dev" }) do
      assert.equal("https://sandbox." .. domain, config.sandbox_base(cfg, domain, "i1"))
    end
    assert.equal("https://49983-i1.foo.e2b.dev", config.sandbox_base(cfg, "foo.e2b.dev", "i1"))
    assert.equal("https://49983-i1.own.example", config.sandbox_base(resolve({ domain = "own.example" }), "", "i1"))
    assert.equal("http://10.0.0.1:80", config.sandbox_base(resolve({ sandbox_url = "http://10.0.0.1:80/" }), "x", "i1"))
    for _, id in ipairs({ "a.evil", "a/b", "a@b", "", ("x"):rep(60), "a\r\nb" }) do
      local url, message = config.sandbox_base(cfg, "own.example", id)
      assert.is_nil(url)
      assert.matches("sandbox id", message)
    end
    assert.is_nil((config.sandbox_base(cfg, "evil/../x", "i1")))
  end)

  it("keeps its own copy of the caller's tables", function()
    local headers = { ["X-A"] = "1" }
    local opts = { headers = headers, api_key = "k" }
    local read = config.read(opts)
    headers["X-A"], opts.api_key = "2", "other"
    assert.equal("1", read.headers["X-A"])
    assert.equal("k", read.api_key)
  end)

  it("does not keep the key in the settings", function()
    local cfg = resolve({ api_key = "e2b_hidden" })
    require("spec.support.support").assert_no_secret("e2b_hidden", cfg)
  end)
end)
