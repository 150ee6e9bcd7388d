--- A local directory into a sandbox, as one archive that is made while it is sent.
local core = require("e2b.core")
local base = require("e2b.file_base")
local format = require("e2b.format")
local ignore = require("e2b.ignore")
local lazy = require("e2b.lazy")
local tar = require("e2b.tar")
local tree = require("e2b.tree")
local waits = require("e2b.wait")
local write = require("e2b.file_write")

local errors, progress = lazy("e2b.errors"), lazy("e2b.progress")

local M = {}

local WHAT = "sandbox.files:put_tree"

-- Small files go together in pieces of this size.
local PIECE = 131072

-- Walks through a directory, each before what is in it: calls visit(rel, stat, path), which may end the walk with a
-- failure. Only the names on the way down are kept.
local function walk(root, ignored, visit)
  local stack = { { names = nil, at = 0, rel = "", path = root } }
  while #stack > 0 do
    local top = stack[#stack]
    if not top.names then
      local names, message, errno = core.fs_list(top.path)
      if not names then return nil, message, errno, top.path end
      top.names = names
    end
    top.at = top.at + 1
    local name = top.names[top.at]
    if name == nil then
      stack[#stack] = nil
    else
      local rel = top.rel .. name
      local path = top.path .. "/" .. name
      local stat, message, errno = core.fs_stat(path)
      if not stat then return nil, message, errno, path end
      local is_directory = stat.type == "dir"
      if not ignored(rel, is_directory) then
        local ok
        ok, message, errno = visit(rel, stat, path)
        if not ok then return nil, message, errno, path end
        if is_directory then stack[#stack + 1] = { at = 0, rel = rel .. "/", path = path } end
      end
    end
  end
  return true
end

-- The length of the archive, but for what long names take.
local function measure(root, ignored)
  local total = #tar.ENDING
  local ok, message, errno, path = walk(root, ignored, function(_, stat)
    total = total + tar.BLOCK
    if stat.type == "file" then total = total + stat.size + #tar.padding(stat.size) end
    return true
  end)
  if not ok then return nil, message, errno, path end
  return total
end

-- Writes the archive, piece by piece, with put(bytes).
local function produce(root, ignored, result, put)
  local function add(rel, stat, path)
    if stat.type == "other" then
      result.skipped = result.skipped + 1
      return true
    end
    local entry = { type = stat.type, path = rel, mode = stat.mode % 512, mtime = stat.mtime, target = stat.target }
    if stat.type ~= "file" then
      local kind = stat.type == "dir" and "dirs" or "symlinks"
      result[kind] = result[kind] + 1
      put(tar.header(entry))
      return true
    end
    local file, message, errno = core.file_open(path)
    if not file then return nil, message, errno end
    local size = file:size() or 0
    entry.size = size
    put(tar.header(entry))
    local left = size
    while left > 0 do
      local bytes
      bytes, message, errno = file:read(math.min(left, PIECE))
      if not bytes then
        file:close()
        return nil, message or ("'%s' became shorter while it was read"):format(path), errno
      end
      left = left - #bytes
      put(bytes)
    end
    file:close()
    put(tar.padding(size))
    result.files, result.bytes = result.files + 1, result.bytes + size
    return true
  end
  local ok, message, errno, path = walk(root, ignored, add)
  if not ok then return nil, message, errno, path end
  put(tar.ENDING)
  return true
end

-- The archive as a function that hands out pieces. The walk goes on in a coroutine of its own, in which nothing waits.
local function archive(root, ignored, result, link)
  local parts, n, size = {}, 0, 0
  local function flush()
    local bytes = table.concat(parts, "", 1, n)
    n, size = 0, 0
    return bytes
  end
  local function put(bytes)
    n, size = n + 1, size + #bytes
    parts[n] = bytes
    if size >= PIECE then coroutine.yield(flush()) end
  end
  local co = coroutine.create(function() return nil, produce(root, ignored, result, put) end)
  local over = false
  return function()
    if over then return nil end
    local ran, bytes, ok, message, errno, path = coroutine.resume(co)
    if not ran then error(bytes, 0) end
    if bytes ~= nil then return bytes end
    over = true
    if not ok then return base.local_failure(WHAT, message, errno, path, link) end
    return flush()
  end
end

local function send(job)
  local link, opts, began = job.link, job.opts, job.began
  local remote, step = job.remote, tree.step(opts, began)
  local made, message, err = link:call("fs_make_dir", { body = { path = remote } }, step,
    { operation = WHAT, resource = "file" })
  if made == nil and err.error_code ~= "already_exists" then return nil, message, err end
  remote, message, err = tree.remote(link, remote, tree.step(opts, began), WHAT)
  if remote == nil then return nil, message, err end
  local result = tree.result()
  local source = { read = archive(job.root, job.ignored, result, link) }
  local tell = job.tell
  job.sent = true
  local info
  info, message, err = write.put(link, job.archive, source, tree.step(opts, began), WHAT, nil, tell and
    function(done, _, over)
      if done and not over then tell(done, math.max(done, job.total)) end
    end, "; nothing was unpacked")
  if info == nil then
    if err.sent == "no" then job.sent = false end
    if err.source_error then
      err.kind, err.resource, err.path = err.source_error.kind, "local_file", err.source_error.path
      err.message = err.source_error.message
      return nil, err.message, err
    end
    return nil, message, err
  end
  local ok, _, why = tree.tar(link, { "tar", "-x", "-o", "-p", "-f", job.name, "-C", tree.from_archive(remote) },
    tree.step(opts, began), WHAT)
  if not ok then return base.add(why, "; what is in the directory may be incomplete") end
  return result
end

--- See files:put_tree.
function M.put_tree(link, local_dir, remote_dir, opts)
  tree.local_path(local_dir, WHAT)
  if type(remote_dir) ~= "string" then
    base.path(remote_dir, WHAT .. ": the directory in the sandbox")
  end
  base.path(remote_dir, WHAT)
  opts = base.options(opts, tree.OPTIONS, WHAT)
  local ignored = ignore.new(opts.ignore, WHAT)
  local stat, text, errno = core.fs_stat(local_dir, true)
  if not stat then return base.local_failure(WHAT, text, errno, local_dir, link) end
  if stat.type ~= "dir" then
    return errors.new("invalid_argument", {
      message = ("%s: '%s' is no directory"):format(WHAT, format.clean(local_dir)), operation = WHAT,
      sandbox_id = link.sandbox_id, resource = "local_file", path = local_dir, retryable = false,
    })
  end
  local job = { link = link, opts = opts, began = core.now(), root = (local_dir:gsub("(.)/+$", "%1")),
    remote = remote_dir, ignored = ignored }
  job.name, job.archive = tree.archive()
  job.tell = progress.of(opts.progress, local_dir, WHAT)
  if job.tell then
    local path
    job.total, text, errno, path = measure(job.root, ignored)
    if not job.total then return base.local_failure(WHAT, text, errno, path, link) end
  end
  local ok, result, message, err = waits.pcall(send, job)
  if job.sent and not (ok and result == nil and err.kind == "sandbox_gone") then
    write.take_back(link, job.archive, opts)
  end
  if job.tell then job.tell(ok and result and job.total or nil, job.total, true) end
  if not ok then error(result, 0) end
  if result == nil then return nil, message, err end
  return result
end

return M
