-- The local server's times, codecs and ids.
local clock = require("e2b.server.clock")
local text = require("e2b.server.text")

describe("the local server's clock", function()
  it("agrees with the system's", function()
    clock.set()
    local before = os.time()
    local now = clock.now()
    assert.is_true(now >= (before - 1) * 1000000 and now <= (os.time() + 2) * 1000000)
    assert.is_true(clock.now() >= now)
  end)

  it("can be ahead on request", function()
    local now = clock.now()
    clock.set_skew(3600)
    assert.is_true(clock.now() - now >= 3600 * 1000000)
    clock.set_skew(0)
    assert.is_true(clock.now() - now < 10 * 1000000)
  end)

  it("writes UTC with up to six digits and no trailing zeros", function()
    assert.equal("1970-01-01T00:00:00Z", clock.format(0))
    assert.equal("1970-01-01T00:00:00.000001Z", clock.format(1))
    assert.equal("2024-02-29T23:59:59.25Z", clock.format(1709251199250000))
    assert.equal("2100-03-01T00:00:00Z", clock.format(4107542400000000))
    assert.equal("Thu, 29 Feb 2024 23:59:59 GMT", clock.http_date(1709251199250000))
  end)

  it("reads RFC 3339 and drops what is below a microsecond", function()
    assert.equal(1709251199123456, clock.parse("2024-02-29T23:59:59.1234567Z"))
    assert.equal(1709251199000000, clock.parse("2024-03-01T01:59:59+02:00"))
    assert.equal(1709251199500000, clock.parse("2024-02-29T18:29:59.5-05:30"))
    for _, wrong in ipairs({
      "", "2024-02-29", "2023-02-29T00:00:00Z", "2024-13-01T00:00:00Z", "2024-02-29T24:00:00Z", "2024-02-29t00:00:00z",
      "2024-02-29 00:00:00Z", "2024-02-29T00:00:00", "2024-02-29T00:00:00.Z", "2024-02-29T00:00:00+2:00",
      "2024-02-29T00:00:00Zx", "2024-00-01T00:00:00Z", "2024-01-00T00:00:00Z", "2024-01-01T00:60:00Z",
    }) do
      assert.is_nil(clock.parse(wrong), wrong)
    end
  end)

  it("reads back what it wrote, over leap years and centuries", function()
    for day = 0, 60000, 37 do
      local micros = day * 86400 * 1000000 + 12345
      assert.equal(micros, clock.parse(clock.format(micros)))
    end
  end)
end)

describe("the local server's codecs", function()
  it("decode percents and refuse broken ones", function()
    assert.equal("a/b c%", text.unescape_path("a%2Fb%20c%25"))
    assert.equal("a+b", text.unescape_path("a+b"))
    assert.equal("a b", text.unescape_query("a+b"))
    assert.is_nil(text.unescape_path("100%"))
    assert.is_nil(text.unescape_path("%zz"))
    assert.is_nil(text.unescape_query("%4"))
  end)

  it("split queries", function()
    assert.same({ a = "1", b = "x y", c = "", d = "p=q" }, text.parse_query("a=1&b=x+y&c&d=p%3Dq&a=2"))
    assert.same({}, text.parse_query(""))
    assert.is_nil(text.parse_query("a=%"))
  end)

  it("carry bytes through base64url", function()
    for length = 0, 20 do
      local bytes = ("\0\255~/"):rep(5):sub(1, length)
      assert.equal(bytes, text.unbase64url(text.base64url(bytes)))
    end
    assert.equal("-_8=", text.base64url("\251\255"))
    for _, wrong in ipairs({ "a", "abc", "ab=c", "a===", "ab+/", "====" }) do
      assert.is_nil(text.unbase64url(wrong), wrong)
    end
  end)

  it("make ids that differ and have the service's form", function()
    local seen = {}
    for _ = 1, 200 do
      local id = text.random_id()
      assert.matches("^[a-z0-9]+$", id)
      assert.equal(20, #id)
      assert.is_nil(seen[id])
      seen[id] = true
    end
    assert.matches("^%x+%-%x%x%x%x%-4%x%x%x%-[89ab]%x%x%x%-%x+$", text.random_uuid())
  end)
end)
