--- A directory of a sandbox to this machine, as one archive that is unpacked while it comes.
local core = require("e2b.core")
local base = require("e2b.file_base")
local errors = require("e2b.errors")
local format = require("e2b.format")
local ignore = require("e2b.ignore")
local lazy = require("e2b.lazy")
local read = require("e2b.file_read")
local tar = require("e2b.tar")
local tree = require("e2b.tree")
local waits = require("e2b.wait")
local write = require("e2b.file_write")

local progress = lazy("e2b.progress")

local M = {}

local WHAT = "sandbox.files:get_tree"

-- EEXIST, ENOTDIR, EISDIR, ELOOP (Linux, BSD), ENOTEMPTY (Linux, BSD): something else is there.
local IN_THE_WAY = { [17] = true, [20] = true, [21] = true, [40] = true, [62] = true, [39] = true, [66] = true }
local EINVAL = 22

local function not_written(job, text, errno)
  local _, message, err = base.local_failure(WHAT, text, errno, job.local_dir, job.link)
  if errno == EINVAL then
    err.kind, err.resource = "protocol", nil -- a name that no honest archive has
  elseif IN_THE_WAY[errno or 0] then
    err.kind = "conflict"
  end
  return nil, message, err
end

local function bad_archive(job, text)
  return errors.new("protocol", {
    message = ("%s: %s"):format(WHAT, text), operation = WHAT, sandbox_id = job.link.sandbox_id, sent = "yes",
    retryable = false,
  })
end

-- "./a/b" of the archive -> "a/b"; "" is the directory itself.
local function inside(path)
  path = path:gsub("^%./+", "")
  if path == "." then return "" end
  return path
end

local function write_file(job, reader, entry, rel)
  local file, text, errno = job.tree:create(rel, entry.mode % 512)
  if not file then return not_written(job, text, errno) end
  while true do
    local bytes, message, err = reader:content()
    if bytes == nil then
      if message ~= nil then
        file:close()
        if errors.is(err) then return nil, message, err end
        return bad_archive(job, message)
      end
      break
    end
    local ok
    ok, text, errno = file:write(bytes)
    if not ok then
      file:close()
      return not_written(job, text, errno)
    end
  end
  local ok
  ok, text, errno = file:commit(entry.mode % 512)
  if not ok then return not_written(job, text, errno) end
  job.result.files, job.result.bytes = job.result.files + 1, job.result.bytes + entry.size
  return true
end

local function unpack_entry(job, reader, entry)
  local rel = inside(entry.path)
  if rel == "" then return true end
  local kind, result, into = entry.type, job.result, job.tree
  if job.ignored(rel, kind == "dir") then return true end
  local ok, text, errno
  if kind == "file" then
    local message, err
    ok, message, err = write_file(job, reader, entry, rel)
    if not ok then return nil, message, err end
    ok, text, errno = into:touch(rel, nil, entry.mtime)
  elseif kind == "dir" then
    ok, text, errno = into:mkdir(rel, entry.mode % 512)
    -- What is written into it changes its time, and its mode may not allow that.
    local dirs = job.dirs
    dirs[#dirs + 1] = { rel = rel, mode = entry.mode % 512, mtime = entry.mtime }
    result.dirs = result.dirs + 1
  elseif kind == "symlink" then
    ok, text, errno = into:symlink(entry.target, rel)
    if ok then ok, text, errno = into:touch(rel, nil, entry.mtime) end
    result.symlinks = result.symlinks + 1
  elseif kind == "link" then
    local target = inside(entry.target)
    if job.ignored(target, false) then
      return bad_archive(job, ("'%s' is one file with '%s', which is left out"):format(format.clean(rel),
        format.clean(target)))
    end
    ok, text, errno = into:link(target, rel)
    result.files = result.files + 1
  else
    result.skipped = result.skipped + 1
    return true
  end
  if not ok then return not_written(job, text, errno) end
  return true
end

local function unpack_all(job, stream)
  local done, tell = 0, job.tell
  local reader = tar.reader(function()
    local bytes, message, err = stream:read()
    if bytes == nil then return nil, message, err end
    done = done + #bytes
    if tell then
      local _, _, total = stream:progress()
      tell(done, total)
    end
    return bytes
  end)
  while true do
    local entry, message, err = reader:next()
    if entry == nil then
      if message == nil then break end
      if errors.is(err) then return nil, message, err end
      return bad_archive(job, message)
    end
    local ok
    ok, message, err = unpack_entry(job, reader, entry)
    if not ok then return nil, message, err end
  end
  local ok, message, err = reader:drain()
  if not ok then return nil, message, err end
  for i = #job.dirs, 1, -1 do
    local dir = job.dirs[i]
    local text, errno
    ok, text, errno = job.tree:touch(dir.rel, dir.mode, dir.mtime)
    if not ok then return not_written(job, text, errno) end
  end
  job.done = done
  return job.result
end

local function fetch(job)
  local link, opts, began = job.link, job.opts, job.began
  local remote, message, err = tree.remote(link, job.remote, tree.step(opts, began), WHAT)
  if remote == nil then return nil, message, err end
  local argv = { "tar", "-c", "-f", job.name, "-C", tree.from_archive(remote), "--exclude=" .. job.name }
  for _, pattern in ipairs(ignore.tar_excludes(opts.ignore)) do argv[#argv + 1] = "--exclude=" .. pattern end
  argv[#argv + 1] = "."
  job.made = true
  local ok
  -- 1: a file changed while it was read, which is the way of files in a sandbox that runs
  ok, message, err = tree.tar(link, argv, tree.step(opts, began), WHAT, 1)
  if not ok then return nil, message, err end
  local stream
  stream, message, err = read.open(link, job.archive, tree.step(opts, began), WHAT)
  if stream == nil then return nil, message, err end
  job.stream = stream
  local result, _, why = unpack_all(job, stream)
  if result == nil then
    return base.add(why, ("; what is in '%s' may be incomplete"):format(format.clean(job.local_dir)))
  end
  return result
end

--- See files:get_tree.
function M.get_tree(link, remote_dir, local_dir, opts)
  base.path(remote_dir, WHAT, true)
  tree.local_path(local_dir, WHAT)
  opts = base.options(opts, tree.OPTIONS, WHAT)
  local ignored = ignore.within(ignore.new(opts.ignore, WHAT))
  local job = { link = link, opts = opts, began = core.now(), remote = remote_dir, local_dir = local_dir,
    ignored = ignored, result = tree.result(), dirs = {} }
  job.name, job.archive = tree.archive()
  local ok, text, errno = true, nil, nil
  if not core.fs_stat(local_dir, true) then ok, text, errno = core.fs_mkdir(local_dir) end
  if not ok then return base.local_failure(WHAT, text, errno, local_dir, link) end
  job.tree, text, errno = core.tree(local_dir)
  if not job.tree then return base.local_failure(WHAT, text, errno, local_dir, link) end
  job.tell = progress.of(opts.progress, remote_dir, WHAT)
  local result, message, err
  ok, result, message, err = waits.pcall(fetch, job)
  if job.stream then job.stream:close() end
  job.tree:close()
  if job.made and not (ok and result == nil and err.kind == "sandbox_gone") then
    write.take_back(link, job.archive, opts)
  end
  if job.tell then job.tell(ok and result and job.done or nil, job.done, true) end
  if not ok then error(result, 0) end
  if result == nil then return nil, message, err end
  return result
end

return M
