-- URLs of files: the published vectors of their signatures, and how they are put together.
local e2b = require("e2b")
local envd_peer = require("spec.support.envd_peer")
local file_urls = require("e2b.file_urls")
local peer = require("spec.support.peer")
local platform = require("spec.support.platform")

local function query_of(url)
  local query = {}
  for name, value in url:match("%?(.*)$"):gmatch("([^&=]+)=([^&]*)") do
    query[name] = value:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end)
  end
  return query
end

describe("the signature of a file URL", function()
  it("is that of the published vectors", function()
    assert.equal("v1_gUtH/s9YCJWgCizjfUxuWfhFE4QSydOWEIIvfLwDr6E",
      file_urls.signature("hello.txt", "read", "user", "0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0"))
    assert.equal("v1_CwyhPuLusNgua4VmGO0QKIRWDxqT0joG6U3Gb0wMa1Q",
      file_urls.signature("/tmp/report 1.csv", "read", "", "tok-123"))
    assert.equal("v1_k7ds2STIEQIPjf1HvYdn3SiTyvIgeFZZWpdfHc4jhn4",
      file_urls.signature("/tmp/report 1.csv", "write", "root", "tok-123", 1767225600))
  end)
end)

describe("a file URL", function()
  local server, plain

  setup(function()
    server = envd_peer.start("")
    plain = peer.answers({ { status = 201, body = '{"sandboxID":"i1","templateID":"base","envdVersion":"0.6.13"}' },
      { status = 200, body = '{"sandboxID":"i1","templateID":"base","envdVersion":"0.6.13","state":"running",'
        .. '"startedAt":"2026-01-01T00:00:00Z","endAt":"2036-01-01T00:00:00Z"}' } })
  end)

  teardown(function()
    e2b.close()
    server:stop()
    plain:stop()
  end)

  it("carries a signature in the place of the token", function()
    local sandbox = server.sandbox()
    local url = sandbox:download_url("/tmp/a b+ü&.txt")
    assert.equal(1, select("#", sandbox:download_url("/tmp/a")))
    assert.equal(server.url .. "/files?path=%2Ftmp%2Fa%20b%2B%C3%BC%26.txt&signature=", url:match("^.-signature="))
    assert.is_nil(url:find("tok-1", 1, true))
    assert.is_nil(url:match("signature=(.*)"):find("[+/=]"))
    local query = query_of(url)
    assert.equal("/tmp/a b+ü&.txt", query.path)
    assert.equal(file_urls.signature("/tmp/a b+ü&.txt", "read", "", "tok-1"), query.signature)
    assert.is_nil(query.username)
    assert.is_nil(query.signature_expiration)
    -- no request but the create
    assert.equal(1, #server:requests())
  end)

  it("names the user, also in what is signed", function()
    local query = query_of(server.sandbox():upload_url("x", { user = "root" }))
    assert.same({ "x", "root" }, { query.path, query.username })
    assert.equal(file_urls.signature("x", "write", "root", "tok-1"), query.signature)
  end)

  it("for an upload needs no path", function()
    local sandbox = server.sandbox()
    for _, url in ipairs({ sandbox:upload_url(), (sandbox:upload_url({})), (sandbox:upload_url("")) }) do
      local query = query_of(url)
      assert.is_nil(query.path)
      assert.equal(file_urls.signature("", "write", "", "tok-1"), query.signature)
    end
  end)

  it("is good for the seconds given", function()
    local sandbox = server.sandbox()
    for _, lifetime in ipairs({ 60, 0, -60 }) do
      local before = os.time()
      local query = query_of(sandbox:download_url("x", { use_signature_expiration = lifetime }))
      local expiration = tonumber(query.signature_expiration)
      assert.is_true(expiration >= before + lifetime - 2 and expiration <= os.time() + lifetime + 2)
      assert.matches("^%-?%d+$", query.signature_expiration)
      assert.equal(file_urls.signature("x", "read", "", "tok-1", expiration), query.signature)
    end
  end)

  it("of a sandbox from a list fetches the token once", function()
    local sandbox = server.client.Sandbox.list():next_items()[1]
    local before = #server:requests()
    local query = query_of(assert(sandbox:download_url("x")))
    assert.equal(file_urls.signature("x", "read", "", "tok-1"), query.signature)
    assert(sandbox:download_url("y"))
    assert.equal(before + 1, #server:requests())
  end)

  it("of a sandbox without a token is not signed, and can't end", function()
    local sandbox = assert(platform.client_of(plain).Sandbox.create())
    assert.equal(plain.url .. "/files?path=x", (sandbox:download_url("x")))
    assert.equal(plain.url .. "/files", (sandbox:upload_url()))
    local ok, message = pcall(sandbox.download_url, sandbox, "x", { use_signature_expiration = 60 })
    assert.is_false(ok)
    assert.matches("use_signature_expiration is for secured sandboxes", message, nil, true)
  end)

  it("for a daemon without a default user names one", function()
    local old = envd_peer.start("", { version = "0.3.9" })
    local query = query_of(old.sandbox():download_url("x"))
    assert.equal("user", query.username)
    assert.equal(file_urls.signature("x", "read", "user", "tok-1"), query.signature)
    old:stop()
  end)

  it("begins with the sandbox's own host where there is one", function()
    local client = platform.client_of(server, { sandbox_url = "" })
    assert.matches("^https://49983%-i1%.e2b%.app/files%?path=x&signature=v1_",
      assert(client.Sandbox.create()):download_url("x"))
  end)

  it("raises at what is wrong with the arguments", function()
    local sandbox = server.sandbox()
    local function raises(text, name, ...)
      local ok, message = pcall(sandbox[name], sandbox, ...)
      assert.is_false(ok, text)
      assert.matches(text, message, nil, true)
      assert.matches("file_urls_spec.lua:%d+: ", message)
    end
    raises("needs the path of a file, got nil", "download_url")
    raises("needs the path of a file, got an empty string", "download_url", "")
    raises("the path must be a string, got number", "upload_url", 5)
    raises("whole number of seconds from now, got 1.5", "download_url", "x", { use_signature_expiration = 1.5 })
    raises("whole number of seconds from now, got \"60\"", "download_url", "x", { use_signature_expiration = "60" })
    raises("user must be a string", "download_url", "x", { user = 5 })
    raises("did you mean 'use_signature_expiration'?", "download_url", "x", { useSignatureExpiration = 5 })
  end)
end)
