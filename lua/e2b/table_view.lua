--- Aligned tables of text, for pages at a REPL.
local format = require("e2b.format")

local M = {}

local CELL_MAX = 48

--- Width on a terminal, counted in code points: continuation bytes of UTF-8 take no column.
---@param text string
---@return integer
function M.width(text)
  local _, points = text:gsub("[^\128-\191]", "")
  return points
end

local width = M.width

-- Cut between code points, never inside one.
local function cut(text, limit)
  if width(text) <= limit then return text end
  local kept, out = 0, {}
  for point in text:gmatch("[^\128-\191][\128-\191]*") do
    kept = kept + 1
    if kept >= limit then break end
    out[#out + 1] = point
  end
  return table.concat(out) .. "…"
end

local function cell_text(value)
  if value == nil then return "" end
  return cut(format.clean(value), CELL_MAX)
end

---@class e2b.Column
---@field title string
---@field value fun(row: table): any what the cell shows; nil leaves it empty
---@field right boolean? numbers stand to the right
---@field whole boolean? never cut (ids have to be usable)

--- Rows under their titles, one line each; columns are two spaces apart and no line ends in blanks.
---@param columns e2b.Column[]
---@param rows table[]
---@return string text without a newline at its end
function M.render(columns, rows)
  local cells, widths = {}, {}
  for c, column in ipairs(columns) do widths[c] = width(column.title) end
  for r, row in ipairs(rows) do
    local line = {}
    for c, column in ipairs(columns) do
      local value = column.value(row)
      local text = column.whole and value ~= nil and format.clean(value) or cell_text(value)
      line[c] = text
      widths[c] = math.max(widths[c], width(text))
    end
    cells[r] = line
  end
  local function layout(texts)
    local parts = {}
    for c, column in ipairs(columns) do
      local pad = (" "):rep(widths[c] - width(texts[c]))
      parts[c] = column.right and pad .. texts[c] or texts[c] .. pad
    end
    return (table.concat(parts, "  "):gsub("%s+$", ""))
  end
  local titles = {}
  for c, column in ipairs(columns) do titles[c] = column.title end
  local lines = { layout(titles) }
  for r = 1, #cells do lines[r + 1] = layout(cells[r]) end
  return table.concat(lines, "\n")
end

return M
