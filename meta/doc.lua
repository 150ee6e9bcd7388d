-- Writes the reference from the comments in the source: `make doc`, or  lua meta/doc.lua build/doc
local surface = require("meta.surface")

local folder = arg and arg[1] or "build/doc"

local STYLE = [[
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #1c1e21; }
nav a { margin-right: 1em; } a { color: #0b57d0; text-decoration: none; } a:hover { text-decoration: underline; }
code, pre { font: 14px/1.5 ui-monospace, monospace; background: #f4f5f7; border-radius: 4px; padding: .1em .3em; }
pre { padding: .6em .8em; overflow-x: auto; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #dde; }
table { border-collapse: collapse; margin: .5rem 0; }
td, th { text-align: left; vertical-align: top; padding: .15em .8em .15em 0; }
td.type { color: #5a6270; } @media (prefers-color-scheme: dark) { body { background: #17191c; color: #e4e6eb; }
code, pre { background: #24272c; } a { color: #8ab4f8; } td.type { color: #9aa3b2; } }]]

local function escape(text)
  return (text:gsub("[&<>\"]", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }))
end

local classes -- by name
local place_of_class = {} -- by name: "types.html#e2b.Error", "Sandbox.html"

-- Types with links to the classes they name.
local function type_html(kind)
  return (escape(kind):gsub("e2b%.[%w_]+", function(name)
    return place_of_class[name] and ('<a href="%s">%s</a>'):format(place_of_class[name], name)
  end))
end

-- Prose: paragraphs, and `code`.
local function prose(text)
  local out = {}
  for paragraph in (text .. "\n\n"):gmatch("(.-)\n%s*\n") do
    if paragraph:find("%S") then
      out[#out + 1] = "<p>" .. escape(paragraph):gsub("`([^`]+)`", "<code>%1</code>") .. "</p>"
    end
  end
  return table.concat(out, "\n")
end

local function inline(text)
  return (escape(text):gsub("`([^`]+)`", "<code>%1</code>"))
end

local function rows(list)
  local out = { "<table>" }
  for _, item in ipairs(list) do
    out[#out + 1] = ('<tr><td><code>%s</code></td><td class="type">%s</td><td>%s</td></tr>'):format(
      escape(item.name or "–"), type_html(item.type), inline(item.text))
  end
  out[#out + 1] = "</table>"
  return table.concat(out, "\n")
end

local page_names = {}

local function write(name, title, body)
  local links = {}
  for _, other in ipairs(page_names) do links[#links + 1] = ('<a href="%s.html">%s</a>'):format(other, other) end
  local file = assert(io.open(folder .. "/" .. name .. ".html", "w"))
  file:write('<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>', escape(title), "</title>\n",
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>\n',
    STYLE, "\n</style></head><body>\n",
    "<nav>", table.concat(links, " "), "</nav>\n<h1>", escape(title), "</h1>\n", body, "\n</body></html>\n")
  assert(file:close())
end

-- "sandbox, message, err = Sandbox.create(template?, opts?)"
local function syntax(page, member)
  local block = member.entry.block
  local optional = {}
  for _, param in ipairs(block.params) do optional[param.name] = param.optional end
  local arguments = {}
  for _, name in ipairs(member.entry.parameters) do
    if name ~= "self" and name ~= "_" then arguments[#arguments + 1] = name .. (optional[name] and "?" or "") end
  end
  local results = {}
  for _, answer in ipairs(block.returns) do results[#results + 1] = answer.name or answer.type end
  local is_method = member.entry.method or member.entry.parameters[1] == "self" or member.entry.parameters[1] == "_"
  return (#results > 0 and table.concat(results, ", ") .. " = " or "") .. page.title .. (is_method and ":" or ".")
    .. member.name .. "(" .. table.concat(arguments, ", ") .. ")"
end

local function first_sentence(text)
  local line = text:gsub("%s+", " ")
  return line:match("^(.-%.)%s%u") or line
end

local function member_html(page, member)
  if member.other then
    return ('<h2 id="%s">%s</h2>\n<p>The same as <a href="#%s"><code>%s</code></a>.</p>'):format(
      member.name, escape(member.name), member.other, escape(member.other))
  end
  local block = member.entry.block
  local out = {
    ('<h2 id="%s">%s</h2>'):format(member.name, escape(member.name)),
    "<pre>" .. escape(syntax(page, member)) .. "</pre>",
    prose(block.text),
  }
  if #block.params > 0 then out[#out + 1] = "<h3>Takes</h3>\n" .. rows(block.params) end
  if #block.returns > 0 then out[#out + 1] = "<h3>Answers</h3>\n" .. rows(block.returns) end
  return table.concat(out, "\n")
end

local function class_html(class)
  local out = { ('<h2 id="%s">%s</h2>'):format(class.class, escape(class.class)) }
  out[#out + 1] = prose(class.text)
  if class.class_text ~= "" then out[#out + 1] = "<p>" .. inline(class.class_text) .. "</p>" end
  if class.parent ~= "" then out[#out + 1] = "<p>And everything in " .. type_html(class.parent) .. ".</p>" end
  if #class.fields > 0 then out[#out + 1] = rows(class.fields) end
  return table.concat(out, "\n")
end

local function source_files()
  local paths = {}
  local pipe = assert(io.popen("find lua/e2b -name '*.lua' ! -path 'lua/e2b/server/*' | sort"))
  for path in pipe:lines() do paths[#paths + 1] = path end
  pipe:close()
  return paths
end

local function main()
  assert(os.execute("mkdir -p '" .. folder .. "'"))
  local pages = surface.pages()
  local names
  classes, names = surface.classes(source_files())
  for _, page in ipairs(pages) do
    for _, name in ipairs(page.classes) do place_of_class[name] = page.title .. ".html" end
  end
  for _, name in ipairs(names) do
    if #classes[name].fields > 0 then place_of_class[name] = "types.html#" .. name end
  end
  page_names[1] = "index"
  for _, page in ipairs(pages) do page_names[#page_names + 1] = page.title end
  page_names[#page_names + 1] = "types"

  local index = { prose("The Lua SDK for E2B sandboxes. Success answers the value; failure answers `nil`, a sentence, "
    .. "and a table to decide on (e2b.Error). A caller's mistake raises. Times are in seconds.") }
  local missing = 0
  for _, page in ipairs(pages) do
    local body = { prose(page.about) }
    index[#index + 1] = ('<h2><a href="%s.html">%s</a></h2>\n<table>'):format(page.title, escape(page.title))
    for _, name in ipairs(page.classes) do
      if classes[name] and #classes[name].fields > 0 then
        body[#body + 1] = ('<p>Fields: <a href="types.html#%s">%s</a></p>'):format(name, name)
      end
    end
    for _, member in ipairs(page.members) do
      for _, problem in ipairs(member.problems) do
        missing = missing + 1
        io.stderr:write(page.title, ".", member.name, ": ", problem, "\n")
      end
      if member.other or member.entry and member.entry.block then
        body[#body + 1] = member_html(page, member)
        index[#index + 1] = ('<tr><td><a href="%s.html#%s"><code>%s</code></a></td><td>%s</td></tr>'):format(page.title,
          member.name, escape(member.name),
          member.other and "the same as " .. member.other or inline(first_sentence(member.entry.block.text)))
      end
    end
    index[#index + 1] = "</table>"
    write(page.title, page.title, table.concat(body, "\n"))
  end

  local types = {}
  for _, name in ipairs(names) do
    if place_of_class[name] == "types.html#" .. name then types[#types + 1] = class_html(classes[name]) end
  end
  write("types", "types", table.concat(types, "\n"))
  write("index", "e2b " .. require("e2b.version"), table.concat(index, "\n"))
  print(("%s/index.html and %d more pages"):format(folder, #page_names - 1))
  if missing > 0 then os.exit(1) end
end

main()
