-- Unpacking what somebody else packed: nothing leaves the directory.
local support = require("spec.support.support")
local core = support.core()

local EEXIST, EISDIR, EINVAL, ELOOP = 17, 21, 22, 40

local folder, inside, outside, fds

local function names(dir)
  return table.concat(assert(core.fs_list(dir)), " ")
end

local function put(tree, rel, text, mode)
  local file = assert(tree:create(rel, mode))
  assert(file:write(text))
  assert.is_true(file:commit())
end

-- The way to the same mistake through every function that makes something.
local function everywhere(tree, rel)
  local makers = {
    { "make directory", tree.mkdir, rel },
    { "write", tree.create, rel },
    { "make link", tree.symlink, "x", rel },
    { "make link", tree.link, "real", rel },
    { "change", tree.touch, rel, 511, 0 },
  }
  local i = 0
  return function()
    i = i + 1
    local maker = makers[i]
    if maker then
      return maker[1], maker[2](tree, maker[3], maker[4], maker[5])
    end
  end
end

describe("core.tree", function()
  before_each(function()
    folder = support.tmpdir()
    fds = support.fd_count()
    inside, outside = folder .. "/inside", folder .. "/outside"
    assert(core.fs_mkdir(inside))
    assert(core.fs_mkdir(outside))
    support.write_file(outside .. "/target", "untouched")
    assert(core.fs_touch(outside .. "/target", tonumber("600", 8), 1000000000))
  end)
  after_each(function()
    support.collect()
    assert.equal("target", names(outside))
    assert.equal("inside outside", names(folder))
    assert.equal("untouched", support.read_file(outside .. "/target"))
    local entry = core.fs_stat(outside .. "/target")
    assert.equal(tonumber("600", 8), entry.mode)
    assert.equal(1000000000, entry.mtime)
    assert.equal(fds, support.fd_count())
    support.cleanup(folder)
  end)

  it("makes files, directories and links, and the parents that are missing", function()
    local tree = assert(core.tree(inside))
    put(tree, "a/b/c.txt", "deep", tonumber("640", 8))
    put(tree, "./a//b/./d.txt", "odd spelling", tonumber("755", 8))
    assert.is_true(tree:mkdir("empty/", tonumber("750", 8)))
    assert.is_true(tree:mkdir("a/b"))
    assert.is_true(tree:mkdir("."))
    assert.is_true(tree:mkdir(""))
    assert.is_true(tree:symlink("b/c.txt", "a/link"))
    assert.is_true(tree:link("a/b/c.txt", "second/name"))
    assert.is_true(tree:touch("a/b/d.txt", tonumber("600", 8), 1234567890))
    assert.is_true(tree:touch("empty", tonumber("500", 8), 1234567890))
    assert.is_true(tree:touch("./", nil, 1234567890))
    assert.equal("a empty second", names(inside))
    assert.equal("b link", names(inside .. "/a"))
    assert.equal("c.txt d.txt", names(inside .. "/a/b"))
    assert.equal("deep", support.read_file(inside .. "/second/name"))
    assert.equal("deep", support.read_file(inside .. "/a/link"))
    assert.equal(tonumber("640", 8), core.fs_stat(inside .. "/a/b/c.txt").mode)
    assert.same({ type = "file", size = 12, mode = tonumber("600", 8), mtime = 1234567890 },
      core.fs_stat(inside .. "/a/b/d.txt"))
    assert.equal(tonumber("500", 8), core.fs_stat(inside .. "/empty").mode)
    assert.equal(1234567890, core.fs_stat(inside .. "/empty").mtime)
    assert.equal(1234567890, core.fs_stat(inside).mtime)
    tree:close()
    tree:close()
    assert.has_error(function() tree:mkdir("x") end, "attempt to use a closed tree")
  end)

  it("refuses names that lead out of it", function()
    local tree = assert(core.tree(inside))
    put(tree, "real", "x")
    for rel, sentence in pairs({
      ["/etc/e2b"] = "it leads out of the directory",
      [outside .. "/target"] = "it leads out of the directory",
      ["//x"] = "it leads out of the directory",
      [".."] = "it leads out of the directory with '..'",
      ["../outside/target"] = "it leads out of the directory with '..'",
      ["a/../../outside/target"] = "it leads out of the directory with '..'",
      ["./.././outside/target"] = "it leads out of the directory with '..'",
      ["a/.."] = "it leads out of the directory with '..'",
      ["a\0b"] = "a path cannot hold a NUL byte",
      ["../outside/target\0"] = "a path cannot hold a NUL byte",
    }) do
      for what, ok, message, errno in everywhere(tree, rel) do
        assert.is_nil(ok)
        assert.is_truthy(message == ("cannot %s '%s': %s"):format(what, rel:match("^%Z*"), sentence)
          or what == "change" and message:find("No such file", 1, true), message)
        assert.is_true(errno == EINVAL or what == "change")
      end
    end
    local ok, message, errno = tree:link("../outside/target", "stolen")
    assert.is_nil(ok)
    assert.equal("cannot make link to '../outside/target': it leads out of the directory with '..'", message)
    assert.equal(EINVAL, errno)
    assert.is_nil(tree:symlink("a\0b", "link"))
    -- two dots are a way out only as a whole part
    put(tree, "..a/b../c..d/...", "x")
    assert.equal("x", support.read_file(inside .. "/..a/b../c..d/..."))
  end)

  it("never goes through a link, whoever made it", function()
    local tree = assert(core.tree(inside))
    put(tree, "real", "x")
    assert(tree:symlink(outside, "absolute"))
    assert(tree:symlink("../outside", "relative"))
    assert(tree:symlink(".", "round"))
    assert(tree:mkdir("sub"))
    assert(tree:symlink("../../outside", "sub/deep"))
    assert(core.fs_symlink(outside, inside .. "/planted"))
    for _, link in ipairs({ "absolute", "relative", "round", "sub/deep", "planted" }) do
      for _, tail in ipairs({ "/target", "/fresh", "/fresh/file", "/./target" }) do
        for what, ok, message, errno in everywhere(tree, link .. tail) do
          assert.is_nil(ok, link .. tail)
          assert.equal(("cannot %s '%s': a link is in its way, and links are not followed here"):format(
            what, link .. tail), message)
          assert.equal(ELOOP, errno)
        end
      end
      local ok, _, errno = tree:mkdir(link)
      assert.is_nil(ok)
      assert.equal(ELOOP, errno)
      ok, _, errno = tree:link(link .. "/target", "stolen")
      assert.is_nil(ok)
      assert.equal(ELOOP, errno)
    end
    assert.equal("absolute planted real relative round sub", names(inside))
  end)

  it("replaces links themselves", function()
    local tree = assert(core.tree(inside))
    put(tree, "real", "x")
    for i, replace in ipairs({
      function(rel) put(tree, rel, "new") end,
      function(rel) assert.is_true(tree:symlink("elsewhere", rel)) end,
      function(rel) assert.is_true(tree:link("real", rel)) end,
    }) do
      local rel = "link" .. i
      assert(tree:symlink("../outside/target", rel))
      assert.is_true(tree:touch(rel, 0, 5)) -- of the link, which has no mode
      replace(rel)
    end
    assert.equal("new", support.read_file(inside .. "/link1"))
    assert.equal("file", core.fs_stat(inside .. "/link1").type)
    assert.equal("elsewhere", core.fs_stat(inside .. "/link2").target)
    assert.equal("x", support.read_file(inside .. "/link3"))
    -- a second name of a link is one of the link, not of what it points to
    assert(tree:symlink("../outside/target", "link4"))
    assert.is_true(tree:link("link4", "link5"))
    put(tree, "link5", "own")
    assert.equal("own", support.read_file(inside .. "/link5"))
    -- and of a file, a file that is written afresh
    put(tree, "link3", "changed")
    assert.equal("x", support.read_file(inside .. "/real"))
    assert.is_true(tree:link("real", "real"))
    assert.is_true(tree:link("real", "again"))
    assert.is_true(tree:link("real", "again"))
    assert.equal("again link1 link2 link3 link4 link5 real", names(inside))
  end)

  it("leaves directories where they are, and files that are in the way of one", function()
    local tree = assert(core.tree(inside))
    assert(tree:mkdir("dir"))
    put(tree, "file", "x")
    local function is(expected, ok, _, errno)
      assert.is_nil(ok)
      assert.equal(expected, errno)
    end
    is(EISDIR, tree:create("dir"))
    is(EISDIR, tree:symlink("x", "dir"))
    is(EISDIR, tree:link("file", "dir"))
    is(EISDIR, tree:create("."))
    is(EISDIR, tree:symlink("x", ""))
    is(EISDIR, tree:link(".", "x"))
    is(EEXIST, tree:mkdir("file"))
    is(20, tree:create("file/below"))
    is(2, tree:link("none", "x"))
    is(2, tree:touch("none", nil, 0))
    is(2, tree:touch("none/below", nil, 0))
    assert.is_nil(tree:create(("n"):rep(256)))
    assert.is_nil(tree:create(("n"):rep(300) .. "/x"))
    assert.equal("dir file", names(inside))
  end)

  it("removes what was not committed, and commits after the tree is closed", function()
    local tree = assert(core.tree(inside))
    local kept, left = assert(tree:create("sub/kept")), assert(tree:create("left"))
    kept:write("x")
    left:write("y")
    tree:close()
    assert.is_true(kept:commit(tonumber("604", 8)))
    left, tree = nil, nil -- luacheck: ignore 311
    support.collect()
    assert.equal("sub", names(inside))
    assert.equal("kept", names(inside .. "/sub"))
    assert.equal(tonumber("604", 8), core.fs_stat(inside .. "/sub/kept").mode)
  end)

  it("never gives set-id bits", function()
    local tree = assert(core.tree(inside))
    put(tree, "program", "x", tonumber("6755", 8))
    assert.equal(tonumber("755", 8), core.fs_stat(inside .. "/program").mode)
    assert(tree:touch("program", tonumber("4711", 8)))
    assert.equal(tonumber("711", 8), core.fs_stat(inside .. "/program").mode)
  end)

  it("opens directories only", function()
    for path, errno in pairs({ [outside .. "/target"] = 20, [folder .. "/none"] = 2, ["a\0b"] = EINVAL }) do
      local tree, message, code = core.tree(path)
      assert.is_nil(tree)
      assert.equal(1, (message:find("cannot open '", 1, true)))
      assert.equal(errno, code)
    end
    assert.has_error(function() core.tree() end)
    local tree = assert(core.tree(inside))
    assert.has_error(function() tree:create("x", 1.5) end)
    assert.has_error(function() tree:mkdir({}) end)
    assert.has_error(function() tree:touch("x", nil, "soon") end)
  end)

  it("goes down as deep as a name leads", function()
    local tree = assert(core.tree(inside))
    local rel = ("d/"):rep(500) .. "file"
    put(tree, rel, "deep")
    assert.equal("deep", support.read_file(inside .. "/" .. rel))
  end)
end)
