-- Nobody pays for what isn't used: parsing the whole library takes longer than a call.
local lazy = require("e2b.lazy")
local peer = require("spec.support.peer")
local support = require("spec.support.support")

-- Runs source in a fresh Lua whose `client` has a server that answers every request alike; returns what it prints.
local function run(source)
  local server = peer.answers({
    { status = 200, body = '{"sandboxID":"i1","templateID":"base","state":"running"}' },
  })
  local result = support.run([[
    local e2b = require("e2b")
    local client = e2b.client({ api_key = "e2b_x", api_url = ]] .. ("%q"):format(server.url) .. [[ })
    local function loaded(name) return package.loaded["e2b." .. name] ~= nil end
  ]] .. source)
  server:stop()
  assert.equal("", result.err)
  return result.out
end

describe("what is loaded", function()
  it("is a stand-in first, and the module when something of it is used", function()
    package.loaded["e2b.spec_module"] = nil
    local times = 0
    package.preload["e2b.spec_module"] = function()
      times = times + 1
      return { answer = function() return 42 end, word = "x" }
    end
    local module = lazy("e2b.spec_module")
    assert.equal(0, times)
    assert.equal(42, module.answer())
    assert.same({ "x" }, { module.word, module.nothing })
    assert.equal(1, times)
    package.preload["e2b.spec_module"], package.loaded["e2b.spec_module"] = nil, nil
  end)

  it("by a call that succeeds: neither tasks nor texts of errors nor what retries need", function()
    assert.equal("running\tnothing\n", run([[
      local info = assert(client.Sandbox.get_info("i1"))
      local found
      for _, name in ipairs({ "attempts", "describe", "errors", "gate", "group", "help", "paginator", "repl", "retry",
        "sandbox_create", "sandbox_start", "schema", "scheduler", "suggest", "table_view", "tasks", "template",
        "timers", "tools" }) do
        if loaded(name) then found = name end
      end
      print(info.state, found or "nothing")
    ]]))
  end)

  it("by a failing call: the texts of errors", function()
    assert.equal("true\tfalse\n", run([[
      local _, message, err = client:request("GET", "/", { retries = 0, request_timeout = 1e-9 })
      assert(err.kind == "timeout" and message)
      print(loaded("errors"), loaded("tasks"))
    ]]))
  end)

  it("by a task: the scheduler, which later calls go through", function()
    assert.equal("running\tdone\trunning\n", run([[
      local state
      local task = e2b.spawn(function() state = client.Sandbox.get_info("i1").state end)
      local first = client.Sandbox.get_info("i1").state -- the task is carried on by this wait
      task:wait()
      print(first, task.state, state)
    ]]))
  end)
end)
