--- Names that nobody else has.
local core = require("e2b.core")

local M = {}

local count, seed = 0, nil

local function random_bytes()
  local file = io.open("/dev/urandom", "rb")
  if not file then return "" end
  -- Buffered, it would read (and throw away) thousands of bytes.
  file:setvbuf("no")
  local bytes = file:read(32)
  file:close()
  return bytes or ""
end

--- Hexadecimal digits, not to be guessed where the system has a source of random bytes.
---@param digits integer? up to 64 (16 if not given)
---@return string
function M.hex(digits)
  if not seed then seed = random_bytes() end
  count = count + 1
  -- The process id keeps a forked child from saying the same as its parent.
  local text = ("%s %d %d %d %.17g %s"):format(seed, count, core.getpid(), os.time(), core.now(), tostring({}))
  return (core.sha256(text):gsub(".", function(char) return ("%02x"):format(char:byte()) end):sub(1, digits or 16))
end

return M
