-- What git prints, and what becomes of credentials in texts: no sandbox is needed for these.
local auth = require("e2b.git_auth")
local parse = require("e2b.git_parse")
local support = require("spec.support.support")

describe("git status", function()
  local function head(text)
    local status = parse.status("## " .. text .. "\n")
    return {
      branch = status.current_branch, upstream = status.upstream, ahead = status.ahead, behind = status.behind,
      detached = status.detached,
    }
  end

  it("has the branch and its upstream", function()
    local zero = { ahead = 0, behind = 0, detached = false }
    local function expect(text, fields)
      for name, value in pairs(zero) do
        if fields[name] == nil then fields[name] = value end
      end
      assert.same(fields, head(text), text)
    end
    expect("main", { branch = "main" })
    expect("main...origin/main", { branch = "main", upstream = "origin/main" })
    expect("main...origin/main [ahead 2]", { branch = "main", upstream = "origin/main", ahead = 2 })
    expect("main...origin/main [behind 13]", { branch = "main", upstream = "origin/main", behind = 13 })
    expect("a/b...o/a/b [ahead 1, behind 4]", { branch = "a/b", upstream = "o/a/b", ahead = 1, behind = 4 })
    expect("main...origin/main [gone]", { branch = "main", upstream = "origin/main" })
    expect("No commits yet on main", { branch = "main" })
    expect("Initial commit on main", { branch = "main" })
    expect("No commits yet on main...origin/main", { branch = "main", upstream = "origin/main" })
    expect("HEAD (no branch)", { detached = true })
    expect("HEAD (detached at 1a2b3c)", { detached = true })
    expect("(HEAD detached at 1a2b3c)", { detached = true })
    expect("HEAD", { detached = true })
    expect("detached-thoughts", { branch = "detached-thoughts" })
    expect("HEADLINE", { branch = "HEADLINE" })
  end)

  local function files(text)
    return parse.status("## main\n" .. text).file_status
  end

  it("has a word for every pair of letters", function()
    local words = {
      ["U "] = "conflict", [" U"] = "conflict", UU = "conflict", UD = "conflict", AU = "conflict",
      ["R "] = "renamed", RM = "renamed", ["C "] = "copied", ["D "] = "deleted", [" D"] = "deleted", MD = "deleted",
      ["A "] = "added", AM = "added", AD = "deleted", ["M "] = "modified", [" M"] = "modified", MM = "modified",
      ["T "] = "typechange", [" T"] = "typechange", ["??"] = "untracked", ["!!"] = "unknown",
    }
    for letters, word in pairs(words) do
      local file = files(letters .. " a.txt\n")[1]
      assert.equal(word, file.status, letters)
      assert.equal("a.txt", file.name)
      assert.equal(letters:sub(1, 1), file.index_status)
      assert.equal(letters:sub(2, 2), file.working_tree_status)
      assert.equal(letters:sub(1, 1) ~= " " and letters:sub(1, 1) ~= "?", file.staged, letters)
    end
  end)

  it("has names as they are", function()
    assert.equal("a b.txt", files('?? "a b.txt"\n')[1].name)
    assert.equal("ä.txt", files('?? "\\303\\244.txt"\n')[1].name)
    assert.equal('say "hi"\\\t\n\7x', files('?? "say \\"hi\\"\\\\\\t\\n\\ax"\n')[1].name)
    assert.equal("\\101", files('?? "\\\\101"\n')[1].name)
    assert.equal(" lead", files("??  lead\n")[1].name)
    assert.equal('"half', files('?? "half\n')[1].name)
  end)

  it("has both names of what was renamed", function()
    for text, names in pairs({
      ["R  old -> new"] = { "old", "new" },
      ['R  "old name" -> new'] = { "old name", "new" },
      ['R  old -> "new name"'] = { "old", "new name" },
      ['R  "a -> b" -> "c -> d"'] = { "a -> b", "c -> d" },
      ['C  "\\"" -> "\\\\"'] = { '"', "\\" },
    }) do
      local file = files(text .. "\n")[1]
      assert.equal(names[1], file.renamed_from, text)
      assert.equal(names[2], file.name, text)
    end
    assert.is_nil(files(" M a\n")[1].renamed_from)
  end)

  it("counts", function()
    local status = parse.status("## main...o/main [ahead 1]\nM  a\n M b\nMM c\n?? d\n?? e\nUU f\n\n")
    assert.equal(6, status.total_count)
    assert.equal(3, status.staged_count)
    assert.equal(3, status.unstaged_count)
    assert.equal(2, status.untracked_count)
    assert.equal(1, status.conflict_count)
    assert.is_true(status.has_changes and status.has_staged and status.has_untracked and status.has_conflicts)
    assert.is_false(status.is_clean)
    assert.equal("GitStatus(main, 1 ahead, 6 changes)", tostring(status))
    status = parse.status("## main\n")
    assert.is_true(status.is_clean)
    assert.is_false(status.has_changes or status.has_staged or status.has_untracked or status.has_conflicts)
    assert.equal("GitStatus(main, clean)", tostring(status))
    assert.same({}, parse.status("").file_status)
  end)
end)

describe("git branches", function()
  it("are names, one of them the current one", function()
    local found = parse.branches("main\t \nfeature/x\t*\nä\t \n")
    assert.same({ "main", "feature/x", "ä" }, found.branches)
    assert.equal("feature/x", found.current_branch)
    assert.equal("GitBranches(feature/x, 3 branches)", tostring(found))
  end)

  it("may be none", function()
    assert.same({}, parse.branches("").branches)
    assert.is_nil(parse.branches("\n").current_branch)
  end)

  it("are not a detached head", function()
    local found = parse.branches("(HEAD detached at 1a2b3c4)\t*\r\nmain\t \r\n")
    assert.same({ "main" }, found.branches)
    assert.is_nil(found.current_branch)
  end)
end)

describe("git's complaints", function()
  it("are about credentials, an upstream, or something else", function()
    for _, text in ipairs({
      "fatal: Authentication failed for 'https://x/'", "could not read Username for 'https://x'",
      "fatal: could not read Password: terminal prompts disabled", "remote: Invalid username or password.",
      "ACCESS DENIED", "git@x: Permission denied (publickey)", "Not authorized",
    }) do
      assert.equal("auth", parse.reason(text, ""), text)
      assert.equal("auth", parse.reason("", text), text)
    end
    for _, text in ipairs({
      "fatal: The current branch main has no upstream branch.", "no upstream configured for branch 'main'",
      "There is no tracking information for the current branch.", "To push and set the remote as upstream, use",
      "please specify which branch you want to merge with", "set the upstream branch",
    }) do
      assert.equal("upstream", parse.reason(text, ""), text)
    end
    assert.equal("auth", parse.reason("Authentication failed; has no upstream branch", ""))
    assert.is_nil(parse.reason("fatal: not a git repository", ""))
  end)
end)

describe("an address", function()
  it("is taken apart", function()
    assert.same({
      url = "https://h.example:8443/a/b.git", origin = "https://h.example:8443", host = "h.example:8443",
      path = "/a/b.git", userinfo = "us%40er:p%3Aw%2F", username = "us@er", password = "p:w/",
    }, auth.address("HTTPS://us%40er:p%3Aw%2F@h.example:8443/a/b.git"))
    local bare = auth.address("https://h/x")
    assert.is_nil(bare.userinfo)
    assert.equal("https://h/x", bare.url)
    assert.equal("", auth.address("https://tok:@h/x").password)
    assert.is_nil(auth.address("https://tok@h/x").password)
    assert.equal("tok", auth.address("https://tok@h/x").username)
    assert.equal("p@ss", auth.address("https://u:p@ss@h/x").password)
    assert.equal("https://h/a@b", auth.address("https://h/a@b").url)
    for _, other in ipairs({ "ssh://git@h/x", "git@h:x/y", "/path", "../x", "file:///x" }) do
      local found = auth.address(other)
      assert.equal(other, found.url)
      assert.is_nil(found.origin)
    end
  end)

  it("gets credentials that come out again", function()
    local address = auth.address("https://h/x")
    local url = auth.with_credentials(address, "ü ser", "p/w:@%")
    local back = auth.address(url)
    assert.equal("ü ser", back.username)
    assert.equal("p/w:@%", back.password)
    assert.equal("https://h/x", back.url)
  end)

  it("names a folder", function()
    for url, folder in pairs({
      ["https://h/a/repo.git"] = "repo", ["https://h/a/repo"] = "repo", ["https://h/a/repo.git/"] = "repo",
      ["git@h:a/repo.git"] = "repo", ["git@h:repo"] = "repo", ["/srv/x.y.git"] = "x.y", ["https://h/r?q=1"] = "r",
    }) do
      assert.equal(folder, parse.folder(url), url)
    end
    assert.is_nil(parse.folder("https://h/.git"))
    assert.is_nil(parse.folder("///"))
  end)
end)

describe("credentials in texts", function()
  it("are masked wherever they stand", function()
    local text = table.concat({
      "fatal: unable to access 'https://us:sec-ret@h/x': no", "http://tok3n@h/", "ssh://u:sec-ret@h/x",
      "sec-ret%2F", "password sec-ret/ again", "ssh://git@h/x stays, so does a@b.example",
    }, "\n")
    local masked = auth.mask(text, { "sec-ret/", "sec-ret" })
    support.assert_no_secret({ "sec-ret", "tok3n" }, masked)
    assert.truthy(masked:find("https://***@h/x", 1, true))
    assert.truthy(masked:find("http://***@h/", 1, true))
    assert.truthy(masked:find("ssh://u:***@h/x", 1, true))
    assert.truthy(masked:find("ssh://git@h/x stays, so does a@b.example", 1, true))
    assert.equal("a%b%c", auth.mask("a%b%c", { "%w" }))
  end)

  it("are masked whatever they are made of, known or not", function()
    for text, expected in pairs({
      ["fatal: can't access 'https://bob:p@ss/word@host/x': no"] = "fatal: can't access 'https://***@host/x': no",
      ["'https://bob:p@ss@host/x' no"] = "'https://***@host/x' no",
      ["at https://p@ss/w/o@rd@host:8080/x and http://host/y"] = "at https://***@host:8080/x and http://host/y",
      ["ssh://bob:p@ss/word@host/x"] = "ssh://bob:***@host/x",
      ["to https://bob:p@ss?w#o@host"] = "to https://***@host",
    }) do
      assert.equal(expected, auth.mask(text))
    end
    -- one is the beginning of the other
    assert.equal("*** and ***", auth.mask("secret and secrets", { "secret", "secrets" }))
    assert.equal("x *** x", auth.mask("x ab'c@d x", { "ab'c@d" }))
    -- a quote in the middle ends what looks like an address; what is known is gone before
    assert.equal("https://***@h/", auth.mask("https://u:a'b@h/", { "u:a'b", "a'b" }))
    assert.equal("x", auth.mask("x", { "" }))
  end)
end)
