--- How far a transfer is: a line on the terminal, or the caller's function.
local core = require("e2b.core")
local format = require("e2b.format")
local loops = require("e2b.loop.init")
local options = require("e2b.options")

local M = {}

local floor, min = math.floor, math.min

local STEP = 0.1 -- seconds between two updates

local UNITS = { "B", "KiB", "MiB", "GiB", "TiB" }

--- Bytes for people: `13 B`, `1.4 MiB`.
---@param bytes number
---@return string
function M.bytes(bytes)
  local unit = 1
  while bytes >= 1024 and unit < #UNITS do
    bytes, unit = bytes / 1024, unit + 1
  end
  if unit == 1 then return ("%d B"):format(bytes) end
  return ("%.1f %s"):format(bytes, UNITS[unit])
end

--- The text of the line, never longer than `columns`.
---@param state { label: string, began: number }
---@param done number bytes
---@param total number? bytes
---@param now number
---@param columns integer
---@return string
function M.line(state, done, total, now, columns)
  local seconds = now - state.began
  local facts = { M.bytes(done) }
  if total and total > 0 then
    facts[1] = ("%3d%%  %s of %s"):format(floor(min(done / total, 1) * 100), M.bytes(done), M.bytes(total))
  end
  if seconds > 0.2 then
    facts[#facts + 1] = M.bytes(floor(done / seconds)) .. "/s"
    if total and done > 0 and done < total then
      facts[#facts + 1] = format.span((total - done) * seconds / done)
    end
  end
  local text = table.concat(facts, "  ")
  local room = columns - #text - 2
  local label = state.label
  if #label > 30 then label = "…" .. label:sub(-29):gsub("^[\128-\191]+", "") end
  if room >= #label then
    local left = room - #label - 4
    if total and total > 0 and left >= 10 then
      local width = min(left, 30)
      local full = floor(min(done / total, 1) * width)
      label = ("%s  [%s%s]"):format(label, ("#"):rep(full), (" "):rep(width - full))
    end
    text = label .. "  " .. text
  end
  return text:sub(1, columns)
end

-- A terminal to show a line on; nil: there is none, or it is the host's screen.
local function terminal()
  if not core.terminal or loops.host().report then return nil end
  return (core.terminal(2, 2))
end

local function bar(label)
  local screen = terminal()
  if not screen then return nil end
  local state = { label = format.clean(label), began = core.now() }
  local shown, next_at = false, state.began + STEP
  local function show(done, total)
    local columns = screen:size()
    -- The last column stays free: some terminals go to the next line by themselves.
    local text = M.line(state, done, total, core.now(), math.max((columns or 80) - 1, 20))
    io.stderr:write("\r", text, "\27[K")
    io.stderr:flush()
    shown = true
  end
  return function(done, total, over)
    if not screen then return end
    local now = core.now()
    if over then
      if done then show(done, total) end
      if shown then
        io.stderr:write("\n")
        io.stderr:flush()
      end
      screen:close()
      screen = nil
    elseif now >= next_at then
      next_at = now + STEP
      show(done, total)
    end
  end
end

--- What to call with `(done, total)` while a transfer runs, and once with `(done, total, true)` at its end (`done` nil
--- when it failed). nil: nobody wants to know.
---@param option boolean|fun(done: number, total: number?)|nil the caller's option `progress`
---@param label string what the line begins with
---@param what string the operation, for the message about a wrong option
---@return fun(done: number?, total: number?, over: boolean?)|nil
function M.of(option, label, what)
  if option == nil or option == false then return nil end
  if option == true then return bar(label) end
  if type(option) ~= "function" then
    options.raise(("bad option 'progress' for %s (true or a function expected, got %s)"):format(what, type(option)))
  end
  local next_at = 0
  return function(done, total, over)
    if not done then return end
    local now = core.now()
    if over or now >= next_at then
      next_at = now + STEP
      option(done, total)
    end
  end
end

return M
