--- How this host waits. Chosen for each call, never when a module is loaded: the same process may have several hosts.
---
--- What a loop has: may_wait() and await(start, deadline); and where it makes sense
---   call(start, deadline, done) -> cancel   as await, but tells `done`, where the user's code may run
---   spawn(fn)    runs fn in a coroutine of the host, in which await suspends (nginx: of the same request). With one of
---                these two spawned tasks go on by themselves (e2b.background); spawn is preferred
---   gone()       true where nobody would call `done` any more (uv: in a forked child); await waits all the same
---   start may return a second function beside cancel, which gets what done would have got when nobody waits any more,
---     where one may wait; a loop in which that can't be need not look at it
---   shared       all coroutines of the process wait here together: one scheduler of tasks for all
---   report(text)   tells the user what no call can return; where standard error is not the place for it
---   exchange, news, watches_input   see e2b.loop.blocking
local blocking = require("e2b.loop.blocking")

local M = {}

-- The loops of hosts, loaded where such a host is. On request any of them can be had.
local MODULES = { uv = "e2b.loop.uv", nginx = "e2b.loop.nginx", cqueues = "e2b.loop.cqueues" }

local G, find, loaded = _G, rawget, package.loaded
local wanted

local function named(name)
  if name == "blocking" then return blocking end
  local module = MODULES[name]
  return module and require(module)
end

--- The loop of this host, by what it says of itself. Asked again each time: cqueues is one only in its controller.
---@return table loop
function M.host()
  if find(G, "ngx") and type(G.ngx) == "table" and G.ngx.get_phase then return named("nginx").here() end
  local vim = find(G, "vim")
  if type(vim) == "table" and (vim.uv or vim.loop) and vim.wait then return named("uv") end
  if loaded["cqueues"] then
    local cqueues = named("cqueues")
    if cqueues.is_here() then return cqueues end
  end
  return blocking
end

--- The loop for a call made here and now.
---@param preference? string|table the client's option `loop`: a name, or a table { may_wait, await } of the same form
---@return table loop
function M.choose(preference)
  preference = preference or wanted
  if not preference then return M.host() end
  if type(preference) == "table" then return preference end
  return named(preference) or blocking
end

--- The loop of all that doesn't ask for another one. nil: the host's own again.
---@param preference string|table|nil
function M.use(preference)
  wanted = preference
end

--- A coroutine will hand every yield on to the caller (pcall on Lua 5.1).
---@param co thread
function M.hands_on(co)
  if loaded["cqueues"] then named("cqueues").hands_on(co) end
end

--- Tells the user what no call can return: what a task that nobody waits for raised, a sandbox that was left behind.
---@param text string
function M.report(text)
  local ok, host = pcall(M.host) -- it may be called while the Lua state is closed
  if ok and host.report then return host.report(text) end
  io.stderr:write("e2b: ", text, "\n")
end

--- In hosts that use coroutines again: what is noted of those of this request, { task_of, ids }; nil outside of one.
---@type (fun(): table?)?
M.book = nil

--- Whether there is a loop of that name.
---@param name string
---@return boolean
function M.known(name)
  return name == "blocking" or MODULES[name] ~= nil
end

return M
