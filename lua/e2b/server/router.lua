--- Finds the handler of a request by method and path.
-- Paths are matched raw, segment by segment, so that an encoded slash stays inside its segment.
-- @module e2b.server.router

local text = require("e2b.server.text")

local router = {}
router.__index = router

---@return table router
function router.new()
  return setmetatable({ by_length = {} }, router)
end

---Adds a route. `{name}` in the path is a parameter.
---@param method string
---@param path string
---@param handler function called with the request
---@param options table|nil kept with the route
function router:add(method, path, handler, options)
  local segments = text.split(path:sub(2), "/")
  local group = self.by_length[#segments]
  if not group then
    group = {}
    self.by_length[#segments] = group
  end
  local entry
  for _, known in ipairs(group) do
    if known.path == path then entry = known end
  end
  if not entry then
    entry = { path = path, segments = segments, methods = {}, allow = {}, fixed = 0 }
    for i, segment in ipairs(segments) do
      segments[i] = { name = segment:match("^{(.*)}$"), literal = segment }
      if not segments[i].name then entry.fixed = entry.fixed + 1 end
    end
    group[#group + 1] = entry
    -- A literal segment wins over a parameter: /sandboxes/metrics is not a sandbox.
    table.sort(group, function(a, b)
      if a.fixed ~= b.fixed then return a.fixed > b.fixed end
      return a.path < b.path
    end)
  end
  entry.methods[method] = { method = method, path = path, handler = handler, options = options or {} }
  entry.allow[#entry.allow + 1] = method
end

local function match(entry, segments)
  local params = {}
  for i, segment in ipairs(entry.segments) do
    if segment.name then
      local value = text.unescape_path(segments[i])
      if value == nil or value == "" then return nil end
      params[segment.name] = value
    elseif segment.literal ~= segments[i] then
      return nil
    end
  end
  return params
end

---@param method string
---@param path string the raw path
---@return table|nil route `{ method, path, handler, options }`
---@return table|string|nil params decoded by name; without a route: the methods the path knows, or nil
function router:find(method, path)
  local segments = text.split(path:sub(2), "/")
  local allow
  for _, entry in ipairs(self.by_length[#segments] or {}) do
    local params = match(entry, segments)
    if params then
      local route = entry.methods[method] or (method == "HEAD" and entry.methods.GET)
      if route then return route, params end
      allow = allow or table.concat(entry.allow, ", ")
    end
  end
  return nil, allow
end

return router
