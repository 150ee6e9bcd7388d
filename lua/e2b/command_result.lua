--- How a command ended.
local describe = require("e2b.describe")
local errors = require("e2b.errors")

local M = {}

---@class e2b.CommandResult
---@field exit_code integer -1 when a signal ended it
---@field ok boolean the exit code is 0
---@field stdout string what it wrote; the newest max_output bytes
---@field stderr string likewise
---@field stdout_dropped integer bytes that were too many to be kept
---@field stderr_dropped integer
---@field error string? the daemon's word for it: "exit status 3", "signal: killed"

local SHOWN = 60

-- The end of a text, on one line and between quotes.
local function excerpt(text)
  local cut = #text > SHOWN
  if cut then text = text:sub(-SHOWN) end
  text = text:gsub("[%c\"\\]", { ["\n"] = "\\n", ["\t"] = "\\t", ["\r"] = "\\r", ["\""] = "\\\"", ["\\"] = "\\\\" })
  return (cut and "…" or "") .. "\"" .. text:gsub("%c", "?") .. "\""
end

local mt = {
  __name = "e2b.CommandResult",
  __tostring = function(result)
    local parts = { result.exit_code == -1 and result.error or ("exit code %d"):format(result.exit_code) }
    for _, name in ipairs({ "stdout", "stderr" }) do
      if result[name] ~= "" then parts[#parts + 1] = name .. " " .. excerpt(result[name]) end
      local dropped = result[name .. "_dropped"]
      if dropped > 0 then parts[#parts + 1] = ("%.0f bytes of %s dropped"):format(dropped, name) end
    end
    return ("CommandResult(%s)"):format(table.concat(parts, ", "))
  end,
}

--- Makes a result of its fields.
---@param fields table
---@return e2b.CommandResult
function M.new(fields)
  fields.ok = fields.exit_code == 0
  return setmetatable(fields, mt)
end

local LONGEST = 300

-- The end of what a command complained of, beginning with a whole line where there is one.
local function complaint(text)
  text = text:gsub("%s+$", "")
  if #text > LONGEST then
    text = text:sub(-LONGEST)
    text = text:match("^[^\n]*\n(.+)$") or text
    text = "… " .. text:gsub("^[\128-\191]+", "")
  end
  return describe.clean(text)
end

--- The failure that a result is with `check = true`.
---@param result e2b.CommandResult
---@param info { operation: string, name: string, sandbox_id: string, pid: integer? }
---@return nil
---@return string message
---@return e2b.Error err
function M.failure(result, info)
  local how = result.exit_code == -1 and result.error or ("exit code %d"):format(result.exit_code)
  local said = complaint(result.stderr)
  return errors.new("exit", {
    message = ("%s: %s ended with %s%s"):format(info.operation, info.name, describe.clean(how) or "an error",
      said and ": " .. said or ""),
    operation = info.operation, sandbox_id = info.sandbox_id, pid = info.pid, sent = "yes", retryable = false,
    exit_code = result.exit_code, stdout = result.stdout, stderr = result.stderr, result = result,
  })
end

return M
