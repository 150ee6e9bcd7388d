-- The calls to the daemon of a sandbox: what goes onto the wire, and what its answers become.
local support = require("spec.support.support")
local exchange = require("spec.support.exchange")
local posix = require("spec.support.posix")
local core = support.core()
local request, answer, decode = core._request, core._answer, core.json_decode

local function sent(call, args)
  local method, path, body, content_type = request(call, args)
  assert.are.equal("POST", method, path)
  assert.are.equal("application/json", content_type)
  return decode(body)
end

local function value(call, body)
  local ok, result = answer(call, 200, body)
  assert.is_true(ok, result)
  return result
end

local function wrong(call, body)
  local ok, message, kind = answer(call, 200, body)
  assert.is_false(ok, body)
  return message, kind
end

describe("a call of processes", function()
  it("lists them", function()
    assert.are.same({}, sent("process_list"))
    assert.are.same({
      { pid = 12, tag = "t", config = {
        cmd = "/bin/bash", args = { "-l", "-c", "x" }, envs = { A = "1" }, cwd = "/tmp",
      } },
      { pid = 13, config = { cmd = "top", args = {}, envs = {} } },
      { pid = 14, config = { cmd = "", args = {}, envs = {} } },
    }, value("process_list", '{"processes":[{"config":{"cmd":"/bin/bash","args":["-l","-c","x"],"envs":{"A":"1"},'
      .. '"cwd":"/tmp"},"pid":12,"tag":"t"},{"config":{"cmd":"top"},"pid":13},{"pid":14}]}'))
    assert.are.same({}, value("process_list", "{}"))
    assert.are.same({}, value("process_list", '{"processes":null}'))
    assert.are.same({}, value("process_list", '{"processes":[],"new":1}'))
    assert.are.equal("the answer has the wrong shape: an object expected", (wrong("process_list", "[]")))
    assert.are.equal("the answer has the wrong shape: processes: a list expected, got a string",
      (wrong("process_list", '{"processes":"x"}')))
    assert.is_truthy(wrong("process_list", '{"processes":[{"config":{}}]}'):find("pid: this field is missing", 1, true))
    assert.are.equal("json", select(2, wrong("process_list", "")))
    assert.are.equal("json", select(2, wrong("process_list", "<html>")))
  end)

  it("starts one", function()
    local function started(body)
      local _, path, text, content_type = request("process_start", { body = body })
      assert.are.equal("/process.Process/Start", path)
      assert.are.equal("application/connect+json", content_type)
      assert.are.equal("\0\0\0", text:sub(1, 3))
      assert.are.equal(#text - 5, text:byte(4) * 256 + text:byte(5))
      return decode(text:sub(6))
    end
    local body = {
      process = { cmd = "/bin/bash", args = { "-l", "-c", "echo hi" }, envs = { A = "1" }, cwd = "/tmp" },
      pty = { size = { cols = 80, rows = 24 } }, tag = "t", stdin = false,
    }
    assert.are.same(body, started(body))
    assert.are.same({ process = { cmd = "ls", envs = {} } },
      started({ process = { cmd = "ls", args = {}, envs = {}, cwd = "" } }))
    local _, message = request("process_start", { body = { process = { cmd = "x", arg = "y" } } })
    assert.are.equal("process.arg: there is no such field", message)
    _, message = request("process_start", { body = { pty = { size = { cols = 80.5 } } } })
    assert.are.equal("pty.size.cols: a whole number expected", message)
  end)

  it("names one by its id or its tag", function()
    for call, more in pairs({
      process_close_stdin = {}, process_update = { pty = { size = { cols = 100, rows = 30 } } },
      process_signal = { signal = "SIGNAL_SIGKILL" }, process_input = { input = { stdin = "" } },
    }) do
      for _, process in ipairs({ { pid = 1234 }, { tag = "t" } }) do
        local body = { process = process }
        for name, part in pairs(more) do
          body[name] = part
        end
        assert.are.same(body, sent(call, { body = body }), call)
      end
      assert.is_true(value(call, "{}"))
      assert.is_true(value(call, '{"new":1}'))
      assert.are.equal("json", select(2, wrong(call, "<html>")))
      assert.are.equal("shape", select(2, wrong(call, "[]")))
      assert.are.equal("shape", select(2, wrong(call, "7")))
    end
    local _, path, text = request("process_connect", { body = { process = { tag = "t" } } })
    assert.are.equal("/process.Process/Connect", path)
    assert.are.same({ process = { tag = "t" } }, decode(text:sub(6)))
  end)

  it("sends bytes as base64", function()
    for bytes, text in pairs({ ["hi\n"] = "aGkK", [""] = "", ["\0\255\195"] = "AP/D" }) do
      for _, kind in ipairs({ "stdin", "pty" }) do
        local body = sent("process_input", { body = { process = { pid = 1 }, input = { [kind] = bytes } } })
        assert.are.same({ [kind] = text }, body.input)
      end
    end
    local long = ("\0\1\2"):rep(100000)
    local body = sent("process_input", { body = { input = { stdin = long } } })
    assert.are.equal(core.base64_encode(long), body.input.stdin)
    local _, message = request("process_input", { body = { input = { stdin = 7 } } })
    assert.are.equal("input.stdin: a string expected, got a number", message)
    _, message = request("process_input", { body = { input = { stdin = ("x"):rep(51 * 2 ^ 20) } } })
    assert.are.equal("input.stdin: the request is too large (more than 64 MiB)", message)
  end)
end)

describe("a call of folders", function()
  local ENTRY = '{"name":"a","type":"FILE_TYPE_FILE","path":"/tmp/a","size":"13","mode":420,"permissions":"-rw-r--r--",'
    .. '"owner":"user","group":"user","modifiedTime":"2026-01-02T03:04:05.678Z","symlinkTarget":"/b",'
    .. '"metadata":{"k":"v"}}'
  local READ = {
    name = "a", type = "file", path = "/tmp/a", size = 13, mode = 420, permissions = "-rw-r--r--", owner = "user",
    group = "user", modified_time = 1767323045, symlink_target = "/b", metadata = { k = "v" },
  }

  it("gives the entry itself", function()
    for call, body in pairs({
      fs_stat = { path = "/tmp/a" }, fs_make_dir = { path = "a/b" }, fs_move = { source = "x", destination = "y" },
    }) do
      assert.are.same(body, sent(call, { body = body }))
      assert.are.same(READ, value(call, '{"entry":' .. ENTRY .. "}"))
      assert.is_truthy(wrong(call, "{}"):find("entry: this field is missing", 1, true))
      assert.is_truthy(wrong(call, '{"entry":null}'):find("entry: this field is missing", 1, true))
      assert.is_truthy(wrong(call, '{"entry":[1]}'):find("entry: an object expected", 1, true))
    end
    assert.are.same({ name = "a", path = "/a", size = 0, mode = 0 },
      value("fs_stat", '{"entry":{"name":"a","path":"/a"}}'))
  end)

  it("knows the types there are", function()
    for text, expected in pairs({
      ['"FILE_TYPE_FILE"'] = "file", ['"FILE_TYPE_DIRECTORY"'] = "dir", ['"FILE_TYPE_SYMLINK"'] = "symlink",
      ["1"] = "file", ["2"] = "dir", ["3"] = "symlink",
      ["0"] = "none", ["4"] = "none", ["-1"] = "none", ["1.5"] = "none",
      ['"FILE_TYPE_UNSPECIFIED"'] = "none", ['"FILE_TYPE_NEW"'] = "none", ['""'] = "none", ["null"] = "none",
    }) do
      local entry = value("fs_stat", '{"entry":{"type":' .. text .. "}}")
      assert.are.equal(expected ~= "none" and expected or nil, entry.type, text)
    end
    assert.are.same({ size = 0, mode = 0, extra = { type = { 1 } } }, value("fs_stat", '{"entry":{"type":[1]}}'))
  end)

  it("reads sizes that are strings", function()
    local function size(text)
      return value("fs_stat", '{"entry":{"size":' .. text .. "}}").size
    end
    for text, expected in pairs({
      ['"0"'] = 0, ['"13"'] = 13, ["13"] = 13, ['"-1"'] = -1, ['"1099511627776"'] = 2 ^ 40, ['"007"'] = 7,
      ['"9007199254740992"'] = 2 ^ 53, ["null"] = 0,
    }) do
      assert.are.equal(expected, size(text))
    end
    if math.type then
      assert.are.equal(math.maxinteger, size('"9223372036854775807"'))
      assert.are.equal(math.mininteger, size('"-9223372036854775808"'))
      assert.are.equal("integer", math.type(size("13.0")))
    end
    for _, text in ipairs({
      '""', '"-"', '"x"', '"1.5"', '" 1"', '"+1"', '"0x10"', '"9223372036854775808"', '"1e3"', "true",
      '"-9223372036854775809"', "1.5", "1e300", "[]", "{}", '"99999999999999999999999"',
    }) do
      local message = wrong("fs_stat", '{"entry":{"size":' .. text .. "}}")
      assert.is_truthy(message:find("size: a whole number expected", 1, true), text)
    end
  end)

  it("lists and removes", function()
    assert.are.same({ path = "/", depth = 3 }, sent("fs_list", { body = { path = "/", depth = 3 } }))
    assert.are.same({ READ, READ }, value("fs_list", '{"entries":[' .. ENTRY .. "," .. ENTRY .. "]}"))
    assert.are.same({}, value("fs_list", "{}"))
    assert.are.same({ path = "/x" }, sent("fs_remove", { body = { path = "/x" } }))
    assert.is_true(value("fs_remove", "{}"))
    local many = {}
    for i = 1, 10000 do
      many[i] = ENTRY
    end
    assert.are.equal(10000, #value("fs_list", '{"entries":[' .. table.concat(many, ",") .. "]}"))
  end)

  it("watches one by asking", function()
    assert.are.same({ path = "/", recursive = true, includeEntry = false, allowNetworkMounts = true },
      sent("watcher_create", {
        body = { path = "/", recursive = true, include_entry = false, allow_network_mounts = true },
      }))
    assert.are.same({ watcher_id = "w1" }, value("watcher_create", '{"watcherId":"w1"}'))
    assert.is_truthy(wrong("watcher_create", "{}"):find("watcherId: this field is missing", 1, true))
    assert.are.same({ watcherId = "w1" }, sent("watcher_events", { body = { watcher_id = "w1" } }))
    assert.are.same({ watcherId = "w1" }, sent("watcher_remove", { body = { watcher_id = "w1" } }))
    assert.is_true(value("watcher_remove", "{}"))
    assert.are.same({}, value("watcher_events", "{}"))
    assert.are.same({ { name = "a", type = "create" }, { name = "a", type = "write", entry = READ }, { name = "" } },
      value("watcher_events", '{"events":[{"name":"a","type":"EVENT_TYPE_CREATE"},'
        .. '{"name":"a","type":"EVENT_TYPE_WRITE","entry":' .. ENTRY .. "},{}]}"))
  end)
end)

describe("a call of files", function()
  it("writes bytes of the caller's", function()
    local method, path, body, content_type = request("files_write", {
      query = { path = "/tmp/a b&c", username = "root" }, body = "\0bytes", content_type = "text/x",
    })
    assert.are.same({ "POST", "/files?path=%2Ftmp%2Fa%20b%26c&username=root", "\0bytes", "text/x" },
      { method, path, body, content_type })
    local function written(args)
      return { select(2, request("files_write", args)) }
    end
    assert.are.same({ "/files", "", "application/octet-stream" }, written({ query = { path = "" }, body = "" }))
    assert.are.same({ "/files?path=x", nil, "application/octet-stream" },
      written({ query = { path = "x", username = "" } }))
    assert.are.same({ "/files", nil, "application/octet-stream" }, written())
    assert.is_false((request("files_write", { body = "", content_type = "a\r\nb" })))
    assert.is_false((request("files_write", { query = { name = "x" } })))
    assert.has_error(function() request("files_write", { body = {} }) end)
    assert.has_error(function() request("files_write", { content_type = 7 }) end)
  end)

  it("says what was written, whatever type the answer says it has", function()
    local info = '{"name":"hello.txt","path":"/home/user/hello.txt","type":"file","metadata":{"a":"b"}}'
    local read = { name = "hello.txt", path = "/home/user/hello.txt", type = "file", metadata = { a = "b" } }
    assert.are.same({ read, read }, value("files_write", "[" .. info .. "," .. info .. "]"))
    assert.are.same({}, value("files_write", "[]"))
    assert.are.equal("shape", select(2, wrong("files_write", info)))
    assert.are.same(read, value("files_compose", info))
    local body = { source_paths = { "p0", "p1" }, destination = "d", username = "user" }
    assert.are.same(body, sent("files_compose", { body = body }))
  end)

  it("keeps every nasty byte of a path", function()
    local all = {}
    for i = 0, 255 do
      all[#all + 1] = string.char(i)
    end
    local _, path = request("files_read", { query = { path = table.concat(all) } })
    local back = path:match("^/files%?path=([%w%%%-%._~]+)$"):gsub("%%(%x%x)", function(hex)
      return string.char(tonumber(hex, 16))
    end)
    assert.are.equal(table.concat(all), back)
  end)

  it("asks the daemon about itself", function()
    assert.are.same({
      timestamp = 1767323045, cpu_count = 2, cpu_used_pct = 1.25, mem_total_mib = 512, mem_used_mib = 100,
      mem_total = 5, mem_used = 4, mem_cache = 3, disk_used = 2, disk_total = 1,
    }, value("envd_metrics", '{"ts":1767323045,"cpu_count":2,"cpu_used_pct":1.25,"mem_total_mib":512,'
      .. '"mem_used_mib":100,"mem_total":5,"mem_used":4,"mem_cache":3,"disk_used":2,"disk_total":1}'))
    assert.are.same({ A = "1", B = "" }, value("envd_envs", '{"A":"1","B":""}'))
    assert.are.same({}, value("envd_envs", "{}"))
  end)

  describe("on the wire", function()
    local watched = exchange.watch()

    local function start(server, call, args, opts)
      return assert(core.transfer(exchange.target(server), call, args, opts))
    end

    it("gives the bytes of a file as they are", function()
      local server = watched.answers({
        { body = "\0\1not JSON\255", headers = { ["Content-Type"] = "application/json" } }, { body = "" },
        { status = 206, body = "part" }, { status = 404, body = '{"code":404,"message":"path \'/x\' does not exist"}' },
      })
      local function read(opts)
        return exchange.run(start(server, "files_read", { query = { path = "/x" } }, opts))
      end
      assert.are.equal("\0\1not JSON\255", select(2, read()))
      assert.are.equal("", select(2, read()))
      assert.are.equal("part", select(2, read()))
      local ok, facts = read()
      assert.is_false(ok)
      assert.are.equal("path '/x' does not exist", facts.message)
      local requests = server:requests()
      assert.are.equal("GET /files?path=%2Fx", requests[1].method .. " " .. requests[1].path)
      assert.is_nil(requests[1].headers["connect-protocol-version"])
      assert.is_nil(requests[1].headers["accept-encoding"])
    end)

    it("asks for compression when it is told to", function()
      local zipped = "\31\139\8\0\0\0\0\0\0\3\203\200\4\0\172\42\147\216\2\0\0\0" -- "hi"
      local server = watched.answers({
        { body = zipped, headers = { ["Content-Encoding"] = "gzip" } }, { body = "plain" }, { body = '{"entries":[]}' },
      })
      local query = { query = { path = "/x" } }
      assert.are.equal("hi", select(2, exchange.run(start(server, "files_read", query, { gzip = true }))))
      assert.are.equal("plain", select(2, exchange.run(start(server, "files_read", query))))
      assert.are.same({}, select(2, exchange.run(start(server, "fs_list", { body = { path = "/" } }, { gzip = true }))))
      local requests = server:requests()
      assert.is_truthy(requests[1].headers["accept-encoding"]:find("gzip"))
      assert.is_nil(requests[2].headers["accept-encoding"])
      assert.is_truthy(requests[3].headers["accept-encoding"]:find("gzip"))
    end)

    it("takes a body from a string, a descriptor, or in pieces", function()
      local server = watched.answers({ {
        body = '[{"name":"a","path":"/a","type":"file"}]', headers = { ["Content-Type"] = "text/plain; charset=utf-8" },
      } })
      local wrote = { { name = "a", path = "/a", type = "file" } }
      local query = { path = "/a" }
      assert.are.same(wrote, select(2, exchange.run(start(server, "files_write", { query = query, body = "string" }))))
      assert.are.same(wrote, select(2, exchange.run(start(server, "files_write", { query = query, body = "" }))))

      local folder = support.tmpdir()
      support.write_file(folder .. "/body", "descriptor")
      local file = io.open(folder .. "/body", "rb")
      local opts = { source = posix.fileno(file), source_size = 10 }
      assert.are.same(wrote, select(2, exchange.run(start(server, "files_write", { query = query }, opts))))
      file:close()
      support.cleanup(folder)

      local args = { query = query, content_type = "multipart/form-data; boundary=B" }
      local transfer = start(server, "files_write", args, { source = "chunks" })
      transfer:write("in ")
      transfer:write("pieces")
      transfer:close_write()
      assert.are.same(wrote, select(2, exchange.run(transfer)))

      local requests = server:requests()
      local bodies = {}
      for i, one in ipairs(requests) do
        bodies[i] = one.method .. " " .. one.headers["content-type"] .. " " .. one.body
      end
      assert.are.same({
        "POST application/octet-stream string", "POST application/octet-stream ",
        "POST application/octet-stream descriptor", "POST multipart/form-data; boundary=B in pieces",
      }, bodies)
      assert.are.equal("10", requests[3].headers["content-length"])
      local _, message = core.transfer(exchange.target(server), "files_write", { body = "x" }, { source = "chunks" })
      assert.is_truthy(message:find("either a body or a source"))
    end)

    it("says that it is RPC, and takes Connect's errors", function()
      local server = watched.answers({
        { status = 404, body = '{"code":"not_found","message":"file not found: lstat /q: no such file"}' },
        { status = 499, body = '{"code":"canceled"}' }, { status = 500, body = '{"code":"odd"}' },
        { status = 401, body = '{"code":401,"message":"unauthorized access"}' }, { body = "{}" },
      })
      local function stat()
        return select(2, exchange.run(start(server, "fs_stat", { body = { path = "/q" } })))
      end
      local facts = stat()
      assert.are.same({ "http", 404, "not_found", "file not found: lstat /q: no such file", true },
        { facts.cause, facts.status, facts.error_code, facts.message, facts.has_body })
      facts = stat()
      assert.are.same({ 499, "canceled", true }, { facts.status, facts.error_code, facts.has_body })
      facts = stat()
      assert.are.same({ "odd" }, { facts.error_code, facts.has_body })
      facts = stat()
      assert.are.same({ 401, "unauthorized access", true }, { facts.status, facts.message, facts.has_body })
      assert.is_nil(facts.error_code)
      assert.are.equal("shape", stat().cause)
      local headers = server:requests()[1].headers
      assert.are.same({ "1", "application/json" }, { headers["connect-protocol-version"], headers["content-type"] })
    end)
  end)
end)
