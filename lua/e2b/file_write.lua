--- One file into a sandbox: from a string, a local file, or a function that hands out pieces.
local core = require("e2b.core")
local base = require("e2b.file_base")
local compat = require("e2b.compat")
local format = require("e2b.format")
local lazy = require("e2b.lazy")
local options = require("e2b.options")
local waits = require("e2b.wait")

local errors, metadata, multipart = lazy("e2b.errors"), lazy("e2b.file_metadata"), lazy("e2b.multipart")
local progress, tasks, unique = lazy("e2b.progress"), lazy("e2b.tasks"), lazy("e2b.unique")

local M = {}

local raise, types = options.raise, base.types

local WHAT = "sandbox.files:write"
local OCTETS = "application/octet-stream"

-- Longer strings are handed over in pieces: that way nobody keeps a second copy.
local LARGE = 1048576
local PIECE = 65536
local LAGS = compat.jit or compat.puc51
-- Seconds for taking a file back that must not stay.
local GRACE = 10

---@class e2b.WriteOptions: e2b.FileOptions
---@field gzip boolean? compressed on the way
---@field metadata table<string, string>? kept with the file; takes the place of all that was kept with it before
---@field atomic boolean? written beside the file and renamed when it is whole
---@field use_octet_stream boolean? false: as a form, which is what old sandboxes get anyhow
---@field progress true|fun(done: number, total: number?)|nil true: a line on the terminal
---@field timeout number? seconds for the whole of what isn't a string; none if not given

---@class e2b.WriteInfo
---@field name string
---@field path string absolute
---@field type "file"
---@field metadata table<string, string>?

local OPTIONS = base.spec({
  gzip = types.boolean, metadata = types.table, atomic = types.boolean, use_octet_stream = types.boolean,
  progress = base.progress, timeout = types.seconds,
})

-- Sources ------------------------------------------------------------------------------------------------------------

--- What is to be written, in one form: { data = string }, { path = local file } or { read = function }.
---@param data any the caller's
---@param what string the operation
---@return table source
function M.source(data, what)
  local kind = type(data)
  if kind == "string" then return { data = data } end
  if kind == "function" then return { read = data } end
  if io.type(data) == "file" then return { read = function() return data:read(PIECE) end } end
  if kind == "table" and require("e2b.file_read").is_reader(data) then
    return { read = function() return data:read() end }
  end
  if kind == "table" and type(data.path) == "string" then
    for name in pairs(data) do
      if name ~= "path" then
        raise(("%s: a local file is { path = … } and no more, got a field %q"):format(what, format.clean(name)))
      end
    end
    return { path = data.path }
  end
  if kind == "number" then raise(what .. ": a string expected, got a number: write tostring(…)") end
  raise(("%s: a string, { path = \"a local file\" }, a function or a reader expected, got %s"):format(what,
    io.type(data) or kind))
end

-- What the source of an upload says when it can't go on.
local function unreadable(job, message, err)
  local is_error = errors.is(err)
  return errors.new(is_error and err.kind or "cancelled", {
    message = ("%s: what was to be written could not be read: %s"):format(job.what, format.clean(message)),
    operation = job.what, source_error = is_error and err or nil, retryable = false,
  })
end

local function changed(job, source)
  return errors.new("conflict", {
    message = ("%s: the local file '%s' became shorter while it was read"):format(job.what, format.clean(source.path)),
    operation = job.what, sandbox_id = job.link.sandbox_id, resource = "local_file", path = source.path,
    retryable = false,
  })
end

-- The next bytes of a local file or of the caller's function. A file that grows meanwhile is taken as it was.
local function next_piece(job, source, done)
  local size = source.size
  if source.data then return done < size and source.data:sub(done + 1, done + 4 * PIECE) or nil end
  if source.file then
    if size and done >= size then return nil end
    local bytes, text, errno = source.file:read(size and math.min(PIECE, size - done) or PIECE)
    if bytes then return bytes end
    if text ~= nil then return base.local_failure(job.what, text, errno, source.path, job.link) end
    if size then return changed(job, source) end
    return nil
  end
  repeat
    local bytes, message, err = source.read()
    if bytes == nil or bytes == false then
      if message == nil then return nil end
      return unreadable(job, message, err)
    end
    if type(bytes) ~= "string" then
      raise(("%s: the function must return strings, and nil at the end, got %s"):format(job.what, type(bytes)))
    end
    if bytes ~= "" then return bytes end
  until false
end

-- Sending ------------------------------------------------------------------------------------------------------------

-- What a failed upload says about the file in the sandbox.
local function failed(err, sent, total, job)
  if err.sent == "no" then sent = 0 end
  err.bytes_sent = sent
  if base.untouched(err, sent, job.at_once) then return nil, err.message, err end
  if sent == nil or sent == 0 and err.kind == "network" then
    -- libcurl forgets it when a connection that was used before turns out to be dead.
    err.bytes_sent = nil
    return base.add(err, "; how many bytes had been sent is not known" .. job.note)
  end
  local of = total and (" of %.0f"):format(total) or ""
  return base.add(err, ("; %.0f%s bytes had been sent%s"):format(sent, of, job.note))
end

local info_mt = {
  __name = "e2b.WriteInfo",
  __tostring = function(info) return ("WriteInfo(%s)"):format(format.clean(info.path)) end,
}

--- What the sandbox told of a file that was written, as it is returned.
---@param info table
---@return e2b.WriteInfo
function M.adopt(info)
  return setmetatable(info, info_mt)
end

local function written(value, job)
  local info = type(value) == "table" and value[1]
  if info then return M.adopt(info) end
  return errors.new("protocol", {
    message = job.what .. ": the sandbox tells of no file that it wrote", operation = job.what, sent = "yes",
    sandbox_id = job.link.sandbox_id, retryable = false,
  })
end

local function context_of(job)
  return { operation = job.what, resource = "file", headers = job.headers }
end

local function with_header(headers, name, value)
  local list = {}
  for i, text in ipairs(headers or list) do list[i] = text end
  list[#list + 1], list[#list + 2] = name, value
  return list
end

local function send_string(job, data)
  local link, opts = job.link, job.opts
  local args = { query = { path = job.path }, body = data, content_type = OCTETS }
  local context = context_of(job)
  if job.form then
    args.body, args.content_type = multipart.body({ { path = job.name, data = data } })
  elseif opts.gzip then
    args.body = core.deflate():write(data, "finish")
    context.headers = with_header(job.headers, "Content-Encoding", "gzip")
  end
  local sent
  local size, tell = #args.body, job.tell
  function context.progress(done, total)
    sent = done
    if tell then tell(done, total) end
  end
  job.at_once = true
  if opts.timeout then context.transfer = { timeout = opts.timeout } end
  local value, _, err = link:call("files_write", args, opts, context)
  if value == nil then return failed(err, sent, size, job) end
  local info, message
  info, message, err = written(value, job)
  if info and tell then tell(size, size, true) end
  return info, message, err
end

-- The clock of a string is request_timeout, in however many pieces it is handed over.
local function rename_clock(job, err)
  if job.is_string and err.deadline == "timeout" and not job.opts.timeout then
    err.deadline = "request_timeout"
    err.message = err.message:gsub("%(timeout%)", "(request_timeout)")
  end
end

-- libcurl only knows that it got no more bytes of a local file.
local function of_source(job, source, err)
  if err.os_errno then
    local text = ("cannot read '%s': error %d"):format(source.path, err.os_errno)
    return select(3, base.local_failure(job.what, text, err.os_errno, source.path, job.link))
  elseif err.kind == "network" and source.size and (source.file:size() or 0) < source.size then
    return select(3, changed(job, source))
  end
  return err
end

local function finish(job, stream, size, source)
  local value, _, err = stream:finish()
  local _, sent = stream:progress()
  if value == nil then
    stream:close()
    rename_clock(job, err)
    return failed(source and of_source(job, source, err) or err, sent, size, job)
  end
  local info, message
  info, message, err = written(value, job)
  if info and job.tell then job.tell(size or sent, size or sent, true) end
  return info, message, err
end

-- libcurl reads from the file by itself.
local function send_descriptor(job, source)
  local context = context_of(job)
  context.timeout, context.progress = job.opts.timeout, job.tell
  context.transfer = { source = source.file:fd(), source_size = source.size }
  local stream, message, err = job.link:open("files_write",
    { query = { path = job.path }, content_type = OCTETS }, job.opts, context)
  if not stream then return nil, message, err end
  job.stream = stream
  return finish(job, stream, source.size, source)
end

-- Gives up in the middle: the sandbox sees a body that is cut.
local function break_off(job, size, err)
  local stream = job.stream
  local _, sent = stream:progress()
  stream:close()
  err.sandbox_id = err.sandbox_id or job.link.sandbox_id
  err.sent = err.sent or "maybe"
  rename_clock(job, err)
  return failed(err, sent, size, job)
end

-- Piece by piece, through Lua.
local function send_pieces(job, source)
  local size, tell = source.size, job.tell
  local context = context_of(job)
  local args = { query = { path = job.path }, content_type = OCTETS }
  local squeeze = job.opts.gzip and not job.form and core.deflate() or nil
  local head, tail = "", ""
  if squeeze then context.headers = with_header(job.headers, "Content-Encoding", "gzip") end
  if job.form then
    local boundary
    boundary, args.content_type = multipart.boundary()
    head, tail = multipart.head(boundary, job.name), "\r\n" .. multipart.tail(boundary)
  end
  local whole = job.opts.timeout or source.data and (job.opts.request_timeout or job.link.client.request_timeout)
  context.timeout = whole
  context.transfer = { source = "chunks", source_size = size and not squeeze and size + #head + #tail or nil }
  local stream, message, err = job.link:open("files_write", args, job.opts, context)
  if not stream then return nil, message, err end
  job.stream = stream
  local done, out = 0, head
  repeat
    local ok, text, why = true, nil, nil
    if out ~= "" then ok, text, why = stream:write(out) end
    local bytes
    if ok then bytes, text, why = next_piece(job, source, done) end
    if bytes == nil and text ~= nil then return break_off(job, size, why) end
    if bytes then
      done = done + #bytes
      if tell then tell(done, size) end
      out = squeeze and squeeze:write(bytes) or bytes
      -- These collectors fall behind when all that is made is large strings.
      if LAGS then collectgarbage("step", math.ceil(#bytes / 1024)) end
    end
  until bytes == nil
  out = squeeze and squeeze:write("", "finish") or tail
  if out ~= "" then
    local ok, _, why = stream:write(out)
    if not ok then return break_off(job, size, why) end
  end
  return finish(job, stream, size)
end

local function send(job, source)
  if source.data then
    if #source.data < LARGE then return send_string(job, source.data) end
    source.size, job.is_string = #source.data, true
    return send_pieces(job, source)
  end
  if source.file and not job.form and not job.opts.gzip then return send_descriptor(job, source) end
  return send_pieces(job, source)
end

local function guarded(job, source)
  if source.path then
    local file, text, errno = core.file_open(source.path)
    if not file then return base.local_failure(job.what, text, errno, source.path, job.link) end
    source.file, source.size = file, file:size()
  end
  local ok, value, message, err = waits.pcall(send, job, source)
  if source.file then source.file:close() end
  if not ok then
    if job.stream then job.stream:close() end
    if job.tell then job.tell(nil, nil, true) end
    error(value, 0)
  end
  return value, message, err
end

--- Removes a file that must not stay, even when the caller's task has been cancelled.
---@param link table
---@param path string
---@param opts table
function M.take_back(link, path, opts)
  tasks.shield(function()
    link:call("fs_remove", { body = { path = path } }, { user = opts.user, retries = opts.retries },
      { operation = WHAT, resource = "file" })
  end, GRACE)
end

local function atomically(job, source)
  local path = job.path
  local beside = path .. ".e2b-" .. unique.hex(12)
  job.path, job.note = beside, ", the file itself is as it was"
  local ok, value, message, err = waits.pcall(guarded, job, source)
  if ok and value ~= nil then
    local entry
    entry, message, err = job.link:call("fs_move", { body = { source = beside, destination = path } }, job.opts,
      { operation = job.what, resource = "file" })
    if entry ~= nil then
      return M.adopt({ name = entry.name, path = entry.path, type = "file", metadata = value.metadata })
    end
    value = nil
  end
  if not ok or err.kind ~= "sandbox_gone" and err.sent ~= "no" then M.take_back(job.link, beside, job.opts) end
  if not ok then error(value, 0) end
  return nil, message, err
end

--- Writes one file.
---@param link table
---@param path string
---@param source table of M.source
---@param opts table checked
---@param what string the operation
---@param headers string[]? of metadata
---@param tell function?
---@param note string? what a failure says about what was sent
---@return e2b.WriteInfo? info
---@return string? message
---@return e2b.Error? err
function M.put(link, path, source, opts, what, headers, tell, note)
  local job = { link = link, path = path, name = path:match("[^/]*$"), opts = opts, what = what, headers = headers,
    tell = tell, note = note or ": the file in the sandbox may be incomplete",
    form = opts.use_octet_stream == false or not link:at_least(0, 5, 7) }
  if not multipart.can_name(job.name) then job.name = "file" end -- the query has the path
  local value, message, err
  if opts.atomic then
    value, message, err = atomically(job, source)
  else
    value, message, err = guarded(job, source)
  end
  if value ~= nil then return value end
  if tell then tell(nil, nil, true) end
  return nil, message, err
end

--- Whether metadata can be kept there; none can always.
---@return true? ok
---@return string? message
---@return e2b.Error? err
function M.metadata_gate(link, headers, what)
  if not headers then return true end
  return link:gate(what, "metadata of files", 0, 6, 2)
end

--- See files:write.
function M.write(link, path, data, opts)
  base.path(path, WHAT)
  local source = M.source(data, WHAT)
  opts = base.options(opts, OPTIONS, WHAT)
  local headers = metadata.headers(opts.metadata, WHAT)
  local ok, message, err = M.metadata_gate(link, headers, WHAT)
  if ok and opts.atomic then ok, message, err = base.renamable(path, WHAT, link) end
  if not ok then return nil, message, err end
  local tell = progress.of(opts.progress, path, WHAT)
  return M.put(link, path, source, opts, WHAT, headers, tell)
end

return M
