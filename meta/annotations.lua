-- Reads LuaCATS comments: what a function is called, what it takes and what it answers, and the classes around it.
-- Only what this source tree uses of the dialect; a line it can't read is an error with its place.

local M = {}

-- Reads one type at position i of text: "fun(a: string): boolean?", "table<string, integer>[]|nil". Returns it and the
-- position after it, or nil.
local read_type

local function read_unit(text, i)
  local from = i
  local char = text:sub(i, i)
  if char == '"' or char == "'" then
    i = text:find(char, i + 1, true)
    if not i then return nil end
    i = i + 1
  elseif char == "{" or char == "(" then
    local _, stop = text:find(char == "{" and "^%b{}" or "^%b()", i)
    if not stop then return nil end
    i = stop + 1
  elseif text:find("^fun%s*%(", i) then
    local _, stop = text:find("^fun%s*%b()", i)
    if not stop then return nil end
    i = stop + 1
    local after = text:match("^%s*:%s*()", i)
    while after do
      local _, next_i = read_type(text, after)
      if not next_i then return nil end
      i = next_i
      after = text:match("^%s*,%s*()", i)
    end
  else
    local stop = text:match("^%.%.%.()", i) or text:match("^%-?[%w_][%w_%.%-]*()", i)
    if not stop then return nil end
    i = text:match("^%*()", stop) or stop -- file* is what io.open gives
    local _, generic = text:find("^%b<>", i)
    if generic then i = generic + 1 end
  end
  while true do
    local suffix = text:match("^%[%]()", i) or text:match("^%?()", i)
    if not suffix then break end
    i = suffix
  end
  return text:sub(from, i - 1), i
end

function read_type(text, i)
  local from = i
  while true do
    local unit, stop = read_unit(text, i)
    if not unit then return nil end
    local after = text:match("^%s*|%s*()", stop)
    if not after then return text:sub(from, stop - 1), stop end
    i = after
  end
end

-- "string? message what it says": type, name, text. Several of them may stand on a line, with commas between.
local function read_returns(text, returns)
  local i = 1
  while true do
    local kind, stop = read_type(text, i)
    if not kind then return false end
    local name, after = text:match("^%s+([%a_][%w_]*)()", stop)
    if not name then name, after = text:match("^%s+(%.%.%.)()", stop) end
    local comma = text:match("^%s*,%s*()", after or stop)
    if not comma then
      returns[#returns + 1] = { type = kind, name = name, text = text:sub(after or stop):match("^%s*#?%s*(.-)%s*$") }
      return true
    end
    returns[#returns + 1] = { type = kind, name = name, text = "" }
    i = comma
  end
end

-- The lines of a block as { number, text }; a tag whose type goes on in the next lines is one.
local function joined(lines, from, to)
  local list = {}
  local open = 0
  for number = from, to do
    local line = lines[number]:match("^%s*%-%-%-%s?(.*)$")
    if open > 0 then
      list[#list].text = list[#list].text .. " " .. line:match("^%s*(.-)%s*$")
    else
      list[#list + 1] = { number = number, text = line }
    end
    if open > 0 or line:find("^%s*@") then
      local _, opened = line:gsub("[{(]", "")
      local _, closed = line:gsub("[})]", "")
      open = open + opened - closed
    end
  end
  return list
end

-- A block of consecutive `---` lines.
local function read_block(lines, from, to, place)
  local block = { params = {}, returns = {}, fields = {}, line = from }
  local text = {}
  local tagged
  for _, each in ipairs(joined(lines, from, to)) do
    local number, line = each.number, each.text
    local tag, rest = line:match("^%s*@(%w+)%s*(.-)%s*$")
    local ok = true
    if not tag and tagged and line:find("^%s") then
      -- the rest of a long tag
      tagged.text = (tagged.text .. " " .. line:match("^%s*(.-)%s*$")):match("^%s*(.*)$")
    elseif not tag then
      text[#text + 1] = line
      tagged = nil
    elseif tag == "param" then
      local name, optional, i = rest:match("^([%w_]+)(%??)%s+()")
      if not name then name, optional, i = rest:match("^(%.%.%.)(%??)%s+()") end
      local kind, stop
      if name then kind, stop = read_type(rest, i) end
      ok = kind ~= nil
      if ok then
        block.params[#block.params + 1] = {
          name = name,
          type = kind,
          optional = optional == "?" or kind:find("%?$") ~= nil or kind:find("|nil$") ~= nil,
          text = rest:sub(stop):match("^%s*#?%s*(.*)$"),
        }
      end
    elseif tag == "return" then
      ok = read_returns(rest, block.returns)
    elseif tag == "class" then
      local exact = rest:gsub("^%(exact%)%s*", "")
      block.class, block.parent, block.class_text = exact:match("^([%w_%.]+)%s*:?%s*([%w_%.]*)%s*(.*)$")
      ok = block.class ~= nil
    elseif tag == "field" then
      local name, i = rest:match("^([%w_]+%??)%s+()")
      if not name then name, i = rest:match("^(%[.-%]%??)%s+()") end
      local kind, stop
      if name then kind, stop = read_type(rest, i) end
      ok = kind ~= nil
      if ok then
        block.fields[#block.fields + 1] = { name = name, type = kind, text = rest:sub(stop):match("^%s*#?%s*(.*)$") }
      end
    elseif tag == "alias" then
      block.alias = rest
    elseif tag == "private" or tag == "package" or tag == "protected" then
      block.private = true
    end
    if tag then
      tagged = tag == "param" and block.params[#block.params] or tag == "return" and block.returns[#block.returns]
        or tag == "field" and block.fields[#block.fields] or nil
    end
    if not ok then error(("%s:%d: can't read this annotation: %s"):format(place, number, lines[number]), 0) end
  end
  block.text = table.concat(text, "\n"):match("^%s*(.-)%s*$")
  return block
end

-- The names in a parameter list that may run over several lines.
local function read_parameters(lines, number)
  local list = ""
  for i = number, math.min(number + 20, #lines) do
    list = list .. " " .. lines[i]
    local inside = list:match("function[%s%w_%.:]*(%b())")
    if inside then
      local names = {}
      for name in inside:sub(2, -2):gmatch("[%w_%.]+") do names[#names + 1] = name end
      return names
    end
  end
  return {}
end

--- Reads a Lua file.
---@param path string
---@return { functions: table<integer, table>, classes: table[], lines: string[], text: string } file functions by the
--- line they begin on: { name, method, parameters, block (nil when there is none) }
function M.read(path)
  local lines = {}
  for line in io.lines(path) do lines[#lines + 1] = line end
  local file = { functions = {}, classes = {}, lines = lines, path = path, text = "" }

  local classes_by_local = {}
  local pending
  local number = 1
  while number <= #lines do
    local line = lines[number]
    if line:find("^%s*%-%-%-") and not line:find("^%s*%-%-%-%-") then
      local last = number
      while lines[last + 1] and lines[last + 1]:find("^%s*%-%-%-") do last = last + 1 end
      pending = read_block(lines, number, last, path)
      if number == 1 and not pending.class and lines[last + 1] and not lines[last + 1]:find("function") then
        file.text = pending.text
      end
      if pending.class then
        pending.path = path
        file.classes[#file.classes + 1] = pending
      end
      number = last
    else
      local owner = line:match("^%s*local%s+([%w_]+)%s*=")
      if owner and pending and pending.class then classes_by_local[owner] = pending end

      local name = line:match("^%s*local%s+function%s+([%w_]+)%s*%(") or line:match("^%s*function%s+([%w_%.:]+)%s*%(")
        or line:match("^%s*local%s+([%w_]+)%s*=%s*function%s*%(") or line:match("^%s*([%w_%.]+)%s*=%s*function%s*%(")
      if name then
        local holder, separator, own = name:match("^(.-)([%.:])([%w_]+)$")
        file.functions[number] = {
          name = own or name,
          holder = holder,
          method = separator == ":",
          class = holder and classes_by_local[holder],
          parameters = read_parameters(lines, number),
          block = pending and not pending.class and pending or nil,
          path = path,
          line = number,
        }
      end
      if not line:find("^%s*$") or (pending and not pending.class) then pending = nil end
    end
    number = number + 1
  end
  return file
end

-- Lua source without comments and without what is inside strings.
local function bare(lines, from, to)
  local text = table.concat(lines, "\n", from, to)
  text = text:gsub("%-%-%[(=*)%[.-%]%1%]", " "):gsub("\\\\", ""):gsub("\\[\"']", "")
  -- strings and comments in the order they come, for either may hold the other's marks
  local out, i = {}, 1
  while i <= #text do
    local start, mark = text:match("()([\"'%-%[])", i)
    if not start then break end
    out[#out + 1] = text:sub(i, start - 1)
    local stop
    if mark == "-" then
      stop = text:match("^%-%-[^\n]*()", start)
    elseif mark == "[" then
      stop = select(2, text:match("^%[(=*)%[.-%]%1%]()", start))
      if stop then out[#out + 1] = '""' end
    else
      stop = text:match(mark .. "()", start + 1)
      out[#out + 1] = '""'
    end
    if not stop then
      out[#out + 1] = mark
      stop = start + 1
    end
    i = stop
  end
  out[#out + 1] = text:sub(i)
  return table.concat(out)
end

local OPENS = { ["function"] = true, ["if"] = true, ["do"] = true, ["repeat"] = true }
local CLOSES = { ["end"] = true, ["until"] = true }

-- How many values the return statements of a function answer at most; and whether one of them passes on what a call or
-- `...` gives, so that it may be any number.
local function most_returned(lines, from, to)
  local text = bare(lines, from, to)
  local blocks, functions = {}, 0
  local most, open = 0, false
  local current -- the return statement that is being read: its values, brackets, last token
  local function finish()
    if not current then return end
    if current.last then most = math.max(most, current.count) end
    if current.last == ")" or current.last == "..." then open = true end
    current = nil
  end
  local i = 1
  while true do
    local start, word, stop = text:match("()([%a_][%w_]*)()", i)
    local mark_start, mark = text:match("()(%.%.%.)", i)
    if not mark_start then mark_start, mark = nil, nil end
    local sign_start, sign = text:match("()([%(%)%[%]{},;%d\"])", i)
    local first = math.min(start or math.huge, mark_start or math.huge, sign_start or math.huge)
    if first == math.huge then break end
    if first == start then
      i = stop
      if current and #blocks == current.blocks and current.brackets == 0
        and (CLOSES[word] or word == "else" or word == "elseif") then
        finish()
      end
      if OPENS[word] then
        blocks[#blocks + 1] = word
        if word == "function" then functions = functions + 1 end
      elseif CLOSES[word] then
        if table.remove(blocks) == "function" then functions = functions - 1 end
        if current then current.last = "end" end
      elseif word == "return" and functions == 1 and not current then
        current = { count = 1, brackets = 0, blocks = #blocks }
      elseif current then
        current.last = word
      end
    elseif first == mark_start then
      i = mark_start + 3
      if current then current.last = mark end
    else
      i = sign_start + 1
      if current and #blocks == current.blocks then
        if sign == "," and current.brackets == 0 then
          current.count = current.count + 1
        elseif sign == ";" and current.brackets == 0 then
          finish()
        elseif sign:find("[%(%[{]") then
          current.brackets = current.brackets + 1
        elseif sign:find("[%)%]}]") then
          current.brackets = current.brackets - 1
        end
        if current then current.last = sign end
      end
    end
  end
  return most, open
end

M.most_returned = most_returned

--- What is missing in the documentation of a function.
---@param file table what read returned
---@param from integer the line the function begins on
---@param to integer its last line
---@return string[] problems empty when it is documented
---@return table? entry the function as read
function M.problems(file, from, to)
  local entry = file.functions[from]
  if not entry then return { "no declaration found at " .. file.path .. ":" .. from }, nil end
  local problems = {}
  local function missing(...) problems[#problems + 1] = (...):format(select(2, ...)) end

  local block = entry.block
  if not block then
    missing("no comment above it (%s:%d)", file.path, from)
    return problems, entry
  end
  if block.text == "" then missing("not a word about what it does (%s:%d)", file.path, from) end

  local documented = {}
  for _, param in ipairs(block.params) do documented[param.name] = true end
  local known = {}
  for _, name in ipairs(entry.parameters) do
    known[name] = true
    if not documented[name] and not (name == "self" or name == "_") then missing("@param %s is missing", name) end
  end
  for _, param in ipairs(block.params) do
    if not known[param.name] then missing("@param %s is no parameter of it", param.name) end
  end

  local most, open = most_returned(file.lines, from, to)
  if most > 0 and #block.returns == 0 then missing("@return is missing") end
  local last = block.returns[#block.returns]
  local any_number = open or last and (last.name == "..." or last.type == "...")
  if last and not any_number and most > #block.returns then
    missing("it returns up to %d values, and %d @return lines", most, #block.returns)
  end
  for i, answer in ipairs(block.returns) do
    if #block.returns > 1 and not answer.name then missing("@return %d (%s) has no name", i, answer.type) end
  end
  return problems, entry
end

return M
