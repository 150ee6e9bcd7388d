-- .ci/run adds up what its runs count; a stand-in for make plays them.
local support = require("spec.support.support")

local quote, shell, write_file = support.quote, support.shell, support.write_file

describe(".ci/run", function()
  local folder

  before_each(function()
    folder = support.tmpdir()
    shell("cd " .. quote(folder) .. " && mkdir .ci bin && cp \"$OLDPWD/.ci/run\" .ci")
  end)
  after_each(function() support.cleanup() end)

  local function run(make, env)
    write_file(folder .. "/bin/make", "#!/bin/sh\ncase $1 in\n" .. make .. "\nesac\n")
    shell("chmod +x " .. quote(folder .. "/bin/make"))
    local output, code = shell("PATH=" .. quote(folder .. "/bin") .. ":$PATH " .. (env or "") .. " " ..
      quote(folder .. "/.ci/run"))
    return output:match("([^\n]*)\n*$"), code, output
  end

  it("sums the counts, and succeeds only when nothing failed", function()
    local last, code, output = run("test) echo '30 passed, 0 failed' ;;\nlint) echo '4 passed, 0 failed' ;;")
    -- the specs run twice; deps, asan, valgrind, oom and doc count as one each
    assert.equal("69 passed, 0 failed", last, output)
    assert.equal(0, code)
  end)

  it("counts runs that fail, with a count and without, and goes on after them", function()
    local last, code, output = run([[
      test) echo '3 passed, 2 failed'; exit 1 ;;
      asan) echo 'it broke'; exit 1 ;;
      valgrind) echo '7 passed, 0 failed'; exit 1 ;;
      oom) kill -SEGV $$ ;;]])
    assert.equal("16 passed, 7 failed", last, output)
    assert.equal(1, code)
    assert.truthy(output:find("it broke", 1, true))
  end)

  it("stops when the packages can't be had", function()
    local last, code, output = run("deps) echo 'no network'; exit 1 ;;\n*) echo called ;;")
    assert.equal("0 passed, 1 failed", last, output)
    assert.equal(1, code)
    assert.truthy(output:find("no network", 1, true))
    assert.is_nil(output:find("called", 1, true))
  end)

  it("keeps the key from whatever it runs", function()
    local last, _, output = run([[*) [ -z "${E2B_API_KEY-}" ] || exit 1 ;;]], "E2B_API_KEY=e2b_secret")
    assert.equal("8 passed, 0 failed", last, output)
    assert.is_nil(output:find("e2b_secret", 1, true))
  end)
end)
