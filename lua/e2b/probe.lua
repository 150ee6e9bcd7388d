--- What became of a sandbox when a connection to it broke or went quiet: it is asked for its health, once and not for
--- long.
local core = require("e2b.core")
local errors = require("e2b.errors")
local exchange = require("e2b.exchange")
local loops = require("e2b.loop.init")

local M = {}

--- The longest that a probe takes, in seconds.
M.SECONDS = 5

local now = core.now
local NONE = {}

-- libcurl's own verdicts about an answer that came: the connection is as well as before.
local NOT_BROKEN = { [23] = true, [26] = true, [42] = true, [63] = true }

--- Whether a failure leaves open what became of the sandbox: the connection broke, or nothing came any more. What the
--- sandbox answered, a deadline and a cancel don't, nor does a request that was never sent.
---@param facts table of transfer:result()
---@return boolean
function M.wanted(facts)
  if facts.sent == "no" then return false end
  local cause = facts.cause
  if cause == "curl" then return not facts.replay and not NOT_BROKEN[facts.curl or 0] end
  return cause == "cut" or cause == "deadline" and facts.deadline == "idle_timeout"
end

--- Asks GET /health.
---@param state table of the client
---@param target userdata
---@param deadline number? of the call, on the clock of core.now()
---@return "gone"|"alive"|"busy"|"unknown"|nil verdict nil: there was no time to ask
function M.ask(state, target, deadline)
  local last = now() + M.SECONDS
  local cut_short = deadline ~= nil and deadline < last
  if cut_short then last = deadline end
  if last <= now() then return nil end
  local transfer = exchange.prepare(state, target, "envd_health", NONE, NONE, last)
  if not transfer then return nil end
  local ok, facts = exchange.run(transfer, last, loops.choose(state.config.loop))
  if ok then return "alive" end
  if facts.cause == "http" then
    -- The proxy's 502 is as well about a port that nobody listens on, and one of something in between about nothing.
    if errors.kind(facts, true) == "sandbox_gone" then return "gone" end
    return (facts.status == 429 or facts.status == 503) and "busy" or "unknown"
  end
  if facts.cause == "cancelled" then return nil end
  if facts.cause == "deadline" then
    if cut_short then return nil end
    return "busy"
  end
  return "unknown"
end

return M
