-- SHA-256 and gzip.
local support = require("spec.support.support")
local core = support.core()

local function hex(bytes)
  return (bytes:gsub(".", function(c)
    return ("%02x"):format(c:byte())
  end))
end

-- What the gzip program makes of these bytes.
local function unpacked(bytes)
  local folder = support.tmpdir()
  support.write_file(folder .. "/packed.gz", bytes)
  local output, code = support.shell("gzip -dc " .. folder .. "/packed.gz > " .. folder .. "/plain")
  assert.equal(0, code, output)
  local plain = support.read_file(folder .. "/plain")
  support.cleanup(folder)
  return plain
end

describe("core.sha256", function()
  it("gives the digests that the standard's examples have", function()
    for text, digest in pairs({
      [""] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
      abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
      abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq =
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
      [("a"):rep(1000000)] = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
    }) do
      assert.equal(digest, hex(core.sha256(text)))
    end
  end)

  it("agrees with sha256sum at every length around its blocks", function()
    local folder = support.tmpdir()
    local bytes = {}
    for i = 1, 300 do
      bytes[i] = string.char(i * 7 % 256)
    end
    local all = table.concat(bytes)
    local expected = {}
    for n = 0, 300 do
      support.write_file(("%s/%03d"):format(folder, n), all:sub(1, n))
    end
    local output = support.shell("cd " .. folder .. " && sha256sum *")
    for digest, n in output:gmatch("(%x+)  (%d+)") do
      expected[tonumber(n)] = digest
    end
    for n = 0, 300 do
      assert.equal(expected[n], hex(core.sha256(all:sub(1, n))))
    end
  end)

  it("takes strings only", function()
    assert.has_error(function() core.sha256() end)
    assert.has_error(function() core.sha256({}) end)
  end)
end)

describe("core.deflate", function()
  it("makes a gzip stream out of pieces", function()
    local packer, parts = core.deflate(), {}
    for i = 1, 5000 do
      parts[i] = packer:write("line " .. i .. "\0\n")
    end
    parts[#parts + 1] = packer:write("the end", "finish")
    local lines = {}
    for i = 1, 5000 do
      lines[i] = "line " .. i .. "\0\n"
    end
    local plain = table.concat(lines) .. "the end"
    local packed = table.concat(parts)
    assert.is_true(#packed < #plain / 3)
    assert.is_true(plain == unpacked(packed))
  end)

  it("makes one of nothing, and of one piece of any size", function()
    assert.equal("", unpacked(core.deflate():write("", "finish")))
    assert.equal("x", unpacked(core.deflate(9):write("x", "finish")))
    local noise = {}
    math.randomseed(4711)
    for i = 1, 40000 do
      noise[i] = string.char(math.random(0, 255), math.random(0, 255), math.random(0, 255))
    end
    noise = table.concat(noise)
    assert.is_true(noise == unpacked(core.deflate(1):write(noise, "finish")))
    assert.is_true(noise == unpacked(core.deflate(0):write(noise, "finish")))
  end)

  it("is over after its last piece, and refuses what it doesn't know", function()
    local packer = core.deflate()
    packer:write("a", "finish")
    assert.has_error(function() packer:write("b") end, "attempt to use a finished compressor")
    assert.has_error(function() core.deflate(10) end)
    assert.has_error(function() core.deflate(1.5) end)
    assert.has_error(function() core.deflate():write("a", "flush") end)
    assert.has_error(function() core.deflate():write() end)
  end)

  it("gives its memory back when it is left half way", function()
    support.collect()
    local function many()
      for _ = 1, 200 do
        core.deflate():write("some")
      end
      support.collect()
    end
    local function resident()
      return tonumber((support.read_file("/proc/self/statm") or ""):match("^%d+ (%d+)"))
    end
    many()
    local before = resident()
    many()
    many()
    if before and support.slack == 1 then -- a sanitizer keeps what is freed for a while
      assert.is_true(resident() - before < 8000, "pages gained") -- 400 of them would be 26,000
    end
  end)
end)
