--- `e2b reap`: ends what dead processes left, by a journal, or what single tokens name.
local M = {}

local USAGE = [[
Usage: e2b reap [--journal FILE] [TOKEN ...]

Kills the sandboxes that dead processes of ours left behind, as their journal knows them (the option
journal of e2b.client, or the variable E2B_JOURNAL): never those of a process that runs. With TOKENs
(err.token of a create whose answer was lost) it kills what these creates made, and nothing else.

  --journal FILE   the journal; E2B_JOURNAL if not given
  --help           this text

Key and service are those of the environment: E2B_API_KEY, E2B_API_URL, E2B_DOMAIN.
Exit status: 0 all is done, 1 something could not be ended, 2 wrong usage.
]]

-- Counted, not listed: there is nothing to do about them.
local LEFT = {
  { "alive", "of processes that run" },
  { "late", "without a sandbox so far, and so young that one may come: run this again" },
  { "key", "not found with this key, and made with another" },
  { "service", "made at another service" },
  { "elsewhere", "of processes on another machine or in another container" },
}

local function wrong(text)
  io.stderr:write("e2b reap: ", text, "; e2b reap --help tells more\n")
  return 2
end

-- The journal and the tokens that were named; nil, what is wrong.
local function read(args)
  local path, list, i = nil, {}, 1
  while args[i] do
    local name = args[i]
    if name == "--journal" then
      i = i + 1
      path = args[i]
    elseif name:find("^%-%-journal=") then
      path = name:match("=(.*)$")
    elseif name:find("^%-") then
      return nil, "there is no option " .. name
    elseif not require("e2b.sandbox_token").is(name) then
      return nil, ("%q is no token (32 hexadecimal digits)"):format(name:gsub("%c", "?"))
    else
      list[#list + 1] = name
    end
    if path == "" or name == "--journal" and not path then return nil, "--journal needs a file" end
    i = i + 1
  end
  return { path = path, tokens = list }
end

-- A journal that is not there: nothing was created yet, or its name is wrong, which nobody would notice.
local function absent(client)
  local file = io.open(client.journal.path, "rb")
  if file then file:close() end
  return not file
end

local function report(total, left, note)
  local parts = { ("%d killed, %d failed"):format(total.killed, total.failed) }
  for _, reason in ipairs(LEFT) do
    local count = 0
    for _, entry in ipairs(left) do
      if entry.reason == reason[1] then count = count + 1 end
    end
    if count > 0 then parts[#parts + 1] = ("left alone: %d %s"):format(count, reason[2]) end
  end
  parts[#parts + 1] = note
  print(table.concat(parts, "; "))
end

--- Runs it.
---@param args string[]
---@return integer status
function M.main(args)
  for _, name in ipairs(args) do
    if name == "--help" or name == "-h" then
      io.write(USAGE)
      return 0
    end
  end
  local asked, why = read(args)
  if not asked then return wrong(why) end
  local client = require("e2b").client({ journal = asked.path })
  if not client.journal and not asked.tokens[1] then
    return wrong("there is no journal: --journal FILE or the variable E2B_JOURNAL names it")
  end
  local total, all_left = { killed = 0, failed = 0 }, {}
  local i = 1
  repeat
    local killed, failed, left = client:reap(asked.tokens[i])
    if not killed then
      io.stderr:write(failed, "\n")
      return 1
    end
    for _, id in ipairs(killed) do print("killed " .. (id:gsub("%c", "?"))) end
    for _, failure in ipairs(failed) do io.stderr:write(failure.message, "\n") end
    for _, entry in ipairs(left) do all_left[#all_left + 1] = entry end
    total.killed, total.failed = total.killed + #killed, total.failed + #failed
    i = i + 1
  until not asked.tokens[i]
  report(total, all_left, not asked.tokens[1] and absent(client)
    and "there is no file " .. (client.journal.path:gsub("%c", "?")) or nil)
  return total.failed == 0 and 0 or 1
end

return M
