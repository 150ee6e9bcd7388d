--- What git prints, made into tables.
local M = {}

---@class e2b.GitFileStatus
---@field name string
---@field status string the one word for both: conflict, renamed, copied, deleted, added, modified, typechange,
---  untracked, unknown
---@field index_status string git's letter for the index; " " for unchanged
---@field working_tree_status string git's letter for the working tree
---@field staged boolean
---@field renamed_from string?

---@class e2b.GitStatus
---@field current_branch string? nil when detached
---@field upstream string?
---@field ahead integer
---@field behind integer
---@field detached boolean
---@field file_status e2b.GitFileStatus[]
---@field is_clean boolean
---@field has_changes boolean
---@field has_staged boolean
---@field has_untracked boolean
---@field has_conflicts boolean
---@field total_count integer
---@field staged_count integer
---@field unstaged_count integer with the untracked ones
---@field untracked_count integer
---@field conflict_count integer

---@class e2b.GitBranches
---@field branches string[]
---@field current_branch string?

local function plural(n, one, many)
  return ("%d %s"):format(n, n == 1 and one or many)
end

local status_mt = {
  __name = "e2b.GitStatus",
  __tostring = function(status)
    local parts = { status.current_branch or (status.detached and "detached" or "no branch") }
    if status.ahead > 0 then parts[#parts + 1] = status.ahead .. " ahead" end
    if status.behind > 0 then parts[#parts + 1] = status.behind .. " behind" end
    parts[#parts + 1] = status.is_clean and "clean" or plural(status.total_count, "change", "changes")
    return "GitStatus(" .. table.concat(parts, ", ") .. ")"
  end,
}

local branches_mt = {
  __name = "e2b.GitBranches",
  __tostring = function(branches)
    return ("GitBranches(%s, %s)"):format(branches.current_branch or "no branch",
      plural(#branches.branches, "branch", "branches"))
  end,
}

local ESCAPES = { a = "\a", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", v = "\v" }

local function unescape(first, digits)
  if #digits == 2 and first:find("[0-7]") then return string.char(tonumber(first .. digits, 8) % 256) end
  return (ESCAPES[first] or first) .. digits
end

-- A name at the start of the text, which git puts into quotes when it has bytes of a special kind; and what follows.
local function take_name(text)
  if text:sub(1, 1) ~= '"' then
    local name, rest = text:match("^(.-)( %-> .*)$")
    return name or text, rest or ""
  end
  local i = 2
  while true do
    local at, _, found = text:find('(["\\])', i)
    if not at then return text, "" end
    if found == '"' then
      return (text:sub(2, at - 1):gsub("\\(.)([0-7]?[0-7]?)", unescape)), text:sub(at + 1)
    end
    i = at + 2
  end
end

local LABELS = {
  { "U", "conflict" }, { "R", "renamed" }, { "C", "copied" }, { "D", "deleted" }, { "A", "added" },
  { "M", "modified" }, { "T", "typechange" }, { "?", "untracked" },
}

local function label(index, tree)
  for _, entry in ipairs(LABELS) do
    if index == entry[1] or tree == entry[1] then return entry[2] end
  end
  return "unknown"
end

local function parse_file(line)
  local index, tree = line:sub(1, 1), line:sub(2, 2)
  local name, rest = take_name(line:sub(4))
  local from
  if rest:sub(1, 4) == " -> " then
    from = name
    name = take_name(rest:sub(5))
  end
  return {
    name = name, status = label(index, tree), index_status = index, working_tree_status = tree,
    staged = index ~= " " and index ~= "?", renamed_from = from,
  }
end

local function parse_head(status, head)
  local bracket = head:match(" %[(.*)%]%s*$")
  local branch = bracket and head:match("^(.-) %[") or head
  status.ahead = tonumber(bracket and bracket:match("ahead (%d+)")) or 0
  status.behind = tonumber(bracket and bracket:match("behind (%d+)")) or 0
  local unborn = branch:match("^No commits yet on (.+)$") or branch:match("^Initial commit on (.+)$")
  if unborn then
    -- An unborn branch may follow another one already.
    local name, upstream = unborn:match("^(.-)%.%.%.(.+)$")
    status.current_branch, status.upstream = name or unborn, upstream
  elseif branch == "HEAD" or branch:find("^HEAD ") or branch:find("detached.* ") or branch:find(" .*detached") then
    status.detached = true -- no name of a branch has a space
  else
    local name, upstream = branch:match("^(.-)%.%.%.(.+)$")
    status.current_branch, status.upstream = name or branch, upstream
  end
end

--- Reads `git status --porcelain=1 -b`.
---@param text string
---@return e2b.GitStatus
function M.status(text)
  local status = { ahead = 0, behind = 0, detached = false, file_status = {} }
  local files = status.file_status
  local staged, untracked, conflicts = 0, 0, 0
  for line in text:gmatch("[^\r\n]+") do
    if line:sub(1, 3) == "## " then
      parse_head(status, line:sub(4))
    elseif line:find("%S") then
      local file = parse_file(line)
      files[#files + 1] = file
      if file.staged then staged = staged + 1 end
      if file.status == "untracked" then untracked = untracked + 1 end
      if file.status == "conflict" then conflicts = conflicts + 1 end
    end
  end
  status.total_count, status.staged_count, status.unstaged_count = #files, staged, #files - staged
  status.untracked_count, status.conflict_count = untracked, conflicts
  status.is_clean, status.has_changes = #files == 0, #files > 0
  status.has_staged, status.has_untracked, status.has_conflicts = staged > 0, untracked > 0, conflicts > 0
  return setmetatable(status, status_mt)
end

--- Reads `git branch --format=%(refname:short)<TAB>%(HEAD)`.
---@param text string
---@return e2b.GitBranches
function M.branches(text)
  local found = { branches = {} }
  for line in text:gmatch("[^\r\n]+") do
    local name, head = line:match("^%s*(.-)\t(.*)$")
    name = name or line:match("^%s*(.-)%s*$")
    if name ~= "" and not name:find(" ", 1, true) then -- "(HEAD detached at 1a2b3c)" is no branch
      found.branches[#found.branches + 1] = name
      if head and head:find("*", 1, true) then found.current_branch = name end
    end
  end
  return setmetatable(found, branches_mt)
end

-- What git says when it is about credentials, and when a branch has no upstream; in lower case.
local AUTH = {
  "authentication failed", "terminal prompts disabled", "could not read username", "invalid username or password",
  "access denied", "permission denied", "not authorized",
}
local UPSTREAM = {
  "has no upstream branch", "no upstream branch", "no upstream configured", "no tracking information",
  "set the remote as upstream", "set the upstream branch", "please specify which branch you want to merge with",
}

local function any(text, list)
  for _, words in ipairs(list) do
    if text:find(words, 1, true) then return true end
  end
  return false
end

--- What the failure of a command was about.
---@param stderr string
---@param stdout string
---@return "auth"|"upstream"|nil
function M.reason(stderr, stdout)
  local text = (stderr .. "\n" .. stdout):lower()
  if any(text, AUTH) then return "auth" end
  if any(text, UPSTREAM) then return "upstream" end
  return nil
end

--- The folder that git clone makes of an address.
---@param url string
---@return string? folder
function M.folder(url)
  local path = url:gsub("[?#].*$", ""):gsub("/+$", "")
  local last = path:match("([^/:]+)$")
  last = last and last:gsub("%.git$", "")
  if last == "" then return nil end
  return last
end

return M
