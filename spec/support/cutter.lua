-- A peer between a client and a local server that cuts what is said about a create, and passes on everything else.
-- What happens to a create is the `case` in its metadata, or the header X-Case:
--
--   pass             nothing
--   request-K        the server gets the first K bytes of the request, and both connections end
--   respond-K        the client gets the first K bytes of the answer
--   late-MS          the client's connection ends, and so many milliseconds later the server gets the request
--   twice            the server gets the request twice, and the client nothing
--   down-MS          the answer is lost, and for so many milliseconds the service can't be reached
--   hang-MS          the answer is lost, and for so many milliseconds the service says nothing
--   part-K           K bytes of the body are read, the rest never; the server gets as much
local peer = require("spec.support.peer")

local cutter = {}

local HANDLER = [[
  local cqueues = require("cqueues")
  local socket = require("cqueues.socket")
  local HOST, PORT = "127.0.0.1", %d

  local function quiet(_, _, code) return code end

  -- A whole message as it came: head, body.
  local function read_head(from)
    local lines = {}
    repeat
      local line = from:read("*L")
      if not line then return nil end
      lines[#lines + 1] = line
    until line == "\r\n"
    return table.concat(lines)
  end
  local function read_message(from)
    local head = read_head(from)
    if not head then return nil end
    local size = tonumber(head:lower():match("\ncontent%%-length: *(%%d+)") or 0)
    local body = size > 0 and from:read(size) or ""
    if not body or #body < size then return nil end
    return head, body
  end

  local function upstream()
    local up = assert(socket.connect({ host = HOST, port = PORT, nodelay = true }))
    up:onerror(quiet)
    up:setmode("bn", "bn")
    return up
  end

  -- Sends bytes over a connection of its own; the answer if one is wanted.
  local function forward(bytes, wanted)
    local up = upstream()
    up:xwrite(bytes, "bn")
    local head, body
    if wanted then head, body = read_message(up) end
    up:shutdown("w")
    up:close()
    return head and head .. body
  end

  local cases = {}
  function cases.pass(all) conn:send(forward(all, true) or "") end
  function cases.request(all, k)
    forward(all:sub(1, k), false)
    conn:close()
  end
  function cases.respond(all, k)
    local answer = forward(all, true) or ""
    conn:note({ what = "lengths", request = #all, answer = #answer })
    conn:send(answer:sub(1, k))
    conn:close()
  end
  function cases.late(all, ms)
    conn:close()
    cqueues.sleep(ms / 1000)
    forward(all, true)
    conn:note({ what = "late" })
  end
  function cases.twice(all)
    forward(all, true)
    forward((all:gsub("Idempotency%%-Key: [^\r]*\r\n", "", 1)), true)
    conn:close()
  end
  function cases.down(all, ms)
    forward(all, true)
    shared.down = cqueues.monotime() + ms / 1000
    conn:reset()
  end
  function cases.hang(all, ms)
    forward(all, true)
    shared.hang = cqueues.monotime() + ms / 1000
    conn:reset()
  end

  while not conn.closed do
    local head = read_head(conn.socket)
    if not head then break end
    local size = tonumber(head:lower():match("\ncontent%%-length: *(%%d+)") or 0)
    local method = head:match("^%%S+")
    local case = head:match("\nX%%-Case: ([^\r]+)")
    local part = case and case:match("^part%%-(%%d+)$")
    local body = size > 0 and conn.socket:read(part and math.min(tonumber(part), size) or size) or ""
    local create = method == "POST" and head:find("^POST /v?2?/?sandboxes ")
    case = create and (case or body:match('"case":"([%%w-]+)"') or "pass")
    if create then
      conn:note({ what = "create", case = case })
      if part then
        forward(head .. body, false)
        conn:reset()
      else
        local name, k = case:match("^(%%a+)%%-?(%%d*)")
        cases[name](head .. body, tonumber(k))
      end
    else
      conn:note({ what = "call", line = head:match("^[^\r]+") })
      local now = cqueues.monotime()
      if now < (shared.down or 0) then
        conn:reset()
      elseif now < (shared.hang or 0) then
        cqueues.sleep(shared.hang - now)
        conn:close()
      else
        conn.up = conn.up or upstream()
        conn.up:xwrite(head .. body, "bn")
        local answer, rest = read_message(conn.up)
        conn:send((answer or "") .. (rest or ""))
      end
    end
  end
  if conn.up then conn.up:close() end
]]

--- Starts one.
---@param server table a local server
---@param port integer? the one it had before
---@return table peer of spec.support.peer
function cutter.start(server, port)
  return peer.start({ handler = HANDLER:format(tonumber(server.url:match(":(%d+)$"))), port = port })
end

return cutter
