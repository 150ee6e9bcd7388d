--- Many files into a sandbox at once: small strings together in a few requests, everything else in requests of its own,
--- several side by side.
local core = require("e2b.core")
local base = require("e2b.file_base")
local format = require("e2b.format")
local lazy = require("e2b.lazy")
local options = require("e2b.options")
local write = require("e2b.file_write")

local errors, metadata, multipart = lazy("e2b.errors"), lazy("e2b.file_metadata"), lazy("e2b.multipart")
local progress, tasks = lazy("e2b.progress"), lazy("e2b.tasks")

local M = {}

local raise, types = options.raise, base.types

local WHAT = "sandbox.files:write_files"

-- A request with many files has at most so many, and so many bytes.
local BATCH_FILES, BATCH_BYTES = 200, 4194304
-- Strings from here on go alone.
local LARGE = 1048576
-- Requests side by side.
local LIMIT = 8

---@class e2b.WriteFilesOptions: e2b.FileOptions
---@field gzip boolean? compressed on the way
---@field metadata table<string, string>? kept with every one of them
---@field use_octet_stream boolean? true: a request for each file
---@field progress true|fun(done: number, total: number?)|nil true: a line on the terminal; counts files' bytes when a
---  request is done
---@field timeout number? seconds for each of what isn't a string; none if not given

local OPTIONS = base.spec({
  gzip = types.boolean, metadata = types.table, use_octet_stream = types.boolean, progress = base.progress,
  timeout = types.seconds,
})

-- The same file by another spelling, as far as that can be seen from here.
local function plain(path)
  local rest = path:gsub("^~/", "")
  local root = rest:sub(1, 1) == "/" and "/" or ""
  local parts = {}
  for part in rest:gmatch("[^/]+") do
    if part == ".." and #parts > 0 and parts[#parts] ~= ".." then
      parts[#parts] = nil
    elseif part ~= "." then
      parts[#parts + 1] = part
    end
  end
  return root .. table.concat(parts, "/")
end

local function check(files)
  if type(files) ~= "table" then
    raise(("%s: a list of { path = …, data = … } expected, got %s"):format(WHAT, type(files)))
  end
  for key in pairs(files) do
    if type(key) ~= "number" then
      raise(("%s: a list of { path = …, data = … } expected, it has a field %s"):format(WHAT, format.value(key)))
    end
  end
  local list, seen = {}, {}
  for i = 1, #files do
    local file = files[i]
    local what = ("%s: file %d"):format(WHAT, i)
    if type(file) ~= "table" then
      raise(("%s must be { path = …, data = … }, got %s"):format(what, type(file)))
    end
    for name in pairs(file) do
      if name ~= "path" and name ~= "data" then
        raise(("%s has an unknown field %s: it is { path = …, data = … }"):format(what, format.value(name)))
      end
    end
    local path = base.path(file.path, what)
    local source = write.source(file.data, what)
    local key = plain(path)
    if seen[key] then
      raise(("%s: files %d and %d are the same file in the sandbox: %s"):format(WHAT, seen[key], i,
        format.value(path)))
    end
    seen[key] = i
    list[i] = { path = path, source = source, index = i }
  end
  return list
end

-- Requests, each { files = … } for many in one, or { file = … }.
local function plan(list, opts, old)
  local jobs, batch, bytes = {}, nil, 0
  for _, file in ipairs(list) do
    local data = file.source.data
    -- A compressed form is read by sandboxes that know the other way, too.
    if not data or #data >= LARGE or opts.use_octet_stream and not old or not multipart.can_name(file.path) then
      jobs[#jobs + 1] = { file = file }
    else
      if not batch or #batch >= BATCH_FILES or bytes + #data > BATCH_BYTES then
        batch, bytes = {}, 0
        jobs[#jobs + 1] = { files = batch }
      end
      batch[#batch + 1] = file
      bytes = bytes + #data
    end
  end
  return jobs
end

local function total_of(list)
  local total = 0
  for _, file in ipairs(list) do
    local source = file.source
    local size = source.data and #source.data
    if source.path then
      local stat = core.fs_stat(source.path, true)
      size = stat and stat.size
    end
    if not size then return nil end
    total = total + size
  end
  return total
end

local function send_batch(call, files)
  local opts = call.opts
  local parts = {}
  for i, file in ipairs(files) do parts[i] = { path = file.path, data = file.source.data } end
  local body, content_type = multipart.body(parts)
  local headers = call.headers
  if opts.gzip and not call.old then
    headers = { "Content-Encoding", "gzip" }
    for i, text in ipairs(call.headers or {}) do headers[i + 2] = text end
    body = core.deflate():write(body, "finish")
  end
  local value, message, err = call.link:call("files_write",
    { query = {}, body = body, content_type = content_type }, opts,
    { operation = WHAT, resource = "file", headers = headers })
  if value == nil then return nil, message, err end
  if type(value) ~= "table" or #value ~= #files then
    return errors.new("protocol", {
      message = ("%s: %d files were sent and the sandbox tells of %d"):format(WHAT, #files,
        type(value) == "table" and #value or 0),
      operation = WHAT, sandbox_id = call.link.sandbox_id, sent = "yes", retryable = false,
    })
  end
  for i, file in ipairs(files) do call.results[file.index] = write.adopt(value[i]) end
  return true
end

local function send_one(call, file)
  local info, message, err = write.put(call.link, file.path, file.source, call.opts, WHAT, call.headers)
  if info == nil then return nil, message, err end
  call.results[file.index] = info
  return true
end

local function size_of(job)
  local size = 0
  for _, file in ipairs(job.files or { job.file }) do
    local source = file.source
    size = size + (source.data and #source.data or source.size or 0)
  end
  return size
end

local function send(call, job)
  if call.failed then return nil, "not begun" end -- another one has failed already
  local ok, message, err
  if job.files then
    ok, message, err = send_batch(call, job.files)
  else
    ok, message, err = send_one(call, job.file)
  end
  if not ok then
    call.failed = call.failed or { message = message, err = err, job = job }
    return nil, message, err
  end
  call.done = call.done + size_of(job)
  if call.tell then call.tell(call.done, call.total) end
  return true
end

local function failure(call, list)
  local failed = call.failed
  local err, job = failed.err, failed.job
  local whole = 0
  for i = 1, #list do
    if call.results[i] then whole = whole + 1 end
  end
  err.files_written, err.path = whole, job.file and job.file.path or job.files[1].path
  local where = ("; %d of %d files were written"):format(whole, #list)
  if job.file then
    where = ("; that was file %d, %s"):format(job.file.index, format.value(job.file.path)) .. where
  end
  return base.add(err, where)
end

--- See files:write_files.
function M.write_files(link, files, opts)
  local list = check(files)
  opts = base.options(opts, OPTIONS, WHAT)
  local call = { link = link, opts = opts, headers = metadata.headers(opts.metadata, WHAT), results = {}, done = 0 }
  local ok, message, err = write.metadata_gate(link, call.headers, WHAT)
  if not ok then return nil, message, err end
  if #list == 0 then return {} end
  call.old = not link:at_least(0, 5, 7)
  call.tell = progress.of(opts.progress, ("%d files"):format(#list), WHAT)
  call.total = call.tell and total_of(list)
  local jobs = plan(list, opts, call.old)
  if #jobs == 1 then
    send(call, jobs[1])
  else
    local entries, failed = tasks.map(jobs, function(job) return send(call, job) end, { limit = LIMIT })
    if failed > 0 and not call.failed then
      for i, entry in ipairs(entries) do
        if not entry.ok then
          call.failed = { message = entry.message, err = entry.err, job = jobs[i] }
          break
        end
      end
      -- What a caller's function raised is the caller's.
      if call.failed.err.kind == "raised" then error(call.failed.err.value, 0) end
    end
  end
  if call.failed then
    if call.tell then call.tell(nil, nil, true) end
    return failure(call, list)
  end
  if call.tell then call.tell(call.done, call.done, true) end
  return call.results
end

return M
