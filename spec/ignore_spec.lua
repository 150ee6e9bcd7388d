-- Ignore patterns, held against what git itself says of the same paths.
local support = require("spec.support.support")
local ignore = require("e2b.ignore")

local function is_ignored(patterns, path, is_directory)
  return ignore.within(ignore.new(patterns, "spec"))(path, is_directory or false)
end

describe("ignore patterns", function()
  it("leave nothing out when there are none", function()
    assert.is_false(is_ignored(nil, "a/b"))
    assert.is_false(is_ignored({}, "a/b"))
    assert.is_false(is_ignored({ "", "# a comment", "   " }, "a/b"))
  end)

  it("without a slash are about names at any depth", function()
    for _, path in ipairs({ "x.pyc", "a/x.pyc", "a/b/x.pyc" }) do
      assert.is_true(is_ignored({ "*.pyc" }, path), path)
    end
    assert.is_false(is_ignored({ "*.pyc" }, "x.pyc.txt"))
    assert.is_true(is_ignored({ "node_modules" }, "a/node_modules/b/c"))
  end)

  it("with one are about paths from the root", function()
    assert.is_true(is_ignored({ "/build" }, "build/x"))
    assert.is_false(is_ignored({ "/build" }, "a/build"))
    assert.is_true(is_ignored({ "a/build" }, "a/build"))
    assert.is_false(is_ignored({ "a/build" }, "b/a/build"))
  end)

  it("that end in a slash are about directories", function()
    assert.is_true(is_ignored({ "build/" }, "a/build", true))
    assert.is_true(is_ignored({ "build/" }, "a/build/x"))
    assert.is_false(is_ignored({ "build/" }, "a/build"))
  end)

  it("take no more memory than one path, however many are asked about and however deep they are", function()
    local ignored = ignore.within(ignore.new({ "*.o" }, "spec"))
    local before
    for i = 1, 60 do
      -- the same number of levels below a directory of its own
      assert.is_false(ignored(i .. "/" .. ("a/"):rep(400) .. "b", false))
      if i == 10 then
        support.collect()
        before = collectgarbage("count")
      end
    end
    support.collect()
    assert.is_true(collectgarbage("count") - before < 200, "KiB: " .. collectgarbage("count") - before)
  end)

  it("are asked about paths in any order", function()
    local ignored = ignore.within(ignore.new({ "/a/b", "c/" }, "spec"))
    for _, case in ipairs({
      { "a/x", false }, { "a/b/x/y", true }, { "a/bb/x", false }, { "a/b", true }, { "a", false, true },
      { "a/b/x", true }, { "c", false }, { "c", true, true }, { "c/d", true }, { "cc/d", false }, { "d/c/e", true },
      { "d/e", false }, { "d", false, true }, { "a/b", true, true }, { "b/a/b", false },
    }) do
      assert.equal(case[2], ignored(case[1], case[3] or false), case[1])
    end
  end)

  it("take back in what lies in no directory that is left out", function()
    local patterns = { "*.log", "!keep.log" }
    assert.is_true(is_ignored(patterns, "a/x.log"))
    assert.is_false(is_ignored(patterns, "a/keep.log"))
    assert.is_true(is_ignored({ "logs/", "!logs/keep.log" }, "logs/keep.log"))
    assert.is_true(is_ignored({ "!keep.log", "*.log" }, "keep.log")) -- the last one decides
  end)

  it("raise at what is no list of strings", function()
    for _, wrong in ipairs({ "x", 5, { 1 }, { "a", {} }, { name = "x" } }) do
      local ok, message = pcall(ignore.new, wrong, "put_tree")
      assert.is_false(ok)
      assert.matches("put_tree: ignore", message, nil, true)
    end
  end)

  -- Every pattern on every path; git is asked about real files and directories.
  describe("beside git", function()
    local folder
    local patterns = {
      "a", "/a", "a/", "/a/", "b/c", "/b/c", "*.txt", "/*.txt", "b/*.txt", "b/*", "*", "?", "a?c", "[ab]", "[a-c]",
      "[!a]", "[^a-b]", "**/c", "b/**", "**/b/c", "b/**/d", "a**c", "**", "/**", "b/**/", "*/c", "*/*/d", "\\#x",
      "#x", "\\!y", "!a", "z\\ ", "z ", "w[", "[]]", "[]-a]", "\\*", "a\\?c", "é*", "*.TXT", "x.t[xyz]t", "*b*c*",
      "/b/*/d", "b//c", "./a", "[[]", "[a-]", "[\\]]", "b/c/", "**/d/e", "c/d", "%a", ".", "a.c", "/", "//a",
    }
    local files = {
      "a", "aXc", "abc", "a?c", "*", "b/c/d/e", "b/a", "b/x.txt", "b/c/x.txt", "x.txt", "x.TXT", "d", "c/d/e", "#x",
      "!y", "z ", "z", "w[", "]", "-", "é1", "[", "q/b/c/f", "q/a/r", "q/z/d", "q/a.c", "%a", "a.c", "xbxcx",
    }

    setup(function()
      folder = support.tmpdir()
      local words = {}
      for _, path in ipairs(files) do
        words[#words + 1] = "mkdir -p " .. support.quote((path:match("^(.*)/") or "."))
        words[#words + 1] = ": > " .. support.quote(path)
      end
      local output, code = support.shell(("cd %s && git init -q . && { %s\n}"):format(folder,
        table.concat(words, "\n")))
      assert(code == 0, output)
    end)

    teardown(function() support.cleanup(folder) end)

    -- What git would take of the tree.
    local function kept_by_git(list)
      support.write_file(folder .. "/.git/info/exclude", table.concat(list, "\n") .. "\n")
      local output, code = support.shell(("cd %s && git -c core.quotePath=false ls-files -z --others "
        .. "--exclude-from=.git/info/exclude | tr '\\0' '\\n'"):format(folder))
      assert(code == 0, output)
      local kept = {}
      for path in output:gmatch("[^\n]+") do kept[path] = true end
      return kept
    end

    local function compare(list)
      local kept = kept_by_git(list)
      local ignored = ignore.within(ignore.new(list, "spec"))
      for _, path in ipairs(files) do
        assert.equal(kept[path] or false, not ignored(path, false),
          ("%s of { %s }"):format(path, table.concat(list, " , ")))
      end
    end

    it("one pattern", function()
      for _, pattern in ipairs(patterns) do compare({ pattern }) end
    end)

    it("several patterns", function()
      local seed = 7
      local function random(n)
        seed = (seed * 16807) % 2147483647
        return seed % n + 1
      end
      for _ = 1, 60 do
        local list = {}
        for i = 1, random(4) do
          local pattern = patterns[random(#patterns)]
          list[i] = random(3) == 1 and pattern:sub(1, 1) ~= "!" and "!" .. pattern or pattern
        end
        compare(list)
      end
    end)

    -- They may leave out nothing that the rules keep.
    it("the patterns for tar", function()
      for _, pattern in ipairs(patterns) do
        for _, exclude in ipairs(ignore.tar_excludes({ pattern })) do
          local output, code = support.shell(("cd %s && tar -c --exclude=.git --exclude=%s . | tar -t"):format(folder,
            support.quote(exclude)))
          assert(code == 0, output)
          local there = {}
          for line in output:gmatch("[^\n]+") do there[line] = true end
          local ignored = ignore.within(ignore.new({ pattern }, "spec"))
          for _, path in ipairs(files) do
            if not path:find("[^%w./]") and not there["./" .. path] then
              assert.is_true(ignored(path, false), pattern .. " left out " .. path)
            end
          end
        end
      end
      assert.same({ "*/node_modules/*", "./a/b/*" }, ignore.tar_excludes({ "node_modules/", "/a/b", "*.x", "# c" }))
      assert.same({}, ignore.tar_excludes({ "node_modules/", "!x" }))
      assert.same({}, ignore.tar_excludes(nil))
    end)
  end)
end)
