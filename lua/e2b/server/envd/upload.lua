--- POST /files
-- @module e2b.server.envd.upload

local cqueues = require("cqueues")
local protect = require("e2b.server.protect")
local json = require("e2b.server.json")
local dirs = require("e2b.server.envd.dirs")
local disposition = require("e2b.server.envd.disposition")
local encoding = require("e2b.server.envd.encoding")
local entry = require("e2b.server.envd.entry")
local files = require("e2b.server.envd.files")
local metadata = require("e2b.server.envd.metadata")
local multipart = require("e2b.server.envd.multipart")
local names = require("e2b.server.envd.names")
local native = require("e2b.server.native")
local paths = require("e2b.server.envd.paths")
local turns = require("e2b.server.envd.turns")

-- Opens the file, empty, as the user's own.
local function open(path, user)
  local real = paths.real(path)
  local ok, message, errno = dirs.ensure(names.dir(path), user)
  if not ok then
    if files.full(errno) then files.fail(507, "not enough inodes available: ", message) end
    files.fail(500, "error ensuring directories: ", message)
  end
  local stat
  stat, message, errno = native.fs_stat(real)
  if stat and stat.type == "dir" then files.fail(400, "path is a directory: ", path) end
  if not stat and errno ~= native.fs_errno.ENOENT then
    files.fail(500, "error getting file info: stat ", path, ": ", message)
  end
  local owned = false
  if stat then
    owned, message, errno = dirs.chown(path, user.uid, user.gid)
    if not owned and errno ~= native.fs_errno.ENOENT then
      files.fail(500, "error changing file ownership: chown ", path, ": ", message)
    end
  end
  local file
  file, message, errno = native.fs_open(real, "w", 438) -- 0666
  if not file then
    local text = "open " .. path .. ": " .. message
    if files.full(errno) then files.fail(507, "not enough inodes available: ", text) end
    files.fail(500, "error opening file: ", text)
  end
  if not owned then
    ok, message = dirs.chown(path, user.uid, user.gid)
    if not ok then
      file:close()
      files.fail(500, "error changing file ownership: chown ", path, ": ", message)
    end
  end
  return file
end

-- Writes a piece; answers nil, message, errno when it can't be.
local function put(file, piece)
  local from = 1
  while from <= #piece do
    local count, message, errno = file:write(piece, from)
    if not count then return nil, message, errno end
    from = from + count
    if from <= #piece then cqueues.poll({ pollfd = file:fd(), events = "w" }, 1) end
  end
  return true
end

local function fill(file, path, read)
  local turn = turns.new()
  while true do
    local piece, problem = read()
    if not piece then return not problem, problem end
    local ok, message, errno = put(file, piece)
    if not ok then return false, "write " .. path .. ": " .. message, errno end
    turn()
  end
end

local function no_space(request)
  local length = request.headers["content-length"]
  local known = length and length:find("^%d+$") and tonumber(length) > 0
  files.fail(507, known and "attempted to write " .. length .. " bytes: " or "", "not enough disk space available")
end

-- Writes one file from `read` and describes it.
local function store(upload, path, read)
  local file = open(path, upload.user)
  local called, whole, problem, errno = protect(fill, file, path, read)
  file:close()
  if not called then error(whole, 0) end
  if not whole then
    if files.full(errno) then no_space(upload.request) end
    files.fail(500, "error writing file: ", problem)
  end
  local ok, message
  ok, message, errno = metadata.replace(path, upload.metadata)
  if not ok then
    if files.full(errno) then files.fail(507, "not enough space for metadata: ", message) end
    files.fail(500, "error setting metadata: ", message)
  end
  return { name = names.base(path), path = path, type = "file", metadata = entry.metadata(path) }
end

local function refuse_twice(list, path)
  local others, twice = {}, false
  for _, stored in ipairs(list) do
    if stored.path == path then twice = true else others[#others + 1] = stored.path end
  end
  if not twice then return end
  files.fail(400, "you cannot upload multiple files to the same path '", path,
    "' in one upload request, only the first specified file was uploaded",
    #others > 1 and ", also the following files were uploaded: " .. table.concat(others, ", ") or "")
end

local function store_parts(upload, boundary)
  local reader = multipart.reader(upload.read, boundary)
  local list = json.array({})
  while true do
    local part, problem = reader:next_part()
    if part == nil then files.fail(500, "error reading form: ", problem) end
    if not part then return list end
    if part.name == "file" then
      local given = upload.path or part.filename
      if not given then
        files.fail(400, "error getting multipart custom part file name: ",
          "filename not found in Content-Disposition header")
      end
      local path = files.resolve(upload.user, given, "error resolving path: ")
      refuse_twice(list, path)
      list[#list + 1] = store(upload, path, function() return reader:read() end)
    end
  end
end

local function boundary_of(kind, parameters)
  if kind ~= "multipart/form-data" and kind ~= "multipart/mixed" then
    files.fail(500, "error parsing multipart form: request Content-Type isn't multipart/form-data")
  end
  if not parameters.boundary or parameters.boundary == "" then
    files.fail(500, "error parsing multipart form: no multipart boundary param in Content-Type")
  end
  return parameters.boundary
end

---Answers POST /files.
---@param daemon table `access_token`, `default_user`
---@param request table
---@return table reply
return function(daemon, request)
  local query = files.query(daemon, request, "write")
  local username = files.username(daemon, query.username)
  local read = request.read
  local gzip, message = encoding.of_body(request.headers["content-encoding"])
  if gzip == nil then files.fail(400, "error decompressing request body: ", message) end
  if gzip then
    read, message = encoding.unpacked(read)
    if not read then files.fail(400, "error decompressing request body: ", message) end
  end
  local upload = { request = request, read = read, path = query.path, user = files.user(username) }
  upload.metadata, message = metadata.of_headers(request.fields or {})
  if not upload.metadata then files.fail(400, "invalid metadata: ", message) end
  local header = request.headers["content-type"] or ""
  local kind, parameters = disposition.parse(header)
  local list
  if kind == "application/octet-stream" then
    if not query.path then files.fail(400, "path query parameter is required for raw body upload") end
    list = json.array({ store(upload, files.resolve(upload.user, query.path, "error resolving path: "), read) })
  elseif kind and kind:find("^multipart/") then
    list = store_parts(upload, boundary_of(kind, parameters))
  else
    files.fail(400, "unsupported content type: ", header, ", expected multipart/form-data or application/octet-stream")
  end
  -- Read as plain text by the daemon, whatever it is; clients know.
  return { status = 200, headers = { "content-type", "text/plain; charset=utf-8" }, body = json.encode(list) }
end
