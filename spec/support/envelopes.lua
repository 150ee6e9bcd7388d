-- Streams of envelopes: what a peer needs to send some, and what a spec needs to read them.
local exchange = require("spec.support.exchange")
local core = require("e2b.core")

local envelopes = {}

--- The beginning of a peer's handler: begin(), envelope(payload, flags?, length?), send(the same), finish(payload?).
envelopes.handler = [[
  local request = conn:read_request()
  if not request then
    return
  end
  local function begin(headers)
    conn:begin_chunked(200, headers or { ["Content-Type"] = "application/connect+json" })
  end
  local function envelope(payload, flags, length)
    local n = length or #payload
    return string.char(flags or 0, math.floor(n / 2 ^ 24) % 256, math.floor(n / 2 ^ 16) % 256,
      math.floor(n / 2 ^ 8) % 256, n % 256) .. payload
  end
  local function send(payload, flags, length)
    return conn:chunk(envelope(payload, flags, length))
  end
  local function finish(payload)
    send(payload or "{}", 2)
    conn:chunk("")
  end
]]

envelopes.start = { body = { process = { cmd = "x" } } }

--- A stream of a process, not started.
function envelopes.open(server, opts, row, args)
  args = args or (row == "dir_watch" and { body = { path = "/tmp" } }) or envelopes.start
  return assert(core.transfer(exchange.target(server), row or "process_start", args, opts))
end

--- Hands over what is there. Returns false when more may come, nil at the end.
function envelopes.take(transfer, on_event)
  while true do
    local kind, value = transfer:event()
    if not kind then
      return kind
    end
    on_event(kind, value)
  end
end

--- Reads a stream to its end.
---@return table[] events { kind, value }
---@return boolean ok
---@return table|true facts
function envelopes.read(transfer, seconds)
  local got = {}
  local function take()
    envelopes.take(transfer, function(kind, value)
      got[#got + 1] = { kind, value }
    end)
  end
  core.engine():start(transfer)
  exchange.drive({ transfer }, take, seconds)
  take()
  return got, transfer:result()
end

return envelopes
