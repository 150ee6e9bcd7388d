--- Template: what sandboxes are made from. Items are plain tables that print themselves.
local errors = require("e2b.errors")
local format = require("e2b.format")
local options = require("e2b.options")
local base = require("e2b.sandbox_base")
local paginator = require("e2b.paginator")

local M = {}

local raise = options.raise

---@class e2b.TemplateInfo
---@field template_id string
---@field build_id string?
---@field names string[] what it can be called in Sandbox.create
---@field aliases string[] older word for names
---@field public boolean?
---@field cpu_count integer?
---@field memory_mb integer? MiB
---@field disk_size_mb integer? MiB
---@field envd_version string?
---@field build_status string?
---@field created_at integer? seconds since the epoch
---@field updated_at integer? seconds since the epoch
---@field created_by { id: string, email: string? }?
---@field last_spawned_at integer? seconds since the epoch
---@field spawn_count integer?
---@field build_count integer?
---@field extra table? fields this version doesn't know or finds of another type, under the service's names

local function name_of(template)
  local names = template.names
  local name = names and names[1] or template.aliases and template.aliases[1]
  return name
end

local item_mt = {
  __name = "e2b.TemplateInfo",
  __tostring = function(template)
    local parts = { format.clean(template.template_id or "?") }
    local name = name_of(template)
    if name then parts[#parts + 1] = format.clean(name) end
    if template.cpu_count then parts[#parts + 1] = ("%d CPU"):format(template.cpu_count) end
    if template.memory_mb then parts[#parts + 1] = ("%d MiB"):format(template.memory_mb) end
    return ("Template(%s)"):format(table.concat(parts, ", "))
  end,
}

local function columns()
  return {
    { title = "template", whole = true, value = function(t) return t.template_id end },
    { title = "name", value = name_of },
    { title = "cpus", right = true, value = function(t) return t.cpu_count end },
    { title = "memory MiB", right = true, value = function(t) return t.memory_mb end },
    { title = "disk MiB", right = true, value = function(t) return t.disk_size_mb end },
    { title = "public", value = function(t)
      if t.public == nil then return nil end
      return t.public and "yes" or "no"
    end },
    { title = "created", value = function(t) return format.time(t.created_at) end },
  }
end

local page_mt = {
  __name = "e2b.Templates",
  __tostring = function(rows)
    if rows[1] == nil then return "no templates" end
    return require("e2b.table_view").render(columns(), rows)
  end,
  __call = paginator.call_page,
}

local OPTIONS = { "limit", "next_token" }
local CONTEXT = { operation = "Template.list", resource = "template" }

local function v1_arguments(query)
  for _, name in ipairs(OPTIONS) do
    if query[name] ~= nil then
      return errors.new("unsupported", {
        message = "Template.list: the service doesn't know GET /v2/templates, and the older list has no " .. name,
        operation = "Template.list", sent = "no", retryable = false,
      })
    end
  end
  return {}
end

--- Makes the Template class of a client.
---@param source fun(): e2b.Client hands out the client, when one is needed
---@param name string what the class prints as
---@return e2b.TemplateClass
function M.bind(source, name)
  ---@class e2b.TemplateClass
  local Template = {}

  local binding = { source = source }

  ---Lists the templates sandboxes can be made from, page by page, newest first; nothing is fetched before the first
  ---item is asked for. E2B API: GET /v2/templates (GET /templates, unpaged, on services without it).
  ---@param opts { limit: integer?, next_token: string? }? `limit`: templates a page (100); and e2b.CallOptions
  ---@return e2b.Paginator paginator of e2b.TemplateInfo
  function Template.list(opts)
    if opts == Template then raise("Template:list() passes the class as the options: write Template.list({ … })") end
    if opts ~= nil then options.call(opts, OPTIONS, "Template.list") end
    opts = options.copy(opts)
    local query = { limit = base.count(opts.limit, "limit"), next_token = opts.next_token }
    if query.next_token ~= nil and (type(query.next_token) ~= "string" or query.next_token == "") then
      raise("next_token must be a string that isn't empty")
    end

    local function fetch(next_token)
      local client = base.client_of(binding)
      query.next_token = next_token
      local rows, meta, err = client:call_either("template_list", "template_list_v1", { query = query },
        function() return v1_arguments(query) end, opts, CONTEXT)
      if rows == nil then return base.wrong_address(client, meta, err) end
      for _, row in ipairs(rows) do
        row.names, row.aliases = row.names or {}, row.aliases or {}
        setmetatable(row, item_mt)
      end
      return setmetatable(rows, page_mt), meta.next_token
    end

    return paginator.new({
      fetch = fetch, name = "Template.list", next_token = query.next_token, page_metatable = page_mt,
    })
  end

  return setmetatable(Template, {
    __name = "e2b.TemplateClass",
    __tostring = function() return name end,
  })
end

return M
