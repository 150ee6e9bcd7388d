-- Archives beside the tar of this machine: each reads what the other wrote.
local support = require("spec.support.support")
local tar = require("e2b.tar")

-- Hands out `text` in pieces of `size` bytes.
local function pieces(text, size)
  local at = 1
  return function()
    if at > #text then return nil end
    local piece = text:sub(at, at + size - 1)
    at = at + size
    return piece
  end
end

-- All entries with their contents, or nil and what is wrong.
local function read_all(text, size)
  local reader = tar.reader(pieces(text, size or 4096))
  local list = {}
  while true do
    local entry, message = reader:next()
    if entry == nil then
      if message ~= nil then return nil, message end
      break
    end
    local parts = {}
    while true do
      local bytes, wrong = reader:content()
      if bytes == nil then
        if wrong ~= nil then return nil, wrong end
        break
      end
      parts[#parts + 1] = bytes
    end
    entry.data = table.concat(parts)
    list[#list + 1] = entry
  end
  assert(reader:drain())
  return list
end

local function file(path, data, more)
  local entry = { type = "file", path = path, mode = 420, mtime = 1700000000, size = #data }
  for name, value in pairs(more or {}) do entry[name] = value end
  return tar.header(entry) .. data .. tar.padding(#data)
end

local LONG = ("d"):rep(150) .. "/" .. ("f"):rep(200)
local NAMES = {
  "a", "a b", "ü", 'q"uote', "new\nline", "back\\slash", "tab\t", ("n"):rep(100), ("n"):rep(101), LONG, "-dash",
  "a=b", "100%", "star*",
}

describe("an archive", function()
  it("comes back as it was written, in pieces of any length", function()
    local parts = {}
    for i, name in ipairs(NAMES) do parts[i] = file(name, ("x"):rep(i * 97)) end
    parts[#parts + 1] = tar.header({ type = "dir", path = "dir", mode = 493, mtime = 5 })
    parts[#parts + 1] = tar.header({ type = "symlink", path = "l", mode = 511, mtime = 0, target = ("t"):rep(300) })
    parts[#parts + 1] = file("old", "o", { mtime = -7, mode = 384 })
    parts[#parts + 1] = file("empty", "")
    parts[#parts + 1] = tar.ENDING
    local text = table.concat(parts)
    for _, size in ipairs({ 1, 7, 511, 512, 513, 100000 }) do
      local list = assert(read_all(text, size))
      assert.equal(#NAMES + 4, #list)
      for i, name in ipairs(NAMES) do
        assert.same({ "file", name, 420, 1700000000, ("x"):rep(i * 97) },
          { list[i].type, list[i].path, list[i].mode, list[i].mtime, list[i].data })
      end
      local n = #NAMES
      assert.same({ "dir", "dir", 493, 5, 0 },
        { list[n + 1].type, list[n + 1].path, list[n + 1].mode, list[n + 1].mtime, list[n + 1].size })
      assert.same({ "symlink", "l", ("t"):rep(300) }, { list[n + 2].type, list[n + 2].path, list[n + 2].target })
      assert.same({ -7, 384 }, { list[n + 3].mtime, list[n + 3].mode })
      assert.equal(0, list[n + 4].size)
    end
  end)

  it("says the size of files that ustar has no room for", function()
    for _, size in ipairs({ 8 ^ 11 - 1, 8 ^ 11, 2 ^ 40 }) do
      local head = tar.header({ type = "file", path = "big", mode = 420, mtime = 1, size = size })
      local entry = assert(tar.reader(pieces(head, 512)):next())
      assert.equal(size, entry.size)
    end
  end)

  it("skips what was not read", function()
    local reader = tar.reader(pieces(file("a", ("x"):rep(5000)) .. file("b", "y") .. tar.ENDING, 100))
    assert.equal("a", reader:next().path)
    assert.equal("x", reader:content():sub(1, 1))
    assert.equal("b", reader:next().path)
    assert.is_nil((reader:next()))
    assert.is_nil((reader:next()))
  end)

  describe("beside the machine's tar", function()
    local folder

    before_each(function() folder = support.tmpdir() end)
    after_each(function() support.cleanup(folder) end)

    local function shell(command)
      local output, code = support.shell("cd " .. folder .. " && " .. command)
      assert(code == 0, output)
      return output
    end

    it("is read by it", function()
      local parts = {}
      for i, name in ipairs(NAMES) do parts[i] = file(name, ("x"):rep(i), { mtime = 1000000000 + i }) end
      parts[#parts + 1] = tar.header({ type = "symlink", path = "ln", mode = 511, mtime = 1, target = "ü/there" })
      parts[#parts + 1] = tar.ENDING
      support.write_file(folder .. "/x.tar", table.concat(parts))
      shell("mkdir out && tar -x -p -f x.tar -C out")
      for i, name in ipairs(NAMES) do
        assert.equal(("x"):rep(i), support.read_file(folder .. "/out/" .. name), name)
      end
      assert.equal("1000000001", shell("stat -c %Y out/a"):match("%d+"))
      assert.equal("644", shell("stat -c %a out/a"):match("%d+"))
      assert.matches("ü/there", shell("readlink out/ln"), nil, true)
    end)

    for _, form in ipairs({ "gnu", "pax", "ustar", "v7", "oldgnu" }) do
      it("of the form " .. form .. " is read from it", function()
        local names = { "a", "a b", ("n"):rep(90) }
        local long = form == "gnu" or form == "pax" or form == "oldgnu"
        if long then
          for _, name in ipairs({ "ü", 'q"uote', "new\nline", LONG }) do names[#names + 1] = name end
        end
        for i, name in ipairs(names) do
          shell("mkdir -p " .. support.quote("in/" .. (name:match("^(.*)/") or ".")))
          support.write_file(folder .. "/in/" .. name, ("y"):rep(i * 300))
        end
        shell("ln -s " .. (long and ("t"):rep(200) or "there") .. " in/link && ln in/a in/hard && mkdir in/empty "
          .. "&& chmod 750 in/a && touch -d @1234567890 in/a in/empty "
          .. "&& tar -c --format=" .. form .. " -C in . > x.tar")
        local list = assert(read_all(assert(support.read_file(folder .. "/x.tar")), 10240))
        local by_path = {}
        for _, entry in ipairs(list) do by_path[entry.path] = entry end
        for i, name in ipairs(names) do
          local entry = by_path["./" .. name]
          -- the two names of one file come in any order
          if name == "a" and entry.type == "link" then
            assert.equal("./hard", entry.target)
            entry = by_path["./hard"]
          end
          assert.equal(("y"):rep(i * 300), entry.data, name)
        end
        local one, other = by_path["./a"], by_path["./hard"]
        assert.is_true(one.type == "link" and one.target == "./hard" or other.type == "link" and other.target == "./a")
        assert.same({ 488, 1234567890 }, { one.mode, one.mtime })
        assert.equal(long and ("t"):rep(200) or "there", by_path["./link"].target)
        assert.same({ "dir", 1234567890 }, { by_path["./empty"].type, by_path["./empty"].mtime })
      end)
    end
  end)

  describe("that is bad", function()
    local good = file("a", "hello") .. tar.ENDING

    it("is told when it ends early", function()
      for _, length in ipairs({ 0, 1, 511, 512, 514, 1023, 1024, 1025, 1535 }) do
        local list, message = read_all(good:sub(1, length))
        assert.is_nil(list, "cut after " .. length)
        assert.equal("the archive ends too early", message)
      end
    end)

    it("is told when a byte is wrong", function()
      for _, at in ipairs({ 1, 100, 130, 148, 150, 157, 300 }) do
        local text = good:sub(1, at - 1) .. string.char((good:byte(at) + 1) % 256) .. good:sub(at + 1)
        local list, message = read_all(text)
        assert.is_nil(list, "byte " .. at)
        assert.matches("no archive", message)
      end
    end)

    it("is told when it is something else", function()
      local list, message = read_all(("<html>no</html>"):rep(100))
      assert.is_nil(list)
      assert.matches("no archive of tar's", message)
    end)

    -- A header whose checksum is right, whatever else is not.
    local function forge(change)
      local head = change(tar.header({ type = "file", path = "a", mode = 420, mtime = 1, size = 5 }))
      local blank = head:sub(1, 148) .. (" "):rep(8) .. head:sub(157)
      local sum = 0
      for i = 1, 512 do sum = sum + blank:byte(i) end
      return head:sub(1, 148) .. ("%06o\0 "):format(sum) .. head:sub(157)
    end

    it("is told when a name is longer, or deeper, than files can be", function()
      for name, bad in pairs({
        ["a name"] = file(("n"):rep(4096), ""), ["a deep name"] = file(("a/"):rep(256) .. "b", ""),
        ["a name of slashes"] = file("a" .. ("/"):rep(1000000) .. "b", ""),
        ["a link's name"] = tar.header({ type = "link", path = "l", target = ("a/"):rep(300) .. "b", mode = 420 }),
      }) do
        local seconds, list, message = support.timed(read_all, bad .. tar.ENDING)
        assert.is_nil(list, name)
        assert.matches("too long", message, name)
        assert.is_true(seconds < 1 * support.slack, name)
      end
      local list = assert(read_all(file(("n/"):rep(255) .. "n", "") .. file(("n"):rep(255) .. "/x", "") .. tar.ENDING))
      assert.equal(2, #list)
    end)

    it("has times that a file can have", function()
      for given, expected in pairs({
        ["1e20"] = 999999999999999, ["-1e20"] = -999999999999999, ["9e999"] = 999999999999999,
      }) do
        local entry = file("a", "", { mtime = 8 ^ 11 }):gsub("8589934592\n", given .. (" "):rep(10 - #given) .. "\n")
        local list = assert(read_all(entry .. tar.ENDING))
        assert.equal(expected, list[1].mtime)
      end
      -- as a binary number
      for binary, expected in pairs({
        ["\128" .. ("\0"):rep(4) .. "\10" .. ("\0"):rep(6)] = 999999999999999,
        ["\255" .. ("\255"):rep(3) .. ("\0"):rep(8)] = -999999999999999,
        ["\255" .. ("\255"):rep(9) .. "\254\255"] = -257, ["\128" .. ("\0"):rep(9) .. "\2\1"] = 513,
      }) do
        local head = forge(function(text) return text:sub(1, 136) .. binary .. text:sub(149) end)
        local list = assert(read_all(head .. ("x"):rep(512) .. tar.ENDING))
        assert.equal(expected, list[1].mtime)
      end
    end)

    it("keeps no records that mean nothing here", function()
      local body = "20 comment=anything\n"
      local head = forge(function(text)
        return text:sub(1, 124) .. ("%011o\0"):format(#body) .. text:sub(137, 156) .. "g" .. text:sub(158)
      end)
      local reader = tar.reader(pieces(head .. body .. tar.padding(#body) .. good, 4096))
      assert.equal("a", assert(reader:next()).path)
      assert.same({}, reader.global)
    end)

    it("is told when a number or a record can't be read", function()
      local list, message = read_all(forge(function(head)
        return head:sub(1, 124) .. "9zzz9999999\0" .. head:sub(137)
      end) .. ("x"):rep(512))
      assert.is_nil(list)
      assert.matches("number", message)
      -- sizes of 2^90 and of 2^64 + 5
      for _, size in ipairs({ "\128\127" .. ("\255"):rep(10), "\128\0\0\1" .. ("\0"):rep(7) .. "\5" }) do
        list, message = read_all(forge(function(head) return head:sub(1, 124) .. size .. head:sub(137) end)
          .. ("x"):rep(512) .. tar.ENDING)
        assert.is_nil(list)
        assert.matches("number", message)
      end
      for _, records in ipairs({ "5 a", "99 path=x\n", "0 path=x\n", "path=x\n", "10 pathx=\n1", "9 path=x\n9" }) do
        local head = forge(function(text)
          return text:sub(1, 124) .. ("%011o\0"):format(#records) .. text:sub(137, 156) .. "x" .. text:sub(158)
        end)
        list, message = read_all(head .. records .. tar.padding(#records) .. good)
        assert.is_nil(list, records)
        assert.matches("record", message)
      end
    end)

    it("can't fill the memory with a name", function()
      local head = forge(function(text)
        return text:sub(1, 124) .. "77777777777\0" .. text:sub(137, 156) .. "L" .. text:sub(158)
      end)
      local handed = 0
      local reader = tar.reader(function()
        handed = handed + 1
        if handed == 1 then return head end
        return ("x"):rep(65536)
      end)
      local entry, message = reader:next()
      assert.is_nil(entry)
      assert.matches("too long", message)
      assert.equal(1, handed)
    end)

    it("tells what its source failed with", function()
      local reader = tar.reader(function() return nil, "the line was cut", "an error" end)
      local entry, message, err = reader:next()
      assert.same({ nil, "the line was cut", "an error", n = 3 }, { entry, message, err, n = 3 })
    end)
  end)
end)
