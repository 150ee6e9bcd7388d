--- The journal of creates: what was asked for, and what became of it, in a file that outlives the process. Several
--- processes write to it, one line at a time:
---
---     create TOKEN TIME EXPIRES PID START BOOT HOST SPACE MARK URL     on the disk before the create is sent
---     made TOKEN ID MARK          its answer
---     none TOKEN                  surely nothing was made
---     gone TOKEN                  it was killed
---
--- Each line begins with a sum of the rest: half a line, or what a power cut made of one, is told from a whole one.
--- MARK is of the key (eight digits of a hash; it tells two keys apart, and nothing about either), URL the service.
local core = require("e2b.core")

local M = {}

local function sum_of(text)
  return (core.sha256("e2b " .. text):sub(1, 4):gsub(".", function(char) return ("%02x"):format(char:byte()) end))
end

-- A word of a line: no spaces, no line ends, never empty.
local function word(value)
  if value == nil or value == "" then return "-" end
  return core.escape(tostring(value))
end

local function plain(text)
  if text == "-" then return nil end
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function line_of(...)
  local words = { ... }
  for i = 1, select("#", ...) do words[i] = word(words[i]) end
  local text = table.concat(words, " ")
  return sum_of(text) .. " " .. text .. "\n"
end

-- The words of a whole line; nil: it isn't one.
local function words_of(line)
  local sum, text = line:match("^(%x+) (.+)$")
  if not sum or sum ~= sum_of(text) then return nil end
  local words = {}
  for part in text:gmatch("%S+") do words[#words + 1] = part end
  return words
end

-- The file -----------------------------------------------------------------------------------------------------------

-- Opens it, which locks it, for fn, which closes it. Ctrl-C may raise at any instruction, also before anybody knows the
-- file: then the collector closes it, now and not some time later. Until that everybody else would be kept out, and
-- this process as well.
local function with_file(path, make, fn)
  local ok, result, message, errno = pcall(function()
    local file, why, number = core.journal_open(path, make)
    if not file then return nil, why, number end
    return fn(file)
  end)
  if ok then return result, message, errno end
  collectgarbage()
  error(result, 0)
end

-- Reading ------------------------------------------------------------------------------------------------------------

---@class e2b.JournalEntry
---@field token string
---@field time number? seconds since the epoch; nil: the line of the create is missing
---@field expires number? after this the create can't bring anything any more
---@field pid integer?
---@field start string?
---@field boot string?
---@field host string?
---@field space string?
---@field mark string? of the key
---@field url string? of the service
---@field sandbox_id string? once the answer was noted
---@field settled boolean? nothing is left of it

local read = {}

function read.create(entry, words)
  entry.time, entry.expires, entry.pid = tonumber(words[3]), tonumber(words[4]), tonumber(words[5])
  for i, name in ipairs({ "start", "boot", "host", "space", "mark", "url" }) do
    entry[name] = words[i + 5] and plain(words[i + 5])
  end
end

function read.made(entry, words)
  entry.sandbox_id = words[3] and plain(words[3])
  entry.mark = words[4] and plain(words[4]) or entry.mark
end

function read.none(entry) entry.settled = true end
function read.gone(entry) entry.settled = true end

--- What a journal says.
---@param text string
---@return e2b.JournalEntry[] entries in the order of their creates
---@return { token: string, text: string }[] lines the whole ones
function M.parse(text)
  local entries, lines, by_token = {}, {}, {}
  for line in (text .. "\n"):gmatch("([^\n]*)\n") do
    local words = words_of(line)
    local token = words and words[2]
    if token then
      local entry = by_token[token]
      if not entry then
        entry = { token = token }
        by_token[token], entries[#entries + 1] = entry, entry
      end
      local reader = read[words[1]] -- a newer version may know more words: such lines are kept
      if reader then reader(entry, words) end
      lines[#lines + 1] = { token = token, text = line .. "\n" }
    end
  end
  return entries, lines
end

--- Reads a journal.
---@param path string
---@return e2b.JournalEntry[]? entries
---@return string? message
---@return integer? errno
function M.read(path)
  local text, message, errno = with_file(path, false, function(file)
    local text, message, errno = file:read()
    file:close()
    return text, message, errno
  end)
  if text then return (M.parse(text)) end
  if errno == 2 then return {} end -- nothing was ever made
  return nil, message, errno
end

-- Dropping -----------------------------------------------------------------------------------------------------------

-- Under the lock: what others have written since is there, and nobody writes meanwhile.
local function compact(file, settled)
  local text, message, errno = file:read()
  if not text then return nil, message, errno end
  local entries, lines = M.parse(text)
  local drop = {}
  for _, entry in ipairs(entries) do
    -- An answer without its create is of one that was settled before.
    if entry.settled or settled[entry.token] or not entry.time then drop[entry.token] = true end
  end
  local kept = {}
  for _, line in ipairs(lines) do
    if not drop[line.token] then kept[#kept + 1] = line.text end
  end
  local whole = table.concat(kept)
  if whole == text then return true end
  return file:replace(whole)
end

--- Takes out of a journal what is settled: what its own lines say, and the tokens given.
---@param path string
---@param settled table<string, true>?
---@return true? ok
---@return string? message
---@return integer? errno
function M.compact(path, settled)
  local ok, message, errno = with_file(path, false, function(file)
    local ok, message, errno = compact(file, settled or {})
    file:close()
    return ok, message, errno
  end)
  if not ok and errno == 2 then return true end
  return ok, message, errno
end

-- Who wrote it -------------------------------------------------------------------------------------------------------

--- What became of the process that wrote an entry. "elsewhere": it ran on another machine or in another container, or
--- that can't be told: nothing is known of it here.
---@param entry e2b.JournalEntry
---@return "alive"|"dead"|"elsewhere"
function M.process_of(entry)
  local boot, host, space = core.process_place()
  if entry.boot ~= boot then return entry.host == host and "dead" or "elsewhere" end
  if entry.host ~= host and boot == "?" or entry.space ~= space then return "elsewhere" end
  local start = entry.pid and core.process_start(entry.pid)
  if not start then return "dead" end
  -- The number is another process's by now.
  if start ~= "?" and entry.start ~= "?" and start ~= entry.start then return "dead" end
  return "alive"
end

-- Writing ------------------------------------------------------------------------------------------------------------

-- So many bytes are there before settled lines are dropped on the way, and again when the file has doubled since.
M.LARGE = 256 * 1024

---@class e2b.Journal
---@field path string
local methods = {}
local mt = { __name = "e2b.Journal", __index = methods }

--- The journal of a client.
---@param path string
---@return e2b.Journal
function M.new(path)
  -- By id: the tokens of what this process has made and not killed.
  return setmetatable({ path = core.path_whole(path), made_here = {}, large = M.LARGE }, mt)
end

local function size_of(path)
  return with_file(path, false, function(file)
    local size = file:size()
    file:close()
    return size
  end)
end

local function add(self, sync, ...)
  local line = line_of(...)
  local size, message, errno = with_file(self.path, true, function(file)
    local ok, message, errno = file:append(line)
    local size = ok and file:size()
    local closed, why, number = file:close(ok and sync)
    if not ok then return nil, message, errno end
    if not closed then return nil, why, number end
    return size
  end)
  if not size then return nil, message, errno end
  if size > self.large then
    local before = self.large
    self.large = size * 2
    if M.compact(self.path) then
      local left = size_of(self.path)
      self.large = left and math.max(M.LARGE, left * 2) or before
    end
  end
  return true
end

--- Before a create is sent.
---@param token string
---@param client e2b.Client
---@param seconds number after these it can't bring anything any more
---@return true? ok
---@return string? message
---@return integer? errno
function methods:create(token, client, seconds)
  local pid, time = core.getpid(), os.time()
  local boot, host, space = core.process_place()
  return add(self, true, "create", token, time, math.ceil(time + seconds), pid, core.process_start(pid) or "?", boot,
    host, space, client.key_mark, client.base_url)
end

--- What the answer named. Should this not be written, the token is there to find the sandbox by.
---@param token string
---@param sandbox_id string
---@param client e2b.Client
---@return true? ok
---@return string? message
---@return integer? errno
function methods:made(token, sandbox_id, client)
  self.made_here[sandbox_id] = token
  return add(self, false, "made", token, sandbox_id, client.key_mark)
end

--- Surely nothing was made.
---@param token string
---@return true? ok
---@return string? message
---@return integer? errno
function methods:none(token)
  return add(self, false, "none", token)
end

--- A sandbox is gone; of those that this process has not made nothing is noted.
---@param sandbox_id string
---@return true? ok
---@return string? message
---@return integer? errno
function methods:gone(sandbox_id)
  local token = self.made_here[sandbox_id]
  if not token then return true end
  self.made_here[sandbox_id] = nil
  return add(self, false, "gone", token)
end

return M
