--- The keys that end an attached terminal from this side, as ssh has them: after the return key (and at the beginning)
--- "~." detaches, "~?" tells what there is, "~~" types one "~".
local M = {}

---@class e2b.ShellKeys
---@field escape string? the key; nil: there is none
---@field fresh boolean nothing was typed in this line
---@field held boolean the key was typed and what it means comes next

--- A filter for what is typed.
---@param escape string|false|nil one character ("~"); false: nothing is filtered
---@return e2b.ShellKeys
function M.new(escape)
  if escape == nil then escape = "~" end
  return { escape = escape or nil, fresh = true, held = false }
end

-- What the key after the escape key means: what is typed, and what is to be done.
local function meaning(keys, key)
  if key == "." then return "", "detach" end
  if key == "?" then return "", "help" end
  if key == keys.escape then return key end
  return keys.escape .. key
end

--- Takes what was typed.
---@param keys e2b.ShellKeys
---@param bytes string
---@return string typed what is to be sent
---@return "detach"|"help"|nil action what follows it; nothing is typed after "detach"
function M.feed(keys, bytes)
  local escape = keys.escape
  if not escape then return bytes end
  local typed, action, at = {}, nil, 1
  while at <= #bytes do
    if keys.held then
      local key = bytes:sub(at, at)
      local text, what = meaning(keys, key)
      typed[#typed + 1] = text
      keys.held, keys.fresh = false, key == "\r" or key == "\n" or what == "help"
      at = at + 1
      action = what or action
      if what == "detach" then break end
    elseif keys.fresh and bytes:sub(at, at) == escape then
      keys.held = true
      at = at + 1
    else
      local stop = bytes:find("[\r\n]", at)
      typed[#typed + 1] = bytes:sub(at, stop)
      keys.fresh = stop ~= nil
      at = stop and stop + 1 or #bytes + 1
    end
  end
  return table.concat(typed), action
end

--- What "~?" shows, with the line ends of a raw terminal.
---@param keys e2b.ShellKeys
---@return string
function M.help(keys)
  local key = keys.escape
  return ("\r\n%s.  detaches; what runs in the sandbox goes on\r\n%s%s  types one %s\r\n%s?  this list\r\n")
    :format(key, key, key, key, key)
    .. "They work after the return key.\r\n"
end

return M
