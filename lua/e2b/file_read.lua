--- Files out of a sandbox: as a string, piece by piece, or into a local file without passing through Lua.
local core = require("e2b.core")
local base = require("e2b.file_base")
local compat = require("e2b.compat")
local format = require("e2b.format")
local lazy = require("e2b.lazy")
local options = require("e2b.options")
local waits = require("e2b.wait")

local progress, tasks = lazy("e2b.progress"), lazy("e2b.tasks")

local M = {}

local raise, types = options.raise, base.types

local WHAT = "sandbox.files:read"

---@class e2b.ReadOptions: e2b.FileOptions
---@field to string|file*|fun(bytes: string): boolean?, string? where the bytes go: a local path, an open file, or a
---  function that is called with each piece and returns false, message to stop
---@field format "text"|"bytes"|"stream"|nil text and bytes are the same: a string; "stream": a reader
---@field gzip boolean? compressed on the way
---@field progress true|fun(done: number, total: number?)|nil true: a line on the terminal
---@field timeout number? seconds for the whole of a streamed body; none if not given
---@field max_bytes integer? a longer file is `too_large`; a string's is the client's max_answer_bytes if not given

local OPTIONS = base.spec({
  to = function(value)
    if type(value) == "string" or type(value) == "function" or io.type(value) == "file" then return nil end
    return "a local path, a function or an open file expected, got " .. (io.type(value) or type(value))
  end,
  format = types.string, gzip = types.boolean, progress = base.progress, timeout = types.seconds,
  max_bytes = types.positive,
})

local function check_format(opts)
  local wanted = opts.format
  if wanted == nil or wanted == "text" or wanted == "bytes" then return end
  if wanted ~= "stream" then
    raise(("%s: format must be \"text\", \"bytes\" (a string, both) or \"stream\" (a reader), got %s"):format(WHAT,
      format.value(wanted)))
  end
  if opts.to ~= nil then raise(WHAT .. ": format = \"stream\" returns a reader; it takes no 'to'") end
end

--- Sends the request and waits for the head of the answer: a file that isn't there is known then.
---@param link table
---@param path string
---@param opts table checked
---@param what string the operation
---@return e2b.Stream? stream
---@return string? message
---@return e2b.Error? err
function M.open(link, path, opts, what)
  local stream, message, err = link:open("files_read", { query = { path = path } }, opts, {
    operation = what, resource = "file", timeout = opts.timeout,
    transfer = { stream = true, gzip = opts.gzip or nil, max_bytes = opts.max_bytes },
  })
  if not stream then return nil, message, err end
  local ok
  ok, message, err = stream:headers()
  if not ok then
    stream:close() -- a cancelled wait leaves it running
    return nil, message, err
  end
  return stream
end

-- Readers ------------------------------------------------------------------------------------------------------------

---@class e2b.FileReader
---@field bytes integer what was read so far
---@field size integer? of the file, when the sandbox told it
---@field err e2b.Error? why reading failed
local methods = {}
M.methods = methods
local mt = { __name = "e2b.FileReader", __index = methods }

-- Key of what a reader keeps to itself.
local STREAM, PATH, REST, AT = {}, {}, {}, {}

local function stream_of(self, name)
  local stream = type(self) == "table" and self[STREAM]
  if not stream then
    raise(("reader.%s needs its reader, got %s: write reader:%s()"):format(name, type(self), name))
  end
  return stream
end

--- The next bytes, as many as there are. Waits for some.
---@return string? bytes nil: the file has ended, or the next values say what went wrong
---@return string? message
---@return e2b.Error? err
function methods:read()
  local stream = stream_of(self, "read")
  local rest = self[REST]
  if rest then
    self[REST] = nil
    return rest:sub(self[AT])
  end
  local bytes, message, err = stream:read()
  if bytes then
    self.bytes = self.bytes + #bytes
    return bytes
  end
  -- Who waits may be cancelled; the transfer goes on then.
  if message and stream.ended then self.err = err end
  return nil, message, err
end

-- Bytes; without a bound, a file that has no lines would fill the memory.
M.LONGEST_LINE = 10485760

--- The next line, without the line feed at its end. One of more than 10 MiB comes in parts of that length.
---@return string? line nil: the file has ended, or the next values say what went wrong
---@return string? message
---@return e2b.Error? err
function methods:read_line()
  stream_of(self, "read_line")
  local parts, n, room = {}, 0, M.LONGEST_LINE
  while true do
    local bytes, at = self[REST], self[AT]
    if not bytes then
      local message, err
      bytes, message, err = self:read()
      if bytes == nil then
        if message == nil and n > 0 then return table.concat(parts) end
        if n > 0 then self[REST], self[AT] = table.concat(parts), 1 end -- read() still has them
        return nil, message, err
      end
      at = 1
    end
    local stop = bytes:find("\n", at, true)
    local last, next_at = (stop or #bytes + 1) - 1, (stop or #bytes) + 1
    local cut = last - at + 1 > room
    if cut then last, next_at = at + room - 1, at + room end
    n, room = n + 1, room - (last - at + 1)
    parts[n] = bytes:sub(at, last)
    self[REST], self[AT] = nil, nil
    if next_at <= #bytes then self[REST], self[AT] = bytes, next_at end
    if stop or cut then return n == 1 and parts[1] or table.concat(parts) end
  end
end

local function iterate(self, name)
  local read = methods[name]
  local function step()
    local value, message, err = read(self)
    if value == nil and message ~= nil then
      self.err = err
      error(message, 0)
    end
    return value
  end
  -- Nothing can be suspended inside a generic for there, so the wait is one that doesn't yield.
  if compat.puc51 then return function() return tasks.block(step) end end
  return step
end

--- For a generic `for`: the bytes, piece by piece. Raises the message of a failure; `err` keeps the table.
---@return fun(): string?
function methods:chunks()
  stream_of(self, "chunks")
  return iterate(self, "read")
end

--- For a generic `for`: the lines. Raises as chunks does.
---@return fun(): string?
function methods:lines()
  stream_of(self, "lines")
  return iterate(self, "read_line")
end

--- Ends the transfer; a reader that was read to its end needs no closing. Closing twice is nothing.
function methods:close()
  stream_of(self, "close"):close()
  self[REST] = nil
end

mt.__close = methods.close

function mt:__tostring()
  return ("FileReader(%s, %s read)"):format(format.clean(self[PATH]), progress.bytes(self.bytes))
end

--- Whether a value is a reader of a sandbox's file.
---@param value any
---@return boolean
function M.is_reader(value)
  return getmetatable(value) == mt
end

local function reader(link, path, opts)
  local stream, message, err = M.open(link, path, opts, WHAT)
  if not stream then return nil, message, err end
  local _, _, total = stream:progress()
  return setmetatable({ [STREAM] = stream, [PATH] = path, bytes = 0, size = total }, mt)
end

-- Into something -----------------------------------------------------------------------------------------------------

local function taker(to)
  if type(to) == "function" then return to end
  return function(bytes)
    local ok, message, errno = to:write(bytes)
    return ok and true or false, message, errno
  end
end

-- Why no more pieces are taken.
local function stopped(link, to, done, why, errno)
  local is_file = type(to) ~= "function"
  if is_file and base.is_full(errno) then
    local text = ("cannot write the open file after %d bytes: %s"):format(done, why)
    return base.local_failure(WHAT, text, errno, nil, link)
  end
  return require("e2b.errors").new("cancelled", {
    message = ("%s: stopped by the %s of 'to' after %d bytes%s"):format(WHAT, is_file and "file" or "function", done,
      why ~= nil and ": " .. format.clean(why) or ""),
    operation = WHAT, sandbox_id = link.sandbox_id, retryable = false,
  })
end

-- Hands each piece to the caller's function or file.
local function pump(link, stream, to, tell)
  local done, take = 0, taker(to)
  while true do
    local bytes, message, err = stream:read()
    if bytes == nil then
      if message ~= nil then
        stream:close()
        return nil, message, err
      end
      if type(to) ~= "function" then
        -- What the file's buffer still holds must have been written, too.
        local flushed, why, errno = to:flush()
        if not flushed then return stopped(link, to, done, why, errno) end
      end
      if tell then tell(done, done, true) end
      return done
    end
    done = done + #bytes
    local more, why, errno = take(bytes)
    if more == false or more == nil and why ~= nil then
      stream:close()
      return stopped(link, to, done, why, errno)
    end
    if tell then
      local _, _, total = stream:progress()
      tell(done, total)
    end
  end
end

local function to_function(link, path, opts, tell)
  local stream, message, err = M.open(link, path, opts, WHAT)
  if not stream then return nil, message, err end
  local raised, value
  raised, value, message, err = waits.pcall(pump, link, stream, opts.to, tell)
  if not raised then
    stream:close()
    error(value, 0)
  end
  return value, message, err
end

local function finish(link, stream, file, to)
  local value, _, err = stream:finish()
  if value == nil then
    stream:close()
    file:close()
    return base.sink_failure(err, to)
  end
  local bytes = stream:progress()
  local ok, text, errno = file:commit()
  if not ok then return base.local_failure(WHAT, text, errno, to, link) end
  return bytes
end

-- The bytes go from libcurl into the file; Lua sees none of them.
local function to_path(link, path, opts, tell)
  local to = opts.to
  local file, text, errno = core.file_temp(to)
  if not file then return base.local_failure(WHAT, text, errno, to, link) end
  local stream, message, err = link:open("files_read", { query = { path = path } }, opts, {
    operation = WHAT, resource = "file", timeout = opts.timeout, progress = tell,
    transfer = { sink = file:fd(), gzip = opts.gzip or nil, max_bytes = opts.max_bytes },
  })
  if not stream then
    file:close()
    return nil, message, err
  end
  local raised, value
  raised, value, message, err = waits.pcall(finish, link, stream, file, to)
  if not raised then
    stream:close()
    file:close()
    error(value, 0)
  end
  if value and tell then tell(value, value, true) end
  return value, message, err
end

local function to_string(link, path, opts, tell)
  local value, message, err = link:call("files_read", { query = { path = path } }, opts, {
    operation = WHAT, resource = "file", progress = tell,
    transfer = (opts.gzip or opts.max_bytes or opts.timeout)
      and { gzip = opts.gzip or nil, max_bytes = opts.max_bytes, timeout = opts.timeout } or nil,
  })
  if value == nil then
    if err.kind == "too_large" then
      return base.add(err, "; a large file is read with 'to' or format = \"stream\", which keep none of it in memory")
    end
    return nil, message, err
  end
  if tell then tell(#value, #value, true) end
  return value
end

--- See files:read.
function M.read(link, path, opts)
  base.path(path, WHAT)
  opts = base.options(opts, OPTIONS, WHAT)
  check_format(opts)
  if opts.format == "stream" then return reader(link, path, opts) end
  local tell = progress.of(opts.progress, path, WHAT)
  local value, message, err
  if opts.to == nil then
    value, message, err = to_string(link, path, opts, tell)
  elseif type(opts.to) == "string" then
    value, message, err = to_path(link, path, opts, tell)
  else
    value, message, err = to_function(link, path, opts, tell)
  end
  if value ~= nil then return value end
  if tell then tell(nil, nil, true) end
  return nil, message, err
end

return M
