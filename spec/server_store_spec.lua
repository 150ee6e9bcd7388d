-- The local server's book of sandboxes without HTTP around it: who ends a sandbox, and in which order lists stand.
local cqueues = require("cqueues")
local clock = require("e2b.server.clock")
local page = require("e2b.server.platform.page")
local store = require("e2b.server.platform.store")
local support = require("spec.support.support")

local SECOND = clock.SECOND

describe("the local server's store", function()
  local cq, book

  before_each(function()
    clock.set()
    cq = cqueues.new()
    -- No sandbox of these ever runs anything.
    local places = { is_started = function() return false end }
    for _, name in ipairs({ "pause", "resume", "forget", "remove", "save" }) do places[name] = function() end end
    book = store.new({ transition = 0 }, function(fn)
      cq:wrap(fn)
    end, places)
  end)

  local function add(id, seconds, fields)
    local sandbox = fields or {}
    sandbox.id, sandbox.team, sandbox.state = id, sandbox.team or "mine", "running"
    sandbox.started = clock.now()
    sandbox.end_at = sandbox.started + seconds * SECOND
    book:add(sandbox)
    return sandbox
  end

  -- Lets the server's coroutines run for a while.
  local function run(seconds)
    local stop = support.now() + seconds
    while support.now() < stop do
      assert(cq:step(math.max(stop - support.now(), 0)))
    end
  end

  it("ends sandboxes by its own clock, though nobody asks", function()
    run(0.01)
    local mortal = add("i1", 0.1)
    local later = add("i2", 0.2, { auto_pause = true, auto_pause_memory = true })
    local ends = { mortal.end_at, later.end_at }
    local function until_true(condition)
      local limit = support.now() + 2 * support.slack
      while not condition() and support.now() < limit do
        run(0.005)
      end
      assert.is_true(condition())
      return clock.now()
    end
    local first = until_true(function() return book.all.i1 == nil end)
    local second = until_true(function() return later.state == "paused" end)
    for i, at in ipairs({ first, second }) do
      assert.is_true(at >= ends[i] and at < ends[i] + support.tolerance * SECOND, (at - ends[i]) / SECOND)
    end
  end)

  it("is not late for a sandbox that got less time than the others", function()
    add("i1", 100)
    run(0.01)
    local sandbox = add("i2", 100)
    run(0.01)
    book:set_end(sandbox, clock.now() + 0.05 * SECOND)
    run(0.1 * support.slack)
    assert.is_nil(book.all.i2)
    assert.is_table(book.all.i1)
  end)

  it("never shows a sandbox whose time is over, though its own clock has not come round", function()
    add("i1", 0)
    assert.is_nil(book:find("mine", "i1"))
    add("i2", 0)
    add("i3", 0, { auto_pause = true })
    add("i4", 10)
    local seen = {}
    for id, sandbox in pairs(book:of_team("mine")) do
      seen[id] = sandbox.state
    end
    assert.same({ i3 = "paused", i4 = "running" }, seen)
    assert.equal(1, book:running("mine"))
  end)

  it("forgets what was killed, teams included", function()
    local sandbox = add("i1", 10)
    assert.is_nil(book:find("other", "i1"))
    assert.equal(sandbox, book:find_any("i1"))
    book:kill(sandbox)
    book:kill(sandbox)
    assert.is_nil(book:find_any("i1"))
    assert.is_nil(next(book.all))
    assert.is_nil(next(book.teams))
  end)
end)

describe("the local server's pages", function()
  it("order by time, then by id, and back", function()
    local function ids(keys, ascending)
      local list = {
        { time = 1, id = "b" }, { time = 2, id = "a" }, { time = 1, id = "a" }, { time = 2, id = "b" },
        { time = 1, id = "c" },
      }
      page.sort(list, keys, ascending)
      local out = {}
      for i, item in ipairs(list) do
        out[i] = item.time .. item.id
      end
      return table.concat(out, " ")
    end
    assert.equal("2a 2b 1a 1b 1c", ids({ time = "time", id = "id" }))
    assert.equal("1c 1b 1a 2b 2a", ids({ time = "time", id = "id" }, true))
    assert.equal("2b 2a 1c 1b 1a", ids({ time = "time", id = "id", id_descending = true }))
  end)

  it("go on exactly after an item, also among equal times", function()
    for _, keys in ipairs({ { time = "time", id = "id" }, { time = "time", id = "id", id_descending = true } }) do
      for _, ascending in ipairs({ false, true }) do
        local list = {}
        for i = 1, 7 do
          list[i] = { time = math.floor(i / 3) * SECOND, id = "i" .. i % 4 .. i }
        end
        page.sort(list, keys, ascending)
        local seen, token = {}, nil
        repeat
          local items, headers = page.of({ query = { limit = "2", nextToken = token } }, list, keys, ascending)
          for _, item in ipairs(items) do
            seen[#seen + 1] = item
          end
          token = headers[2]
          assert.is_true(#seen <= 7)
        until not token
        assert.same(list, seen)
      end
    end
  end)
end)
