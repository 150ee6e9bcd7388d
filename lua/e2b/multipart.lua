--- Bodies of the type multipart/form-data, as the file service of a sandbox reads them: every part is a file, and its
--- name is the whole path.
local unique = require("e2b.unique")

local M = {}

--- Whether a path may stand in a part's head. Readers don't agree on how to undo an escape, so a path with anything
--- that would need one is sent in the query of a request of its own.
---@param path string
---@return boolean
function M.can_name(path)
  return not path:find('[%c"\\%%\127]')
end

--- A boundary, and the Content-Type that tells it.
---@return string boundary
---@return string content_type
function M.boundary()
  local boundary = "e2b-" .. unique.hex(40)
  return boundary, "multipart/form-data; boundary=" .. boundary
end

--- What stands before the bytes of a file.
---@param boundary string
---@param name string
---@return string
function M.head(boundary, name)
  return ('--%s\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n'
    .. "Content-Type: application/octet-stream\r\n\r\n"):format(boundary, name)
end

--- What stands behind the last file.
---@param boundary string
---@return string
function M.tail(boundary)
  return "--" .. boundary .. "--\r\n"
end

--- A whole body.
---@param files { path: string, data: string }[]
---@return string body
---@return string content_type
function M.body(files)
  local boundary, content_type = M.boundary()
  local parts = {}
  for i, file in ipairs(files) do
    local at = i * 3 - 2
    parts[at], parts[at + 1], parts[at + 2] = M.head(boundary, file.path), file.data, "\r\n"
  end
  parts[#parts + 1] = M.tail(boundary)
  return table.concat(parts), content_type
end

return M
