--- Lists that come in pages: a generic `for` gives items, next_items() a page, all() everything.
local compat = require("e2b.compat")
local lazy = require("e2b.lazy")
local options = require("e2b.options")

local errors, tasks = lazy("e2b.errors"), lazy("e2b.tasks")

local M = {}

---@class e2b.Paginator
---@field has_next boolean is there anything left to take?
---@field next_token string? the cursor of the page to come
---@field err e2b.Error? why the last page could not be had
---@field total_running integer? with Sandbox.list: running sandboxes in all, as the last page told it; nil if it didn't
local methods = {}

-- Key of what a paginator keeps to itself. Not a weak table on the side: `fetch` may hold the paginator, and Lua 5.1
-- would never collect such a pair.
local PRIVATE = {}

-- What a paginator keeps to itself; a method called with a dot, or on something else, raises with the right form.
local function private(self, name)
  local state = type(self) == "table" and self[PRIVATE]
  if not state then
    options.raise(("%s needs its paginator, got %s: write paginator:%s()"):format(name, type(self), name))
  end
  return state
end

-- Fetches one page. A server that ignores cursors, or goes round in them, would answer for ever.
local function fetch_page(self)
  local state = self[PRIVATE]
  local token = self.next_token
  local items, next_token, err = state.fetch(token)
  if items == nil then
    self.err = err
    return nil, next_token, err
  end
  if next_token == "" then next_token = nil end
  local seen = state.seen
  if next_token ~= nil and (next_token == token or seen[next_token]) then
    local _, message
    _, message, err = errors.new("protocol", {
      message = state.name .. ": the server answers the same page again and again (the cursor leads back)",
      operation = state.name, sent = "yes", retryable = false,
    })
    self.err = err
    return nil, message, err
  end
  if token ~= nil then seen[token] = true end
  self.err = nil
  self.next_token = next_token
  state.fetched = state.fetched + #items
  return items
end

local function rest_of_buffer(state)
  local rest = {}
  for i = state.at, #state.buffer do rest[#rest + 1] = state.buffer[i] end
  state.buffer, state.at = nil, nil
  return rest
end

--- The next page: a list that prints as a table. Raises when there is none (ask `has_next`).
---@return table[]? items may be empty
---@return string? message
---@return e2b.Error? err
function methods:next_items()
  local state = private(self, "next_items")
  if not self.has_next then
    options.raise(state.name .. ": no more items (has_next is false)")
  end
  if state.buffer then
    -- A `for` that was left in the middle of a page: first what it left.
    local rest = setmetatable(rest_of_buffer(state), state.page_mt)
    self.has_next = self.next_token ~= nil
    return rest
  end
  local items, message, err = fetch_page(self)
  if items == nil then return nil, message, err end
  self.has_next = self.next_token ~= nil
  if state.page_mt and getmetatable(items) == nil then setmetatable(items, state.page_mt) end
  return items
end

--- Everything that is left, in one list that prints as a table. When a page can't be had, nothing is returned of the
--- others: a list that is silently too short is worse than none. They are kept, and the next call begins with them.
---@return table[]? items
---@return string? message
---@return e2b.Error? err
function methods:all()
  local state = private(self, "all")
  local list = {}
  while self.has_next do
    local items, message, err = self:next_items()
    if items == nil then
      if list[1] ~= nil then state.buffer, state.at = list, 1 end
      return nil, message, err
    end
    for i = 1, #items do list[#list + 1] = items[i] end
  end
  return setmetatable(list, state.page_mt)
end

local function next_item(self)
  local state = self[PRIVATE]
  while true do
    local buffer = state.buffer
    if buffer then
      local item = buffer[state.at]
      if state.at >= #buffer then
        state.buffer, state.at = nil, nil
        self.has_next = self.next_token ~= nil
      else
        state.at = state.at + 1
      end
      return item
    end
    if not self.has_next then return nil end
    local items, message = fetch_page(self)
    if items == nil then error(message, 0) end
    if items[1] ~= nil then
      state.buffer, state.at = items, 1
    else
      self.has_next = self.next_token ~= nil
    end
  end
end

local mt = { __name = "e2b.Paginator", __index = methods }

-- paginator[1], ipairs(paginator) and #paginator would say "nothing there". Where the Lua lets them, they raise.
local function no_list()
  options.raise("a paginator is no list: write for item in paginator do … end, or paginator:all()")
end

setmetatable(methods, {
  __index = function(_, key)
    if type(key) == "number" then no_list() end
    return nil
  end,
})
mt.__len, mt.__ipairs = no_list, no_list

--- For the metatables of pages: `for item in paginator:next_items()` calls the page.
function M.call_page()
  options.raise("a page is a list: write for _, item in ipairs(page) do … end, or for item in paginator do … end")
end

if compat.puc51 then
  -- Nothing can be suspended inside a for-iterator here, so the iterator waits without yielding.
  function mt:__call()
    return tasks.block(next_item, self)
  end
else
  mt.__call = next_item
end

function mt:__tostring()
  local state = self[PRIVATE]
  local more = "complete"
  if self.has_next then more = state.fetched == 0 and "not fetched yet" or "more to come" end
  return ("Paginator(%s, %d fetched, %s)"):format(state.name, state.fetched, more)
end

--- Whether a value is a paginator.
---@param value any
---@return boolean
function M.is(value)
  return type(value) == "table" and getmetatable(value) == mt
end

--- The page that comes next, and takes nothing: who goes through the paginator afterwards gets it, too.
---@param paginator e2b.Paginator
---@return table[]? page nil without a message: nothing is left
---@return string? message
---@return e2b.Error? err
function M.peek(paginator)
  local state = paginator[PRIVATE]
  if not paginator.has_next then return nil end
  if not state.buffer then
    local items, message, err = fetch_page(paginator)
    if items == nil then return nil, message, err end
    if items[1] == nil then
      paginator.has_next = paginator.next_token ~= nil
      return setmetatable(items, state.page_mt)
    end
    state.buffer, state.at = items, 1
  end
  local page = {}
  for i = state.at, #state.buffer do page[#page + 1] = state.buffer[i] end
  return setmetatable(page, state.page_mt)
end

---@class e2b.PaginatorSpec
---@field fetch fun(next_token: string?): table[]?, string?, e2b.Error? items and the next cursor, or nil, message, err
---@field name string? the operation, for messages
---@field next_token string? where to begin
---@field columns (fun(items: table[]): string)? makes the text of a page
---@field page_metatable table? of pages, in the place of columns

--- A paginator; nothing is fetched yet.
---@param spec e2b.PaginatorSpec
---@return e2b.Paginator
function M.new(spec)
  local self = { has_next = true, next_token = spec.next_token }
  self[PRIVATE] = {
    fetch = spec.fetch, name = spec.name or "list", fetched = 0, seen = {},
    page_mt = spec.page_metatable or spec.columns and { __tostring = spec.columns, __call = M.call_page } or nil,
  }
  return setmetatable(self, mt)
end

return M
