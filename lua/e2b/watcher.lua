--- What happens in a directory of a sandbox, as it happens.
local core = require("e2b.core")
local base = require("e2b.file_base")
local compat = require("e2b.compat")
local format = require("e2b.format")
local lazy = require("e2b.lazy")
local options = require("e2b.options")

local errors, tasks = lazy("e2b.errors"), lazy("e2b.tasks")

local M = {}

local raise, types = options.raise, base.types

local WHAT = "sandbox.files:watch_dir"

---@class e2b.WatchOptions: e2b.FileOptions
---@field recursive boolean? directories below it as well
---@field include_entry boolean? events of what is there (create, write, chmod) have an `entry`
---@field allow_network_mounts boolean?
---@field timeout number? seconds after which the watch ends with `timeout`; none if not given

---@class e2b.FileEvent
---@field name string relative to the directory
---@field type "create"|"write"|"remove"|"rename"|"chmod"
---@field entry e2b.Entry?

local OPTIONS = base.spec({
  recursive = types.boolean, include_entry = types.boolean, allow_network_mounts = types.boolean,
  timeout = types.seconds,
})

---@class e2b.Watcher
---@field path string as it was asked for
---@field err e2b.Error? why the watch ended, or why events() raised
local methods = {}
M.methods = methods
local mt = { __name = "e2b.Watcher", __index = methods }

-- Keys of what a watcher keeps to itself.
local STREAM, STOPPED = {}, {}

local function check(self, name)
  if type(self) ~= "table" or getmetatable(self) ~= mt then
    raise(("watcher.%s needs its watcher, got %s: write watcher:%s()"):format(name, type(self), name))
  end
end

-- The next event, nil at the end, false when `deadline` is over.
local function next_event(self, deadline)
  while true do
    if self[STOPPED] then return nil end
    local kind, value, err = self[STREAM]:event(deadline)
    if self[STOPPED] then return nil end
    if kind == false then return false end
    if kind == nil then
      if value == nil then
        -- A watch never ends by itself.
        local _
        _, value, err = errors.new("protocol", {
          message = WHAT .. ": the sandbox ended the watch without a reason", operation = WHAT, sent = "yes",
          retryable = true,
        })
      end
      -- Who waits may be cancelled; the watch goes on then.
      if self[STREAM].ended then self.err = err end
      return nil, value, err
    end
    -- A type that this version has no word for can't be told of.
    if kind == "filesystem" and value.type ~= nil then return value end
  end
end

--- Waits for the next event.
---@param timeout number? seconds
---@return e2b.FileEvent|false|nil event false: none within `timeout`; nil: the watch was stopped, or the next values
---  say what went wrong
---@return string? message
---@return e2b.Error? err
function methods:next(timeout)
  check(self, "next")
  if timeout ~= nil then
    local wrong = types.seconds(timeout)
    if wrong then raise(("bad argument to watcher:next (%s)"):format(wrong)) end
  end
  return next_event(self, timeout and core.now() + timeout)
end

--- For a generic `for`: the events, until the watch is stopped. Raises the message of a failure; `err` keeps the table.
---@return fun(): e2b.FileEvent?
function methods:events()
  check(self, "events")
  local function step()
    local event, message, err = next_event(self)
    if event == nil and message ~= nil then
      self.err = err
      error(message, 0)
    end
    return event
  end
  -- Nothing can be suspended inside a generic for there, so the wait is one that doesn't yield.
  if compat.puc51 then return function() return tasks.block(step) end end
  return step
end

--- The events that have come since the last look; doesn't wait for any.
---@return e2b.FileEvent[]? events
---@return string? message
---@return e2b.Error? err
function methods:get_new_events()
  check(self, "get_new_events")
  if self[STOPPED] then raise("watcher:get_new_events: the watcher is stopped") end
  local list = {}
  while true do
    local event, message, err = next_event(self, core.now())
    if event then
      list[#list + 1] = event
    elseif event == nil and message ~= nil and #list == 0 then
      return nil, message, err
    else
      return list -- a failure is told the next time
    end
  end
end

--- Ends the watch; whoever waits for an event gets nil. Stopping twice is nothing.
---@return true
function methods:stop()
  check(self, "stop")
  if not self[STOPPED] then
    self[STOPPED] = true
    self[STREAM]:close()
  end
  return true
end

mt.__close = methods.stop

function mt:__tostring()
  local state = self[STOPPED] and "stopped" or self[STREAM].ended and "failed" or "watching"
  return ("Watcher(%s, %s)"):format(format.clean(self.path), state)
end

local GATES = {
  { "recursive", "watching recursively", 0, 1, 4 },
  { "include_entry", "include_entry", 0, 6, 3 },
  { "allow_network_mounts", "allow_network_mounts", 0, 6, 4 },
}

--- See files:watch_dir.
function M.watch_dir(link, path, opts)
  if type(opts) == "function" then
    raise(WHAT .. " takes no function: write for event in watcher:events() do … end")
  end
  base.path(path, WHAT, true)
  opts = base.options(opts, OPTIONS, WHAT)
  for _, gate in ipairs(GATES) do
    if opts[gate[1]] then
      local ok, message, err = link:gate(WHAT, gate[2], gate[3], gate[4], gate[5])
      if not ok then return nil, message, err end
    end
  end
  local stream, message, err = link:open("dir_watch", { body = {
    path = path, recursive = opts.recursive or nil, include_entry = opts.include_entry or nil,
    allow_network_mounts = opts.allow_network_mounts or nil,
  } }, opts, { operation = WHAT, resource = "file", timeout = opts.timeout })
  if not stream then return nil, message, err end
  local kind
  kind, message, err = stream:event()
  if kind == nil and message ~= nil then
    stream:close() -- a cancelled wait leaves it running
    return nil, message, err
  end
  if kind ~= "start" then
    stream:close()
    return errors.new("protocol", {
      message = WHAT .. ": the sandbox did not begin to watch", operation = WHAT, sandbox_id = link.sandbox_id,
      sent = "yes", retryable = false,
    })
  end
  return setmetatable({ path = path, [STREAM] = stream, [STOPPED] = false }, mt)
end

return M
