--- What git does with other machines: clone, push, pull, remotes, and the credentials for them.
local args = require("e2b.git_args")
local auth = require("e2b.git_auth")
local parse = require("e2b.git_parse")
local runs = require("e2b.git_run")

local M = {}

-- What nobody may see of a call with credentials.
local function secrets(...)
  local list = {}
  for i = 1, select("#", ...) do
    local value = select(i, ...)
    if value and value ~= "" then list[#list + 1] = value end
  end
  table.sort(list, function(a, b) return #a > #b end)
  return list
end

-- An address that credentials can be used for; the caller's mistake raises when `what` is given.
local function web(job, url, what)
  local address = auth.address(url)
  if address.origin and auth.is_plain(address) then return address end
  local text = "credentials are for addresses that begin with https:// or http:// and name a host"
  if what then args.bad(job.operation, what, text) end
  return runs.refuse(job, text .. "; the remote's is " .. url)
end

-- Writes the address with the credentials into the configuration of a fresh clone, past every argument list.
local function store(job, path, address, username, password)
  local opts = { path = path, envs = auth.write_address("origin", auth.with_credentials(address, username, password)) }
  local result, message, err = runs.run(job, { "config", "--unset-all", "remote.origin.url" }, { path = path })
  if result == nil then return nil, message, err end
  return runs.run(job, { "config", "--local", "--edit" }, opts)
end

---@param job e2b.GitJob
---@param url string
---@param path string?
function M.clone(job, url, path)
  local operation, opts, argv = job.operation, job.opts, { "clone" }
  job.action = "clone"
  if path ~= nil and opts.path ~= nil then args.bad(operation, "path", "it is given twice") end
  path = path or opts.path
  if path ~= nil then args.text(operation, path, "path") end
  if opts.branch ~= nil then
    argv[2], argv[3], argv[4] = "--branch", args.word(operation, opts.branch, "branch"), "--single-branch"
  end
  if opts.depth ~= nil then
    if type(opts.depth) ~= "number" or opts.depth < 1 or opts.depth ~= math.floor(opts.depth) then
      args.bad(operation, "depth", "a whole number from 1 on expected")
    end
    argv[#argv + 1] = "--depth"
    argv[#argv + 1] = ("%d"):format(opts.depth)
  end
  local username, password = args.credentials(operation, opts)
  local keep = args.flag(operation, opts.dangerously_store_credentials, "dangerously_store_credentials")

  local address = username and web(job, url, "url") or auth.address(url)
  local inline = address.userinfo and not username
  if inline then
    username, password = address.username, address.password
    if not auth.is_fit((username or "") .. (password or "")) or not auth.is_plain(address) then
      args.bad(operation, "url", "its credentials or its host can't be used")
    end
  end
  job.username = username ~= nil
  job.secrets = secrets(password, inline and not password and username, address.userinfo)
  local more = { envs = {}, path = false }
  if username then more.before = auth.use(more.envs, address.origin, username, password) end
  local folder = path
  if keep and password then
    folder = folder or parse.folder(address.url)
    if not folder then args.bad(operation, "path", "it is needed, for the address has no name in it") end
  end
  argv[#argv + 1] = "--"
  argv[#argv + 1] = address.url
  argv[#argv + 1] = path

  local result, message, err = runs.run(job, argv, more)
  if result == nil then return nil, message, err end
  if not (keep and password) then return result end
  local stored
  stored, message, err = store(job, folder, address, username or "", password)
  if stored == nil then return nil, message, err end
  return result
end

-- The one remote there is.
local function only_remote(job)
  local result, message, err = runs.run(job, { "remote" })
  if result == nil then return nil, message, err end
  local found = {}
  for line in result.stdout:gmatch("[^\r\n]+") do found[#found + 1] = runs.trim(line) end
  if #found == 1 then return found[1] end
  return runs.refuse(job, ("the repository has %s: name one with the option remote"):format(
    #found == 0 and "no remote" or #found .. " remotes"))
end

-- What makes git use credentials for a remote.
local function prepare(job, remote, username, password, pushing)
  local result, message, err
  local url = remote
  if not remote:find("://", 1, true) then
    local argv = { "remote", "get-url", remote }
    if pushing then argv = { "remote", "get-url", "--push", remote } end
    result, message, err = runs.try(job, argv)
    if result == nil then return nil, message, err end
    if result.exit_code ~= 0 then return runs.fail(job, result) end
    url = runs.trim(job.raw)
  end
  local address
  address, message, err = web(job, url)
  if not address then return nil, message, err end
  local envs = {}
  if job.opts.envs then envs.GIT_CONFIG_COUNT = job.opts.envs.GIT_CONFIG_COUNT end
  if address.userinfo then
    auth.overrule(envs, address, url)
    job.secrets = secrets(password, address.password, address.userinfo)
    if url == remote then remote = address.url end
  end
  return { remote = remote, envs = envs, before = auth.use(envs, address.origin, username, password) }
end

local function upstream(job)
  local result, message, err = runs.try(job, { "rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{u}" })
  if result == nil then return nil, message, err end
  if result.exit_code ~= 0 then
    if not parse.reason(result.stderr, "") and not result.stderr:find("HEAD does not point to a branch", 1, true) then
      return runs.fail(job, result)
    end
    return runs.no_upstream(job)
  end
  if runs.trim(result.stdout) == "" then return runs.no_upstream(job) end
  return true
end

local function transfer(job, argv, set_upstream)
  local operation, opts, action = job.operation, job.opts, job.action
  local remote = args.optional(operation, opts.remote, "remote")
  local branch = args.optional(operation, opts.branch, "branch")
  local username, password = args.credentials(operation, opts)
  job.username, job.secrets = username ~= nil, password and secrets(password) or nil
  if action == "pull" and not remote and not branch then
    local ok, why, wrong = upstream(job)
    if not ok then return nil, why, wrong end
  end
  local more, message, err
  if not remote and (branch or username) then
    remote, message, err = only_remote(job)
    if not remote then return nil, message, err end
  end
  if username then
    more, message, err = prepare(job, remote, username, password, action == "push")
    if not more then return nil, message, err end
    remote = more.remote
  end
  if remote and set_upstream then argv[#argv + 1] = "--set-upstream" end
  argv[#argv + 1] = remote
  argv[#argv + 1] = branch
  return runs.run(job, argv, more)
end

---@param job e2b.GitJob
function M.push(job)
  job.action = "push"
  return transfer(job, { "push" }, args.flag(job.operation, job.opts.set_upstream, "set_upstream") ~= false)
end

---@param job e2b.GitJob
function M.pull(job)
  job.action = "pull"
  return transfer(job, { "pull" })
end

---@param job e2b.GitJob
---@param name string
---@param url string
function M.add(job, name, url)
  local operation = job.operation
  args.word(operation, name, "name")
  args.word(operation, url, "url")
  local overwrite = args.flag(operation, job.opts.overwrite, "overwrite")
  local fetch = args.flag(operation, job.opts.fetch, "fetch")
  job.secrets = secrets(auth.address(url).userinfo)
  local argv = fetch and { "remote", "add", "-f", name, url } or { "remote", "add", name, url }
  if not overwrite then return runs.run(job, argv) end
  local result, message, err = runs.try(job, argv)
  if result == nil then return nil, message, err end
  if result.exit_code == 0 then return result end
  result, message, err = runs.run(job, { "remote", "set-url", name, url })
  if result == nil or not fetch then return result, message, err end
  return runs.run(job, { "fetch", name })
end

---@param job e2b.GitJob
---@param name string
function M.get(job, name)
  args.word(job.operation, name, "name")
  local result, message, err = runs.try(job, { "remote", "get-url", name })
  if result == nil then return nil, message, err end
  if result.exit_code ~= 0 then
    if result.stderr:lower():find("no such remote", 1, true) then return false end
    return runs.fail(job, result)
  end
  local url = runs.trim(job.raw)
  return url ~= "" and url or false
end

---@param job e2b.GitJob
---@param username string
---@param password string
function M.authenticate(job, username, password)
  local operation, opts = job.operation, job.opts
  local host, protocol = opts.host, opts.protocol
  if host == nil then host = "github.com" end
  if protocol == nil then protocol = "https" end
  if type(username) ~= "string" then args.bad(operation, "username", "a string expected, got " .. type(username)) end
  if type(password) ~= "string" then args.bad(operation, "password", "a string expected, got " .. type(password)) end
  if password == "" then args.bad(operation, "password", "it is empty") end
  args.credentials(operation, { username = username, password = password })
  for what, value in pairs({ host = host, protocol = protocol }) do
    args.word(operation, value, what)
    if not auth.is_fit(value) then args.bad(operation, what, "it has a line end") end
  end
  job.secrets = secrets(password)
  local result, message, err = runs.run(job, { "config", "--global", "credential.helper", "store" })
  if result == nil then return nil, message, err end
  return runs.run(job, { "credential", "approve" }, { stdin = auth.approval(protocol, host, username, password) })
end

return M
