--- The files of a sandbox: sandbox.files. This file is what users see; what larger operations do is in file_read,
--- file_write, file_write_many, tree_up, tree_down and watcher.
local base = require("e2b.file_base")
local envd = require("e2b.envd")
local format = require("e2b.format")
local lazy = require("e2b.lazy")
local options = require("e2b.options")

local progress, table_view = lazy("e2b.progress"), lazy("e2b.table_view")

local M = {}

---@class e2b.Entry
---@field name string the last part of the path
---@field path string
---@field type "file"|"dir"|"symlink"|nil a link has the type of what it leads to; nil: a device, a socket, a link to
---  nowhere
---@field size integer bytes; of a link: of its text
---@field mode integer the nine permission bits
---@field permissions string as ls shows them: "-rw-r--r--"
---@field owner string
---@field group string
---@field modified_time integer? seconds since the epoch
---@field symlink_target string? absolute, with all links resolved; only of links
---@field metadata table<string, string>?

---The files of a sandbox. A relative path begins at the home of the user, `~` is that home.
---@class e2b.Files
local methods = {}
M.methods = methods
local mt = { __name = "e2b.Files", __index = methods }

-- Key of what this object keeps to itself.
local LINK = {}

local function link_of(self, name)
  envd.self(self, mt, "sandbox.files:" .. name)
  return self[LINK]
end

--- The files of a sandbox.
---@param sandbox e2b.Sandbox
---@return e2b.Files
function M.new(sandbox)
  return setmetatable({ [LINK] = envd.link(sandbox) }, mt)
end

function mt:__tostring()
  return ("Files(%s)"):format(format.short_id(self[LINK].sandbox_id))
end

-- Entries -----------------------------------------------------------------------------------------------------------

local entry_mt = { __name = "e2b.Entry" }

function entry_mt:__tostring()
  local size = self.type == "file" and ", " .. progress.bytes(self.size) or ""
  return ("Entry(%s, %s%s)"):format(format.clean(self.path), self.type or "?", size)
end

local COLUMNS = {
  { title = "PERMISSIONS", value = function(entry) return entry.permissions end },
  { title = "OWNER", value = function(entry) return entry.owner end },
  { title = "SIZE", value = function(entry) return entry.type ~= "dir" and progress.bytes(entry.size) or nil end,
    right = true },
  { title = "MODIFIED", value = function(entry) return format.time(entry.modified_time) end },
  { title = "PATH", value = function(entry)
    return entry.symlink_target and entry.path .. " -> " .. entry.symlink_target or entry.path
  end, whole = true },
}

local list_mt = {
  __name = "e2b.Entries",
  __tostring = function(list) return table_view.render(COLUMNS, list) end,
}

local function adopt(entry)
  return setmetatable(entry, entry_mt)
end

-- Small operations ---------------------------------------------------------------------------------------------------

local PLAIN = base.spec({})
local LIST = base.spec({
  depth = function(value)
    if type(value) ~= "number" or value ~= math.floor(value) then
      return "a whole number expected, got " .. format.value(value)
    end
    if value < 1 or value >= 2 ^ 32 then return "depth should be at least 1, got " .. format.value(value) end
    return nil
  end,
})

local function context(name)
  return { operation = "sandbox.files:" .. name, resource = "file" }
end

local CONTEXT = {}
for _, name in ipairs({ "list", "exists", "get_info", "rename", "remove", "make_dir" }) do
  CONTEXT[name] = context(name)
end

--- What a directory holds, sorted, a directory before what is in it.
---envd: POST /filesystem.Filesystem/ListDir. Errors: not_found, invalid_argument (it is no directory).
---@param path string "" is the working directory
---@param opts { depth: integer? }? and e2b.FileOptions; depth: how many levels (1)
---@return e2b.Entry[]? entries prints as a table
---@return string? message
---@return e2b.Error? err
function methods:list(path, opts)
  local link, what = link_of(self, "list"), "sandbox.files:list"
  base.path(path, what, true)
  opts = base.options(opts, LIST, what)
  local list, message, err = link:call("fs_list", { body = { path = path, depth = opts.depth or 1 } }, opts,
    CONTEXT.list)
  if list == nil then return nil, message, err end
  for i = 1, #list do adopt(list[i]) end
  return setmetatable(list, list_mt)
end

--- Whether there is something under that name; a link to nowhere is something.
---envd: POST /filesystem.Filesystem/Stat.
---@param path string
---@param opts e2b.FileOptions?
---@return boolean? exists
---@return string? message
---@return e2b.Error? err
function methods:exists(path, opts)
  local link, what = link_of(self, "exists"), "sandbox.files:exists"
  base.path(path, what, true)
  opts = base.options(opts, PLAIN, what)
  local entry, message, err = link:call("fs_stat", { body = { path = path } }, opts, CONTEXT.exists)
  if entry ~= nil then return true end
  if err.kind == "not_found" and err.resource == "file" then return false end
  return nil, message, err
end

--- What is known of a file, a directory or a link.
---envd: POST /filesystem.Filesystem/Stat. Errors: not_found.
---@param path string
---@param opts e2b.FileOptions?
---@return e2b.Entry? entry
---@return string? message
---@return e2b.Error? err
function methods:get_info(path, opts)
  local link, what = link_of(self, "get_info"), "sandbox.files:get_info"
  base.path(path, what, true)
  opts = base.options(opts, PLAIN, what)
  local entry, message, err = link:call("fs_stat", { body = { path = path } }, opts, CONTEXT.get_info)
  if entry == nil then return nil, message, err end
  return adopt(entry)
end

--- Renames or moves; directories above the new name are made, a file that is there is replaced.
---envd: POST /filesystem.Filesystem/Move. Errors: not_found, server (another file system, a directory in the way).
---@param old_path string
---@param new_path string
---@param opts e2b.FileOptions?
---@return e2b.Entry? entry under the new name
---@return string? message
---@return e2b.Error? err
function methods:rename(old_path, new_path, opts)
  local link, what = link_of(self, "rename"), "sandbox.files:rename"
  base.path(old_path, what)
  if type(new_path) ~= "string" then
    options.raise(("%s needs two paths, the second is a %s"):format(what, type(new_path)))
  end
  base.path(new_path, what)
  opts = base.options(opts, PLAIN, what)
  local entry, message, err = link:call("fs_move", { body = { source = old_path, destination = new_path } }, opts,
    CONTEXT.rename)
  if entry == nil then return nil, message, err end
  return adopt(entry)
end

--- Removes a file, a link, or a directory with all that is in it. What isn't there is as good as removed.
---envd: POST /filesystem.Filesystem/Remove.
---@param path string
---@param opts e2b.FileOptions?
---@return true? ok
---@return string? message
---@return e2b.Error? err
function methods:remove(path, opts)
  local link, what = link_of(self, "remove"), "sandbox.files:remove"
  base.path(path, what)
  opts = base.options(opts, PLAIN, what)
  local ok, message, err = link:call("fs_remove", { body = { path = path } }, opts, CONTEXT.remove)
  if ok == nil then return nil, message, err end
  return true
end

--- Makes a directory and those above it.
---envd: POST /filesystem.Filesystem/MakeDir. Errors: invalid_argument (a file is there).
---@param path string
---@param opts e2b.FileOptions?
---@return boolean? made false: the directory was there
---@return string? message
---@return e2b.Error? err
function methods:make_dir(path, opts)
  local link, what = link_of(self, "make_dir"), "sandbox.files:make_dir"
  base.path(path, what)
  opts = base.options(opts, PLAIN, what)
  local entry, message, err = link:call("fs_make_dir", { body = { path = path } }, opts, CONTEXT.make_dir)
  if entry ~= nil then return true end
  if err.error_code == "already_exists" then return false end
  return nil, message, err
end

-- Contents -----------------------------------------------------------------------------------------------------------

---Reads a file. As a string, which is in memory whole; `to` a local path: streamed with constant memory into a new
---file that takes the path's place when it is whole; `to` a function or an open file: given each piece;
---`format = "stream"`: a reader.
---`request_timeout` bounds all of a string, and of the others the wait for the first byte; `idle_timeout` every pause.
---envd: GET /files. Errors: not_found, invalid_argument (a directory), too_large, no_space (of this machine's disk).
---@param path string
---@param opts e2b.ReadOptions?
---@return string|integer|e2b.FileReader|nil data with `to`: how many bytes
---@return string? message
---@return e2b.Error? err
function methods:read(path, opts)
  return require("e2b.file_read").read(link_of(self, "read"), path, opts)
end

---Writes a file, over one that is there; directories above it are made. `data` is a string, `{ path = "local file" }`,
---a function that returns the next piece and nil at the end (nil, message: it gives up), an open file, or a reader of
---another file of a sandbox. Only a string is in memory whole.
---After a failure `err.bytes_sent` says how far it came, and what is left there may be incomplete; `atomic = true`
---keeps the old file until the new one is whole (a rename: a link is replaced, not followed, and the mode is a new
---file's).
---envd: POST /files. Errors: invalid_argument (a directory), no_space, unsupported (metadata).
---@param path string
---@param data string|{ path: string }|(fun(): string?, string?)|file*|e2b.FileReader
---@param opts e2b.WriteOptions?
---@return e2b.WriteInfo? info
---@return string? message
---@return e2b.Error? err
function methods:write(path, data, opts)
  local link = link_of(self, "write")
  if type(path) == "table" then
    options.raise("sandbox.files:write takes a path and data: for a list write sandbox.files:write_files(…)")
  end
  return require("e2b.file_write").write(link, path, data, opts)
end

---Writes many files. Small strings go together, the others side by side. An empty list makes no request. When one
---fails, others may have been written: `err.files_written` counts them.
---envd: POST /files. Errors: as write.
---@param files { path: string, data: any }[] data as for write; no file twice
---@param opts e2b.WriteFilesOptions?
---@return e2b.WriteInfo[]? infos in the order of `files`
---@return string? message
---@return e2b.Error? err
function methods:write_files(files, opts)
  return require("e2b.file_write_many").write_files(link_of(self, "write_files"), files, opts)
end

---Watches a directory; returns when the watch has begun, so that nothing is missed after it. It goes on until it is
---stopped, `timeout` is over or it is collected.
---envd: POST /filesystem.Filesystem/WatchDir. Errors: not_found, invalid_argument (no directory), unsupported.
---@param path string
---@param opts e2b.WatchOptions?
---@return e2b.Watcher? watcher
---@return string? message
---@return e2b.Error? err
function methods:watch_dir(path, opts)
  return require("e2b.watcher").watch_dir(link_of(self, "watch_dir"), path, opts)
end

-- Trees --------------------------------------------------------------------------------------------------------------

---Copies a local directory into the sandbox, as one archive in one stream: what is in `local_dir` is in `remote_dir`
---then, beside what was there. Links stay links, modes and times are kept; sockets, devices and pipes are left out.
---`ignore` has the rules of gitignore (see e2b.ignore). The sandbox needs tar.
---envd: POST /files, POST /process.Process/Start. Errors: as write; invalid_argument (no such directory), unsupported
---(no tar there), exit (tar failed; `err.stderr`).
---@param local_dir string
---@param remote_dir string made if it isn't there
---@param opts e2b.TreeOptions?
---@return e2b.TreeResult? result what was sent
---@return string? message
---@return e2b.Error? err
function methods:put_tree(local_dir, remote_dir, opts)
  return require("e2b.tree_up").put_tree(link_of(self, "put_tree"), local_dir, remote_dir, opts)
end

---Copies a directory of the sandbox here, as one archive in one stream: what is in `remote_dir` is in `local_dir` then,
---beside what was there. Links stay links, modes and times are kept. Whatever the sandbox sends, nothing is written
---outside of `local_dir` and no link is followed there. `ignore` has the rules of gitignore (see e2b.ignore).
---envd: POST /process.Process/Start, GET /files. Errors: as read and put_tree; protocol (no good archive came).
---@param remote_dir string
---@param local_dir string made if it isn't there, but not those above it
---@param opts e2b.TreeOptions?
---@return e2b.TreeResult? result what was written
---@return string? message
---@return e2b.Error? err
function methods:get_tree(remote_dir, local_dir, opts)
  return require("e2b.tree_down").get_tree(link_of(self, "get_tree"), remote_dir, local_dir, opts)
end

-- Names of the other SDKs and from habit.
local MEANT = {
  write_file = "write", read_file = "read", upload = "write", download = "read", mkdir = "make_dir", move = "rename",
  makedir = "make_dir", stat = "get_info", info = "get_info", delete = "remove", rm = "remove", watch = "watch_dir",
  ls = "list", list_dir = "list", upload_url = "sandbox:upload_url", download_url = "sandbox:download_url",
  is_file = "get_info",
}

setmetatable(methods, {
  __index = function(_, key)
    if type(key) ~= "string" then return nil end
    local plain = key:gsub("(%l)(%u)", "%1_%2"):lower()
    local meant = MEANT[plain] or plain ~= key and rawget(methods, plain) and plain or nil
    if meant then
      options.raise(("sandbox.files has no '%s': write %s(…)"):format(format.clean(key),
        meant:find(":", 1, true) and meant or "sandbox.files:" .. meant))
    end
    return nil
  end,
})

return M
