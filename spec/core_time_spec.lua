local core = require("e2b.core")

describe("core.time_parse", function()
  local known = {
    ["1970-01-01T00:00:00Z"] = 0,
    ["1970-01-01t00:00:00z"] = 0,
    ["1970-01-01 00:00:00Z"] = 0,
    ["1969-12-31T23:59:59Z"] = -1,
    ["1969-12-31T23:59:59.999999999Z"] = -1, -- down, on both sides of the epoch
    ["1970-01-01T00:00:00.999Z"] = 0,
    ["2026-08-21T10:17:06.478134Z"] = 1787307426,
    ["2026-08-21T12:17:06+02:00"] = 1787307426,
    ["2026-08-21T04:47:06.1-05:30"] = 1787307426,
    ["2026-08-21T10:17:06-00:00"] = 1787307426,
    ["2026-01-01T00:30:00+01:00"] = 1767223800, -- last year in UTC
    ["2000-02-29T00:00:00Z"] = 951782400,
    ["2016-12-31T23:59:60Z"] = 1483228800, -- a leap second is the next one's first
    ["2038-01-19T03:14:08Z"] = 2147483648,
    ["0001-01-01T00:00:00Z"] = -62135596800, -- what Go writes for no time
    ["0000-01-01T00:00:00Z"] = -62167219200,
    ["9999-12-31T23:59:59.999Z"] = 253402300799,
    ["2026-01-02T03:04:05." .. ("1"):rep(5000) .. "Z"] = 1767323045,
  }

  for text, seconds in pairs(known) do
    it("reads " .. text:sub(1, 40), function()
      local got = core.time_parse(text)
      assert.are.equal(seconds, got)
      if math.type then
        assert.are.equal("integer", math.type(got))
      end
    end)
  end

  it("refuses everything else", function()
    for _, text in ipairs({
      "", "Z", "2026", "2026-01-02", "2026-01-02T03:04:05", "2026-01-02T03:04Z", "2026-1-2T03:04:05Z",
      "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z", "2026-01-32T00:00:00Z", "2026-01-00T00:00:00Z",
      "2026-02-29T00:00:00Z", "1900-02-29T00:00:00Z", "2026-04-31T00:00:00Z", "2026-01-01T24:00:00Z",
      "2026-01-01T00:60:00Z", "2026-01-01T00:00:61Z", "2026-01-01T00:00:00.Z", "2026-01-01T00:00:00,5Z",
      "2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00+01:60", "2026-01-01T00:00:00+0100",
      "2026-01-01T00:00:00+01", "2026-01-01T00:00:00.5", "2026-01-01T00:00:00ZZ", "2026-01-01T00:00:00Z ",
      " 2026-01-01T00:00:00Z", "2026-01-01X00:00:00Z", "2026/01/01T00:00:00Z", "-026-01-01T00:00:00Z",
      "2026-01-01T00:00:00\0Z", "2026-01-01T-1:00:00Z", "+2026-01-01T00:00:00Z", "2026-01-01T00:00:00 +01:00",
    }) do
      assert.is_nil(core.time_parse(text), text)
    end
  end)

  it("reads every prefix of a time without harm", function()
    local text = "2026-08-21T10:17:06.478134+02:00"
    for n = 0, #text - 1 do
      assert.is_nil(core.time_parse(text:sub(1, n)), text:sub(1, n))
    end
  end)
end)

describe("core.time_format", function()
  it("writes whole seconds without a fraction, others with milliseconds", function()
    assert.are.equal("1970-01-01T00:00:00Z", core.time_format(0))
    assert.are.equal("2026-01-02T03:04:05Z", core.time_format(1767323045))
    assert.are.equal("2026-01-02T03:04:05.250Z", core.time_format(1767323045.25))
    assert.are.equal("1969-12-31T23:59:59.500Z", core.time_format(-0.5))
    assert.are.equal("2026-01-02T03:04:06.000Z", core.time_format(1767323045.9996))
    assert.are.equal("0000-01-01T00:00:00Z", core.time_format(-62167219200))
    assert.are.equal("9999-12-31T23:59:59Z", core.time_format(253402300799))
  end)

  it("answers nil for a year that has not four digits, and for what is no time", function()
    for _, n in ipairs({ -62167219201, 253402300800, 253402300799.9999, 1e300, -1e300, 1 / 0, -1 / 0, 0 / 0 }) do
      assert.is_nil(core.time_format(n))
    end
  end)

  it("agrees with os.date and with time_parse over all times", function()
    math.randomseed(20260821)
    for i = 1, 20000 do
      local n
      if i % 2 == 0 then -- near us, where every day matters
        n = math.floor(math.random() * 4e9)
      else
        n = math.floor(math.random() * 315569520000) - 62167219200
      end
      local text = core.time_format(n)
      assert.are.equal(n, core.time_parse(text))
      if n >= -62135596800 then -- strftime pads years below 1000 as it likes
        local year = text:sub(1, 4)
        local date = os.date("!%m-%dT%H:%M:%SZ", n)
        assert.are.equal(year .. "-" .. date, text)
        assert.are.equal(tonumber(year), tonumber((os.date("!%Y", n))))
      end
    end
  end)

  it("agrees with os.date on every day of 400 years", function()
    for day = 0, 146097 do
      local n = day * 86400 + day % 86400
      if core.time_format(n) ~= os.date("!%Y-%m-%dT%H:%M:%SZ", n) then
        assert.are.equal(os.date("!%Y-%m-%dT%H:%M:%SZ", n), core.time_format(n))
      end
    end
  end)

  it("keeps milliseconds through a round trip of the text", function()
    for ms = 1, 999 do
      assert.are.equal(("2023-11-14T22:13:20.%03dZ"):format(ms), core.time_format(1700000000 + ms / 1000))
    end
  end)
end)

describe("core.escape", function()
  it("leaves what is unreserved and writes every other byte as %XX", function()
    local plain = "ABCXYZabcxyz0189-._~"
    assert.are.equal(plain, core.escape(plain))
    assert.are.equal("", core.escape(""))
    for byte = 0, 255 do
      local c = string.char(byte)
      local expected = c:find("^[A-Za-z0-9%-%._~]$") and c or ("%%%02X"):format(byte)
      assert.are.equal(expected, core.escape(c))
      assert.are.equal("a" .. expected .. "b", core.escape("a" .. c .. "b"))
    end
    assert.are.equal("ns%2Fname%3Atag", core.escape("ns/name:tag"))
    assert.are.equal("%F0%9F%98%80", core.escape("\240\159\152\128"))
  end)

  it("takes a megabyte", function()
    assert.are.equal(3 * 2 ^ 20, #core.escape(("%"):rep(2 ^ 20)))
  end)
end)
