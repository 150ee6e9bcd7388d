--- What a daemon needs to run on the Lua that runs this server: the interpreter and where its modules are.
-- @module e2b.server.sandbox.runtime

local native = require("e2b.server.native")

local runtime = {}

local BUNDLE = "/run/e2b/lua" -- where an isolated sandbox sees folders that are not the system's

-- One of each thing the daemon requires: a folder that holds none of them is not its business.
local PROBES = {
  "e2b/server/envd/main", "e2b/server/native", "cqueues", "_cqueues", "http/h1_reason_phrases", "openssl/rand",
  "_openssl", "fifo", "lpeg", "re", "lpeg_patterns/http", "basexx", "binaryheap", "bit32", "bit", "compat53", "cjson",
  "lfs", "zlib",
}

local function exists(path)
  local file = io.open(path, "r")
  if file then file:close() end
  return file ~= nil
end

-- The template with an absolute folder, or nil when nothing of ours is in it.
local function useful(template, here)
  local folder, rest = template:match("^(.-)/?(%?.*)$")
  if not folder then return nil end
  if folder:sub(1, 1) ~= "/" then folder = here .. "/" .. folder:gsub("^%./?", "") end
  folder = native.fs_realpath(folder)
  for _, probe in ipairs(folder and PROBES or {}) do
    if exists(folder .. "/" .. rest:gsub("%?", (probe:gsub("%%", "%%%%")))) then return folder, rest end
  end
end

local function is_system(path)
  return path:find("^/usr/") ~= nil
end

-- A search path for the daemon; the folders to be shown to an isolated one are added to `binds`.
local function search_path(path, here, binds)
  local direct, bundled, numbers, known = {}, {}, {}, {}
  for template in path:gmatch("[^;]+") do
    local folder, rest = useful(template, here)
    if folder and not known[folder .. rest] then
      known[folder .. rest] = true
      direct[#direct + 1] = folder .. "/" .. rest
      if is_system(folder) then
        bundled[#bundled + 1] = folder .. "/" .. rest
      else
        if not numbers[folder] then
          binds[#binds + 1] = { folder, BUNDLE .. "/" .. (#binds + 1) }
          numbers[folder] = binds[#binds][2]
        end
        bundled[#bundled + 1] = numbers[folder] .. "/" .. rest
      end
    end
  end
  return table.concat(direct, ";"), table.concat(bundled, ";")
end

-- The name it was called by counts for more than the file it is: it may be a wrapper that makes it work.
local function interpreter()
  local arguments, first = rawget(_G, "arg"), 0
  while arguments and arguments[first - 1] do first = first - 1 end
  local called = arguments and arguments[first]
  if called and called:find("^/.*/lua[^/]*$") and not called:find("%.lua$") then return called end
  return native.fs_readlink("/proc/self/exe") or (first < 0 and called) or "lua"
end

local function script(path, cpath)
  return string.format("package.path=%q package.cpath=%q os.exit(require('e2b.server.envd.main').main())", path, cpath)
end

---Finds out how to run a daemon.
---@return table runtime `program`, `direct` and `isolated` (the script to run, for the two ways), `binds` (folders an
---  isolated daemon needs: pairs of a real path and the one it has in there)
function runtime.find()
  local here = native.fs_realpath(".") or "/"
  local binds = {}
  local path, bundled_path = search_path(package.path, here, binds)
  local cpath, bundled_cpath = search_path(package.cpath, here, binds)
  local program = interpreter()
  if not is_system(native.fs_realpath(program) or program) then
    -- A Lua of one's own: the program and the folder of its libraries, at their own places.
    binds[#binds + 1] = { program, program }
    local folder = program:match("^(.*)/[^/]+$")
    local prefix = folder:match("^(.*)/bin$")
    if prefix then folder = prefix .. "/lib" end
    binds[#binds + 1] = { folder, folder }
  end
  return {
    program = program, direct = script(path, cpath), isolated = script(bundled_path, bundled_cpath), binds = binds,
  }
end

return runtime
