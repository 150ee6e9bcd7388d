--- The media type of a file: by its name's extension, else by how it begins.
-- @module e2b.server.envd.content_type

local content_type = {}

local BY_EXTENSION = {}

local function add(media_type, extensions)
  for extension in extensions:gmatch("%S+") do BY_EXTENSION[extension] = media_type end
end

add("application/epub+zip", "epub")
add("application/gzip", "gz tgz")
add("application/java-archive", "jar")
add("application/json", "json map")
add("application/ld+json", "jsonld")
add("application/manifest+json", "webmanifest")
add("application/msword", "doc")
add("application/pdf", "pdf")
add("application/postscript", "ps eps ai")
add("application/rtf", "rtf")
add("application/sql", "sql")
add("application/toml", "toml")
add("application/vnd.ms-excel", "xls")
add("application/vnd.ms-powerpoint", "ppt")
add("application/vnd.oasis.opendocument.presentation", "odp")
add("application/vnd.oasis.opendocument.spreadsheet", "ods")
add("application/vnd.oasis.opendocument.text", "odt")
add("application/vnd.openxmlformats-officedocument.presentationml.presentation", "pptx")
add("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "xlsx")
add("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "docx")
add("application/vnd.rar", "rar")
add("application/vnd.sqlite3", "sqlite sqlite3")
add("application/wasm", "wasm")
add("application/x-7z-compressed", "7z")
add("application/x-bzip2", "bz2")
add("application/x-ipynb+json", "ipynb")
add("application/x-sh", "sh")
add("application/x-tar", "tar")
add("application/x-xz", "xz")
add("application/xhtml+xml", "xhtml")
add("application/yaml", "yaml yml")
add("application/zip", "zip")
add("application/zstd", "zst")
add("audio/aac", "aac")
add("audio/flac", "flac")
add("audio/midi", "mid midi")
add("audio/mp4", "m4a")
add("audio/mpeg", "mp3")
add("audio/ogg", "oga ogg opus")
add("audio/x-wav", "wav")
add("font/otf", "otf")
add("font/ttf", "ttf")
add("font/woff", "woff")
add("font/woff2", "woff2")
add("image/avif", "avif")
add("image/bmp", "bmp")
add("image/gif", "gif")
add("image/jpeg", "jpg jpeg")
add("image/png", "png")
add("image/svg+xml", "svg")
add("image/tiff", "tif tiff")
add("image/vnd.microsoft.icon", "ico")
add("image/webp", "webp")
add("text/calendar; charset=utf-8", "ics")
add("text/css; charset=utf-8", "css")
add("text/csv; charset=utf-8", "csv")
add("text/html; charset=utf-8", "html htm")
add("text/javascript; charset=utf-8", "js mjs")
add("text/markdown; charset=utf-8", "md markdown")
add("text/plain; charset=utf-8", "txt text log conf")
add("text/tab-separated-values; charset=utf-8", "tsv")
add("text/x-c; charset=utf-8", "c h")
add("text/x-lua; charset=utf-8", "lua")
add("text/x-python; charset=utf-8", "py")
add("text/xml; charset=utf-8", "xml")
add("video/mp4", "mp4")
add("video/mpeg", "mpeg mpg")
add("video/quicktime", "mov")
add("video/webm", "webm")
add("video/x-matroska", "mkv")
add("video/x-msvideo", "avi")

---@param path string
---@return string|nil media_type nil when the extension says nothing
function content_type.by_name(path)
  local extension = path:match("%.([^./]*)$")
  return extension and (BY_EXTENSION[extension] or BY_EXTENSION[extension:lower()])
end

-- How files of a kind begin. Markup comes after white space and in any case, and a tag's name must end.
local TAGS = {
  "<!DOCTYPE HTML", "<HTML", "<HEAD", "<SCRIPT", "<IFRAME", "<H1", "<DIV", "<FONT", "<TABLE", "<A", "<STYLE", "<TITLE",
  "<B", "<BODY", "<BR", "<P", "<!--",
}

local MAGIC = {
  { "%PDF-", "application/pdf" },
  { "%!PS-Adobe-", "application/postscript" },
  { "\254\255", "text/plain; charset=utf-16be" },
  { "\255\254", "text/plain; charset=utf-16le" },
  { "\239\187\191", "text/plain; charset=utf-8" },
  { "\0\0\1\0", "image/x-icon" },
  { "\0\0\2\0", "image/x-icon" },
  { "BM", "image/bmp" },
  { "GIF87a", "image/gif" },
  { "GIF89a", "image/gif" },
  { "RIFF????WEBPVP", "image/webp" },
  { "\137PNG\13\10\26\10", "image/png" },
  { "\255\216\255", "image/jpeg" },
  { "FORM????AIFF", "audio/aiff" },
  { "ID3", "audio/mpeg" },
  { "OggS\0", "application/ogg" },
  { "MThd\0\0\0\6", "audio/midi" },
  { "RIFF????AVI ", "video/avi" },
  { "RIFF????WAVE", "audio/wave" },
  { "\26\69\223\163", "video/webm" },
  { "\0\1\0\0", "font/ttf" },
  { "OTTO", "font/otf" },
  { "ttcf", "font/collection" },
  { "wOFF", "font/woff" },
  { "wOF2", "font/woff2" },
  { "\31\139\8", "application/x-gzip" },
  { "PK\3\4", "application/zip" },
  { "Rar!\26\7\0", "application/x-rar-compressed" },
  { "Rar!\26\7\1\0", "application/x-rar-compressed" },
  { "\0asm", "application/wasm" },
}

local function begins_with(bytes, magic)
  local gap = magic:find("????", 1, true)
  if gap then
    return bytes:sub(1, gap - 1) == magic:sub(1, gap - 1) and bytes:sub(gap + 4, #magic) == magic:sub(gap + 4)
  end
  return bytes:sub(1, #magic) == magic
end

local function markup(bytes)
  local begin = bytes:match("^[\t\n\f\r ]*(.*)$")
  if begin:sub(1, 1) ~= "<" then return nil end
  if begin:sub(1, 5) == "<?xml" then return "text/xml; charset=utf-8" end
  local upper = begin:sub(1, 16):upper()
  for _, tag in ipairs(TAGS) do
    local after = upper:sub(#tag + 1, #tag + 1)
    if upper:sub(1, #tag) == tag and (after == " " or after == ">") then return "text/html; charset=utf-8" end
  end
end

local function is_mp4(bytes)
  if #bytes < 12 then return false end
  local a, b, c, d = bytes:byte(1, 4)
  local size = ((a * 256 + b) * 256 + c) * 256 + d
  if size > #bytes or size % 4 ~= 0 or bytes:sub(5, 8) ~= "ftyp" then return false end
  for at = 9, size, 4 do
    if at ~= 13 and bytes:sub(at, at + 2) == "mp4" then return true end
  end
  return false
end

-- %z: Lua 5.1 ends a pattern at a zero byte.
local BINARY = _VERSION == "Lua 5.1" and "[%z\1-\8\11\14-\26\28-\31]" or "[\0-\8\11\14-\26\28-\31]"

---Guesses from the first bytes, as browsers do.
---@param bytes string up to 512 of them count
---@return string media_type `application/octet-stream` when nothing else fits
function content_type.by_content(bytes)
  bytes = bytes:sub(1, 512)
  local found = markup(bytes)
  if found then return found end
  for _, magic in ipairs(MAGIC) do
    if begins_with(bytes, magic[1]) then return magic[2] end
  end
  if is_mp4(bytes) then return "video/mp4" end
  if bytes:find(BINARY) then return "application/octet-stream" end
  return "text/plain; charset=utf-8"
end

return content_type
