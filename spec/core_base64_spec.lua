-- Base64, the form that bytes have in JSON.
local core = require("e2b.core")
local encode, decode = core.base64_encode, core.base64_decode

-- Bytes of which no two neighbours are alike from one length to the next.
local function bytes(length, seed)
  local out, n = {}, seed or 1
  for i = 1, length do
    n = (n * 16807) % 2147483647
    out[i] = string.char(math.floor(n / 256) % 256)
  end
  return table.concat(out)
end

describe("base64", function()
  it("is what RFC 4648 says", function()
    for text, expected in pairs({
      [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", foob = "Zm9vYg==", fooba = "Zm9vYmE=", foobar = "Zm9vYmFy",
      ["\0"] = "AA==", ["\0\0\0"] = "AAAA", ["\255\255\255"] = "////", ["\251\239\190"] = "++++", ["a\0b"] = "YQBi",
    }) do
      assert.are.equal(expected, encode(text))
      assert.are.equal(text, decode(expected))
    end
  end)

  it("comes back as it went, at every length", function()
    for length = 0, 300 do
      local text = bytes(length, length + 1)
      assert.are.equal(text, decode(encode(text)))
      assert.are.equal(text, decode((encode(text):gsub("=", ""))))
      assert.are.equal(math.ceil(length / 3) * 4, #encode(text))
    end
    local long = bytes(100003):rep(17)
    assert.are.equal(long, decode(encode(long)))
  end)

  it("holds any character at any place", function()
    local letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    for place = 1, 40 do
      for i = 1, 64 do
        local text = ("A"):rep(place - 1) .. letters:sub(i, i) .. ("A"):rep(40 - place)
        assert.are.equal(text, encode(decode(text)))
      end
    end
  end)

  it("is read in the alphabet of URLs, too", function()
    assert.are.equal("\251\239\190", decode("--++"))
    assert.are.equal("\255\255\255", decode("__//"))
    assert.are.equal("hi?", decode("aGk_"))
  end)

  it("is refused when it is something else", function()
    for _, text in ipairs({
      "A", "AAAAA", "=", "==", "====", "A===", "AA=", "AAA==", "AAAA=", "AAAA==", "AA==AA==", "=AAA", "A=AA", "AA=A",
      " AAA", "AAA ", "AA A", "AAAA\n", "AA\r\nAA", "AAA\0", "\0\0\0\0", "AAA!", "AAA.", "AAA:", "AAA@", "AAA[", "AAA`",
      "AAA{", "AAA,", "AA\\/", 'AA"A', "\195\169AA", "AAA\128", "AAA\255",
    }) do
      assert.is_nil(decode(text), text)
      assert.is_nil(decode(("A"):rep(64) .. text), text)
    end
    for place = 1, 40 do
      for c = 0, 255 do
        local char = string.char(c)
        if not char:find("^[%w+/_-]$") and not (char == "=" and place >= 39) then
          local text = ("A"):rep(place - 1) .. char .. ("A"):rep(40 - place)
          assert.is_nil(decode(text), ("%d at %d"):format(c, place))
        end
      end
    end
  end)

  it("is made of strings", function()
    assert.has_error(function() encode() end)
    assert.has_error(function() decode({}) end)
  end)
end)
