-- What people write without a module: Debian's lua-curl and lua-cjson on Lua 5.1, one handle a method, kept alive.
-- It decodes and does no more: no argument checks, no typed errors, no retries, no deadlines but curl's own.
--   lua5.1 naive.lua URL start|get|pages|cycle COUNT
local curl, cjson = require("curl"), require("cjson")
local url, workload, count = arg[1], arg[2], tonumber(arg[3])

local KEY = "X-API-Key: e2b_0000000000000000000000000000000000000000"
local body, next_token, status = nil, nil, nil

local function handle(headers)
  local easy = curl.easy_init()
  easy:setopt(curl.OPT_HTTPHEADER, headers)
  easy:setopt(curl.OPT_TIMEOUT, 60)
  easy:setopt(curl.OPT_WRITEFUNCTION, function(data)
    body[#body + 1] = data
    return #data
  end)
  easy:setopt(curl.OPT_HEADERFUNCTION, function(line)
    local code = line:match("^HTTP/%S+ (%d+)")
    if code then
      status = tonumber(code)
    else
      next_token = line:match("^[Xx]%-[Nn]ext%-[Tt]oken:%s*(.-)%s*$") or next_token
    end
    return #line
  end)
  return easy
end

local function request(easy, path, expected)
  body, next_token, status = {}, nil, nil
  easy:setopt(curl.OPT_URL, url .. path)
  assert(easy:perform())
  assert(status == expected, status)
  return table.concat(body)
end

local reader = handle({ KEY })
local workloads = {}

function workloads.get()
  for _ = 1, count do
    local info = cjson.decode(request(reader, "/sandboxes/ibench0000000000000001", 200))
    assert(info.cpuCount == 2)
  end
end

workloads.start = workloads.get

function workloads.pages()
  local sandboxes, pages, path = 0, 0, "/v2/sandboxes?limit=100"
  repeat
    local items = cjson.decode(request(reader, path, 200))
    sandboxes, pages = sandboxes + #items, pages + 1
    path = "/v2/sandboxes?limit=100&nextToken=" .. tostring(next_token)
  until not next_token
  assert(pages == count and sandboxes == count * 100)
end

function workloads.cycle()
  local creator, killer = handle({ KEY, "Content-Type: application/json" }), handle({ KEY })
  killer:setopt(curl.OPT_CUSTOMREQUEST, "DELETE")
  for _ = 1, count do
    creator:setopt(curl.OPT_POSTFIELDS, cjson.encode({ templateID = "base", timeout = 300 }))
    local sandbox = cjson.decode(request(creator, "/v2/sandboxes", 201))
    request(killer, "/sandboxes/" .. sandbox.sandboxID, 204)
  end
end

workloads[workload]()
