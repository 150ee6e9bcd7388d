-- What comes of the answers to the rows of the table of calls. No server is needed for it.
local core = require("e2b.core")
local support = require("spec.support.support")
local answer = core._answer
local encode = core.json_encode

local function is_integer(n)
  return math.type == nil or math.type(n) == "integer"
end

local function value_of(call, text)
  local ok, value = answer(call, 200, text)
  assert.is_true(ok, value)
  return value
end

local function failure_of(call, text)
  local ok, message, cause = answer(call, 200, text)
  assert.is_false(ok, text)
  assert.are.equal("string", type(message))
  return message, cause
end

local detail = {
  sandboxID = "i1", templateID = "t1", alias = "base", clientID = "c", envdVersion = "0.4.2", envdAccessToken = "tok",
  trafficAccessToken = "ttok", domain = "e2b.example", startedAt = "2026-08-21T10:12:06.478134Z",
  endAt = "2026-08-21T12:17:06+02:00", cpuCount = 2, memoryMB = 1024, diskSizeMB = 5120, state = "running",
  metadata = { sandboxID = "mine", startedAt = "never" }, allowInternetAccess = false,
  network = {
    allowPublicTraffic = true, allowOut = { "a" }, denyOut = { "b" }, maskRequestHost = "h", httpsPorts = { 443 },
    egressProxy = { address = "p:1", username = "u" },
    rules = { ["allowOut"] = { { transform = { headers = { autoResume = "v" } } } } },
  },
  lifecycle = { onTimeout = "pause", autoResume = true }, volumeMounts = { { name = "n", path = "/p" } },
}
local shaped = {
  sandbox_id = "i1", template_id = "t1", name = "base", envd_version = "0.4.2", envd_access_token = "tok",
  traffic_access_token = "ttok", sandbox_domain = "e2b.example", started_at = 1787307126, end_at = 1787307426,
  cpu_count = 2, memory_mb = 1024, disk_size_mb = 5120, state = "running",
  metadata = { sandboxID = "mine", startedAt = "never" }, allow_internet_access = false,
  network = {
    allow_public_traffic = true, allow_out = { "a" }, deny_out = { "b" }, mask_request_host = "h",
    https_ports = { 443 }, egress_proxy = { address = "p:1", username = "u" },
    rules = { ["allowOut"] = { { transform = { headers = { autoResume = "v" } } } } },
  },
  lifecycle = { on_timeout = "pause", auto_resume = true }, volume_mounts = { { name = "n", path = "/p" } },
}
local metric = {
  timestamp = "2026-08-21T10:12:06Z", timestampUnix = 1787307126, cpuCount = 2, cpuUsedPct = 1.25,
  memUsed = 2 ^ 40, memTotal = 2 ^ 41, memCache = 0, diskUsed = 1, diskTotal = 2,
}
local template = {
  templateID = "t1", buildID = "b1", cpuCount = 2, memoryMB = 1024, diskSizeMB = 5120, public = true,
  aliases = { "a" }, names = { "ns/a" }, createdAt = "2026-03-01T09:00:00Z", updatedAt = "2026-03-01T09:00:01Z",
  createdBy = { id = "u", email = "e@x" }, lastSpawnedAt = "2026-03-01T09:00:02Z", spawnCount = 5, buildCount = 3,
  envdVersion = "0.4.2", buildStatus = "ready",
}

local function copy(value)
  if type(value) ~= "table" then
    return value
  end
  local result = {}
  for key, item in pairs(value) do
    result[key] = copy(item)
  end
  return result
end

-- JSON of `object` with `json` as the text of one field.
local function with(object, field, json)
  local changed = copy(object)
  changed[field] = "@@@"
  return (encode(changed):gsub('"@@@"', (json:gsub("%%", "%%%%"))))
end

describe("an answer", function()
  it("of a sandbox has Lua's names, times as seconds, and nothing more", function()
    for _, call in ipairs({ "sandbox_get", "sandbox_create", "sandbox_create_v1", "sandbox_connect",
      "sandbox_connect_v1", "sandbox_resume" }) do
      assert.are.same(shaped, value_of(call, encode(detail)))
    end
    local found = value_of("sandbox_get", encode(detail))
    for _, name in ipairs({ "started_at", "end_at", "cpu_count", "memory_mb", "disk_size_mb" }) do
      assert.is_true(is_integer(found[name]), name)
    end
    assert.is_true(is_integer(found.network.https_ports[1]))
  end)

  it("of the one required field has that one", function()
    assert.are.same({ sandbox_id = "i" }, value_of("sandbox_create", '{"sandboxID":"i"}'))
    assert.are.same({ { sandbox_id = "i" } }, value_of("sandbox_list", '[{"sandboxID":"i"}]'))
    assert.are.same({ { template_id = "t" } }, value_of("template_list", '[{"templateID":"t"}]'))
  end)

  it("without a required field names it", function()
    for _, text in ipairs({ "{}", "[]", '{"templateID":"t"}', '{"templateID":"t","sandboxID":null}',
      '{"templateID":"t","sandboxID":""}' }) do
      local message, cause = failure_of("sandbox_get", text)
      assert.are.equal("shape", cause)
      assert.is_truthy(message:find("sandboxID: this field is missing", 1, true), message)
    end
    assert.is_truthy(failure_of("sandbox_list",
      '[{"templateID":"t","sandboxID":"i"},{"templateID":"t"}]'):find("[2].sandboxID: ", 1, true))
    assert.is_truthy(failure_of("template_list", "[{}]"):find("[1].templateID: ", 1, true))
  end)

  it("never has a null, at any place", function()
    for field in pairs(detail) do
      if field ~= "sandboxID" and field ~= "templateID" then
        local expected = value_of("sandbox_get",
          encode((function() local d = copy(detail) d[field] = nil return d end)()))
        assert.are.same(expected, value_of("sandbox_get", with(detail, field, "null")))
      end
    end
    local found = value_of("sandbox_get",
      '{"sandboxID":"i","templateID":"t","metadata":{"a":null,"b":"c"},"volumeMounts":['
      .. '{"name":"n","path":null}],"network":{"allowOut":[null,"x",null],"rules":{"d":null,"e":[]}},'
      .. '"new":[null],"newer":null}')
    assert.are.same({ sandbox_id = "i", template_id = "t", metadata = { b = "c" }, volume_mounts = { { name = "n" } },
      network = { allow_out = { "x" }, rules = { e = {} } }, extra = { new = {} } }, found)
  end)

  it("keeps empty tokens, names and domains away", function()
    local empty = '{"sandboxID":"i","templateID":"t","alias":"","envdAccessToken":"","trafficAccessToken":"",'
      .. '"domain":"","network":{"maskRequestHost":"","egressProxy":{"address":"a","username":"","password":"p"}}}'
    assert.are.same({ sandbox_id = "i", template_id = "t", network = { egress_proxy = { address = "a" } } },
      value_of("sandbox_get", empty))
  end)

  it("keeps what it does not know under the server's names", function()
    local newer = copy(detail)
    newer.sandbox_id, newer.newField, newer.extra = "?", { a = { 1.0, 2 } }, "e"
    newer.network.dnsServers = { "9.9.9.9" }
    newer.lifecycle.onIdle = "x"
    newer.volumeMounts[1].readOnly = true
    newer.state = "hibernating"
    local expected = copy(shaped)
    expected.extra = { sandbox_id = "?", newField = { a = { 1, 2 } }, extra = "e" }
    expected.network.extra = { dnsServers = { "9.9.9.9" } }
    expected.lifecycle.extra = { onIdle = "x" }
    expected.volume_mounts[1].extra = { readOnly = true }
    expected.state = "hibernating"
    local found = value_of("sandbox_get", encode(newer))
    assert.are.same(expected, found)
    assert.is_true(is_integer(found.extra.newField.a[1]))
    assert.is_true(is_integer(value_of("sandbox_get", with(detail, "newField", "7.0")).extra.newField))
    assert.is_nil(value_of("sandbox_get", with(detail, "newField", "null")).extra)
    assert.are.equal(false, value_of("sandbox_get", with(detail, "newField", "false")).extra.newField)
  end)

  it("with a field of the wrong type is the rest, and has that one in `extra`; the required one is named", function()
    local right = { string = '"x"', number = "7", boolean = "true", list = "[1]", object = '{"a":1}' }
    local types = {
      sandboxID = "string", templateID = "string", alias = "string", envdVersion = "string", envdAccessToken = "string",
      trafficAccessToken = "string", domain = "string", startedAt = "string", endAt = "string", cpuCount = "number",
      memoryMB = "number", diskSizeMB = "number", metadata = "object", state = "string",
        allowInternetAccess = "boolean",
      network = "object", lifecycle = "object", volumeMounts = "list",
    }
    local template_types = {
      templateID = "string", buildID = "string", cpuCount = "number", memoryMB = "number", diskSizeMB = "number",
        public = "boolean",
      aliases = "list", names = "list", createdAt = "string", updatedAt = "string", createdBy = "object",
        lastSpawnedAt = "string",
      spawnCount = "number", buildCount = "number", envdVersion = "string", buildStatus = "string",
    }
    local metric_types = {
      timestamp = "string", timestampUnix = "number", cpuCount = "number", cpuUsedPct = "number", memUsed = "number",
      memTotal = "number", memCache = "number", diskUsed = "number", diskTotal = "number",
    }
    local secret = { envdAccessToken = true, trafficAccessToken = true, network = true } -- or with secrets inside
    local checked = 0
    local function check(call, object, known, required, before, after)
      local list = before ~= ""
      for field in pairs(object) do
        assert.is_truthy(known[field] or field == "clientID", field)
      end
      for field, expected in pairs(known) do
        for kind, json in pairs(right) do
          local text = before .. with(object, field, json) .. after
          if kind ~= expected and field == required then
            local message, cause = failure_of(call, text)
            assert.are.equal("shape", cause)
            assert.is_truthy(message:find((list and "[2]." or " ") .. field .. ": ", 1, true), field .. " "
              .. kind .. " " .. message)
            checked = checked + 1
          elseif kind ~= expected then
            local without = value_of(call, before .. with(object, field, "null") .. after)
            if not secret[field] then
              (list and without[2] or without).extra = { [field] = core.json_decode("[" .. json .. "]")[1] }
            end
            assert.are.same(without, value_of(call, text), field .. " " .. kind)
            checked = checked + 1
          end
        end
      end
    end
    check("sandbox_get", detail, types, "sandboxID", "", "")
    check("sandbox_list", detail, types, "sandboxID", "[" .. encode(detail) .. ",", "]")
    check("template_list", template, template_types, "templateID", "[" .. encode(template) .. ",", "]")
    check("sandbox_metrics", metric, metric_types, nil, "[" .. encode(metric) .. ",", "]")
    assert.is_true(checked > 200)
    -- what nobody reads can't be wrong
    assert.are.same(shaped, value_of("sandbox_get", with(detail, "clientID", "[1]")))
  end)

  it("with a wrong type further down has that in the `extra` of its object", function()
    local function check(field, json, name, expected)
      local wanted = copy(shaped)
      wanted[name] = expected
      assert.are.same(wanted, value_of("sandbox_get", with(detail, field, json)), json)
    end
    local function extra(field, json)
      local wanted = value_of("sandbox_get", with(detail, field, "null"))
      wanted.extra = { [field] = core.json_decode(json) }
      assert.are.same(wanted, value_of("sandbox_get", with(detail, field, json)), json)
    end
    check("network", '{"allowOut":"x","denyOut":["a"]}', "network", { deny_out = { "a" }, extra = { allowOut = "x" } })
    check("network", '{"allowOut":{"a":1}}', "network", { extra = { allowOut = { a = 1 } } })
    check("network", '{"denyOut":["a",1]}', "network", { extra = { denyOut = { "a", 1 } } })
    check("network", '{"denyOut":[null,"a",null,1,null,"b",null]}', "network",
      { extra = { denyOut = { "a", 1, "b" } } })
    check("network", '{"httpsPorts":[1,"x"]}', "network", { extra = { httpsPorts = { 1, "x" } } })
    check("network", '{"egressProxy":{"username":1,"address":"a"}}', "network",
      { egress_proxy = { address = "a", extra = { username = 1 } } })
    check("lifecycle", '{"autoResume":"yes"}', "lifecycle", { extra = { autoResume = "yes" } })
    check("volumeMounts", '[{"name":"n"},{"name":"n","path":1,"new":2}]', "volume_mounts",
      { { name = "n" }, { name = "n", extra = { path = 1, new = 2 } } })
    extra("volumeMounts", '["x"]')
    extra("volumeMounts", '[{"name":"n","path":"p"},[1,{"a":"b"}]]')
    extra("startedAt", '["yesterday"]')
    assert.are.equal("yesterday", value_of("sandbox_get", with(detail, "startedAt", '"yesterday"')).extra.startedAt)
    assert.are.equal("2026-02-30T00:00:00Z",
      value_of("sandbox_get", with(detail, "endAt", '"2026-02-30T00:00:00Z"')).extra.endAt)
    -- a null in the place of an object is not left out of the list
    assert.is_table(value_of("sandbox_get", with(detail, "volumeMounts", '[{"name":"n"},null]')).extra.volumeMounts)
    assert.are.equal(9, value_of("sandbox_metrics",
      '[{"timestampUnix":"x","timestamp":"1970-01-01T00:00:09Z"}]')[1].timestamp)
  end)

  it("with a secret of the wrong type doesn't show it", function()
    local function shown(field, json)
      local found = value_of("sandbox_get", with(detail, field, json))
      support.assert_no_secret("s3cret", found)
      return found
    end
    for _, field in ipairs({ "envdAccessToken", "trafficAccessToken", "network" }) do
      for _, json in ipairs({ '["s3cret"]', field ~= "network" and '{"a":"s3cret"}' or '"s3cret"' }) do
        assert.is_nil(shown(field, json).extra)
      end
    end
    assert.are.same({ allow_out = { "a" } }, shown("network", '{"rules":["s3cret"],"allowOut":["a"]}').network)
    assert.are.same({}, shown("network", '{"rules":{"a":{"b":"s3cret"}}}').network)
    assert.are.same({ rules = { a = { {} } } }, shown("network", '{"rules":{"a":[{"transform":"s3cret"}]}}').network)
    assert.are.same({ rules = { a = { { transform = {} } } } },
      shown("network", '{"rules":{"a":[{"transform":{"headers":{"h":["s3cret"]}}}]}}').network)
    assert.are.same({}, shown("network", '{"egressProxy":"http://u:s3cret@p"}').network)
  end)

  it("of metrics takes timestampUnix, or timestamp where that is all", function()
    local found = value_of("sandbox_metrics", "[" .. encode(metric) .. "]")[1]
    assert.are.same({ timestamp = 1787307126, cpu_count = 2, cpu_used_pct = 1.25, mem_used = 2 ^ 40,
      mem_total = 2 ^ 41, mem_cache = 0,
      disk_used = 1, disk_total = 2 }, found)
    assert.is_true(is_integer(found.mem_used))
    -- whatever order the two come in
    for _, text in ipairs({ '{"timestampUnix":7,"timestamp":"1970-01-01T00:00:09Z"}',
      '{"timestamp":"1970-01-01T00:00:09Z","timestampUnix":7}' }) do
      assert.are.equal(7, value_of("sandbox_metrics", "[" .. text .. "]")[1].timestamp)
    end
    assert.are.equal(9, value_of("sandbox_metrics", '[{"timestamp":"1970-01-01T00:00:09Z"}]')[1].timestamp)
    assert.are.same({}, value_of("sandbox_metrics", "[]"))
  end)

  it("of templates has every field", function()
    assert.are.same({ { template_id = "t1", build_id = "b1", cpu_count = 2, memory_mb = 1024, disk_size_mb = 5120,
      public = true,
      aliases = { "a" }, names = { "ns/a" }, created_at = 1772355600, updated_at = 1772355601,
        created_by = { id = "u", email = "e@x" },
      last_spawned_at = 1772355602, spawn_count = 5, build_count = 3, envd_version = "0.4.2",
        build_status = "ready" } },
      value_of("template_list", "[" .. encode(template) .. "]"))
    assert.are.same({ { template_id = "t", aliases = {}, names = {} } },
      value_of("template_list_v1",
        '[{"templateID":"t","createdBy":null,"lastSpawnedAt":null,"aliases":[],"names":[]}]'))
  end)

  it("of a list keeps the rows apart and in order", function()
    local rows, expected = {}, {}
    for i = 1, 300 do
      local row = { sandboxID = "i" .. i, templateID = "t", state = "running", cpuCount = i }
      local shape = { sandbox_id = "i" .. i, template_id = "t", state = "running", cpu_count = i }
      if i % 3 == 0 then
        row.alias, shape.name = "n" .. i, "n" .. i
        row.metadata, shape.metadata = { k = tostring(i) }, { k = tostring(i) }
      end
      if i % 7 == 0 then
        row["new" .. i], shape.extra = i, { ["new" .. i] = i }
      end
      rows[i], expected[i] = row, shape
    end
    assert.are.same(expected, value_of("sandbox_list", encode(rows)))
    assert.are.same({}, value_of("sandbox_list", " []\n"))
    local message, cause = failure_of("sandbox_list", '[{"sandboxID":"a","templateID":"t"},null]')
    assert.are.equal("shape", cause)
    assert.is_truthy(message:find("[2]: ", 1, true), message)
  end)

  it("of a list must be an array", function()
    for _, call in ipairs({ "sandbox_list", "sandbox_list_v1", "template_list", "template_list_v1",
      "sandbox_metrics" }) do
      for _, text in ipairs({ "{}", " {}", '{"sandboxes":[]}', "null", "1", '"[]"', "true" }) do
        local message, cause = failure_of(call, text)
        assert.are.equal("shape", cause)
        assert.is_truthy(message:find("a list expected", 1, true))
      end
      assert.are.equal("shape", (select(2, failure_of(call, "[1]"))))
      assert.are.equal("shape", (select(2, failure_of(call, "[[1]]"))))
    end
    assert.are.equal("shape", (select(2, failure_of("sandbox_list", "[[]]"))))
    assert.are.equal("shape", (select(2, failure_of("sandbox_get", "[1]"))))
    assert.are.equal("shape", (select(2, failure_of("sandbox_get", "null"))))
    assert.are.equal("shape", (select(2, failure_of("sandbox_get", '"x"'))))
  end)

  it("that is not JSON says so", function()
    local nested = ("["):rep(10000) .. ("]"):rep(10000)
    for _, text in ipairs({ "", " ", "<!DOCTYPE html>", "OK", "{", '{"sandboxID":"i"', encode(detail) .. "x",
      "\239\187\191" .. encode(detail),
      encode(detail) .. "\0", nested, '{"a":' .. nested .. "}" }) do
      local message, cause = failure_of("sandbox_get", text)
      assert.are.equal("json", cause, text:sub(1, 30))
      assert.is_truthy(message:find("^the answer is not JSON: "), message)
      assert.is_true(#message < 300)
    end
    assert.is_truthy(failure_of("sandbox_get", "<html>"):find("HTML", 1, true))
    assert.is_truthy(failure_of("sandbox_get", ""):find("empty", 1, true))
  end)

  it("cut at any byte is not JSON, and nothing worse", function()
    local page = "[" .. encode(detail) .. "," .. encode(detail) .. "]"
    for n = 0, #page - 1 do
      assert.are.equal("json", (select(2, failure_of("sandbox_list", page:sub(1, n)))), n)
    end
    assert.are.same({ shaped, shaped }, value_of("sandbox_list", page))
  end)

  it("with changed bytes is read, or refused with a sentence", function()
    math.randomseed(11)
    local page = "[" .. encode(detail) .. "]"
    local outcomes = {}
    for _ = 1, 5000 do
      local at = math.random(#page)
      local text = page:sub(1, at - 1) .. string.char(math.random(32, 126)) .. page:sub(at + 1)
      local ok, message, cause = answer("sandbox_list", 200, text)
      if not ok then
        assert.are.equal("string", type(message))
      end
      outcomes[ok and "ok" or cause] = true
    end
    assert.are.same({ ok = true, json = true, shape = true }, outcomes)
  end)

  it("of a call that has none is true, whatever came", function()
    for _, call in ipairs({ "sandbox_kill", "sandbox_pause", "sandbox_timeout", "envd_health" }) do
      for _, text in ipairs({ "", "{}", "OK", "<html>" }) do
        local ok, value = answer(call, 200, text)
        assert.is_true(ok)
        assert.is_true(value)
      end
      assert.are.same({ true, true }, { answer(call, 204, "") })
    end
  end)

  it("without the body that its call promises is a failure", function()
    for _, status in ipairs({ 200, 201, 204 }) do
      local ok, _, cause = answer("sandbox_create", status, "")
      assert.is_false(ok)
      assert.are.equal("json", cause)
    end
  end)
end)

describe("an answer to the raw call", function()
  it("is any JSON, and true where there is nothing", function()
    assert.are.same({ a = { 1, { B = "c" } } }, value_of("raw", '{"a":[1,null,{"B":"c","d":null}]}'))
    assert.are.same({}, value_of("raw", "[]"))
    assert.are.equal("x", value_of("raw", '"x"'))
    assert.are.equal(false, value_of("raw", "false"))
    assert.is_true(value_of("raw", ""))
    assert.is_true(value_of("raw", " \r\n"))
    assert.are.equal("shape", (select(2, failure_of("raw", "null"))))
    assert.are.equal("json", (select(2, failure_of("raw", "OK"))))
  end)
end)

describe("an error body", function()
  it("gives message and error_code when it is E2B's", function()
    assert.are.same({ message = "no such sandbox", code = 404, has_body = true },
      core._error('{"code":404,"message":"no such sandbox"}'))
    assert.are.same({ message = "busy", code = 504, error_code = "sandbox_placement_timeout", has_body = true },
      core._error(' {"code":504,"message":"busy","error_code":"sandbox_placement_timeout","more":{}}'))
    assert.are.same({ message = "m", error_code = "not_found", has_body = true },
      core._error('{"code":"not_found","message":"m"}'))
    assert.are.same({ message = "m", error_code = "e", has_body = true },
      core._error('{"code":"not_found","message":"m","error_code":"e"}'))
  end)

  it("gives what there is of another's", function()
    assert.are.same({ message = "Not Found" }, core._error('{"message":"Not Found"}'))
    for _, text in ipairs({ "", " ", "<html>502</html>", "null", "[]", '["message"]', '"message"', "42", "{}",
      '{"message":', '{"message":null,"code":null}',
      '{"message":{"message":"x"}}', '{"message":["x"]}', '{"message":12}', '{"message":""}', '{"error":"x"}', "{\0",
        ("{"):rep(100000),
      '{"message":"' .. ("x"):rep(300000) .. '","code":1}' }) do
      assert.are.same({}, core._error(text), text:sub(1, 40))
    end
    assert.are.same({ code = 500 }, core._error('{"code":500}'))
    for _, code in ipairs({ "399", "600", "-1", "404.5", "1e300", "5" }) do
      assert.are.same({}, core._error('{"code":' .. code .. "}"))
    end
  end)

  it("is cut at 1 KiB, between two characters", function()
    local facts = core._error(encode({ code = 400, message = ("a"):rep(5000) }))
    assert.are.equal(1024, #facts.message)
    facts = core._error(encode({ code = 400, message = "a" .. ("\195\169"):rep(5000) }))
    assert.are.equal(1023, #facts.message)
    assert.are.equal("a" .. ("\195\169"):rep(511), facts.message)
    facts = core._error(encode({ code = 400, message = ("\128"):rep(5000) })) -- no UTF-8 at all
    assert.is_true(#facts.message <= 1024)
    assert.is_true(#core._error(encode({ code = 400, message = "m", error_code = ("e"):rep(5000) })).error_code <= 128)
  end)

  it("has no control characters that would act on a terminal", function()
    local facts = core._error('{"code":400,"message":"a\\u001b[31mb\\u0000c\\r\\nd\\u007fe\\u0085f\\u009bg\\u00e9"}')
    assert.are.equal("a [31mb c  d e f g\195\169", facts.message)
  end)
end)
