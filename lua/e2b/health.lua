--- :checkhealth e2b. What is installed, whether there is a key, whether the service answers it.
local lazy = require("e2b.lazy")
local version = require("e2b.version")

-- Nothing of the library is loaded with this file: what is to be found may be that it can't be.
local clients, checks = lazy("e2b.client"), lazy("e2b.check")

local M = {}

-- Seconds. An offline editor is to say so soon.
local PATIENCE = 10
-- The service's clock is told in whole seconds, and the answer takes its time.
local SKEW = 5

---@class e2b.HealthReport
---@field start fun(title: string)
---@field ok fun(text: string)
---@field info fun(text: string)
---@field warn fun(text: string, advice: string[]?)
---@field error fun(text: string, advice: string[]?)

-- Neovim's own reporter: since 0.10 it has these names, since 0.8 that place.
local function reporter()
  local vim = rawget(_G, "vim")
  if type(vim) ~= "table" then
    error("e2b.health is for Neovim: type :checkhealth e2b there; elsewhere there is e2b.check()", 3)
  end
  local health = vim.health or require("health")
  if health.start then return health end
  return {
    start = health.report_start, ok = health.report_ok, info = health.report_info, warn = health.report_warn,
    error = health.report_error,
  }
end

-- Whether it can be used.
local function installed(report)
  local jit = rawget(_G, "jit")
  local lua = type(jit) == "table" and jit.version or _VERSION
  -- Before lua-cjson itself, which it loads in its own way.
  local loaded, core = pcall(require, "e2b.core")
  local found, cjson = pcall(require, "cjson")
  if not loaded then
    report.error(("e2b %s on %s: its C part can't be loaded"):format(version, lua), {
      "in its folder: make neovim", tostring(core):match("^[^\n]*"),
    })
    return false
  end
  report.ok(("e2b %s on %s"):format(version, lua))
  local curl = core.libcurl()
  local text = ("libcurl %s, %s"):format(curl.version, curl.ssl or "without TLS")
  if not curl.ssl then
    report.error(text, { "the service is reached over https only: install a libcurl with TLS" })
  elseif curl.quick_exit then
    report.ok(text)
  else
    report.warn(text, { "before 7.87 a name that nobody answers for may freeze Neovim for 10 seconds" })
  end
  if found then
    report.ok(("lua-cjson %s"):format(tostring(cjson._VERSION)))
  else
    report.error("lua-cjson is missing", { "luarocks --lua-version 5.1 install lua-cjson; on Debian: lua-cjson" })
  end
  return found
end

local function key(report, client)
  if client.key_form == "e2b" then
    report.ok("there is a key (E2B_API_KEY), and it is formed as E2B's are")
  elseif client.key_form then
    report.warn("there is a key (E2B_API_KEY), and it is not formed as E2B's are", {
      "E2B's are e2b_ and 40 hexadecimal digits: was it cut off? Other services have other forms",
    })
  else
    report.error("there is no key", {
      "set E2B_API_KEY where Neovim is started; keys are at https://e2b.dev/dashboard?tab=keys",
    })
  end
end

local function clock(report, client)
  local _, meta = client:request("GET", "/v2/templates", { query = { limit = 1 } })
  local date = type(meta) == "table" and meta.date
  if not date then return end
  local ahead = os.time() - date
  if math.abs(ahead) <= SKEW then
    report.ok("the clock of this machine is right")
  else
    report.warn(("the clock of this machine is %d s %s"):format(math.abs(ahead), ahead > 0 and "fast" or "slow"), {
      "end_at and expires_in() follow the service's clock and are right; signed URLs expire by it, too",
    })
  end
end

local function service(report, client)
  local ok, message = checks.check(client)
  if ok then
    report.ok(client.base_url .. " answers, and knows the key")
    return clock(report, client)
  end
  report.error(tostring(message), { "asked was " .. client.base_url .. "; E2B_API_URL and E2B_DOMAIN choose another" })
end

---The report of `:checkhealth e2b`: versions, the key (never shown), the service, the clock.
---E2B API: GET /v2/templates, GET /v2/sandboxes.
---@param report e2b.HealthReport? Neovim's own if not given
function M.check(report)
  report = report or reporter()
  report.start("e2b")
  if not installed(report) then return end
  local ok, client = pcall(clients.new, { request_timeout = PATIENCE, retries = 0 })
  if not ok then return report.error(tostring(client)) end
  key(report, client)
  if client.key_form then service(report, client) end
end

return M
