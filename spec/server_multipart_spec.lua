-- What the daemon reads from and writes into HTTP messages about files: multipart bodies, parameters, ranges,
-- encodings, signatures, media types.
local content_type = require("e2b.server.envd.content_type")
local disposition = require("e2b.server.envd.disposition")
local encoding = require("e2b.server.envd.encoding")
local multipart = require("e2b.server.envd.multipart")
local native = require("e2b.server.native")
local ranges = require("e2b.server.envd.ranges")
local signature = require("e2b.server.envd.signature")

-- Gives a text out in pieces of one size.
local function source(text, size)
  local at = 1
  return function()
    if at > #text then
      return nil
    end
    at = at + size
    return text:sub(at - size, at - 1)
  end
end

local SIZES = { 1, 2, 3, 7, 64, 100000 }

describe("a multipart body", function()
  local function read_all(body, size, boundary)
    local reader = multipart.reader(source(body, size), boundary or "B")
    local parts = {}
    while true do
      local part, problem = reader:next_part()
      if part == nil then
        return parts, problem
      elseif not part then
        return parts
      end
      local pieces = {}
      while true do
        local piece
        piece, problem = reader:read()
        if not piece then
          break
        end
        assert.is_true(piece ~= "")
        pieces[#pieces + 1] = piece
      end
      parts[#parts + 1] = { name = part.name, filename = part.filename, text = table.concat(pieces) }
      if problem then
        return parts, problem
      end
    end
  end

  local function part(text, filename, name)
    return '--B\r\nContent-Disposition: form-data; name="' .. (name or "file") .. '"'
      .. (filename and '; filename="' .. filename .. '"' or "") .. "\r\nContent-Type: text/plain\r\n\r\n"
      .. text .. "\r\n"
  end

  it("gives its parts, however it arrives", function()
    local body = part("hello", "/a.txt") .. part("", "b") .. part("\r\n--b\r\n\r\n", "c")
      .. part("field", nil, "x") .. "--B--\r\n"
    for _, size in ipairs(SIZES) do
      local parts, problem = read_all(body, size)
      assert.is_nil(problem)
      assert.same({
        { name = "file", filename = "/a.txt", text = "hello" },
        { name = "file", filename = "b", text = "" },
        { name = "file", filename = "c", text = "\r\n--b\r\n\r\n" },
        { name = "x", text = "field" },
      }, parts)
    end
  end)

  it("keeps what only looks like a boundary", function()
    for _, text in ipairs({
      "\r\n--BB\r\n", "--B\r\n", "x--B", "\r\n--B!", "\r\n--B-x", "\r\r\n\r\n-", "\n--B\n", "\r\n--", "\r", "\r\n",
      "--B--",
    }) do
      local body = part("x" .. text, "a") .. "--B--\r\n"
      for _, size in ipairs(SIZES) do
        local parts, problem = read_all(body, size)
        assert.is_nil(problem)
        assert.equal("x" .. text, parts[1].text)
      end
    end
  end)

  it("may have text before and behind, blanks after boundaries, no line break at the end", function()
    local body = "preamble\r\nmore\r\n"
      .. "--B  \r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\n1\r\n--B\t\r\n"
      .. "content-disposition: form-data; name=file; filename=b\r\n\r\n2\r\n--B--"
    for _, size in ipairs(SIZES) do
      for _, tail in ipairs({ "", "\r\n", "\r\nepilogue\r\n--B\r\n" }) do
        local parts, problem = read_all(body .. tail, size)
        assert.is_nil(problem)
        assert.equal(2, #parts)
        assert.equal("1", parts[1].text)
        assert.equal("2", parts[2].text)
      end
    end
  end)

  it("may have a part of nothing at all", function()
    for _, size in ipairs(SIZES) do
      local body = "--B\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\n--B--\r\n"
      local parts, problem = read_all(body, size)
      assert.is_nil(problem)
      assert.same({ { name = "file", filename = "a", text = "" } }, parts)
    end
  end)

  it("may have parts skipped", function()
    local body = part("1", "a") .. part(("2"):rep(5000), "b") .. part("3", "c") .. "--B--"
    local reader = multipart.reader(source(body, 50), "B")
    assert.equal("a", reader:next_part().filename)
    assert.equal("b", reader:next_part().filename)
    assert.equal("2", (reader:read():sub(1, 1)))
    assert.equal("c", reader:next_part().filename)
    assert.equal("3", reader:read())
    assert.is_nil((reader:read()))
    assert.is_false(reader:next_part())
    assert.is_false(reader:next_part())
  end)

  it("says where it is broken", function()
    for _, size in ipairs(SIZES) do
      local _, problem = read_all("", size)
      assert.equal("multipart: NextPart: EOF", problem)
      _, problem = read_all("no boundary at all\r\n", size)
      assert.equal("multipart: NextPart: EOF", problem)
      local parts
      parts, problem = read_all(part("hello", "a"):sub(1, -3), size)
      assert.equal("unexpected EOF", problem)
      assert.equal("hello", parts[1].text)
      _, problem = read_all(part("hello", "a"), size)
      assert.equal("unexpected EOF", problem)
      _, problem = read_all("--B\r\nContent-Disposition: form-data\r\nbroken", size)
      assert.equal("multipart: NextPart: unexpected EOF", problem)
      _, problem = read_all("--B\r\nno colon here\r\n\r\n", size)
      assert.matches("malformed MIME header", problem)
    end
  end)

  it("passes on why it could not be read", function()
    local first = true
    local reader = multipart.reader(function()
      if first then
        first = false
        return part("hel", "a"):sub(1, -3)
      end
      return nil, "the client is gone"
    end, "B")
    assert(reader:next_part())
    assert.equal("hel", reader:read())
    assert.same({ nil, "the client is gone" }, { reader:read() })
  end)

  it("takes constant memory", function()
    local piece = ("0123456789abcdef\r\n"):rep(3640)
    local sent, state = 0, "head"
    local reader = multipart.reader(function()
      if state == "head" then
        state = "body"
        return part("", "a"):sub(1, -3)
      elseif state == "body" then
        sent = sent + 1
        if sent == 1000 then
          state = "tail"
        end
        return piece
      elseif state == "tail" then
        state = "end"
        return "\r\n--B--"
      end
    end, "B")
    assert(reader:next_part())
    collectgarbage("collect")
    local before, most, total = collectgarbage("count"), 0, 0
    for got in function()
      return reader:read()
    end do
      total = total + #got
      assert.is_true(#got < 200000)
      if sent % 100 == 0 then
        collectgarbage("collect")
        most = math.max(most, collectgarbage("count"))
      end
    end
    assert.equal(1000 * #piece, total)
    assert.is_true(most - before < 1024, most - before)
    assert.is_false(reader:next_part())
  end)
end)

describe("parameters of a header", function()
  it("are read with escapes and encodings", function()
    local function filename(text)
      local _, parameters = disposition.parse("form-data; name=\"file\"; " .. text)
      return parameters and parameters.filename
    end
    assert.equal('a"b', filename('filename="a\\"b"'))
    assert.equal("a\\b", filename('filename="a\\\\b"'))
    assert.equal("C:\\dev\\go.txt", filename('filename="C:\\dev\\go.txt"'))
    assert.equal("/home/user/x y.txt", filename('filename="/home/user/x y.txt"'))
    assert.equal("a%22b", filename('filename="a%22b"'))
    assert.equal("\230\150\135.pdf", filename("filename*=utf-8''%E6%96%87.pdf"))
    assert.equal("\230\150\135.pdf", filename("filename=\"no.pdf\"; filename*=UTF-8'en'%E6%96%87.pdf"))
    assert.equal("no.pdf", filename("filename=\"no.pdf\"; filename*=klingon''%E6"))
    assert.equal("long name", filename("filename*0=\"long \"; filename*1=name"))
    assert.equal("\195\164 b", filename("filename*0*=utf-8''%C3%A4; filename*1=\" b\""))
    assert.equal("plain", filename("FileName = plain"))
    assert.is_nil(filename('filename="a"; filename="b"'))
    assert.is_nil(filename('filename="never closed'))
    assert.equal("form-data", (disposition.parse("Form-Data")))
    assert.is_nil(disposition.parse(""))
  end)

  it("are written as they must be", function()
    local function written(name)
      return disposition.format("inline", "filename", name)
    end
    assert.equal("inline; filename=test.txt", written("test.txt"))
    assert.equal('inline; filename="my document.pdf"', written("my document.pdf"))
    assert.equal('inline; filename="a\\"b\\\\c"', written('a"b\\c'))
    assert.equal("inline; filename*=utf-8''%E6%96%87%E6%A1%A3.pdf", written("\230\150\135\230\161\163.pdf"))
    assert.equal("inline; filename*=utf-8''%E6%96%87%20%27x%27%25", written("\230\150\135 'x'%"))
    assert.equal("inline; filename*=utf-8''a%0Ab", written("a\nb"))
    for _, name in ipairs({ "a", "a b", 'q"\\', "\195\164 ;=%'*", "\127\1x" }) do
      local _, parameters = disposition.parse(written(name))
      assert.equal(name, parameters.filename)
    end
  end)
end)

describe("a Range header", function()
  local function read(header, size)
    local list, problem = ranges.parse(header, size or 10)
    if not list then
      return problem
    end
    local out = {}
    for i, range in ipairs(list) do
      out[i] = range.start .. "+" .. range.length
    end
    return table.concat(out, " ")
  end

  it("names bytes", function()
    assert.equal("0+5", read("bytes=0-4"))
    assert.equal("5+5", read("bytes=5-"))
    assert.equal("7+3", read("bytes=-3"))
    assert.equal("0+10", read("bytes=-30"))
    assert.equal("8+2", read("bytes=8-99"))
    assert.equal("0+1 9+1", read("bytes= 0-0 , 9-9 ,"))
    assert.equal("0+1", read("bytes=0-0,20-30"))
    assert.equal("", read(nil))
    assert.equal("", read(""))
    assert.equal("", read("bytes=0-4", 0))
  end)

  it("asks for all when its pieces are more than all", function()
    assert.equal("", read("bytes=0-9,0-0"))
    assert.equal("", read("bytes=0-,0-,0-,0-"))
  end)

  it("may be impossible", function()
    assert.equal("invalid range: failed to overlap", read("bytes=10-"))
    assert.equal("invalid range: failed to overlap", read("bytes=99-100,50-60"))
    for _, header in ipairs({
      "0-4", "bytes=x-4", "bytes=5-4", "bytes=-", "bytes=4", "lines=0-4", "bytes=0-4x", "bytes=--4", "bytes=+1-2",
    }) do
      assert.equal("invalid range", read(header))
    end
  end)
end)

describe("the encoding of an answer", function()
  local function choose(header)
    return (encoding.choose(header)) or "none"
  end

  it("is the one the client likes best", function()
    assert.equal("identity", choose(nil))
    assert.equal("identity", choose(""))
    assert.equal("gzip", choose("gzip"))
    assert.equal("gzip", choose("GZIP;q=0.1"))
    assert.equal("gzip", choose("deflate, gzip, br"))
    assert.equal("identity", choose("br"))
    assert.equal("identity", choose("identity, gzip;q=0.5"))
    assert.equal("gzip", choose("identity;q=0.5, gzip;q=0.8"))
    assert.equal("identity", choose("*"))
    assert.equal("gzip", choose("*, identity;q=0"))
    assert.equal("identity", choose("gzip;q=0"))
    assert.equal("gzip", choose("br;q=1.0, gzip;q=0.8, *;q=0.1"))
  end)

  it("is none when all are refused", function()
    assert.equal("none", choose("br, identity;q=0"))
    assert.equal("none", choose("identity;q=0, gzip;q=0"))
    assert.equal("none", choose("*;q=0"))
    local choice, _, refused = encoding.choose("gzip, *;q=0")
    assert.equal("gzip", choice)
    assert.is_true(refused)
  end)

  it("of a body is gzip or none", function()
    assert.is_false(encoding.of_body(nil))
    assert.is_false(encoding.of_body("identity"))
    assert.is_true(encoding.of_body("Gzip"))
    assert.same({ nil, "unsupported Content-Encoding: br, supported: [gzip]" }, { encoding.of_body("br") })
  end)

  it("of a body is taken off as it is read", function()
    local text = ("some text "):rep(30000)
    local deflate = native.deflate()
    local packed = deflate:write(text) .. deflate:write("", true)
    local function unpack_from(bytes, size)
      local read, problem = encoding.unpacked(source(bytes, size))
      if not read then
        return nil, problem
      end
      local parts = {}
      while true do
        local piece
        piece, problem = read()
        if not piece then
          return table.concat(parts), problem
        end
        parts[#parts + 1] = piece
      end
    end
    for _, size in ipairs(SIZES) do
      assert.equal(text, (unpack_from(packed, size)))
      local back, problem = unpack_from(packed:sub(1, -5), size)
      assert.equal(text, back)
      assert.equal("unexpected EOF", problem)
      assert.same({ nil, "failed to create gzip reader: gzip: invalid header" },
        { unpack_from("plain text here", size) })
      assert.same({ nil, "failed to create gzip reader: unexpected EOF" }, { unpack_from("\31\139\8", size) })
    end
    assert.same({ nil, "failed to create gzip reader: EOF" }, { unpack_from("", 10) })
  end)
end)

describe("a signature", function()
  it("is what the others compute", function()
    assert.equal("v1_gUtH/s9YCJWgCizjfUxuWfhFE4QSydOWEIIvfLwDr6E",
      signature.sign("0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0", "hello.txt", "read", "user"))
    assert.equal("v1_CwyhPuLusNgua4VmGO0QKIRWDxqT0joG6U3Gb0wMa1Q",
      signature.sign("tok-123", "/tmp/report 1.csv", "read"))
    assert.equal("v1_k7ds2STIEQIPjf1HvYdn3SiTyvIgeFZZWpdfHc4jhn4",
      signature.sign("tok-123", "/tmp/report 1.csv", "write", "root", "1767225600"))
  end)

  it("is checked in the right order", function()
    local now = 1767225600
    local function check(query, header, token)
      local request = { headers = { ["x-access-token"] = header } }
      local ok, message = signature.check(token or "tok", request, query, "read", now)
      return ok or message
    end
    local good = signature.sign("tok", "a", "read", nil, tostring(now))
    local late = signature.sign("tok", "a", "read", nil, tostring(now - 1))
    local plain = signature.sign("tok", "a", "read")
    assert.equal("missing signature query parameter", check({ path = "a" }))
    assert.is_true(check({ path = "a" }, "tok"))
    assert.equal("access token present in header but does not match", check({ path = "a", signature = plain }, "no"))
    assert.is_true(check({ path = "a", signature = plain }, ""))
    assert.is_true(check({ path = "a", signature = plain }))
    assert.is_true(check({ path = "a", signature = good, signature_expiration = tostring(now) }))
    assert.equal("signature is already expired",
      check({ path = "a", signature = late, signature_expiration = tostring(now - 1) }))
    -- A time tacked on is no time signed.
    assert.equal("invalid signature", check({ path = "a", signature = plain, signature_expiration = "1" }))
    assert.equal("invalid signature", check({ path = "a", signature = good }))
    assert.equal("invalid signature", check({ path = "b", signature = plain }))
    assert.equal("invalid signature", check({ path = "a", username = "root", signature = plain }))
    assert.is_true(check({ path = "a" }, nil, ""))
    local _, message = signature.check("tok", { headers = {} }, { path = "a", signature = plain }, "write", now)
    assert.equal("invalid signature", message)
  end)
end)

describe("the media type", function()
  it("comes from the name", function()
    assert.equal("text/plain; charset=utf-8", content_type.by_name("/a/b.TXT"))
    assert.equal("application/json", content_type.by_name("x.json"))
    assert.equal("text/html; charset=utf-8", content_type.by_name("index.html"))
    assert.is_nil(content_type.by_name("noext"))
    assert.is_nil(content_type.by_name("/dir.txt/noext"))
    assert.is_nil(content_type.by_name("x.unheardof"))
  end)

  it("else from the first bytes", function()
    for begin, expected in pairs({
      [""] = "text/plain; charset=utf-8",
      ["just text\n"] = "text/plain; charset=utf-8",
      ["\0\1\2"] = "application/octet-stream",
      ["\137PNG\13\10\26\10xx"] = "image/png",
      ["  <!doctype html><p>"] = "text/html; charset=utf-8",
      ["<b>x"] = "text/html; charset=utf-8",
      ["<bx>"] = "text/plain; charset=utf-8",
      ["<?xml version='1.0'?>"] = "text/xml; charset=utf-8",
      ["%PDF-1.4"] = "application/pdf",
      ["\31\139\8\0"] = "application/x-gzip",
      ["RIFF\1\2\3\4WEBPVP8 "] = "image/webp",
      ["\0\0\0\24ftypmp42\0\0\0\0mp42isom"] = "video/mp4",
      ["\239\187\191text"] = "text/plain; charset=utf-8",
      ["\195\164\195\182"] = "text/plain; charset=utf-8",
    }) do
      assert.equal(expected, content_type.by_content(begin))
    end
  end)
end)
