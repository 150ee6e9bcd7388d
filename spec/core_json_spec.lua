local core = require("e2b.core")
local decode, encode = core.json_decode, core.json_encode
local has_integers = math.type ~= nil

-- Is there a value, anywhere in it, that Lua users can't handle?
local function find_foreign(value, path)
  local kind = type(value)
  if kind == "userdata" then
    return path
  end
  if kind == "table" then
    for key, item in pairs(value) do
      local found = find_foreign(item, path .. "." .. tostring(key))
      if found then
        return found
      end
    end
  end
end

describe("core.json_decode", function()
  it("gives strings, numbers, booleans, lists and maps", function()
    local value = decode(' {"s":"a\\u00e9\\n","n":-1.5,"t":true,"f":false,"l":[1,"2",[]],"o":{"":{}}} \r\n')
    assert.are.same({ s = "a\195\169\n", n = -1.5, t = true, f = false, l = { 1, "2", {} }, o = { [""] = {} } }, value)
    assert.are.equal("x", decode('"x"'))
    assert.are.equal(false, decode("false"))
    assert.are.equal(12, decode("12"))
  end)

  it("knows no null, wherever it stands, and keeps lists without holes", function()
    local value = decode('{"a":null,"b":{"c":null,"d":[null]},"l":[null,1,null,{"x":null},[null,null],null,"z",null]}')
    assert.is_nil(find_foreign(value, "value"))
    assert.are.same({ b = { d = {} }, l = { 1, {}, {}, "z" } }, value)
    assert.are.equal(4, #value.l)
    local long = decode("[" .. ("null,7,"):rep(3000) .. "null]")
    assert.are.equal(3000, #long)
  end)

  it("gives whole numbers as integers up to 2^53 and leaves the others alone", function()
    local value = decode("[1,1.0,-0.0,1e3,9007199254740992,-9007199254740992,"
      .. "9007199254740994,1.5,1e300,12345678901234567890]")
    assert.are.equal(10, #value)
    assert.are.equal(9007199254740992, value[5])
    assert.are.equal(1.2345678901234567e19, value[10])
    if has_integers then
      for i = 1, 6 do
        assert.are.equal("integer", math.type(value[i]), i)
      end
      for i = 7, 10 do
        assert.are.equal("float", math.type(value[i]), i)
      end
      assert.are.equal("integer", math.type(decode('{"a":{"b":[{"c":3.0}]}}').a.b[1].c))
      assert.are.equal("integer", math.type(decode("7")))
    end
    assert.are.equal("300", tostring(decode('{"n":300}').n))
  end)

  it("answers nil and a message for what is not JSON", function()
    for _, text in ipairs({
      "", " \n\t\r ", "null", " null ", "<html></html>", "\239\187\191{}", "nul", "tru", "{", "[", "[1,]", '{"a"}',
        '{"a":}',
      '{"a":1,}', "{a:1}", "{'a':1}", "[1 2]", "[1]]", "[1] x", "{} {}", "[1]\0", "\0[1]", "[\0]", '["\0"]',
        '{"a":1}\0garbage',
      '["\\x"]', '["\\u12"]', '["\\ud800"]', '"abc', "[NaN]", "[nan]", "[Infinity]", "[-Infinity]", "[inf]", "[0x10]",
        "[01]",
      "[+1]", "[.5]", "[-]", "/* */ 1", "undefined", "[1]{", "]", "}", ",", ":", "[}", "{]",
    }) do
      local value, message = decode(text)
      assert.is_nil(value, text)
      assert.are.equal("string", type(message), text)
    end
  end)

  it("raises for what is no string", function()
    assert.has_error(function() decode({}) end)
    assert.has_error(function() decode() end)
  end)

  it("reads 100 levels and no more, and survives 10,000 and a million", function()
    local function nested(open, close, n)
      return open:rep(n) .. close:rep(n)
    end
    assert.are.equal("table", type(decode(nested("[", "]", 100))))
    assert.is_nil(decode(nested("[", "]", 101)))
    assert.are.equal("table", type(decode('{"a":' .. nested("[", "]", 99) .. "}")))
    assert.is_nil(decode('{"a":' .. nested("[", "]", 100) .. "}"))
    for _, n in ipairs({ 10000, 1000000 }) do
      assert.is_nil(decode(nested("[", "]", n)))
      assert.is_nil(decode(("["):rep(n)))
      assert.is_nil(decode(('{"a":'):rep(n) .. "1" .. ("}"):rep(n)))
    end
    assert.are.same({ 1 }, decode("[1]")) -- and goes on
  end)

  it("takes every truncation of a document for what it is: not JSON", function()
    local text = '{"a":[1,null,{"b":"\\u00e9\\\\"}],"c":-1.5e3,"d":true,"e":{"f":[]}}'
    for n = 0, #text - 1 do
      local value, message = decode(text:sub(1, n))
      assert.is_nil(value, n)
      assert.are.equal("string", type(message))
    end
  end)

  it("does not fail over changed bytes", function()
    math.randomseed(7)
    local text = '{"a":[1,null,{"b":"\\u00e9\\\\"}],"c":-1.5e3,"d":true,"e":{"f":[]}}'
    for _ = 1, 5000 do
      local bytes = { text:byte(1, -1) }
      for _ = 1, math.random(1, 4) do
        bytes[math.random(#bytes)] = math.random(0, 255)
      end
      local value, message = decode(string.char((table.unpack or unpack)(bytes)))
      if value == nil then
        assert.are.equal("string", type(message))
      else
        assert.is_nil(find_foreign(value, "value"))
      end
    end
  end)
end)

describe("core.json_encode", function()
  it("writes strings, numbers, booleans, lists and maps", function()
    assert.are.equal('"a\\"\\\\\\n"', encode('a"\\\n'))
    assert.are.equal("[1,true,false,\"x\"]", encode({ 1, true, false, "x" }))
    assert.are.equal('{"a":{"b":[1]}}', encode({ a = { b = { 1 } } }))
    assert.are.equal("{}", encode({}))
    assert.are.equal('{"a":{}}', encode({ a = {} }))
    assert.are.equal("1.5", encode(1.5))
    assert.are.equal("false", encode(false))
  end)

  it("writes whole numbers as integers, exactly", function()
    local function number(n, text)
      assert.are.equal(text, encode(n))
      assert.are.equal("[" .. text .. "]", encode({ n }))
      assert.are.equal('{"a":' .. text .. "}", encode({ a = n }))
    end
    number(300, "300")
    number(300.0, "300")
    number(-0.0 + 0, "0")
    number(99999999999999, "99999999999999")
    number(100000000000000, "100000000000000")
    number(1e15, "1000000000000000")
    number(-123456789012345, "-123456789012345")
    number(2 ^ 53, "9007199254740992")
    number(-2 ^ 53, "-9007199254740992")
    number(2 ^ 62, "4611686018427387904")
    number(2 ^ 63, "9223372036854775808")
    number(-2 ^ 69, "-590295810358705651712")
    assert.are.equal(1e300, tonumber(encode(1e300)))
    if has_integers then
      number(math.maxinteger, "9223372036854775807")
      number(math.mininteger, "-9223372036854775808")
    end
    assert.are.equal("[1,1000000000000000,\"\\\\\",2000000000000000,\"x\"]", encode({ 1, 1e15, "\\", 2e15, "x" }))
  end)

  it("is not led astray by texts that look like its own marks", function()
    for _, text in ipairs({ '"\1e2b#12', ':"\1e2b#1"', '\\"\1e2b#1', "\\u0001e2b#1", '"\\u0001e2b#1"', "x\1e2b#1",
      '","\1e2b#1' }) do
      local json = encode({ 1e15, text, a = nil })
      assert.are.same({ 1e15, text }, decode(json))
    end
    assert.is_nil(encode({ "\1e2b#12" }))
    assert.is_nil(encode({ ["\1e2b#12"] = 1 }))
  end)

  it("writes keys that are numbers as names, in maps", function()
    assert.are.equal('{"1":"x"}', encode({ ["1"] = "x" }))
    assert.are.same({ a = 1, ["2"] = 2 }, decode(encode({ a = 1, ["2"] = 2 })))
    assert.are.same({ a = 1, ["7"] = 2 }, decode(encode({ a = 1, [7] = 2 })))
    assert.are.same({ a = 1, ["4503599627370496"] = 2 }, decode(encode({ a = 1, [2 ^ 52] = 2 })))
  end)

  it("takes the null of others for null", function()
    local null = require("cjson").null
    assert.are.equal("[1,null]", encode({ 1, null }))
  end)

  it("answers nil and a message that names the place for what JSON has not", function()
    local function refused(value, place)
      local json, message = encode(value)
      assert.is_nil(json)
      assert.is_truthy(message:find(place, 1, true), message)
    end
    refused(nil == nil and print, "function")
    refused({ a = { print } }, "a[1]: ")
    refused({ a = { b = io.stdout } }, "a.b: ")
    refused({ a = coroutine.create(function() end) }, "a: ")
    refused({ n = 1 / 0 }, "n: a finite number")
    refused({ n = -1 / 0 }, "n: ")
    refused({ n = 0 / 0 }, "n: ")
    refused({ 1, nil, 3 }, "neither a list nor a map")
    refused({ 1, 2, x = 3 }, "neither a list nor a map")
    refused({ a = { [true] = 1 } }, "a: the keys")
    refused({ [{}] = 1 }, "keys")
    refused({ a = { ["7"] = 1, [7] = 2 } }, "a: a number and a string")
    refused({ ["a\nb"] = print }, "a?b: ")
  end)

  it("writes 100 levels and answers a message for more, and for a table that contains itself", function()
    local function nested(n)
      local value = 1
      for _ = 1, n do
        value = { value }
      end
      return value
    end
    assert.are.equal(("["):rep(100) .. "1" .. ("]"):rep(100), encode(nested(100)))
    for _, value in ipairs({ nested(101), nested(10000) }) do
      local json, message = encode(value)
      assert.is_nil(json)
      assert.is_truthy(message:find("100 levels", 1, true))
    end
    local cycle = { a = {} }
    cycle.a.b = cycle
    local json, message = encode(cycle)
    assert.is_nil(json)
    assert.is_truthy(message:find("contains itself", 1, true))
    assert.is_true(#message < 400)
  end)

  it("refuses more than 64 MiB of text instead of failing over it", function()
    local megabyte, list = ("x"):rep(2 ^ 20), {}
    for i = 1, 65 do
      list[i] = megabyte
    end
    local json, message = encode(list)
    assert.is_nil(json)
    assert.is_truthy(message:find("too large", 1, true))
    assert.are.equal(2 ^ 20 + 4, #encode({ megabyte }))
    assert.are.equal(6 * 2 ^ 20 + 4, #encode({ ("\1"):rep(2 ^ 20) }))
  end)

  it("leaves the tables it is given as they were", function()
    local inner = setmetatable({ 1, 1e15 }, { __index = error, __pairs = error, __len = error })
    local value = setmetatable({ a = inner, [7] = 1.0 }, { __index = error, __pairs = error })
    assert.are.same({ a = { 1, 1e15 }, ["7"] = 1 }, decode(encode(value)))
    assert.are.equal(1e15, rawget(inner, 2))
    assert.are.equal(1, rawget(value, 7))
  end)

  it("comes back unchanged through json_decode, for whatever there is", function()
    math.randomseed(42)
    local function random_string()
      local bytes = {}
      for i = 1, math.random(0, 12) do
        bytes[i] = string.char(math.random(0, 255))
      end
      return table.concat(bytes)
    end
    local function random_value(depth)
      local kind = math.random(depth > 4 and 4 or 6)
      if kind == 1 then
        return random_string()
      elseif kind == 2 then
        return math.random(-1000000, 1000000)
      elseif kind == 3 then
        return math.random() < 0.5
      elseif kind == 4 then
        return math.floor((math.random() - 0.5) * 2 ^ 53)
      end
      local value = {}
      for i = 1, math.random(1, 5) do
        value[kind == 5 and i or "k" .. random_string()] = random_value(depth + 1)
      end
      return value
    end
    for _ = 1, 2000 do
      local value = random_value(0)
      local json = assert(encode(value))
      assert.are.same(value, decode(json))
    end
  end)
end)

describe("the codec", function()
  it("is private: neither side's settings reach the other", function()
    local cjson = require("cjson")
    assert.are.equal(1000, cjson.decode_max_depth())
    assert.are.equal(true, cjson.decode_invalid_numbers())
    cjson.decode_max_depth(1)
    cjson.encode_max_depth(1)
    local value, json = decode("[[[1]]]"), encode({ { { 1 } } })
    cjson.decode_max_depth(1000)
    cjson.encode_max_depth(1000)
    assert.are.same({ { { 1 } } }, value)
    assert.are.equal("[[[1]]]", json)
  end)

  it("is not used when it does not read what it writes: another copy may be mixed up with it", function()
    local support = require("spec.support.support")
    local result = support.run([[
      local cjson = require("cjson")
      local codec = cjson.new()
      local encode = codec.encode
      codec.encode = function(value) return (encode(value):gsub("^(.*)(\\[/n])", "%2%1")) end
      package.loaded.cjson = { new = function() return codec end }
      print(pcall(require, "e2b.core"))
    ]])
    assert.are.equal("", result.err)
    assert.matches("^false\tlua%-cjson doesn't work in this program", result.out)
  end)

  it("goes on after failures of either kind", function()
    for _ = 1, 200 do
      assert.is_nil(decode('{"a":[1,2'))
      assert.is_nil(encode({ a = { print } }))
      assert.are.equal('{"a":[1]}', encode(decode('{"a":[1]}')))
    end
  end)
end)
