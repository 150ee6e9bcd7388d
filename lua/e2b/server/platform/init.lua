--- The platform API: its state and all its routes.
-- @module e2b.server.platform

local hmac = require("openssl.hmac")
local random = require("openssl.rand")
local router = require("e2b.server.router")
local text = require("e2b.server.text")
local idempotency = require("e2b.server.platform.idempotency")
local lifecycle = require("e2b.server.platform.lifecycle")
local listing = require("e2b.server.platform.listing")
local metrics = require("e2b.server.platform.metrics")
local sandboxes = require("e2b.server.platform.sandboxes")
local snapshots = require("e2b.server.platform.snapshots")
local store = require("e2b.server.platform.store")
local templates = require("e2b.server.platform.templates")
local volumes = require("e2b.server.platform.volumes")

local platform = {}

---@param options table the server's options
---@param spawn fun(fn: function) runs a function as a coroutine of the server
---@param places table where sandboxes run (e2b.server.sandbox)
---@return table state
function platform.new(options, spawn, places)
  local secret = random.bytes(32)
  return {
    options = options,
    templates = templates.load(),
    volumes = volumes.new(),
    idempotency = idempotency.new(),
    places = places,
    store = store.new(options, spawn, places),
    -- Derived from the id and a secret of this process: the same after a pause, not to be guessed.
    token = function(purpose, id)
      return text.hex(hmac.new(secret, "sha256"):final(purpose .. ":" .. id))
    end,
  }
end

---@param state table
---@return table router
function platform.router(state)
  local routes = router.new()
  for _, part in ipairs({ sandboxes, listing, lifecycle, metrics, snapshots, templates, volumes }) do
    part.routes(routes, state)
  end
  return routes
end

return platform
