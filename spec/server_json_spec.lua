-- The local server's own JSON: what it must tell apart, and what it must refuse.
local json = require("e2b.server.json")
local support = require("spec.support.support")

describe("the local server's JSON", function()
  it("tells empty arrays from empty objects, both ways", function()
    assert.equal('{"list":[],"map":{}}', json.encode({ list = json.array({}), map = {} }))
    local value = json.decode('{"list":[],"map":{}}')
    assert.is_true(json.is_array(value.list))
    assert.is_false(json.is_array(value.map))
    assert.is_true(json.is_object(value.map))
    assert.equal('{"list":[],"map":{}}', json.encode(value))
  end)

  it("keeps null apart from absent, and 300.0 apart from 300", function()
    local value = json.decode('{"none":null,"whole":300,"float":300.0,"exponent":3e2,"big":12345678901234567890}')
    assert.equal(json.null, value.none)
    assert.equal(300, value.whole)
    assert.is_true(json.is_float(value.float))
    assert.is_true(json.is_float(value.exponent))
    assert.is_true(json.is_float(value.big))
    assert.equal('{"big":12345678901234567890,"exponent":3e2,"float":300.0,"none":null,"whole":300}',
      json.encode(value))
    assert.same({ whole = 300, float = 300, exponent = 300, big = 12345678901234567890 }, json.plain(value))
  end)

  it("writes whole numbers without a fraction, and escapes what it must", function()
    assert.equal("[300,-5,0,1795406853209609]", json.encode(json.array({ 300, -5, 0, 1795406853209609 })))
    assert.equal("1.25", json.encode(1.25))
    assert.equal([["\"\\\n\u0000\u001f\u007fé"]], json.encode('"\\\n\0\31\127é'))
    assert.has_error(function() json.encode(0 / 0) end)
    assert.has_error(function() json.encode({ print }) end)
  end)

  it("reads strings with every escape, and repairs what is no UTF-8 as Go does", function()
    assert.equal('a"\\/\b\f\n\r\tä😀', json.decode([["a\"\\\/\b\f\n\r\t\u00e4\ud83d\ude00"]]))
    assert.equal("\239\191\189x", json.decode([["\ud800x"]]))
    assert.equal("\239\191\189\239\191\189ok", json.decode('"\255\192ok"'))
    assert.equal("\239\191\189\239\191\189\239\191\189", json.decode('"\237\160\128"'))
  end)

  it("refuses what is not JSON", function()
    local wrong = {
      "", " ", "nul", "tru", "01", "1.", ".5", "-", "+1", "1e", "0x10", "NaN", "[1,]", "[1 2]", "{", "{a:1}", '{"a"}',
      '{"a":1,}', '"abc', '"a\nb"', '"\\x"', '"\\u12"', "1 2", "[", "]", "'a'", "1.2.3", "--1",
    }
    for _, text in ipairs(wrong) do
      local value, message = json.decode(text)
      assert.is_nil(value, text)
      assert.matches("at byte %d+$", message)
    end
  end)

  it("refuses deep nesting without harm", function()
    local value, message = json.decode(("["):rep(100000))
    assert.is_nil(value)
    assert.matches("nested too deeply", message)
    assert.is_nil((json.decode(('{"a":'):rep(100000))))
    assert.is_table((json.decode(("["):rep(400) .. ("]"):rep(400))))
  end)

  it("reads a value of a megabyte quickly", function()
    local text = ("x\\n"):rep(350000)
    local start = os.clock()
    assert.equal(700000, #json.decode('{"v":"' .. text .. '"}').v)
    assert.is_true(os.clock() - start < 5 * support.slack)
  end)
end)
