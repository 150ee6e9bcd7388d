--- Sandbox.list: the query, the fallback to v1, and the check of every row against the filter that was asked for.
--- Some compatible services ignore filters; a program that kills what it finds must not be handed a stranger's sandbox.
local core = require("e2b.core")
local errors = require("e2b.errors")
local options = require("e2b.options")
local base = require("e2b.sandbox_base")
local book = require("e2b.sandbox_book")
local create = require("e2b.sandbox_create")
local format = require("e2b.format")
local paginator = require("e2b.paginator")

local M = {}

local raise = options.raise

M.OPTIONS = { "state", "metadata", "order", "started_after", "template", "limit", "next_token" }

local STATES = { running = true, paused = true }

-- An empty filter is no filter: the service refuses one, and nothing was asked for.
local function unless_empty(value)
  if value ~= nil and next(value) == nil then return nil end
  return value
end

local function query_of(opts)
  local query = {
    state = unless_empty(create.list(opts.state, "state", "string")),
    metadata = unless_empty(create.strings(opts.metadata, "metadata")),
    started_after = base.epoch(opts.started_after, "started_after"),
  }
  for _, state in ipairs(query.state or {}) do
    if not STATES[state] then
      raise(("state must be a list of \"running\" and \"paused\", it has %q"):format(state))
    end
  end
  local order = opts.order
  if order ~= nil and order ~= "asc" and order ~= "desc" then
    raise(("order must be \"asc\" or \"desc\", got %s"):format(format.value(order)))
  end
  query.order = order
  for _, name in ipairs({ "template", "next_token" }) do
    local value = opts[name]
    if value ~= nil and (type(value) ~= "string" or value == "") then
      raise(("%s must be a string that isn't empty, got %s"):format(name, value == "" and "\"\"" or type(value)))
    end
    query[name] = value
  end
  query.limit = base.count(opts.limit, "limit")
  return query
end

-- v1 knows running sandboxes, newest first, all in one answer, and a metadata filter. Whatever else was asked for can't
-- be had there, and a list that merely looks right would be worse than none. Even a limit: v1 has no pages.
local function v1_lacks(query)
  local state = query.state
  if not (state and #state == 1 and state[1] == "running") then
    return "it lists running sandboxes only (ask for state = { \"running\" })"
  end
  if query.order == "asc" then return "it knows one order only, newest first" end
  for _, name in ipairs({ "started_after", "template", "limit", "next_token" }) do
    if query[name] ~= nil then return ("it knows no %s"):format(name) end
  end
  return nil
end

local function v1_arguments(query, client)
  local lack = v1_lacks(query)
  if lack then
    return errors.new("unsupported", {
      message = ("Sandbox.list: the service doesn't know GET /v2/sandboxes, and the older list can't do this: %s; "
        .. "if %s is not an older service, the address is wrong: E2B_API_URL or the option api_url chooses it"):format(
          lack, client.base_url),
      operation = "Sandbox.list", sent = "no", retryable = false,
    })
  end
  return { query = { metadata = query.metadata } }
end

-- Answers that say that no template of ours has the name; 403: it is another team's.
local NO_SUCH = { [400] = true, [403] = true, [404] = true }

-- The id of the template that the filter names, asked for only when a row shows neither that id nor that name: a
-- template may have more names than the one its sandboxes show. Any other failure is the list's: without that id, rows
-- would be dropped that fit.
local function resolver(client, template, opts)
  local asked, template_id
  return function()
    if not asked then
      local found, _, err = client:call("raw",
        { method = "GET", path = "/templates/aliases/" .. core.escape(template) }, opts,
        { operation = "Sandbox.list", resource = "template" })
      if found == nil and not (NO_SUCH[err.status] and err.kind ~= "protocol") then return nil, err end
      asked, template_id = true, type(found) == "table" and found.templateID or nil
    end
    return template_id
  end
end

local function checker(query, resolve)
  local states
  for _, state in ipairs(query.state or {}) do
    states = states or {}
    states[state] = true
  end
  local metadata, template = query.metadata, query.template
  -- Rows tell whole seconds, so the bound has to be as coarse: it is inclusive.
  local after = query.started_after and math.floor(query.started_after)
  if not (states or metadata or template or after) then return nil end
  return function(row)
    if states and not states[row.state] then return false end
    if metadata then
      local has = row.metadata
      if not has then return false end
      for key, value in pairs(metadata) do
        if has[key] ~= value then return false end
      end
    end
    if after and not (row.started_at and row.started_at >= after) then return false end
    if template and row.template_id ~= template and row.name ~= template then
      local template_id, err = resolve()
      if err then return nil, err end
      return template_id ~= nil and row.template_id == template_id
    end
    return true
  end
end

--- Columns of a page of sandboxes.
---@param binding e2b.Binding
---@return e2b.Column[]
local function columns(binding)
  return {
    { title = "sandbox", whole = true, value = function(s) return s.sandbox_id end },
    { title = "template", value = function(s) return s.name or s.template_id end },
    { title = "state", value = function(s) return s.state end },
    { title = "started", value = function(s) return format.time(s.started_at) end },
    { title = "expires in", right = true, value = function(s)
      local seconds = book.expires_in(binding, s)
      if not seconds then return "" end
      return seconds > 0 and format.span(seconds) or "expired"
    end },
  }
end

-- Pages print as a table; what draws it is loaded when the first one is printed.
local function page_metatable(binding)
  local mt = binding.page_mt
  if not mt then
    mt = {
      __name = "e2b.Sandboxes",
      __tostring = function(rows)
        if rows[1] == nil then return "no sandboxes" end
        return require("e2b.table_view").render(columns(binding), rows)
      end,
      __call = paginator.call_page,
    }
    binding.page_mt = mt
  end
  return mt
end

--- Keeps the rows that fit and makes them objects, in place.
local function adopt(binding, rows, fits)
  local kept = 0
  for index = 1, #rows do
    local row = rows[index]
    local keep = true
    if fits then
      local err
      keep, err = fits(row)
      if err then return nil, err end
    end
    rows[index] = nil
    if keep then
      kept = kept + 1
      rows[kept] = book.adopt(binding, row, true)
    end
  end
  return rows
end

---@return e2b.Paginator
function M.list(binding, opts)
  local passed = base.is_class(opts) and "the class" or base.binding_of(opts) and "a sandbox"
  if passed then
    raise(("Sandbox:list() passes %s as the options: write Sandbox.list({ … })"):format(passed))
  end
  if opts ~= nil then options.call(opts, M.OPTIONS, "Sandbox.list") end
  opts = options.copy(opts)
  local query = query_of(opts)
  local context = { operation = "Sandbox.list", resource = "sandbox" }
  local first, fits = true, nil
  local pages

  local function fetch(next_token)
    local client = base.client_of(binding)
    if first then
      first = false
      fits = checker(query, query.template and resolver(client, query.template, opts))
    end
    query.next_token = next_token
    local rows, meta, err = client:call_either("sandbox_list", "sandbox_list_v1", { query = query },
      function() return v1_arguments(query, client) end, opts, context)
    if rows == nil then return base.wrong_address(client, meta, err) end
    book.learn(binding, meta)
    local items, trouble = adopt(binding, rows, fits)
    if not items then return nil, trouble.message, trouble end
    pages.total_running = meta.total_running
    return setmetatable(items, page_metatable(binding)), meta.next_token
  end

  pages = paginator.new({
    fetch = fetch, name = "Sandbox.list", next_token = query.next_token, page_metatable = page_metatable(binding),
  })
  return pages
end

return M
