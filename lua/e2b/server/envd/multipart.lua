--- Reads multipart bodies piece by piece, however long their parts are.
-- @module e2b.server.envd.multipart

local disposition = require("e2b.server.envd.disposition")

local multipart = {}
local methods = {}
local meta = { __name = "multipart", __index = methods }

local MAX_HEAD = 1024 * 1024 -- bytes of one part's headers
local MAX_PREAMBLE = 1024 * 1024

---Begins to read a body.
---@param read fun(): string|nil, string|nil the next piece; nil at the end; nil and a message when it failed
---@param boundary string
---@return table reader `next_part()`, and between them `read()`
function multipart.reader(read, boundary)
  return setmetatable({
    pull = read, dash = "--" .. boundary, delimiter = "\r\n--" .. boundary, buffer = "", state = "preamble",
  }, meta)
end

-- Adds the next piece to the buffer; false at the end.
local function more(self)
  if self.ended then return false end
  local piece, problem = self.pull()
  if piece then
    self.buffer = self.buffer == "" and piece or self.buffer .. piece
    return true
  end
  self.ended, self.problem = true, problem
  return false
end

-- Takes a line without its end; nil when the body ends before it does.
local function line(self, most)
  local from = 1
  while true do
    local at = self.buffer:find("\n", from, true)
    if at then
      local text = self.buffer:sub(1, at - 1):gsub("\r$", "")
      self.buffer = self.buffer:sub(at + 1)
      return text
    end
    if #self.buffer > most then return nil, "line too long" end
    from = #self.buffer + 1
    if not more(self) then return nil, self.problem end
  end
end

-- What a delimiter's line says: "part", "end", or nil when the line is none.
local function kind_of(self, text)
  if text:sub(1, #self.dash) ~= self.dash then return nil end
  local rest = text:sub(#self.dash + 1)
  if rest:find("^%s*$") then return "part" end
  if rest:find("^%-%-%s*$") then return "end" end
end

local function read_head(self)
  local headers, last, size = {}, nil, 0
  while true do
    local text, problem = line(self, MAX_HEAD)
    if not text then return nil, problem or "unexpected EOF" end
    if text == "" then return headers end
    size = size + #text
    if size > MAX_HEAD then return nil, "multipart: message too large" end
    if text:find("^[ \t]") and last then
      headers[last] = headers[last] .. " " .. text:match("^%s*(.-)%s*$")
    else
      local name, value = text:match("^([^:%s]+):%s*(.-)%s*$")
      if not name then return nil, 'malformed MIME header line: "' .. text .. '"' end
      last = name:lower()
      if headers[last] then last = last .. " (again)" end
      headers[last] = value
    end
  end
end

-- The delimiter's line is up next, if anything is.
local function delimiter_line(self)
  local text, problem = line(self, MAX_PREAMBLE)
  if text then return text end
  if problem then return nil, problem end
  -- The last line needs no end.
  text = self.buffer
  self.buffer = ""
  if kind_of(self, text) == "end" then return text end
  return nil, "EOF"
end

---Goes on to the next part; what was not read of the one before is skipped.
---@return table|false|nil part `headers`, `name` and `filename` (nil when absent); false after the last part
---@return string|nil message the body is malformed, or it could not be read
function methods:next_part()
  while self.state == "part" do
    local piece, problem = self:read()
    if not piece and problem then return nil, problem end
  end
  if self.state == "end" then return false end
  local skipped = 0
  while true do
    local text, problem = delimiter_line(self)
    if not text then
      return nil, (problem == "EOF" and "multipart: NextPart: EOF") or "multipart: NextPart: " .. problem
    end
    local kind = kind_of(self, text)
    if kind == "end" then
      self.state = "end"
      return false
    elseif kind == "part" then
      break
    elseif self.state ~= "preamble" and text ~= "" then
      return nil, 'multipart: expected a new Part; got line "' .. text .. '"'
    end
    skipped = skipped + #text
    if skipped > MAX_PREAMBLE then return nil, "multipart: message too large" end
  end
  local headers, problem = read_head(self)
  if not headers then return nil, "multipart: NextPart: " .. problem end
  self.state, self.begun = "part", false
  local kind, parameters = disposition.parse(headers["content-disposition"] or "")
  parameters = kind and parameters or {}
  return {
    headers = headers, name = kind == "form-data" and parameters.name or nil, filename = parameters.filename,
  }
end

-- What may follow a delimiter; anything else makes it data. nil: not enough is there to say.
local function closes(buffer, at)
  local char = buffer:sub(at, at)
  if char == "" then return nil end
  if char == "-" then
    local next_char = buffer:sub(at + 1, at + 1)
    if next_char == "" then return nil end
    return next_char == "-"
  end
  return char:find("^[ \t\r\n]$") ~= nil
end

-- Gives out the buffer up to `last` and keeps the rest.
local function take(self, last)
  local piece = self.buffer:sub(1, last)
  self.buffer = self.buffer:sub(last + 1)
  return piece
end

local function finish(self, last, length)
  local piece = self.buffer:sub(1, last)
  self.buffer = self.buffer:sub(last + 1 + length)
  self.state = "between"
  return piece ~= "" and piece or nil
end

---Reads on in the part.
---@return string|nil piece nil at the part's end
---@return string|nil message the body ended too soon, or could not be read
function methods:read()
  if self.state ~= "part" then return nil end
  -- An empty part may have its delimiter right after the empty line of its head.
  if not self.begun then
    while #self.buffer < #self.dash + 2 and more(self) do end -- luacheck: ignore 542
    self.begun = true
    if self.buffer:sub(1, #self.dash) == self.dash and closes(self.buffer, #self.dash + 1) then
      self.state = "between"
      return nil
    end
  end
  local delimiter = self.delimiter
  local from = 1
  while true do
    local at = self.buffer:find(delimiter, from, true)
    if at then
      local closing = closes(self.buffer, at + #delimiter)
      -- The line break belongs to the delimiter, its dashes are read again as a line.
      if closing or (closing == nil and self.ended) then return finish(self, at - 1, 2) end
      if closing == false then
        from = at + 1
      elseif at > 1 then
        return take(self, at - 1)
      else
        more(self)
      end
    else
      -- The end of the buffer may be the begin of a delimiter.
      local safe = #self.buffer - #delimiter + 1
      local last = self.buffer:find("\r", math.max(safe, 1), true)
      last = last and last - 1 or #self.buffer
      if last > 0 and not self.ended then return take(self, last) end
      from = 1
      if not more(self) then
        if self.buffer ~= "" then return take(self, #self.buffer) end
        self.state = "broken"
        return nil, self.problem or "unexpected EOF"
      end
    end
  end
end

return multipart
