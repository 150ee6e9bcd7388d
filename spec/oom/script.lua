-- Everything the core does, in few allocations: each of them fails once in every sweep. Plain 5.1 syntax, no helpers.
local url, phase = ...
if phase == "recover" then
  for name, module in pairs(package.loaded) do
    if type(module) == "userdata" then
      package.loaded[name] = nil -- 5.1 remembers a require that failed
    end
  end
end
local core = require("e2b.core")
local engine = core.engine()

local function wait(transfer, on_event)
  local limit = core.now() + 20
  while true do
    engine:wait(1)
    for which, event in engine.finished, engine do
      if event == "done" and which == transfer then
        return
      elseif on_event then
        on_event(event)
      end
    end
    assert(core.now() < limit, "stuck")
  end
end

local function run(transfer, on_event)
  engine:start(transfer)
  wait(transfer, on_event)
  return transfer:result()
end

if phase == "recover" then
  -- What the failure left in flight is still there to be told of; closing ends it.
  engine:close()
  for _ in engine.finished, engine do end -- luacheck: ignore 542
end

local target = assert(core.target({
  url = url, headers = { { "X-API-Key", "secret-of-the-sweep" } }, user_agent = "oom", proxy = false,
}))
assert(core.target({ url = "ftp://x" }) == nil)
assert(core.target({ url = url, headers = { { "X-Bad", "\n" } } }) == nil)
assert(tostring(target) and tostring(engine))

local function call(name, args, opts)
  return assert(core.transfer(target, name, args, opts))
end
local function raw(path, opts, method)
  return call("raw", { method = method or "GET", path = path }, opts)
end

-- a value of a row with all kinds of fields; the body is made of tables
local ok, value, date, status, next_token, total = run(call("sandbox_create", {
  body = { template = "base", timeout = 300, metadata = { a = "b" } },
}, { timeout = 10, connect_timeout = 5, idle_timeout = 5, max_bytes = 100000, headers = { "X-Own", "1" } }))
assert(ok and value.sandbox_id == "ok" and date and status == 201 and next_token == "cursor" and total == 3)
ok, value = run(call("sandbox_list", {
  query = { limit = 2, state = { "running", "paused" }, metadata = { k = "v w" } },
}))
assert(ok and #value == 2 and value[2].metadata.k == "v")

-- answers that are failures
for _, path in ipairs({ "/404", "/html", "/cut", "/302" }) do
  local facts
  ok, facts = run(raw(path))
  assert(ok == false and facts.cause and facts.text)
end
local _, facts = run(call("sandbox_get", { sandbox_id = "shape" }))
assert(facts.cause == "shape")
_, facts = run(raw("/list", { max_bytes = 5 }))
assert(facts.cause == "too_large")
_, facts = run(raw("/never", { timeout = 0.002 }))
assert(facts.cause == "deadline")
assert(core.transfer(target, "raw", { method = "GET", path = "/" }, { headers = { "X", "\r" } }) == nil)
assert(core.transfer(target, "sandbox_get", { sandbox_id = ".." }) == nil)

-- bodies in pieces
local size = 0
local function read(transfer)
  while true do
    local bytes = transfer:read(5000)
    if not bytes then
      return
    end
    size = size + #bytes
  end
end
local stream = raw("/stream", { stream = true, high_water = 1000 })
engine:start(stream)
wait(stream, function() read(stream) end)
read(stream)
assert(stream:result() and size == 20000, size)
local upload = raw("/count", { source = "chunks", high_water = 1000 }, "POST")
assert(upload:write(("u"):rep(900)))
engine:start(upload)
local refused = not upload:write(("u"):rep(900))
if refused then
  repeat
    engine:wait(1)
    local _, event = engine:finished()
  until event == "write"
  assert(upload:write(("u"):rep(900)))
end
upload:close_write()
wait(upload)
assert(select(2, upload:progress()) == 1800)
assert(upload:result())

-- streams of events: one that ends well, one that ends with an error, one that is cut
local output, code, watched = "", nil, 0
local function events(transfer)
  while true do
    local kind, bytes = transfer:event()
    if not kind then
      return
    elseif kind == "end" then
      code = bytes.exit_code
    elseif kind == "filesystem" then
      watched = watched + bytes.entry.size
    elseif kind ~= "start" then
      output = output .. bytes
    end
  end
end
local function follow(name, body)
  local transfer = call(name, { body = body })
  local guard = core.guard(transfer)
  engine:start(transfer)
  wait(transfer, function() events(transfer) end)
  events(transfer)
  guard:release()
  return transfer:result()
end
ok = follow("process_start", { process = { cmd = "x", args = { "y" }, envs = { A = "1" } }, stdin = false })
assert(ok and output == "hi\nhi\nhi?" and code == 0)
ok, facts = follow("process_connect", { process = { pid = 7 } })
assert(not ok and facts.error_code == "not_found")
ok, facts = follow("dir_watch", { path = "/" })
assert(not ok and facts.cause == "cut" and watched == 3)
ok, value = run(call("fs_list", { body = { path = "/", depth = 1 } }))
assert(ok and value[1].type == "file" and value[1].mode == 0)
assert(run(call("process_input", { body = { process = { pid = 7 }, input = { stdin = "bytes" } } })))
ok, value = run(call("files_read", { query = { path = "/x" } }, { gzip = true }))
assert(ok and value == "bytes")
assert(core.base64_decode(core.base64_encode("bytes")) == "bytes")

-- cancelling, forgetting, closing
local never = raw("/never")
engine:start(never)
engine:wait(0)
never:cancel()
assert(select(2, never:result()).cause == "cancelled")
raw("/list")
engine:start(raw("/never"))
engine:wait(0)
engine:close()
for _, event in engine.finished, engine do
  assert(event == "done")
end

local dropped = raw("/never")
engine:start(dropped)
core.guard(dropped)
dropped = nil -- luacheck: ignore 311
collectgarbage("collect")
collectgarbage("collect")

-- socket mode
local switched = raw("/list")
engine:start(switched)
assert(engine:pollfd() >= 0 and engine:timeout())
wait(switched)
assert(switched:result())
ok = run(raw("/list"))
assert(ok)
assert(core.libcurl().number and core.stats().in_flight == 0)

-- the small ones
assert(core.time_parse("2026-01-02T03:04:05Z") == 1767323045 and core.time_format(1767323045) == "2026-01-02T03:04:05Z")
assert(core.escape("a/b") == "a%2Fb")
assert(core.json_decode(core.json_encode({ a = { 1, 2 } })).a[2] == 2)

-- local files, digests, packing; what a failure leaves in the folder is taken over by the run after it
local folder = (os.getenv("TMPDIR") or "/tmp") .. "/e2b-oom-" .. core.getpid()
core.fs_mkdir(folder)
local tree = assert(core.tree(folder))
local file = assert(core.file_temp(folder .. "/a"))
assert(file:write("bytes") and file:commit())
file = assert(tree:create("a"))
assert(file:write("more") and file:commit(384))
assert(tree:symlink("a", "b") and tree:link("a", "c") and tree:touch("a", 420, 1) and tree:mkdir("d"))
assert(tree:create("../x") == nil and core.file_open(folder) == nil)
file = assert(core.file_open(folder .. "/b"))
assert(file:size() == 4 and file:read() == "more" and file:read() == nil and tostring(file))
file:close()
file = assert(core.file_temp(folder .. "/z"))
assert(#assert(core.fs_list(folder)) >= 4 and core.fs_stat(folder .. "/b").target == "a")
file:close()
local bridge = assert(core.bridge(folder))
assert(bridge:path() and tostring(bridge) == "e2b.bridge (not connected)" and bridge:start() == nil)
bridge:close()
tree:close()
collectgarbage() -- what a failure has left is removed with it, and no journal is locked any more
local journal = assert(core.journal_open(folder .. "/j", true))
assert(journal:append("a") and journal:append("b\n") and journal:read():find("b\n$") and journal:size() >= 4)
assert(journal:replace("c\n") and journal:close(true) and core.journal_open(folder) == nil)
assert(core.process_start(core.getpid()) and select("#", core.process_place()) == 3 and core.path_whole("x"))
for _, name in ipairs(core.fs_list(folder)) do
  assert(core.fs_remove(folder .. "/" .. name))
end
assert(core.fs_remove(folder))
local packer = core.deflate()
assert(#(packer:write(("p"):rep(900)) .. packer:write("", "finish")) > 20)
assert(#core.sha256("x") == 32)
local terminal, no_terminal = core.terminal(0, 0)
assert(terminal or no_terminal == "the input is not a terminal")

if phase == "recover" then
  target, stream, upload, never, switched, value, facts = nil -- luacheck: ignore 311 532
  engine:close()
  collectgarbage("collect")
  collectgarbage("collect")
  for name, count in pairs(core.stats()) do
    assert(count == 0, "left: " .. name .. " " .. count)
  end
end
