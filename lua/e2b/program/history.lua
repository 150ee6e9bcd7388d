--- The lines typed at the prompt, kept for the next session: in $XDG_STATE_HOME/e2b/history, for their user only, and
--- never one with a key or a password in it.
local core = require("e2b.core")

local M = {}

local PRIVATE_FILE, PRIVATE_FOLDER = 384, 448 -- 0600, 0700
local MOST, KEPT = 2000, 1000                 -- lines; more than MOST are cut to KEPT

-- What looks like a secret. Better a line too many left out than one too few.
local SECRETS = { "e2b_%x%x%x%x", "dangerously_authenticate", "://[^/%s\"']*:[^/%s\"']*@", "authorization", "bearer%s" }

-- A text given to a name like these: in Lua (aws_secret_access_key = "…", ["X-API-Key"] = [[…]]), in a shell's words
-- (export TOKEN=…), in a URL.
for _, name in ipairs({ "key", "token", "secret", "passw", "pwd", "credential", "signature", "_pat" }) do
  SECRETS[#SECRETS + 1] = name .. "[%w_]*[\"'%]]*%s*=%s*\\?[\"'%[]"
  SECRETS[#SECRETS + 1] = name .. "[%w_]*=[^=%s]"
end

--- Whether a line may be kept.
---@param line string
---@return boolean
function M.keeps(line)
  if not line:find("%S") then return false end
  line = line:lower()
  for _, pattern in ipairs(SECRETS) do
    if line:find(pattern) then return false end
  end
  return true
end

-- One folder after the other; those that are there stay as they are.
local function make_folders(path)
  local at = 1
  while true do
    local slash = path:find("/", at + 1, true)
    local part = slash and path:sub(1, slash - 1) or path
    if not core.fs_stat(part, true) then core.fs_mkdir(part, PRIVATE_FOLDER) end
    if not slash then return end
    at = slash
  end
end

local function replace(path, text)
  local file = core.file_temp(path)
  if not file then return false end
  local ok = file:write(text) and file:commit(PRIVATE_FILE)
  file:close()
  return ok or false
end

-- Not longer than it should be: the newest lines stay.
local function trim(path)
  local file = io.open(path, "rb")
  if not file then return end
  local lines = {}
  for line in file:lines() do lines[#lines + 1] = line end
  file:close()
  if #lines <= MOST then return end
  replace(path, table.concat(lines, "\n", #lines - KEPT + 1) .. "\n")
end

--- Where it is; nil when there is no place for it. Nothing is made yet.
---@param getenv fun(name: string): string?
---@return string? path
function M.path(getenv)
  local state, home = getenv("XDG_STATE_HOME"), getenv("HOME")
  if state and state:sub(1, 1) == "/" then return state .. "/e2b/history" end
  if home and home:sub(1, 1) == "/" then return home .. "/.local/state/e2b/history" end
  return nil
end

--- Makes the file ready: there, private, not too long.
---@param path string
---@return boolean ok false: no history is kept then
function M.open(path)
  make_folders(path:match("^(.*)/"))
  local found = core.fs_stat(path, true)
  if not found then return replace(path, "") end
  if found.type ~= "file" then return false end
  if found.mode ~= PRIVATE_FILE and not core.fs_touch(path, PRIVATE_FILE) then return false end
  trim(path)
  return true
end

--- Adds a line, unless it is one to forget.
---@param path string
---@param line string
function M.add(path, line)
  if not M.keeps(line) then return end
  local file = io.open(path, "ab")
  if not file then return end
  file:write((line:gsub("%c", " ")), "\n")
  file:close()
end

return M
