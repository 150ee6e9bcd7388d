--- Archives in tar's format, written and read in pieces: ustar with pax records where ustar is too small, and, when
--- reading, GNU's long names, long links and binary numbers as well. Pure text, no I/O.
local M = {}

local floor, max, min = math.floor, math.max, math.min
local byte, char, format, rep, sub = string.byte, string.char, string.format, string.rep, string.sub

local BLOCK = 512
M.BLOCK = BLOCK

-- What a name, or a set of pax records, may take: a hostile archive must not fill the memory.
local LONGEST = 1048576
-- What the path of a file may take: more than that no system opens.
local LONGEST_PATH, MOST_LEVELS = 4095, 256
-- Seconds from the epoch, either way: more than any file system has, and a float has it exactly.
local FARTHEST = 999999999999999

---@class e2b.TarEntry
---@field type "file"|"dir"|"symlink"|"link"|"other"
---@field path string as in the archive; a directory's without the slash at its end
---@field size number bytes that follow; 0 for all but files
---@field mode integer permission bits
---@field mtime number seconds since the epoch
---@field target string? of a symlink, or the earlier entry that a link stands for

-- Writing -----------------------------------------------------------------------------------------------------------

local TYPES = { file = "0", dir = "5", symlink = "2", link = "1" }

local function octal(value, digits)
  local out = {}
  for i = digits, 1, -1 do
    local low = value % 8
    out[i] = char(48 + low)
    value = (value - low) / 8
  end
  return table.concat(out)
end

local function field(text, length)
  return text .. rep("\0", length - #text)
end

-- Four at a time: LuaJIT makes long code, and takes long for it, of what has many values at once.
local function checksum(header)
  local sum = 8 * 32 -- the field itself counts as blanks
  for at = 1, BLOCK, 4 do
    if at ~= 149 and at ~= 153 then
      local a, b, c, d = byte(header, at, at + 3)
      sum = sum + a + b + c + d
    end
  end
  return sum
end

local function block(path, mode, size, mtime, kind, target)
  local header = table.concat({
    field(path, 100), octal(mode, 7), "\0", rep("0", 7), "\0", rep("0", 7), "\0", octal(size, 11), "\0",
    octal(mtime, 11), "\0", rep(" ", 8), kind, field(target, 100), "ustar\00000", rep("\0", 32), rep("\0", 32),
    rep("0", 7), "\0", rep("0", 7), "\0", rep("\0", 155), rep("\0", 12),
  })
  return sub(header, 1, 148) .. octal(checksum(header), 6) .. "\0 " .. sub(header, 157)
end

-- "27 path=…\n": the length counts its own digits.
local function record(key, value)
  local body = " " .. key .. "=" .. value .. "\n"
  local length = #body + 1
  while #format("%d", length) + #body ~= length do length = #format("%d", length) + #body end
  return format("%d", length) .. body
end

local function padding(size)
  local over = size % BLOCK
  return over == 0 and "" or rep("\0", BLOCK - over)
end

local function is_plain(text)
  return #text <= 100 and not text:find("[^\32-\126]")
end

local MOST = 8 ^ 11 - 1

--- The head of an entry; a file's `size` bytes and then `M.padding(size)` have to follow.
---@param entry e2b.TarEntry
---@return string bytes
function M.header(entry)
  local path, target = entry.path, entry.target or ""
  local size = entry.type == "file" and entry.size or 0
  local mtime = floor(entry.mtime or 0)
  if entry.type == "dir" then path = path .. "/" end
  local records = {}
  if not is_plain(path) then records[#records + 1] = record("path", path) end
  if not is_plain(target) then records[#records + 1] = record("linkpath", target) end
  if size > MOST then records[#records + 1] = record("size", format("%.0f", size)) end
  if mtime < 0 or mtime > MOST then records[#records + 1] = record("mtime", format("%.0f", mtime)) end
  local short = mtime >= 0 and mtime <= MOST and mtime or 0
  local head = block(is_plain(path) and path or "pax", entry.mode % 4096, size <= MOST and size or 0, short,
    TYPES[entry.type], is_plain(target) and target or "")
  if #records == 0 then return head end
  local body = table.concat(records)
  return block("pax", 420, #body, short, "x", "") .. body .. padding(#body) .. head
end

M.padding = padding

--- What an archive ends with.
M.ENDING = rep("\0", 2 * BLOCK)

-- Reading -----------------------------------------------------------------------------------------------------------

---@class e2b.TarReader
local methods = {}
local mt = { __index = methods }

--- Reads an archive. `read` hands out pieces of any length: nil is the end, nil and anything more is a failure, which
--- is what every method then returns.
---@param read fun(): string?, ...
---@return e2b.TarReader
function M.reader(read)
  return setmetatable({ read = read, buffer = "", at = 1, left = 0, pad = 0, global = {} }, mt)
end

-- The next bytes, at most `most`; nil at the end or after a failure (then self.failure has what read returned).
local function piece(self, most)
  if self.at > #self.buffer then
    if self.failure then return nil end
    repeat
      local bytes, message, err = self.read()
      if bytes == nil then
        self.failure = { message, err }
        return nil
      end
      self.buffer, self.at = bytes, 1
    until #bytes > 0
  end
  local bytes = self.buffer
  local there = #bytes - self.at + 1
  if there > most then
    bytes = sub(bytes, self.at, self.at + most - 1)
    self.at = self.at + most
  else
    if self.at > 1 then bytes = sub(bytes, self.at) end
    self.buffer, self.at = "", 1
  end
  return bytes
end

local function exactly(self, n)
  local bytes = piece(self, n)
  if bytes == nil then return nil end
  if #bytes == n then return bytes end
  local parts, have = { bytes }, #bytes
  while have < n do
    bytes = piece(self, n - have)
    if bytes == nil then return nil end
    parts[#parts + 1] = bytes
    have = have + #bytes
  end
  return table.concat(parts)
end

local function cut(self)
  local failure = self.failure
  if failure and failure[1] ~= nil then return nil, failure[1], failure[2] end
  return nil, "the archive ends too early"
end

local function text_of(header, from, length)
  local bytes = sub(header, from, from + length - 1)
  return bytes:match("^[^%z]*")
end

-- Octal digits, or, with the top bit set, a big-endian number; nil: neither.
local function number_of(header, from, length)
  local first = byte(header, from)
  if first >= 128 then
    local value = 0.0 -- a float: integers would begin anew behind 2^63
    if first >= 192 then -- below zero: only times are
      for i = from + max(0, length - 8), from + length - 1 do value = value * 256 + (255 - byte(header, i)) end
      return floor(-value - 1)
    end
    value = value + first - 128
    for i = from + 1, from + length - 1 do value = value * 256 + byte(header, i) end
    return value < 2 ^ 53 and floor(value) or nil
  end
  local digits = sub(header, from, from + length - 1):match("^[ %z]*([0-7]*)[ %z]*$")
  if not digits then return nil end
  return digits == "" and 0 or tonumber(digits, 8)
end

-- All that is made use of; of the others a hostile archive could have any number.
local KNOWN = {
  path = true, linkpath = true, size = true, mtime = true, ["GNU.sparse.major"] = true, ["GNU.sparse.size"] = true,
}

local function records_of(text, into)
  local at = 1
  while at <= #text do
    local length, body = text:match("^(%d+) ()", at)
    length = tonumber(length)
    -- A lone zero byte or two behind the last record is seen in the wild.
    if not length then return text:find("^%z+$", at) ~= nil end
    local last = at + length - 1
    if length < 1 or last > #text or sub(text, last, last) ~= "\n" then return false end
    local key, value = sub(text, body, last - 1):match("^([^=]+)=(.*)$")
    if not key then return false end
    if KNOWN[key] then into[key] = value end
    at = at + length
  end
  return true
end

local KINDS = { ["0"] = "file", ["\0"] = "file", ["7"] = "file", ["1"] = "link", ["2"] = "symlink", ["5"] = "dir" }
local ZERO = rep("\0", BLOCK)

-- Skips what is left of the entry before.
local function skip(self)
  local left = self.left + self.pad
  while left > 0 do
    local bytes = piece(self, left)
    if bytes == nil then return false end
    left = left - #bytes
  end
  self.left, self.pad = 0, 0
  return true
end

local function content(self, size)
  if size > LONGEST then return nil, "the archive has a name or a record that is too long" end
  local bytes = exactly(self, size)
  if bytes == nil then return cut(self) end
  self.pad = (BLOCK - size % BLOCK) % BLOCK
  if not skip(self) then return cut(self) end
  return bytes
end

local function bad(header)
  local told = number_of(header, 149, 8)
  if told == checksum(header) then return nil end
  -- Some old writers summed signed bytes.
  local signed = 8 * 32
  for i = 1, BLOCK do
    local value = byte(header, i)
    if i < 149 or i > 156 then signed = signed + (value < 128 and value or value - 256) end
  end
  return told ~= signed
end

local function is_too_long(path)
  return #path > LONGEST_PATH or select(2, path:gsub("/", "")) >= MOST_LEVELS
end

local function entry_of(self, header, kind, extra)
  local path = text_of(header, 1, 100)
  local magic = sub(header, 258, 263)
  local prefix = magic == "ustar\0" and text_of(header, 346, 155) or ""
  if prefix ~= "" then path = prefix .. "/" .. path end
  path = extra.path or self.global.path or path
  local size = tonumber(extra.size) or number_of(header, 125, 12)
  local mode = number_of(header, 101, 8)
  local mtime = tonumber(extra.mtime or self.global.mtime) or number_of(header, 137, 12)
  if not size or not mode or not mtime or size < 0 or size ~= floor(size) or size >= 2 ^ 53 or mtime ~= mtime then
    return nil, "the archive has a number that can't be read"
  end
  if extra["GNU.sparse.major"] or extra["GNU.sparse.size"] or kind == "S" then
    return nil, "the archive has a sparse file, which can't be read"
  end
  local type = KINDS[kind] or "other"
  local target = (type == "link" or type == "symlink") and (extra.linkpath or text_of(header, 158, 100)) or nil
  if is_too_long(path) or type == "link" and is_too_long(target) then
    return nil, "the archive has a path that is too long"
  end
  if type == "file" and sub(path, -1) == "/" then type = "dir" end -- as before ustar
  if type == "dir" then path = path:gsub("/+$", "") end
  -- Nothing follows these, whatever the field says; of a kind that isn't known it is believed.
  if type ~= "file" and (type ~= "other" or kind:find("[346]")) then size = 0 end
  self.left = size
  self.pad = (BLOCK - size % BLOCK) % BLOCK
  return {
    type = type, path = path, size = size, mode = mode % 4096, mtime = max(-FARTHEST, min(FARTHEST, mtime)),
    target = target,
  }
end

--- The next entry; what was not read of the one before is skipped.
---@return e2b.TarEntry|nil entry nil: the archive has ended, or the next values say what is wrong
---@return string? message
---@return any err
function methods:next()
  if self.ended then return nil end
  if not skip(self) then return cut(self) end
  local extra = {}
  while true do
    local header = exactly(self, BLOCK)
    if header == nil then return cut(self) end
    if header == ZERO then
      self.ended = true
      return nil
    end
    if bad(header) then return nil, "this is no archive of tar's, or it is damaged" end
    local kind = sub(header, 157, 157)
    if kind == "x" or kind == "g" or kind == "L" or kind == "K" then
      local size = number_of(header, 125, 12)
      if not size or size < 0 then return nil, "the archive has a number that can't be read" end
      local text, message, err = content(self, size)
      if text == nil then return nil, message, err end
      if kind == "L" then
        extra.path = text:match("^[^%z]*")
      elseif kind == "K" then
        extra.linkpath = text:match("^[^%z]*")
      elseif not records_of(text, kind == "x" and extra or self.global) then
        return nil, "the archive has a record that can't be read"
      end
    else
      return entry_of(self, header, kind, extra)
    end
  end
end

--- Bytes of the entry that `next` told of.
---@return string|nil bytes nil: there are no more, or the next values say what is wrong
---@return string? message
---@return any err
function methods:content()
  if self.left == 0 then return nil end
  local bytes = piece(self, self.left)
  if bytes == nil then return cut(self) end
  self.left = self.left - #bytes
  return bytes
end

--- Reads on to the end of what `read` hands out, behind the archive's own end.
---@return boolean ok
---@return string? message
---@return any err
function methods:drain()
  while piece(self, BLOCK * 128) do end -- luacheck: ignore 542
  local failure = self.failure
  if failure[1] ~= nil then return false, failure[1], failure[2] end
  return true
end

return M
