--- sandbox.git: git repositories in a sandbox. Each method runs git in there, without a shell; credentials reach it in
--- its environment and are in no argument, no file and no message.
local core = require("e2b.core")
local args = require("e2b.git_args")
local envd = require("e2b.envd")
local lazy = require("e2b.lazy")
local options = require("e2b.options")
local parse = require("e2b.git_parse")
local runs = require("e2b.git_run")

local remotes = lazy("e2b.git_remote")

local M = {}

---@class e2b.Git
local methods = {}
M.methods = methods

---@class e2b.GitOptions: e2b.CallOptions what every method of sandbox.git takes
---@field envs table<string, string>? environment of git
---@field user string? whose process git is
---@field cwd string? where relative paths begin; the user's home if not given
---@field timeout number? seconds for the whole call (none)

local mt = {
  __name = "e2b.Git",
  __tostring = function(self) return ("Git(%s)"):format(require("e2b.format").short_id(self.link.sandbox_id)) end,
}

function mt.__index(_, name)
  local method = methods[name]
  local text = method == nil and type(name) == "string" and require("e2b.suggest").method(name, methods)
  if text then options.raise(text) end
  return method
end

--- The git of a sandbox.
---@param sandbox e2b.Sandbox
---@return e2b.Git
function M.new(sandbox)
  return setmetatable({ link = envd.link(sandbox) }, mt)
end

local COMMON = { "envs", "user", "cwd", "timeout" }
local NONE = {}

local function names(...)
  local list = { ... }
  for _, name in ipairs(COMMON) do list[#list + 1] = name end
  return list
end

local PLAIN = names()

-- The job of a public call: its options are checked, nothing is run.
local function job(self, name, opts, known)
  local operation = "sandbox.git:" .. name
  envd.self(self, mt, operation)
  opts = opts == nil and NONE or options.call(opts, known or PLAIN, operation)
  for what, check in pairs({ envs = "table", user = "string", cwd = "string", timeout = "seconds" }) do
    local wrong = opts[what] ~= nil and options.types[check](opts[what])
    if wrong then options.raise(("bad option '%s' for %s (%s)"):format(what, operation, wrong)) end
  end
  local sandbox = self.link.sandbox
  return {
    operation = operation, commands = sandbox.commands, sandbox_id = sandbox.sandbox_id, opts = opts,
    deadline = opts.timeout and opts.timeout > 0 and core.now() + opts.timeout or nil,
  }
end

local function in_repository(self, name, path, opts, known)
  local made = job(self, name, opts, known)
  made.path = args.text(made.operation, path, "path")
  return made
end

local CLONE = names("path", "branch", "depth", "username", "password", "dangerously_store_credentials")

---Clones a repository. Credentials, given or in the address, are used for this and then forgotten.
---envd: POST /process.Process/Start. Errors: authentication, exit.
---@param url string
---@param path string? where to; or the options
---@param opts { path: string?, branch: string?, depth: integer?, username: string?, password: string?,
---  dangerously_store_credentials: boolean? }? and e2b.GitOptions; dangerously_store_credentials writes them into the
---  repository's configuration, where every process of the sandbox can read them
---@return e2b.CommandResult? result
---@return string? message
---@return e2b.Error? err
function methods:clone(url, path, opts)
  if type(path) == "table" and opts == nil then path, opts = nil, path end
  local made = job(self, "clone", opts, CLONE)
  return remotes.clone(made, args.word(made.operation, url, "url"), path)
end

---Makes a repository. envd: POST /process.Process/Start. Errors: exit.
---@param path string
---@param opts { bare: boolean?, initial_branch: string? }? and e2b.GitOptions
---@return e2b.CommandResult? result
---@return string? message
---@return e2b.Error? err
function methods:init(path, opts)
  local made = job(self, "init", opts, names("bare", "initial_branch"))
  local given, argv = made.opts, { "init" }
  args.text(made.operation, path, "path")
  if given.initial_branch ~= nil then
    argv[2], argv[3] = "--initial-branch", args.word(made.operation, given.initial_branch, "initial_branch")
  end
  if args.flag(made.operation, given.bare, "bare") then argv[#argv + 1] = "--bare" end
  argv[#argv + 1] = "--"
  argv[#argv + 1] = path
  return runs.run(made, argv)
end

---Adds a remote. With `overwrite` one of that name gets the new address. envd: POST /process.Process/Start.
---Errors: exit.
---@param path string of the repository
---@param name string
---@param url string
---@param opts { fetch: boolean?, overwrite: boolean? }? and e2b.GitOptions
---@return e2b.CommandResult? result
---@return string? message
---@return e2b.Error? err
function methods:remote_add(path, name, url, opts)
  local made = in_repository(self, "remote_add", path, opts, names("fetch", "overwrite"))
  return remotes.add(made, name, url)
end

---The address of a remote. envd: POST /process.Process/Start. Errors: exit.
---@param path string of the repository
---@param name string
---@param opts e2b.GitOptions?
---@return string|false|nil url false: there is no such remote
---@return string? message
---@return e2b.Error? err
function methods:remote_get(path, name, opts)
  return remotes.get(in_repository(self, "remote_get", path, opts), name)
end

---What is changed, staged and new, and where the branch stands. envd: POST /process.Process/Start. Errors: exit.
---@param path string of the repository
---@param opts e2b.GitOptions?
---@return e2b.GitStatus? status
---@return string? message
---@return e2b.Error? err
function methods:status(path, opts)
  local result, message, err = runs.run(in_repository(self, "status", path, opts), { "status", "--porcelain=1", "-b" })
  if result == nil then return nil, message, err end
  return parse.status(result.stdout)
end

---The local branches. envd: POST /process.Process/Start. Errors: exit.
---@param path string of the repository
---@param opts e2b.GitOptions?
---@return e2b.GitBranches? branches
---@return string? message
---@return e2b.Error? err
function methods:branches(path, opts)
  local result, message, err = runs.run(in_repository(self, "branches", path, opts),
    { "branch", "--format=%(refname:short)\t%(HEAD)" })
  if result == nil then return nil, message, err end
  return parse.branches(result.stdout)
end

local function on_branch(self, name, path, branch, opts, argv)
  local made = in_repository(self, name, path, opts)
  argv[#argv + 1] = args.word(made.operation, branch, "branch")
  return runs.run(made, argv)
end

---Makes a branch and checks it out. envd: POST /process.Process/Start. Errors: exit.
---@param path string of the repository
---@param branch string
---@param opts e2b.GitOptions?
---@return e2b.CommandResult? result
---@return string? message
---@return e2b.Error? err
function methods:create_branch(path, branch, opts)
  return on_branch(self, "create_branch", path, branch, opts, { "checkout", "-b" })
end

---Checks out a branch. envd: POST /process.Process/Start. Errors: exit.
---@param path string of the repository
---@param branch string
---@param opts e2b.GitOptions?
---@return e2b.CommandResult? result
---@return string? message
---@return e2b.Error? err
function methods:checkout_branch(path, branch, opts)
  return on_branch(self, "checkout_branch", path, branch, opts, { "checkout" })
end

---Deletes a branch; one that is not merged only with `force`. envd: POST /process.Process/Start. Errors: exit.
---@param path string of the repository
---@param branch string
---@param opts { force: boolean? }? and e2b.GitOptions
---@return e2b.CommandResult? result
---@return string? message
---@return e2b.Error? err
function methods:delete_branch(path, branch, opts)
  local made = in_repository(self, "delete_branch", path, opts, names("force"))
  local force = args.flag(made.operation, made.opts.force, "force")
  return runs.run(made, { "branch", force and "-D" or "-d", args.word(made.operation, branch, "branch") })
end

---Stages files; everything if none are named. envd: POST /process.Process/Start. Errors: exit.
---@param path string of the repository
---@param opts { files: string[]?, all: boolean? }? and e2b.GitOptions; all = false leaves out what lies above `path`
---@return e2b.CommandResult? result
---@return string? message
---@return e2b.Error? err
function methods:add(path, opts)
  local made = in_repository(self, "add", path, opts, names("files", "all"))
  local all = args.flag(made.operation, made.opts.all, "all")
  if made.opts.files == nil then return runs.run(made, { "add", all == false and "." or "-A" }) end
  local argv = { "add", "--" }
  for _, file in ipairs(args.list(made.operation, made.opts.files, "files")) do argv[#argv + 1] = file end
  return runs.run(made, argv)
end

---Commits what is staged. envd: POST /process.Process/Start. Errors: exit.
---@param path string of the repository
---@param message string
---@param opts { author_name: string?, author_email: string?, allow_empty: boolean? }? and e2b.GitOptions
---@return e2b.CommandResult? result
---@return string? message
---@return e2b.Error? err
function methods:commit(path, message, opts)
  local made = in_repository(self, "commit", path, opts, names("author_name", "author_email", "allow_empty"))
  local operation, given, before = made.operation, made.opts, {}
  if given.author_name ~= nil then
    before[1], before[2] = "-c", "user.name=" .. args.text(operation, given.author_name, "author_name")
  end
  if given.author_email ~= nil then
    before[#before + 1] = "-c"
    before[#before + 1] = "user.email=" .. args.text(operation, given.author_email, "author_email")
  end
  local argv = { "commit", "-m", args.text(operation, message, "message") }
  if args.flag(operation, given.allow_empty, "allow_empty") then argv[4] = "--allow-empty" end
  return runs.run(made, argv, { before = before })
end

---Sets the branch back, or unstages paths. envd: POST /process.Process/Start. Errors: exit.
---@param path string of the repository
---@param opts { mode: string?, target: string?, paths: string[]? }? and e2b.GitOptions; mode: soft, mixed, hard,
---  merge, keep
---@return e2b.CommandResult? result
---@return string? message
---@return e2b.Error? err
function methods:reset(path, opts)
  local made = in_repository(self, "reset", path, opts, names("mode", "target", "paths"))
  local operation, given, argv = made.operation, made.opts, { "reset" }
  local mode = args.mode(operation, given.mode)
  if mode then argv[2] = "--" .. mode end
  argv[#argv + 1] = args.optional(operation, given.target, "target")
  if given.paths ~= nil then
    argv[#argv + 1] = "--"
    for _, file in ipairs(args.list(operation, given.paths, "paths")) do argv[#argv + 1] = file end
  end
  return runs.run(made, argv)
end

---Takes changes of files back: those of the working tree, or with `staged` those that are staged.
---envd: POST /process.Process/Start. Errors: exit.
---@param path string of the repository
---@param paths string[]|table a list; or the options, with `paths` in them
---@param opts { paths: string[]?, staged: boolean?, worktree: boolean?, source: string? }? and e2b.GitOptions
---@return e2b.CommandResult? result
---@return string? message
---@return e2b.Error? err
function methods:restore(path, paths, opts)
  if opts == nil and type(paths) == "table" and #paths == 0 then paths, opts = nil, paths end
  local made = in_repository(self, "restore", path, opts, names("paths", "staged", "worktree", "source"))
  if paths ~= nil and made.opts.paths ~= nil then args.bad(made.operation, "paths", "it is given twice") end
  if paths == nil then paths = made.opts.paths end
  local operation, given, argv = made.operation, made.opts, { "restore" }
  local files = args.list(operation, paths, "paths")
  local staged = args.flag(operation, given.staged, "staged")
  local worktree = args.flag(operation, given.worktree, "worktree")
  if worktree == nil then worktree = not staged end
  if not staged and not worktree then args.bad(operation, "staged", "staged and worktree are both false") end
  if worktree then argv[2] = "--worktree" end
  if staged then argv[#argv + 1] = "--staged" end
  if given.source ~= nil then
    argv[#argv + 1] = "--source"
    argv[#argv + 1] = args.word(operation, given.source, "source")
  end
  argv[#argv + 1] = "--"
  for _, file in ipairs(files) do argv[#argv + 1] = file end
  return runs.run(made, argv)
end

local PUSH = names("remote", "branch", "set_upstream", "username", "password")

---Pushes. envd: POST /process.Process/Start. Errors: authentication, conflict (`reason` "no_upstream"), exit.
---@param path string of the repository
---@param opts { remote: string?, branch: string?, set_upstream: boolean?, username: string?, password: string? }? and
---  e2b.GitOptions; set_upstream is true if not given, and matters only with a remote
---@return e2b.CommandResult? result
---@return string? message
---@return e2b.Error? err
function methods:push(path, opts)
  return remotes.push(in_repository(self, "push", path, opts, PUSH))
end

local PULL = names("remote", "branch", "username", "password")

---Pulls. envd: POST /process.Process/Start. Errors: authentication, conflict (`reason` "no_upstream"), exit.
---@param path string of the repository
---@param opts { remote: string?, branch: string?, username: string?, password: string? }? and e2b.GitOptions
---@return e2b.CommandResult? result
---@return string? message
---@return e2b.Error? err
function methods:pull(path, opts)
  return remotes.pull(in_repository(self, "pull", path, opts, PULL))
end

local CONFIG = names("scope", "path")

local function configuring(self, name, opts)
  local made = job(self, name, opts, CONFIG)
  local scope
  scope, made.path = args.scope(made.operation, made.opts)
  return made, "--" .. scope
end

---Sets an item of git's configuration. envd: POST /process.Process/Start. Errors: exit.
---@param key string "pull.rebase"
---@param value string|number|boolean
---@param opts { scope: string?, path: string? }? and e2b.GitOptions; scope: global (default), local (needs the path of
---  a repository), system
---@return e2b.CommandResult? result
---@return string? message
---@return e2b.Error? err
function methods:set_config(key, value, opts)
  local made, scope = configuring(self, "set_config", opts)
  args.word(made.operation, key, "key")
  return runs.run(made, { "config", scope, key, args.setting(made.operation, value, "value") })
end

---An item of git's configuration. envd: POST /process.Process/Start. Errors: exit.
---@param key string
---@param opts { scope: string?, path: string? }? and e2b.GitOptions
---@return string|false|nil value false: it is not set
---@return string? message
---@return e2b.Error? err
function methods:get_config(key, opts)
  local made, scope = configuring(self, "get_config", opts)
  args.word(made.operation, key, "key")
  local result, message, err = runs.try(made, { "config", scope, "--get", key })
  if result == nil then return nil, message, err end
  if result.exit_code == 1 then return false end
  if result.exit_code ~= 0 then return runs.fail(made, result) end
  return runs.trim(result.stdout)
end

---Gives git in the sandbox credentials for good: they are stored in a file of the user's, where every process of that
---user can read them. envd: POST /process.Process/Start. Errors: exit.
---@param username string|table or the options, with `username` and `password` in them
---@param password string? a token
---@param opts { username: string?, password: string?, host: string?, protocol: string? }? and e2b.GitOptions; host and
---  protocol are github.com and https if not given
---@return e2b.CommandResult? result
---@return string? message
---@return e2b.Error? err
function methods:dangerously_authenticate(username, password, opts)
  if type(username) == "table" and password == nil and opts == nil then username, opts = nil, username end
  local made = job(self, "dangerously_authenticate", opts, names("username", "password", "host", "protocol"))
  if username == nil then username = made.opts.username end
  if password == nil then password = made.opts.password end
  return remotes.authenticate(made, username, password)
end

---Sets the name and the address that commits are made with. envd: POST /process.Process/Start. Errors: exit.
---@param name string
---@param email string
---@param opts { scope: string?, path: string? }? and e2b.GitOptions
---@return e2b.CommandResult? result
---@return string? message
---@return e2b.Error? err
function methods:configure_user(name, email, opts)
  local made, scope = configuring(self, "configure_user", opts)
  args.text(made.operation, name, "name")
  args.text(made.operation, email, "email")
  local result, message, err = runs.run(made, { "config", scope, "user.name", name })
  if result == nil then return nil, message, err end
  return runs.run(made, { "config", scope, "user.email", email })
end

return M
