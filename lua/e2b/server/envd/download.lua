--- GET /files
-- @module e2b.server.envd.download

local sleep = require("cqueues").sleep
local protect = require("e2b.server.protect")
local clock = require("e2b.server.clock")
local text = require("e2b.server.text")
local content_type = require("e2b.server.envd.content_type")
local disposition = require("e2b.server.envd.disposition")
local encoding = require("e2b.server.envd.encoding")
local files = require("e2b.server.envd.files")
local names = require("e2b.server.envd.names")
local native = require("e2b.server.native")
local paths = require("e2b.server.envd.paths")
local ranges = require("e2b.server.envd.ranges")
local turns = require("e2b.server.envd.turns")

local PIECE = 128 * 1024
local SNIFFED = 512
local LEVEL = 1 -- of compression: the way is short, the processor is shared

-- Sends `length` bytes from where the file is, or all there are.
local function send(file, length, write)
  local left, turn = length or math.huge, turns.new()
  while left > 0 do
    local piece, message = file:read(math.min(PIECE, left))
    if message then error("reading a file: " .. message, 0) end
    if piece == nil then return end
    if piece then
      if not write(piece) then return false end
      left = left - #piece
    else
      sleep(0.01) -- a pipe with nothing in it
    end
    turn()
  end
end

-- The file is closed however sending it ends.
local function closing(file, fn)
  return function(write)
    local ok, problem = protect(fn, write)
    file:close()
    if not ok then error(problem, 0) end
  end
end

local function gzipped(file, write)
  local deflate = native.deflate(LEVEL)
  local function pack(piece)
    local packed, problem = deflate:write(piece)
    if not packed then error(problem, 0) end
    sleep(0) -- packing takes its time
    return packed == "" or write(packed)
  end
  if send(file, nil, pack) ~= false then write(deflate:write("", true)) end
  deflate:close()
end

local DATE = "^%a+, (%d%d) (%a%a%a) (%d%d%d%d) (%d%d):(%d%d):(%d%d) GMT$"
local MONTHS = {
  Jan = "01", Feb = "02", Mar = "03", Apr = "04", May = "05", Jun = "06", Jul = "07", Aug = "08", Sep = "09",
  Oct = "10", Nov = "11", Dec = "12",
}

-- Seconds since the epoch of an HTTP date; nil for what is none.
local function parse_date(value)
  local day, month, year, hour, minute, second = (value or ""):match(DATE)
  if not day or not MONTHS[month] then return nil end
  local micros = clock.parse(year .. "-" .. MONTHS[month] .. "-" .. day .. "T" .. hour .. ":" .. minute .. ":" .. second
    .. "Z")
  return micros and math.floor(micros / clock.SECOND)
end

-- What the conditions in the headers make of the request: a status to answer with, or whether the range counts.
local function conditions(headers, mtime)
  local function given(name) return headers[name] and headers[name] ~= "" end
  if given("if-match") then
    -- Files have no entity tags, so none can match; the star means any file.
    if headers["if-match"]:match("^%s*(.-)%s*$") ~= "*" then return 412 end
  else
    local before = parse_date(headers["if-unmodified-since"])
    if before and mtime > before then return 412 end
  end
  if given("if-none-match") then
    if headers["if-none-match"]:match("^%s*(.-)%s*$") == "*" then return 304 end
  else
    local since = parse_date(headers["if-modified-since"])
    if since and mtime <= since then return 304 end
  end
  return nil, not given("if-range") or parse_date(headers["if-range"]) == mtime
end

local function set(headers, name, value)
  headers[#headers + 1], headers[#headers + 2] = name, value
end

local function single(file, range, size, headers)
  set(headers, "content-range", ranges.content_range(range, size))
  local ok, message = file:seek("set", range.start)
  if not ok then error(message, 0) end
  return { status = 206, headers = headers, length = range.length, stream = closing(file, function(write)
    send(file, range.length, write)
  end) }
end

local function several(file, list, size, kind, headers)
  local boundary = text.random_hex(30)
  local heads, length = {}, 0
  for i, range in ipairs(list) do
    heads[i] = (i > 1 and "\r\n" or "") .. "--" .. boundary .. "\r\nContent-Range: "
      .. ranges.content_range(range, size) .. "\r\nContent-Type: " .. kind .. "\r\n\r\n"
    length = length + #heads[i] + range.length
  end
  local tail = "\r\n--" .. boundary .. "--\r\n"
  set(headers, "content-type", "multipart/byteranges; boundary=" .. boundary)
  return { status = 206, headers = headers, length = length + #tail, stream = closing(file, function(write)
    for i, range in ipairs(list) do
      if not write(heads[i]) then return end
      local ok, message = file:seek("set", range.start)
      if not ok then error(message, 0) end
      if send(file, range.length, write) == false then return end
    end
    write(tail)
  end) }
end

-- The plain bytes: all of them, a range, or several.
local function plain(request, path, file, stat, headers)
  set(headers, "last-modified", clock.http_date(stat.mtime * clock.SECOND))
  local status, ranged = conditions(request.headers, stat.mtime)
  if status then
    file:close()
    return { status = status, headers = headers }
  end
  local kind = content_type.by_name(path)
  if not kind then
    kind = content_type.by_content(file:read(SNIFFED) or "")
    -- What can't be wound back can't be sized either.
    if not file:seek("set", 0) then
      file:close()
      return files.plain(500, "seeker can't seek")
    end
  end
  local size = file:seek("end", 0)
  if not size or not file:seek("set", 0) then
    file:close()
    return files.plain(500, "seeker can't seek")
  end
  set(headers, "accept-ranges", "bytes")
  local list, message = ranges.parse(ranged and request.headers.range or nil, size)
  if not list then
    file:close()
    local whole = string.format("bytes */%.0f", size)
    return files.plain(416, message, { "content-range", whole, "vary", "Accept-Encoding" })
  end
  if #list > 1 then return several(file, list, size, kind, headers) end
  set(headers, "content-type", kind)
  if list[1] then return single(file, list[1], size, headers) end
  return { status = 200, headers = headers, length = size, stream = closing(file, function(write)
    send(file, size, write)
  end) }
end

local function find(query, user)
  local path = files.resolve(user, query.path, "error expanding and resolving path '" .. (query.path or "") .. "': ")
  local stat, message, errno = native.fs_stat(paths.real(path))
  if not stat and errno == native.fs_errno.ENOENT then files.fail(404, "path '", path, "' does not exist") end
  if not stat then files.fail(500, "error checking if path exists '", path, "': stat ", path, ": ", message) end
  if stat.type == "dir" then files.fail(400, "path '", path, "' is a directory") end
  return path, stat
end

local CONDITIONAL = { "range", "if-modified-since", "if-none-match", "if-range" }

---Answers GET /files.
---@param daemon table `access_token`, `default_user`
---@param request table
---@return table reply
return function(daemon, request)
  local query = files.query(daemon, request, "read")
  local user = files.user(files.username(daemon, query.username))
  local path, stat = find(query, user)
  local choice, message, refused = encoding.choose(request.headers["accept-encoding"])
  if choice == "gzip" then
    for _, name in ipairs(CONDITIONAL) do
      if (request.headers[name] or "") ~= "" then choice = "identity" end
    end
    if choice == "identity" and refused then
      choice, message = nil, "identity encoding is not acceptable, but ranges and conditions need it"
    end
  end
  if not choice then files.fail(406, "error parsing Accept-Encoding: ", message) end
  local file
  file, message = native.fs_open(paths.real(path), "r")
  if not file then files.fail(500, "error opening file '", path, "': open ", path, ": ", message) end
  local headers = {
    "content-disposition", disposition.format("inline", "filename", names.base(path)),
    "vary", "Accept-Encoding",
  }
  if choice == "identity" then return plain(request, query.path or "", file, stat, headers) end
  set(headers, "content-encoding", "gzip")
  set(headers, "content-type", content_type.by_name(query.path or "") or "application/octet-stream")
  return { status = 200, headers = headers, stream = closing(file, function(write) gzipped(file, write) end) }
end
