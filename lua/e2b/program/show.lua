--- Values as a prompt shows them: strings in quotes, tables with what is in them, this library's objects as they print
--- themselves.
local M = {}

local DEEPEST = 6       -- tables inside of tables
local MOST = 200        -- entries of one table
local LONGEST = 8192    -- bytes of one string

local ESCAPES = {
  ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\a"] = "\\a", ["\b"] = "\\b", ["\f"] = "\\f", ["\v"] = "\\v",
  ['"'] = '\\"', ["\\"] = "\\\\",
}

local function escape(char) return ESCAPES[char] or ("\\%03d"):format(char:byte()) end

-- Bytes that are no UTF-8 would garble the terminal.
local function bytes(run)
  local out, at = {}, 1
  while at <= #run do
    local point = run:match("^[\194-\223][\128-\191]", at)
      or run:match("^[\225-\236\238\239][\128-\191][\128-\191]", at)
      or run:match("^\224[\160-\191][\128-\191]", at) or run:match("^\237[\128-\159][\128-\191]", at)
      or run:match("^[\241-\243][\128-\191][\128-\191][\128-\191]", at)
      or run:match("^\240[\144-\191][\128-\191][\128-\191]", at)
      or run:match("^\244[\128-\143][\128-\191][\128-\191]", at)
    if point and point:find("^\194[\128-\159]") then point = nil end -- control characters of eight bits
    out[#out + 1] = point or escape(run:sub(at, at))
    at = at + (point and #point or 1)
  end
  return table.concat(out)
end

--- A string as Lua source.
---@param text string
---@return string
function M.quote(text)
  local cut = #text > LONGEST
  local shown = cut and text:sub(1, LONGEST):gsub("[\192-\255][\128-\191]*$", "") or text
  shown = shown:gsub('[%c"\\]', escape):gsub("[\128-\255]+", bytes)
  if cut then return ('"%s"… (%d bytes)'):format(shown, #text) end
  return '"' .. shown .. '"'
end

local function is_name(key)
  return type(key) == "string" and key:find("^[%a_][%w_]*$") ~= nil
end

-- Numbers first, then strings, each in their order; then the rest as it comes.
local RANK = { number = 1, string = 2 }

local function before(a, b)
  local rank_a, rank_b = RANK[type(a)] or 3, RANK[type(b)] or 3
  if rank_a ~= rank_b then return rank_a < rank_b end
  if rank_a == 3 then return tostring(a) < tostring(b) end
  return a < b
end

-- How an object prints itself; nil when it doesn't.
local function own_text(value)
  local mt = debug.getmetatable(value)
  if type(mt) ~= "table" then return nil end
  if rawget(mt, "__tostring") then
    local ok, text = pcall(tostring, value)
    if ok then return text end
    return ("(a %s that can't be shown: %s)"):format(type(value), tostring(text))
  end
  -- The fields of an object are its own business.
  local name = rawget(mt, "__name")
  if type(name) == "string" then return "<" .. name .. ">" end
  return nil
end

local render

local function entries_of(value, depth, seen, width)
  local list, count = {}, 0
  local size = 0
  while size < MOST and rawget(value, size + 1) ~= nil do
    size = size + 1
    list[size] = render(rawget(value, size), depth + 1, seen, width - 2)
  end
  local keys = {}
  for key in next, value do
    count = count + 1
    if not (type(key) == "number" and key >= 1 and key <= size and key % 1 == 0) then keys[#keys + 1] = key end
  end
  table.sort(keys, before)
  for _, key in ipairs(keys) do
    if #list >= MOST then break end
    local name = is_name(key) and key
      or "[" .. (type(key) == "string" and M.quote(key) or tostring(key)) .. "]"
    list[#list + 1] = name .. " = " .. render(rawget(value, key), depth + 1, seen, width - 2 - #name - 3)
  end
  if count > #list then list[#list + 1] = ("… %d more"):format(count - #list) end
  return list
end

function render(value, depth, seen, width)
  local kind = type(value)
  if kind == "string" then return M.quote(value) end
  if kind == "table" or kind == "userdata" then
    local text = own_text(value)
    if text then return text end
  end
  if kind ~= "table" then return tostring(value) end
  if seen[value] then return "{ itself }" end
  if next(value) == nil then return "{}" end
  if depth >= DEEPEST then return "{ … }" end
  seen[value] = true
  local list = entries_of(value, depth, seen, width)
  seen[value] = nil
  local line = "{ " .. table.concat(list, ", ") .. " }"
  if #line <= width and not line:find("\n", 1, true) then return line end
  for i, entry in ipairs(list) do list[i] = "  " .. entry:gsub("\n", "\n  ") end
  return "{\n" .. table.concat(list, ",\n") .. "\n}"
end

--- One value.
---@param value any
---@param width integer? columns that a table may take in one line (80)
---@return string
function M.value(value, width)
  return render(value, 0, {}, width or 80)
end

--- The results of a line. A failure (`nil, message, err`) is one line.
---@param results table with their number in `n`
---@param width integer? columns
---@return string? text nil: there is nothing to show
function M.results(results, width)
  if results.n == 0 then return nil end
  local message = results[2]
  if results[1] == nil and type(message) == "string" and results.n <= 3 then
    local err = results[3]
    local kind = type(err) == "table" and rawget(err, "kind")
    return ("failed: %s%s"):format(M.line(message), type(kind) == "string" and " (" .. M.line(kind) .. ")" or "")
  end
  local texts, lines = {}, false
  for i = 1, results.n do
    texts[i] = M.value(results[i], width)
    lines = lines or texts[i]:find("\n", 1, true)
  end
  return table.concat(texts, lines and "\n" or "\t")
end

--- A text on one line, without anything that moves the cursor.
---@param text string
---@return string
function M.line(text)
  return (text:gsub("%s*[\r\n]%s*", " "):gsub("%c", "?"))
end

return M
