-- What the README shows is run: its scripts against a local server, its commands against the Makefile.
local neovim = require("spec.support.neovim")
local support = require("spec.support.support")

local shell = support.shell
local is_54 = not (_VERSION == "Lua 5.1" or _VERSION == "Lua 5.2" or _VERSION == "Lua 5.3")

-- The fenced blocks of a Markdown file: { language, text, line }.
local function blocks_of(path)
  local blocks, current = {}, nil
  local number = 0
  for line in io.lines(path) do
    number = number + 1
    local language = line:match("^```(%w*)%s*$")
    if language and not current then
      current = { language = language, line = number, path = path, lines = {} }
    elseif language then
      current.text = table.concat(current.lines, "\n")
      blocks[#blocks + 1] = current
      current = nil
    elseif current then
      current.lines[#current.lines + 1] = line
    end
  end
  assert(current == nil, path .. ": a block is not closed")
  return blocks
end

-- A pattern for what must be printed. Words with a digit in them and … are wildcards.
local function wildcards(text)
  text = text:gsub("[%^%$%(%)%%%.%[%]%*%+%-%?]", "%%%0")
  return (text:gsub("%w*%d%w*", "%%w+"):gsub("…", ".-"))
end

-- "print(x)  --> i1a2, 5m0s left": what must be printed, as a pattern.
local function expected_output(text)
  local patterns = {}
  for expected in text:gmatch("print%b()[^\n]-%-%->%s*([^\n]+)") do
    patterns[#patterns + 1] = wildcards(expected:match("^(.-)%s*$"))
  end
  return patterns
end

describe("the README", function()
  local server, env

  setup(function()
    server = require("e2b.server").start()
    env = { E2B_API_KEY = server.api_key }
    for name, value in pairs(server.env) do env[name] = value end
  end)
  teardown(function()
    server:stop()
    support.cleanup()
  end)

  local found = { lua = 0, sh = 0, prompt = 0 }

  for _, block in ipairs(blocks_of("README.md")) do
    local where = ("README.md:%d"):format(block.line)
    if block.language == "lua" and block.text:find("vim.", 1, true) then
      if neovim.here then
        it("has a script for Neovim that runs as it is: " .. where, function()
          local result = neovim.run(block.text .. "\nassert(require('e2b').run(20))\n"
            .. "print(vim.api.nvim_buf_get_lines(0, 0, 1, false)[1])", { env = env })
          assert.equal(0, result.code, result.err .. result.out)
          assert.equal("", result.err)
          assert.matches("^Linux ", result.out)
        end)
      end
    elseif block.language == "lua" then
      found.lua = found.lua + 1
      it("has a script that runs as it is: " .. where, function()
        local text = block.text
        if not is_54 then text = text:gsub("%s*<close>", "") end
        local result = support.run(text, { env = env })
        assert.equal(0, result.code, result.err .. result.out)
        assert.equal("", result.err)
        for _, pattern in ipairs(expected_output(text)) do
          assert.truthy(result.out:find(pattern), "printed:\n" .. result.out .. "\nexpected: " .. pattern)
        end
      end)
    elseif block.language == "" then
      it("shows a session that works: " .. where, function()
        local typed, shown = {}, {}
        for _, line in ipairs(block.lines) do
          local command = line:match("^%$ (.+)$")
          if line:find("^> ") then
            typed[#typed + 1] = line:sub(3)
          elseif not command then
            shown[#shown + 1] = line
          elseif command:find("^e2b") then
            local name = command:match("^e2b[%w-]*")
            if name == "e2b" then name = "e2b repl" end
            local help = shell(support.lua_command() .. " bin/" .. name .. " --help")
            for option in command:gmatch("%-%-[%w-]+") do assert.truthy(help:find(option, 1, true), option) end
          elseif command:find("^lua") then
            local script = assert(command:match("^lua[%d.]* (examples/[%w_]+%.lua)$"), command)
            local output = shell(support.lua_command(env) .. " " .. script .. " && echo fine")
            assert.matches("fine\n$", output)
          else
            assert.truthy(command:find("^export [%w_]+="), "what is this command? " .. command)
          end
        end
        if typed[1] then
          local result = support.run(nil, { file = "bin/e2b", env = env, stdin = table.concat(typed, "\n") .. "\n" })
          assert.equal(0, result.code, result.err)
          local pattern = wildcards(table.concat(shown, "\n")):gsub(" +", " +")
          assert.truthy(result.out:find("^" .. pattern .. "\n$"), "printed:\n" .. result.out)
        end
      end)
      found.prompt = found.prompt + 1
    elseif block.language == "sh" then
      found.sh = found.sh + 1
    end
  end

  it("has scripts, commands and sessions", function()
    assert.is_true(found.lua >= 5, "Lua")
    assert.is_true(found.sh >= 2, "sh")
    assert.is_true(found.prompt >= 1, "sessions")
  end)

  it("leaves no sandbox behind", function()
    local created, killed = 0, 0
    for _, request in ipairs((server:requests())) do
      if request.method == "POST" and request.path:find("^/v2/sandboxes$") and request.status == 201 then
        created = created + 1
      elseif request.method == "DELETE" and request.status == 204 then
        killed = killed + 1
      end
    end
    assert.is_true(created > 0)
    assert.equal(created, killed)
  end)

  it("names files and headings that exist", function()
    local text = support.read_file("README.md")
    local headings = {}
    for heading in ("\n" .. text):gmatch("\n#+ ([^\n]+)") do
      headings[heading:lower():gsub("[^%w%s_-]", ""):gsub("%s", "-")] = true
    end
    for target in text:gmatch("%]%(([^)%s]+)%)") do
      local anchor = target:match("^#(.+)$")
      if anchor then
        assert.is_true(headings[anchor] == true, target)
      elseif not target:find("^https?:") then
        assert.truthy(support.read_file(target), target)
      end
    end
  end)
end)

describe("the commands in the Markdown files", function()
  local makefile = support.read_file("Makefile")

  local function is_target(name)
    return ("\n" .. makefile):find("\n" .. name .. ":", 1, true) ~= nil
  end

  for _, path in ipairs({ "README.md", "CONTRIBUTING.md" }) do
    it("exist: " .. path, function()
      for _, block in ipairs(blocks_of(path)) do
        for _, line in ipairs(block.language == "sh" and block.lines or {}) do
          local command = line:gsub("%s+#.*$", ""):gsub("^#.*$", "")
          local place = ("%s:%d: %s"):format(path, block.line, line)
          local words = {}
          for word in command:gmatch("%S+") do words[#words + 1] = word end
          if words[1] == "make" then
            for i = 2, #words do
              local variable, value = words[i]:match("^([%w_]+)=(.*)$")
              if variable then
                assert.truthy(makefile:find("$(" .. variable .. ")", 1, true), place)
                local file = variable == "SPEC" and value
                assert.is_true(not file or support.read_file(file) ~= nil, place)
              else
                assert.is_true(is_target(words[i]), place)
              end
            end
          elseif words[1] == "luarocks" then
            assert.equal("make", words[2], place)
          elseif words[1] and words[1]:find("^lua") then
            assert.truthy(support.read_file(words[#words]), place)
          elseif words[1] then
            assert.truthy(words[1] == "git" or words[1] == "cd" or words[1] == "export", place)
          end
        end
      end
    end)
  end
end)
