-- What the loops of hosts share, without a host: turns taken by hand.
local core = require("e2b.core")
local waits = require("e2b.loop.waits")

local function nothing() return function() end end

describe("loop.waits", function()
  local list, wakes, said

  before_each(function()
    wakes, said = 0, {}
    list = waits.new(function() wakes = wakes + 1 end)
  end)

  local function say(name)
    return function(...) said[#said + 1] = { name, select("#", ...), ... } end
  end

  it("tells done what was reported, once, from a turn and not before", function()
    local report
    list:begin(function(fn)
      fn("at once", nil, 3, nil)
      report = fn
      return function() error("cancelled") end
    end, nil, say("a"))
    assert.same({}, said)
    assert.equal(0, list:timeout())
    assert.is_true(wakes > 0)
    assert.is_nil(list:turn())
    assert.same({ { "a", 4, "at once", nil, 3, nil } }, said)
    report("again")
    list:turn()
    assert.equal(1, #said)
  end)

  it("ends at the deadline, in order, and says how long that is away", function()
    local cancelled = {}
    local function start(name)
      return function() return function() cancelled[#cancelled + 1] = name end end
    end
    local now = core.now()
    list:begin(start("late"), now + 0.02, say("late"))
    list:begin(start("early"), now + 0.01, say("early"))
    assert.is_true(list:timeout() <= 0.01)
    repeat local seconds = list:turn() until not seconds
    assert.same({ "early", "late" }, cancelled)
    assert.same({ { "early", 2, nil, "deadline" }, { "late", 2, nil, "deadline" } }, said)
    assert.is_true(core.now() >= now + 0.02)
  end)

  it("is silent about what was cancelled, also when it was over already", function()
    local report
    local cancel = list:begin(nothing, nil, say("a"))
    local other = list:begin(function(fn)
      report = fn
      return function() end
    end, nil, say("b"))
    cancel()
    cancel()
    report("over")
    other()
    assert.is_nil(list:turn())
    assert.same({}, said)
    assert.equal(0, list.count)
  end)

  it("forgets a wait that can't begin, and goes on", function()
    assert.has_error(function() list:begin(function() error("no", 0) end, core.now() + 1, say("a")) end, "no")
    assert.equal(0, list.count)
    assert.is_nil(list:turn())
  end)

  it("tells all of them, whoever raises, and lets waits begin and end meanwhile", function()
    local begun
    list:begin(function(fn) fn(1) return function() end end, nil, function()
      begun = list:begin(nothing, nil, say("new"))
      error("mine", 0)
    end)
    list:begin(function(fn) fn(2) return function() end end, nil, say("second"))
    assert.has_error(function() list:turn() end, "mine")
    assert.same({ { "second", 1, 2 } }, said)
    assert.equal(1, list.count)
    begun()
    assert.is_nil(list:turn())
  end)

  it("goes on after a cancel that raised", function()
    list:begin(function() return function() error("no memory", 0) end end, core.now(), say("first"))
    list:begin(function() return function() error("no memory", 0) end end, core.now() + 60, say("second"))
    assert.has_error(function() list:turn() end, "no memory")
    assert.same({ { "first", 2, nil, "deadline" }, { "second", 2, nil, "cancelled" } }, said)
    list:begin(function(fn) fn(1) return function() end end, nil, say("third"))
    assert.is_nil(list:turn())
    assert.same({ "third", 1, 1 }, said[3])
    assert.equal(0, list.count)
  end)

  it("cancels everything when the host goes away", function()
    local cancelled = 0
    for i = 1, 3 do
      list:begin(function() return function() cancelled = cancelled + 1 end end, core.now() + i, say(i))
    end
    list:cancel_all()
    assert.is_nil(list:turn())
    assert.equal(3, cancelled)
    assert.equal(3, #said)
    assert.same({ 2, nil, "cancelled" }, { said[1][2], said[1][3], said[1][4] })
  end)
end)
