--- What programs in the sandbox have switched on in this terminal, so that it can be switched off when they are left
--- behind: the other screen of an editor, reports of the mouse, a hidden cursor.
local M = {}

---@class e2b.ShellScreen
---@field on table<string, boolean> modes of "\27[?…h" that are set
---@field rest string the beginning of a sequence that is not all there yet
---@field keypad boolean

-- What is off when a program begins, in the order in which it is switched off. 25, the cursor, is the other way round.
local OFF = { "1000", "1001", "1002", "1003", "1004", "1005", "1006", "1015", "2004", "1", "66", "47", "1047", "1049" }

local LONGEST = 64 -- bytes of a sequence that is of interest

---@return e2b.ShellScreen
function M.new()
  return { on = {}, rest = "", keypad = false }
end

--- Takes what is shown.
---@param screen e2b.ShellScreen
---@param bytes string
function M.feed(screen, bytes)
  if screen.rest ~= "" then bytes, screen.rest = screen.rest .. bytes, "" end
  local at = bytes:find("\27", 1, true)
  while at do
    local stop, list, letter = select(2, bytes:find("^\27%[%?([%d;]+)([hl])", at))
    if stop then
      for mode in list:gmatch("%d+") do screen.on[mode] = letter == "h" end
    elseif bytes:find("^\27[=>]", at) then
      screen.keypad = bytes:sub(at + 1, at + 1) == "="
    elseif bytes:find("^\27c", at) then
      screen.on, screen.keypad = {}, false
    elseif #bytes - at < LONGEST and (at == #bytes or bytes:find("^\27%[%??[%d;]*$", at)) then
      screen.rest = bytes:sub(at)
      return
    end
    at = bytes:find("\27", (stop or at) + 1, true)
  end
end

--- What switches off all that is on.
---@param screen e2b.ShellScreen
---@return string
function M.reset(screen)
  local parts, on = {}, screen.on
  for _, mode in ipairs(OFF) do
    if on[mode] then parts[#parts + 1] = "\27[?" .. mode .. "l" end
  end
  if on["25"] == false then parts[#parts + 1] = "\27[?25h" end
  if on["7"] == false then parts[#parts + 1] = "\27[?7h" end
  if screen.keypad then parts[#parts + 1] = "\27>" end
  if #parts > 0 then parts[#parts + 1] = "\27[0m" end
  return table.concat(parts)
end

return M
