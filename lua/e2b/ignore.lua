--- Which files of a tree are left out: the rules of gitignore, on paths relative to the tree's root.
---
--- * Patterns are asked in their order, and the last one that fits decides. `!` in front takes a file back in.
--- * What lies in a directory that is left out is left out, too, and nothing in there can be taken back in.
--- * A `/` at the end: directories only. A `/` at the beginning or in the middle: the pattern is about the path from
---   the root of the tree; without, it is about the name alone, at any depth.
--- * `*` is any run of characters but `/`, `?` is one of them, `[a-z]` and `[!a-z]` are one of a set.
--- * `**/` in front is any depth, `/**/` is one or more levels between, or none, and `/**` at the end is all inside.
--- * `\` takes the meaning of the character after it. Empty patterns, patterns that begin with `#`, and spaces at the
---   end count for nothing, so that the lines of a .gitignore file can be given as they are.
local options = require("e2b.options")

local M = {}

local ANY = {} -- the segment **

local function quote(char)
  return (char:gsub("[^%w_\128-\255]", "%%%0"))
end

local NOTHING = "[^%z\1-\255]" -- fits no character

-- [a-z] at `at` of a segment -> the Lua pattern, and the place after it; nil: it has no end.
local function set(text, at)
  local i, out = at + 1, { "[" }
  local first = text:sub(i, i)
  if first == "!" or first == "^" then
    out[2], i = "^", i + 1
  end
  local begin = i
  while true do
    local char = text:sub(i, i)
    if char == "" then return nil end
    if char == "]" and i > begin then break end
    if char == "\\" then
      i = i + 1
      char = text:sub(i, i)
      if char == "" then return nil end
    end
    local last = text:match("^%-([^%]])", i + 1)
    if last then
      i = i + 2
      if last == "\\" then
        i = i + 1
        last = text:sub(i, i)
        if last == "" then return nil end
      end
      -- Lua can't escape the ends of a range.
      for code = char:byte(), last:byte() do
        if code ~= 47 and code ~= 0 then out[#out + 1] = quote(string.char(code)) end
      end
    elseif char ~= "/" then
      out[#out + 1] = quote(char)
    end
    i = i + 1
  end
  if #out == 1 then return NOTHING, i + 1 end
  if out[2] == "^" then out[#out + 1] = "/" end
  return table.concat(out) .. "]", i + 1
end

-- One segment: { text = } when it is one, else { pattern = }.
local function segment(text)
  if text == "**" then return ANY end
  local out, plain, literal, i = {}, {}, true, 1
  while i <= #text do
    local char = text:sub(i, i)
    local made, after
    if char == "\\" and i < #text then
      i = i + 1
      char = text:sub(i, i)
    elseif char == "*" then
      made = "[^/]*"
      while text:sub(i + 1, i + 1) == "*" do i = i + 1 end
    elseif char == "?" then
      made = "[^/]"
    elseif char == "[" then
      made, after = set(text, i)
      if not made then return { pattern = NOTHING } end -- git's answer to a bracket without an end
    end
    if made then
      literal = false
      out[#out + 1] = made
    else
      out[#out + 1] = quote(char)
      plain[#plain + 1] = char
    end
    i = after or i + 1
  end
  if literal then return { text = table.concat(plain) } end
  return { pattern = "^" .. table.concat(out) .. "$" }
end

-- Where a pattern's text ends: spaces go unless a backslash stands before them.
local function trim(text)
  text = text:gsub("\r$", "")
  while text:sub(-1) == " " do
    local slashes = #text:match("(\\*) $")
    if slashes % 2 == 1 then break end
    text = text:sub(1, -2)
  end
  return text
end

local function compile(text)
  text = trim(text)
  if text == "" or text:sub(1, 1) == "#" then return nil end
  local rule = {}
  if text:sub(1, 1) == "!" then
    rule.negated, text = true, text:sub(2)
  end
  if text:sub(-1) == "/" then
    rule.directory, text = true, text:gsub("/+$", "")
  end
  local anchored = text:find("/", 1, true) ~= nil
  text = text:gsub("^/", "")
  if text == "" then return nil end
  for part in (text .. "/"):gmatch("([^/]*)/") do
    local piece = segment(part)
    if not (piece == ANY and rule[#rule] == ANY) then rule[#rule + 1] = piece end
  end
  if not anchored and #rule == 1 and rule[1] ~= ANY then rule.name = rule[1] end
  -- What git says of `/**`, the whole pattern: all inside, and that is everything.
  return rule
end

local function fits(piece, name)
  local text = piece.text
  if text then return text == name end
  return name:find(piece.pattern) ~= nil
end

local function matches(rule, r, path, p, n)
  while true do
    local piece = rule[r]
    if piece == nil then return p > n end
    if piece == ANY then
      if rule[r + 1] == nil then return p <= n end -- at the end: what is inside, not the directory itself
      for skip = p, n do
        if matches(rule, r + 1, path, skip, n) then return true end
      end
      return false
    end
    if p > n or not fits(piece, path[p]) then return false end
    r, p = r + 1, p + 1
  end
end

local function split(path)
  local parts, n = {}, 0
  for part in path:gmatch("[^/]+") do
    n = n + 1
    parts[n] = part
  end
  return parts, n
end

local function never() return false end

--- Makes a question of patterns: is this path left out by a pattern that fits it? Directories above it are not asked
--- about; see `within`.
---@param patterns string[]|nil
---@param what string the operation, for the message about a wrong pattern
---@return fun(path: string, is_directory: boolean): boolean ignored
function M.new(patterns, what)
  if patterns == nil then return never end
  if type(patterns) ~= "table" then
    options.raise(("%s: ignore must be a list of patterns, got %s"):format(what, type(patterns)))
  end
  local rules, by_path = {}, false
  for i = 1, #patterns do
    local text = patterns[i]
    if type(text) ~= "string" then
      options.raise(("%s: ignore[%d] must be a string, got %s"):format(what, i, type(text)))
    end
    local rule = compile(text)
    if rule then
      rules[#rules + 1] = rule
      by_path = by_path or not rule.name
    end
  end
  for name in pairs(patterns) do
    if type(name) ~= "number" then
      options.raise(("%s: ignore must be a list of patterns, it has a field %q"):format(what, tostring(name)))
    end
  end
  if #rules == 0 then return never end
  return function(path, is_directory)
    local parts, n
    if by_path then parts, n = split(path) end
    local name = by_path and parts[n] or path:match("[^/]*$")
    for i = #rules, 1, -1 do
      local rule = rules[i]
      if is_directory or not rule.directory then
        local hit
        if rule.name then
          hit = fits(rule.name, name)
        else
          hit = matches(rule, 1, parts, 1, n)
        end
        if hit then return not rule.negated end
      end
    end
    return false
  end
end

--- The same question for paths that come in any order: a path is left out when a directory above it is.
---@param ignored fun(path: string, is_directory: boolean): boolean of `new`
---@return fun(path: string, is_directory: boolean): boolean
function M.within(ignored)
  if ignored == never then return never end
  -- The directories above the last path, and what is known of each. Nothing more is kept: a tree comes in its order,
  -- and a hostile one has names without end.
  local names, answers, count = {}, {}, 0
  return function(path, is_directory)
    local level, at, answer = 0, 1, false
    local slash = path:find("/", 1, true)
    while slash do
      local name = path:sub(at, slash - 1)
      level, at = level + 1, slash + 1
      if level > count or names[level] ~= name then
        names[level], answers[level], count = name, answer or ignored(path:sub(1, slash - 1), true), level
      end
      answer = answers[level]
      slash = path:find("/", at, true)
    end
    return answer or ignored(path, is_directory)
  end
end

local PLAIN = "^[%w%._%-+@ ]+$"

--- Patterns of tar's --exclude that leave out nothing but what `ignored` leaves out anyhow: what lies inside of
--- directories with plain names. They save the way over the network; the exact rules are applied to what arrives.
---@param patterns string[]|nil
---@return string[]
function M.tar_excludes(patterns)
  local list = {}
  for _, text in ipairs(patterns or list) do
    text = trim(text)
    -- One that takes back in may be about what lies inside.
    if text:sub(1, 1) == "!" then return {} end
    if text ~= "" and text:sub(1, 1) ~= "#" then
      local bare = text:gsub("/$", "")
      local rest = bare:gsub("^/", "")
      local plain = rest ~= ""
      for part in (rest .. "/"):gmatch("([^/]*)/") do
        if not part:find(PLAIN) or part == "." or part == ".." then plain = false end
      end
      if plain and bare:find("/", 1, true) then
        list[#list + 1] = "./" .. rest .. "/*"
      elseif plain then
        list[#list + 1] = "*/" .. rest .. "/*"
      end
    end
  end
  return list
end

return M
