--- What put_tree and get_tree share: options, results, and running tar in the sandbox.
local core = require("e2b.core")
local base = require("e2b.file_base")
local errors = require("e2b.errors")
local format = require("e2b.format")
local lazy = require("e2b.lazy")
local options = require("e2b.options")

local progress, unique = lazy("e2b.progress"), lazy("e2b.unique")

local M = {}

local types = base.types

---@class e2b.TreeOptions: e2b.FileOptions
---@field ignore string[]? patterns of what is left out; the rules are gitignore's (see e2b.ignore)
---@field gzip boolean? compressed on the way
---@field progress true|fun(done: number, total: number?)|nil true: a line on the terminal; counts bytes of the archive
---@field timeout number? seconds for the whole; none if not given

---@class e2b.TreeResult
---@field files integer
---@field dirs integer
---@field symlinks integer
---@field bytes integer in the files
---@field skipped integer sockets, devices, pipes

M.OPTIONS = base.spec({
  ignore = types.table, gzip = types.boolean, progress = base.progress, timeout = types.seconds,
})

local result_mt = {
  __name = "e2b.TreeResult",
  __tostring = function(result)
    return ("%d files, %d directories, %d links, %s"):format(result.files, result.dirs, result.symlinks,
      progress.bytes(result.bytes))
  end,
}

--- A result in which nothing is counted yet.
---@return e2b.TreeResult
function M.result()
  return setmetatable({ files = 0, dirs = 0, symlinks = 0, bytes = 0, skipped = 0 }, result_mt)
end

--- Checks the path of a local directory.
---@param path any
---@param what string the operation
function M.local_path(path, what)
  if type(path) ~= "string" then
    options.raise(("%s: the local directory must be a string, got %s"):format(what, type(path)))
  end
  if path == "" then options.raise(what .. ": the path of the local directory is empty") end
end

local TMP = "/tmp"

--- The archive while it is needed: its name for tar, which runs where it is, and its path.
---@return string name
---@return string path
function M.archive()
  local name = ".e2b-" .. unique.hex(24) .. ".tar"
  return name, TMP .. "/" .. name
end

--- How tar, which runs where the archive is, gets to a directory. Not by its absolute path: a sandbox without walls of
--- its own has another root than its processes.
---@param path string absolute
---@return string
function M.from_archive(path)
  return ".." .. path
end

--- The options of one step: what is left of the time of the whole.
---@param opts table the caller's
---@param began number
---@return table
function M.step(opts, began)
  local step = { user = opts.user, gzip = opts.gzip }
  for name in pairs(options.CALL) do step[name] = opts[name] end
  if opts.timeout and opts.timeout > 0 then step.timeout = math.max(opts.timeout - (core.now() - began), 0.001) end
  return step
end

local function failed(result, what, link)
  local stderr = format.clean((result.stderr or ""):gsub("%s+$", ""):gsub("\n", "; "))
  local kind, text = "exit", ("tar failed in the sandbox (exit code %d)"):format(result.exit_code)
  if result.exit_code == 127 or result.exit_code == 126 then
    kind, text = "unsupported", "there is no tar in the sandbox, install it in the template"
  elseif stderr:find("No space left", 1, true) or stderr:find("Disk quota exceeded", 1, true) then
    kind, text = "no_space", "the disk of the sandbox is full"
  end
  if stderr ~= "" then text = ("%s: %s"):format(text, #stderr > 500 and stderr:sub(1, 500) .. "…" or stderr) end
  return errors.new(kind, {
    message = what .. ": " .. text, operation = what, sandbox_id = link.sandbox_id, exit_code = result.exit_code,
    stderr = result.stderr, retryable = false,
  })
end

--- Runs tar in the sandbox.
---@param link table
---@param argv string[]
---@param step table of M.step
---@param what string the operation
---@param tolerated integer? an exit code that is no failure
---@return true? ok
---@return string? message
---@return e2b.Error? err
function M.tar(link, argv, step, what, tolerated)
  local result, message, err = link.sandbox.commands:run(argv, {
    user = step.user, cwd = TMP, timeout = step.timeout or 0, request_timeout = step.request_timeout,
    connect_timeout = step.connect_timeout, retries = step.retries, envs = { LC_ALL = "C" },
  })
  if result == nil then
    err.operation = what
    err.message = (message:gsub("^sandbox%.commands:run", what))
    return nil, err.message, err
  end
  if result.exit_code ~= 0 and result.exit_code ~= tolerated then return failed(result, what, link) end
  return true
end

--- The directory's absolute path in the sandbox; it must be there.
---@param link table
---@param path string
---@param step table
---@param what string the operation
---@return string? path
---@return string? message
---@return e2b.Error? err
function M.remote(link, path, step, what)
  local entry, message, err = link:call("fs_stat", { body = { path = path } }, step,
    { operation = what, resource = "file" })
  if entry == nil then return nil, message, err end
  if entry.type ~= "dir" then
    return errors.new("invalid_argument", {
      message = ("%s: '%s' is no directory in the sandbox"):format(what, format.clean(entry.path)), operation = what,
      sandbox_id = link.sandbox_id, retryable = false,
    })
  end
  return entry.path
end

return M
