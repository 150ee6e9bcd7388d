--- Runs the suite of spec/hosts/suite.lua in a host and makes a spec of each of its lines.
local busted = require("busted")
local support = require("spec.support.support")
local dns = require("spec.support.dns")
local failing = require("spec.support.failing")
local peer = require("spec.support.peer")
local suite = require("spec.hosts.suite")

local M = {}

-- The peer of the suite: one answer takes its time, another never comes.
local ANSWER = failing.DETAIL:gsub('"sandboxID":"ok"', '"sandboxID":"slow"')
local HANDLER = "local SLOW = " .. support.serialize(ANSWER) .. [[

conn:serve(function(request)
  if request.path == "/sandboxes/slow" then
    conn:sleep(0.3)
    return conn:respond(200, SLOW)
  end
  conn:wait_closed()
end)]]

--- Declares the specs. `run` runs the host and returns what it wrote: it gets the environment (a map; E2B_SPEC_SILENT=1
--- asks for the silent cases) and the words to put before the program.
---@param run fun(env: table<string, string>, wrap: string): string output
function M.declare(run)
  local outputs, server, slow = {}, nil, nil

  local function output_of(silent)
    if outputs[silent] then return outputs[silent] end
    local env = { E2B_SPEC_SLACK = tostring(support.slack), E2B_SPEC_PEER = slow.url }
    for name, value in pairs(server.env) do env[name] = value end
    if silent then
      env.E2B_SPEC_SILENT = "1"
      dns.within(function(wrap) outputs[silent] = run(env, wrap) end)
    else
      outputs[silent] = run(env, "")
    end
    return outputs[silent]
  end

  busted.setup(function()
    server, slow = require("e2b.server").start(), peer.start(HANDLER)
  end)
  busted.teardown(function()
    server:stop()
    slow:stop()
    support.cleanup()
  end)

  for _, case in ipairs(suite.cases) do
    busted.it(case.name, function()
      local output = output_of(case.silent)
      if ("\n" .. output):find("\nok: " .. case.name .. "\n", 1, true) then return end
      local failed = ("\n" .. output):match("\nfailed: " .. case.name:gsub("%p", "%%%0") .. ": ([^\n]*)")
      error(failed or "no word of it; the host said:\n" .. output, 0)
    end)
  end
end

return M
