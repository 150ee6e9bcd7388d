--- The REST interface to files: what downloads, uploads and compositions have in common.
-- @module e2b.server.envd.files

local protect = require("e2b.server.protect")
local clock = require("e2b.server.clock")
local json = require("e2b.server.json")
local native = require("e2b.server.native")
local paths = require("e2b.server.envd.paths")
local signature = require("e2b.server.envd.signature")
local users = require("e2b.server.envd.users")

local files = {}

local failure_meta = {}

---A failure in the daemon's form.
---@param status integer
---@param message string
---@return table reply
function files.failure(status, message)
  return {
    status = status,
    headers = { "content-type", "application/json; charset=utf-8", "x-content-type-options", "nosniff" },
    body = json.encode({ code = status, message = message }) .. "\n",
  }
end

---A failure as plain text, the way Go's own HTTP functions write one.
---@param status integer
---@param message string
---@param headers string[]|nil
---@return table reply
function files.plain(status, message, headers)
  local all = { "content-type", "text/plain; charset=utf-8", "x-content-type-options", "nosniff" }
  for _, item in ipairs(headers or {}) do all[#all + 1] = item end
  return { status = status, headers = all, body = message .. "\n" }
end

---Leaves the handler with a failure.
---@param status integer
---@param ... string parts of the message
function files.fail(status, ...)
  error(setmetatable({ reply = files.failure(status, table.concat({ ... })) }, failure_meta), 0)
end

---Leaves the handler with a reply.
---@param reply table
function files.leave(reply)
  error(setmetatable({ reply = reply }, failure_meta), 0)
end

-- Runs a handler that may be left early.
local function guarded(handler)
  return function(request)
    local ok, answer = protect(handler, request)
    if ok then return answer end
    if getmetatable(answer) == failure_meta then return answer.reply end
    error(answer, 0)
  end
end

---Reads the query and checks who asks; leaves with 400 or 401.
---@param daemon table `access_token`
---@param request table
---@param operation string `read` or `write`
---@return table query `path`, `username` … as given
function files.query(daemon, request, operation)
  local query = request.query
  local expiration = query.signature_expiration
  if expiration and not (expiration:find("^[+-]?%d+$") and #expiration <= 18) then
    files.leave(files.plain(400, "Invalid format for parameter signature_expiration: error binding string parameter: "
      .. 'strconv.ParseInt: parsing "' .. expiration .. '": invalid syntax'))
  end
  local ok, message = signature.check(daemon.access_token, request, query, operation, clock.now() / clock.SECOND)
  if not ok then files.fail(401, message) end
  return query
end

---The name of the user a request is for; leaves with 400 when there is none.
---@param daemon table `default_user`
---@param name string|nil as in the query
---@return string name
function files.username(daemon, name)
  name = name or daemon.default_user
  if not name then files.fail(400, "username not provided") end
  return name
end

---Looks a user up; leaves with 401.
---@param name string
---@return table user `name`, `uid`, `gid`, `home`
function files.user(name)
  local user = users.find(name)
  if not user then files.fail(401, "error looking up user '", name, "': user: unknown user ", name) end
  return user
end

---Resolves a path; leaves with 400.
---@param user table
---@param path string|nil
---@param before string what the message begins with
---@return string path absolute
function files.resolve(user, path, before)
  local resolved, message = paths.resolve(user, path)
  if not resolved then
    files.fail(400, before, "failed to expand path '", path, "' for user '", user.name, "': ", message)
  end
  return resolved
end

---Whether a disk was full.
---@param errno integer|nil
---@return boolean
function files.full(errno)
  return errno == native.fs_errno.ENOSPC or errno == native.fs_errno.EDQUOT
end

---Adds the calls to the daemon's routes.
---@param router table e2b.server.router
---@param daemon table with the fields `access_token` and `default_user`, read at each request
function files.routes(router, daemon)
  for _, name in ipairs({ "download", "upload", "compose" }) do
    local handle = require("e2b.server.envd." .. name)
    local method, path = "POST", "/files"
    if name == "download" then method = "GET" elseif name == "compose" then path = "/files/compose" end
    router:add(method, path, guarded(function(request) return handle(daemon, request) end))
  end
end

return files
