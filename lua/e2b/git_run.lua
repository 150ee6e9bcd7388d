--- Runs git in a sandbox for one public call, and makes its failures into errors that show no credentials.
local core = require("e2b.core")
local auth = require("e2b.git_auth")
local describe = require("e2b.describe")
local errors = require("e2b.errors")
local parse = require("e2b.git_parse")

local M = {}

---@class e2b.GitJob one public call: what its commands have in common
---@field operation string "sandbox.git:clone"
---@field action string? "clone", "push", "pull": these may fail for want of credentials
---@field commands table the sandbox's
---@field sandbox_id string
---@field opts table the caller's
---@field path string? of the repository
---@field envs table<string, string> for every command
---@field secrets string[]? what nobody may see
---@field username boolean? a user name was given
---@field raw string? what the last command printed, as it was
---@field deadline number? on the clock of core.now()

local LONGEST = 300

-- The end of what git said, on one line: its last words say what was wrong.
local function last_words(text)
  local lines = {}
  for line in text:gmatch("[^\r\n]+") do
    if line:find("%S") and not line:find("^hint:") then lines[#lines + 1] = line end
  end
  local words = table.concat(lines, "; ", math.max(1, #lines - 2))
  if #words > LONGEST then words = "…" .. words:sub(-LONGEST) end
  return describe.clean(words)
end

local ADVICE = {
  push = "set it once with set_upstream = true and remote and branch, or name remote and branch in each call",
  pull = "name remote and branch, or set it once with push and set_upstream = true",
}

--- The missing upstream of a branch.
---@param job e2b.GitJob
---@param fields table?
---@return nil
---@return string message
---@return e2b.Error err
function M.no_upstream(job, fields)
  fields = fields or {}
  fields.message = ("%s: git %s failed because no upstream branch is configured; %s"):format(
    job.operation, job.action, ADVICE[job.action])
  fields.reason, fields.retryable = "no_upstream", false
  fields.operation, fields.sandbox_id = job.operation, job.sandbox_id
  return errors.new("conflict", fields)
end

--- What the caller asked for and this repository can't do.
---@param job e2b.GitJob
---@param text string
---@return nil
---@return string message
---@return e2b.Error err
function M.refuse(job, text)
  return errors.new("invalid_argument", {
    message = job.operation .. ": " .. auth.mask(text, job.secrets), operation = job.operation,
    sandbox_id = job.sandbox_id, retryable = false,
  })
end

--- The failure of a command.
---@param job e2b.GitJob
---@param result e2b.CommandResult its texts are masked already
---@return nil
---@return string message
---@return e2b.Error err
function M.fail(job, result)
  local fields = {
    operation = job.operation, sandbox_id = job.sandbox_id, exit_code = result.exit_code, stdout = result.stdout,
    stderr = result.stderr, error = result.error, sent = "yes", retryable = false,
  }
  local said = last_words(result.stderr) or last_words(result.stdout)
  local reason = job.action and parse.reason(result.stderr, result.stdout)
  if reason == "auth" then
    fields.message = ("%s: git %s requires %s for this repository%s"):format(job.operation, job.action,
      job.username and "a password or token" or "credentials (username, password)", said and ": " .. said or "")
    return errors.new("authentication", fields)
  elseif reason == "upstream" and ADVICE[job.action] then
    return M.no_upstream(job, fields)
  end
  fields.message = ("%s: git ended with exit code %s%s"):format(job.operation, tostring(result.exit_code),
    said and ": " .. said or result.error and " (" .. describe.clean(result.error) .. ")" or "")
  return errors.new("exit", fields)
end

local PASSED = { "user", "cwd", "request_timeout", "connect_timeout", "idle_timeout", "retries" }

--- Runs one command, and hands out its result whatever its exit code is.
---@param job e2b.GitJob
---@param args string[] after `git -C path`
---@param more { before: string[]?, envs: table<string, string>?, stdin: string?, path: string|false|nil }?
---@return e2b.CommandResult? result
---@return string? message
---@return e2b.Error? err
function M.try(job, args, more)
  more = more or {}
  local argv, n = { "git" }, 1
  for _, word in ipairs(more.before or {}) do
    n = n + 1
    argv[n] = word
  end
  local path = more.path
  if path == nil then path = job.path end
  if path then
    argv[n + 1], argv[n + 2] = "-C", path
    n = n + 2
  end
  for i, word in ipairs(args) do argv[n + i] = word end

  -- What git says is read here, so it has to be English.
  local envs = { GIT_TERMINAL_PROMPT = "0", LANGUAGE = "en" }
  for name, value in pairs(job.opts.envs or {}) do envs[name] = value end
  for name, value in pairs(more.envs or {}) do envs[name] = value end

  local opts = { envs = envs, timeout = 0, stdin = more.stdin }
  for _, name in ipairs(PASSED) do opts[name] = job.opts[name] end
  if job.deadline then opts.timeout = math.max(job.deadline - core.now(), 0.001) end

  local result, message, err = job.commands:run(argv, opts)
  if result == nil then
    if type(err) == "table" then
      message = message:gsub("^sandbox%.commands:run", function() return job.operation end)
      message = auth.mask(message, job.secrets)
      err.message, err.operation = message, job.operation
      if err.stdout then err.stdout = auth.mask(err.stdout, job.secrets) end
      if err.stderr then err.stderr = auth.mask(err.stderr, job.secrets) end
    end
    return nil, message, err
  end
  job.raw = result.stdout
  if job.secrets or result.exit_code ~= 0 then
    result.stdout, result.stderr = auth.mask(result.stdout, job.secrets), auth.mask(result.stderr, job.secrets)
  end
  return result
end

--- Runs one command; an exit code that is not 0 is a failure.
---@param job e2b.GitJob
---@param args string[]
---@param more table? see try
---@return e2b.CommandResult? result
---@return string? message
---@return e2b.Error? err
function M.run(job, args, more)
  local result, message, err = M.try(job, args, more)
  if result == nil then return nil, message, err end
  if result.exit_code ~= 0 then return M.fail(job, result) end
  return result
end

--- What a command printed, without the space around it.
---@param text string
---@return string
function M.trim(text)
  return (text:match("^%s*(.-)%s*$"))
end

return M
