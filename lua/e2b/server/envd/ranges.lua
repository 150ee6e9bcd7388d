--- Range requests: which bytes of a file are wanted.
-- @module e2b.server.envd.ranges

local ranges = {}

local function trim(text)
  return text:match("^%s*(.-)%s*$")
end

local function number(digits)
  -- More digits than any file has bytes.
  return digits:find("^%d+$") and #digits <= 15 and tonumber(digits) or nil
end

local function read_one(text, size)
  local first, last = text:match("^([^-]*)%-(.*)$")
  if not first then return nil, "invalid range" end
  first, last = trim(first), trim(last)
  if first == "" then
    -- The last bytes; -0 would be none.
    local count = number(last)
    if not count then return nil, "invalid range" end
    count = math.min(count, size)
    return { start = size - count, length = count }
  end
  local start = number(first)
  if not start then return nil, "invalid range" end
  if start >= size then return false end
  if last == "" then return { start = start, length = size - start } end
  local stop = number(last)
  if not stop or start > stop then return nil, "invalid range" end
  return { start = start, length = math.min(stop, size - 1) - start + 1 }
end

---Reads a `Range` header.
---@param header string|nil
---@param size number bytes of the file
---@return table|nil list of `{ start, length }`, in the order asked for; empty when the whole file is to be sent
---@return string|nil message why none can be served (416)
function ranges.parse(header, size)
  if not header or header == "" then return {} end
  local specs = header:match("^bytes=(.*)$")
  if not specs then return nil, "invalid range" end
  local list, missed, total = {}, false, 0
  for spec in (specs .. ","):gmatch("([^,]*),") do
    spec = trim(spec)
    if spec ~= "" then
      local range, problem = read_one(spec, size)
      if range == nil then return nil, problem end
      if range then
        list[#list + 1] = range
        total = total + range.length
      else
        missed = true
      end
    end
  end
  if missed and not list[1] then
    -- Some clients ask for a range of whatever they fetch.
    if size == 0 then return {} end
    return nil, "invalid range: failed to overlap"
  end
  -- Asking for more than there is, in many pieces, is an attack or a mistake.
  if total > size then return {} end
  return list
end

---@param range table
---@param size number
---@return string value of `Content-Range`
function ranges.content_range(range, size)
  return string.format("bytes %.0f-%.0f/%.0f", range.start, range.start + range.length - 1, size)
end

return ranges
