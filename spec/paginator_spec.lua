local paginator = require("e2b.paginator")
local errors = require("e2b.errors")
local tasks = require("e2b.tasks")
local compat = require("e2b.compat")

-- Pages by token; `log` gets every token that was asked for.
local function pages(list, log, more)
  local spec = {
    name = "Thing.list",
    fetch = function(token)
      if log then log[#log + 1] = token or "first" end
      local at = token and tonumber(token) or 1
      local copy = {}
      for i, item in ipairs(list[at]) do copy[i] = item end
      return copy, list[at + 1] and tostring(at + 1) or nil
    end,
  }
  for name, value in pairs(more or {}) do spec[name] = value end
  return paginator.new(spec)
end

-- As pages(), with the n-th request failing.
local function failing_at(n, list)
  local asked, inner = 0, pages(list)
  return paginator.new({ name = "Thing.list", page_metatable = { __tostring = function() return "a page" end },
    fetch = function(token)
      asked = asked + 1
      if asked == n then return errors.new("server", { message = "not now" }) end
      inner.has_next, inner.next_token = true, token
      local items = assert(inner:next_items())
      return items, inner.next_token
    end })
end

describe("paginator", function()
  it("loses nothing when all() fails in the middle", function()
    local p = failing_at(3, { { 1, 2 }, { 3 }, { 4 }, {} })
    local list, message, err = p:all()
    assert.is_nil(list)
    assert.equal("not now", message)
    assert.equal("server", err.kind)
    assert.is_true(p.has_next)
    assert.same({ 1, 2, 3, 4 }, p:all())
    assert.is_false(p.has_next)

    p = failing_at(3, { { 1, 2 }, { 3 }, { 4 }, {} })
    p:all()
    local page = p:next_items()
    assert.same({ 1, 2, 3 }, page)
    assert.equal("a page", tostring(page))
    assert.same({ 4 }, p:next_items())

    p = failing_at(2, { { 1, 2 }, { 3 } })
    p:all()
    local seen = {}
    for item in p do seen[#seen + 1] = item end
    assert.same({ 1, 2, 3 }, seen)
  end)

  it("begins anew when all() fails at once", function()
    local p = failing_at(1, { { 1 }, { 2 } })
    assert.is_nil(p:all())
    assert.is_true(p.has_next)
    assert.same({ 1, 2 }, p:all())
  end)

  it("ends when the cursors go round", function()
    local after, asked = { first = "a", a = "b", b = "c", c = "a" }, 0
    local p = paginator.new({ name = "Thing.list", fetch = function(token)
      asked = asked + 1
      assert(asked < 20, "it goes round and round")
      return { asked }, after[token or "first"]
    end })
    for _ = 1, 2 do
      local list, message, err = p:all()
      assert.is_nil(list)
      assert.equal("protocol", err.kind)
      assert.matches("the cursor leads back", message, 1, true)
    end
    assert.equal(5, asked)
  end)

  it("raises at the caller's line for a dot, and for what only a list can", function()
    local p = pages({ { 1 } })
    local function raises(text, fn)
      local ok, message = pcall(fn)
      assert.is_false(ok, text)
      assert.matches(text, message, 1, true)
      assert.matches("^%S*paginator_spec%.lua:%d+: ", message)
    end
    raises("write paginator:next_items()", function() p.next_items() end)
    raises("write paginator:all()", function() p.all() end)
    raises("write paginator:all()", function() p.all({}) end)
    raises("a paginator is no list: write for item in paginator do", function() return p[1] end)
    if not compat.puc51 and not rawget(_G, "jit") then
      raises("a paginator is no list", function() return #p end)
    end
    assert.is_nil(p.unknown)
    assert.is_nil(p[true])
    assert.same({ 1 }, p:all())
  end)

  it("gives items one by one", function()
    local log, seen = {}, {}
    local p = pages({ { 1, 2 }, { 3 }, {}, { 4 } }, log)
    assert.same({}, log)
    for item in p do seen[#seen + 1] = item end
    assert.same({ 1, 2, 3, 4 }, seen)
    assert.same({ "first", "2", "3", "4" }, log)
    assert.is_false(p.has_next)
    assert.is_nil(p.next_token)
    for _ in p do error("there is nothing left") end
  end)

  it("fetches no page before it is needed", function()
    local log = {}
    for item in pages({ { 1, 2 }, { 3 } }, log) do
      if item == 2 then break end
    end
    assert.same({ "first" }, log)
  end)

  it("gives pages, and raises when there are no more", function()
    local p = pages({ { 1, 2 }, { 3 } })
    assert.is_true(p.has_next)
    assert.same({ 1, 2 }, p:next_items())
    assert.is_true(p.has_next)
    assert.equal("2", p.next_token)
    assert.same({ 3 }, p:next_items())
    assert.is_false(p.has_next)
    local ok, message = pcall(p.next_items, p)
    assert.is_false(ok)
    assert.matches("Thing.list: no more items", message, 1, true)
    local function again() p:next_items() end
    ok, message = pcall(again)
    assert.is_false(ok)
    assert.matches("^%S*paginator_spec%.lua:%d+:", message)
  end)

  it("takes an empty cursor for the end", function()
    local p = paginator.new({ fetch = function() return { 1 }, "" end })
    p:next_items()
    assert.is_false(p.has_next)
    assert.is_nil(p.next_token)
  end)

  it("begins where next_token says", function()
    local p = pages({ { 1 }, { 2 } }, nil, { next_token = "2" })
    assert.equal("2", p.next_token)
    assert.same({ 2 }, p:next_items())
  end)

  it("goes on with the rest of a page that a for loop left", function()
    local p = pages({ { 1, 2, 3 }, { 4 } })
    for item in p do
      if item == 1 then break end
    end
    assert.same({ 2, 3 }, p:next_items())
    assert.same({ 4 }, p:next_items())
    assert.is_false(p.has_next)
    p = pages({ { 1, 2, 3 } })
    assert.equal(1, (p()))
    assert.is_true(p.has_next)
    assert.same({ 2, 3 }, p:all())
    assert.is_false(p.has_next)
  end)

  it("collects everything", function()
    local p = pages({ { 1, 2 }, {}, { 3 } })
    assert.same({ 1, 2, 3 }, p:all())
    assert.same({}, p:all())
    assert.is_false(p.has_next)
  end)

  it("raises the message in a for loop, keeps the error, and can be asked again", function()
    local broken = true
    local p = paginator.new({
      name = "Thing.list",
      fetch = function()
        if broken then return errors.new("busy", { message = "come back later" }) end
        return { 1 }
      end,
    })
    local ok, message = pcall(function()
      for _ in p do error("no item was there") end
    end)
    assert.is_false(ok)
    assert.equal("come back later", message)
    assert.equal("busy", p.err.kind)
    assert.is_true(p.has_next)
    local items, text, err = p:next_items()
    assert.is_nil(items)
    assert.equal("come back later", text)
    assert.equal(p.err, err)
    assert.is_nil((p:all()))
    broken = false
    assert.same({ 1 }, p:all())
    assert.is_nil(p.err)
  end)

  it("notices a server that answers the same page again and again", function()
    local calls = 0
    local p = paginator.new({
      fetch = function()
        calls = calls + 1
        return { calls }, "stuck"
      end,
    })
    local items, message, err = p:all()
    assert.is_nil(items)
    assert.equal("protocol", err.kind)
    assert.matches("again and again", message, 1, true)
    assert.equal(2, calls)
  end)

  it("prints without fetching, and its pages print as they are told to", function()
    local log = {}
    local p = pages({ { 1, 2 }, { 3 } }, log, { columns = function(items) return #items .. " rows" end })
    assert.equal("Paginator(Thing.list, 0 fetched, not fetched yet)", tostring(p))
    assert.same({}, log)
    assert.equal("2 rows", tostring(p:next_items()))
    assert.equal("Paginator(Thing.list, 2 fetched, more to come)", tostring(p))
    assert.equal("1 rows", tostring(p:all()))
    assert.equal("Paginator(Thing.list, 3 fetched, complete)", tostring(p))
    local mt = { __tostring = function() return "mine" end }
    assert.equal("mine", tostring(pages({ { 1 } }, nil, { page_metatable = mt }):next_items()))
    assert.equal("mine", tostring(pages({ { 1 } }, nil, { page_metatable = mt }):all()))
  end)

  local function slow(list)
    local p = pages(list)
    return paginator.new({
      fetch = function()
        assert(tasks.sleep(0.02))
        local items = p:next_items()
        return items, p.next_token
      end,
    })
  end

  it("waits inside a for loop of a task on every Lua; where that can be suspended, others go on meanwhile", function()
    local order = {}
    local results, failed = tasks.all(function()
      local list = {}
      for item in slow({ { 1 }, { 2 }, { 3 } }) do
        list[#list + 1] = item
        order[#order + 1] = "item"
      end
      return #list
    end, function()
      for _ = 1, 4 do
        tasks.sleep(0.01)
        order[#order + 1] = "beside"
      end
      return true
    end)
    assert.equal(0, failed, results[1].message or results[2].message)
    assert.equal(3, results[1].value)
    local first_item
    for i, what in ipairs(order) do
      if what == "item" then first_item = first_item or i end
    end
    local beside = 0
    for _, what in ipairs(order) do beside = beside + (what == "beside" and 1 or 0) end
    assert.equal(4, beside)
    if not compat.puc51 then
      assert.is_true(first_item > 1, "the task beside ran first")
      assert.equal("item", order[#order])
    end
  end)

  it("suspends a task in next_items and all, on PUC 5.1 too", function()
    local results, failed = tasks.all(function()
      local p = slow({ { 1 }, { 2 } })
      local items = assert(p:next_items())
      return #items + #p:all()
    end, function() return (tasks.current().blocking) end)
    assert.equal(0, failed, results[1].message)
    assert.equal(2, results[1].value)
  end)

  if compat.puc51 then
    it("blocks instead of yielding in a for loop of PUC 5.1, and stops blocking afterwards", function()
      local results, failed = tasks.all(function()
        for _ in slow({ { 1 } }) do assert.is_nil(tasks.current().blocking) end
        local p = paginator.new({ fetch = function() error("broken") end })
        assert.is_false(pcall(function() for _ in p do error("no item") end end))
        assert.is_nil(tasks.current().blocking)
      end)
      assert.equal(0, failed, results[1].message)
    end)
  end

  it("is collected, also when fetch holds it", function()
    local weak = setmetatable({}, { __mode = "k" })
    do
      local p
      p = paginator.new({ fetch = function() return { p } end })
      p:next_items()
      weak[p] = true
      p = nil -- luacheck: ignore 311
    end
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(weak))
  end)
end)
