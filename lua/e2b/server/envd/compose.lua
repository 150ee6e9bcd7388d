--- POST /files/compose
-- @module e2b.server.envd.compose

local sleep = require("cqueues").sleep
local protect = require("e2b.server.protect")
local json = require("e2b.server.json")
local text = require("e2b.server.text")
local dirs = require("e2b.server.envd.dirs")
local files = require("e2b.server.envd.files")
local names = require("e2b.server.envd.names")
local native = require("e2b.server.native")
local paths = require("e2b.server.envd.paths")

local PIECE = 8 * 1024 * 1024 -- bytes copied before others get their turn

local function read_request(request)
  local body, refusal = request.body()
  if not body then files.leave(refusal or { drop = true, headers = {} }) end
  local message, problem = json.decode(body)
  if not json.is_object(message) then
    files.fail(400, "invalid request body: ", problem or "it is no JSON object")
  end
  local sources, destination, username = message.source_paths, message.destination, message.username
  local function is(value, kind) return value == nil or value == json.null or type(value) == kind end
  if not (is(sources, "table") and is(destination, "string") and is(username, "string")) then
    files.fail(400, "invalid request body: a field is of the wrong type")
  end
  if not json.is_array(sources) or #sources == 0 then files.fail(400, "source_paths must not be empty") end
  for _, source in ipairs(sources) do
    if type(source) ~= "string" then files.fail(400, "invalid request body: a source path is no string") end
  end
  if type(destination) ~= "string" or destination == "" then files.fail(400, "destination is required") end
  return sources, destination, username ~= json.null and username or nil
end

local function resolve_sources(sources, destination, user)
  local resolved = {}
  for i, source in ipairs(sources) do
    local path = files.resolve(user, source, 'error resolving source path "' .. source .. '": ')
    if path == destination then files.fail(400, 'source path "', source, '" cannot be the same as destination') end
    local stat = native.fs_stat(paths.real(path))
    if not stat then files.fail(404, "source file not found: ", source) end
    if stat.type ~= "file" then files.fail(400, "source path is not a regular file: ", source) end
    resolved[i] = path
  end
  return resolved
end

local function append(file, source)
  local from, message = native.fs_open(paths.real(source), "r")
  if not from then files.fail(500, "error opening source file ", source, ": open ", source, ": ", message) end
  while true do
    local count, problem, errno = file:copy(from, PIECE)
    if count == 0 then break end
    if not count then
      from:close()
      if files.full(errno) then files.fail(507, "not enough disk space available") end
      files.fail(500, "error composing source ", source, ": ", problem)
    end
    sleep(0)
  end
  from:close()
end

local function assemble(file, temporary, destination, sources, user)
  local ok, message = dirs.chown(temporary, user.uid, user.gid)
  if not ok then files.fail(500, "error changing file ownership: chown ", temporary, ": ", message) end
  for _, source in ipairs(sources) do append(file, source) end
  ok, message = file:close()
  if not ok then files.fail(500, "error closing destination file: ", message) end
  ok, message = native.fs_rename(paths.real(temporary), paths.real(destination))
  if not ok then
    files.fail(500, "error finalizing compose: rename ", temporary, " ", destination, ": ", message)
  end
end

---Answers POST /files/compose.
---@param daemon table `default_user`
---@param request table
---@return table reply
return function(daemon, request)
  local given, wanted, username = read_request(request)
  local user = files.user(files.username(daemon, username))
  local destination = files.resolve(user, wanted, "error resolving destination path: ")
  local sources = resolve_sources(given, destination, user)
  local ok, message = dirs.ensure(names.dir(destination), user)
  if not ok then files.fail(500, "error ensuring directories: ", message) end
  local temporary = destination .. ".e2b-compose." .. text.random_uuid() .. ".tmp"
  local file, errno
  file, message, errno = native.fs_open(paths.real(temporary), "wx", 438) -- 0666
  if not file then
    if files.full(errno) then files.fail(507, "not enough disk space available") end
    files.fail(500, "error creating destination file: open ", temporary, ": ", message)
  end
  local raised
  ok, raised = protect(assemble, file, temporary, destination, sources, user)
  if not ok then
    file:close()
    native.fs_unlink(paths.real(temporary))
    error(raised, 0)
  end
  for _, source in ipairs(sources) do native.fs_unlink(paths.real(source)) end
  return { status = 200, headers = { "content-type", "application/json" },
    body = json.encode({ name = names.base(destination), path = destination, type = "file" }) .. "\n" }
end
