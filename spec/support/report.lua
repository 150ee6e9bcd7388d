-- Busted output handler of `make test`: one spec file a process, one line a file, failures in full.
-- It also keeps a journal in the file named by E2B_SPEC_JOURNAL, so that the runner can tell a suite that ended from
-- one that stopped: "start <name>" before each spec, "passed" or "failed" after it, and at the very end, once,
-- "counts <passed> <failed>".

return function(options)
  local busted = require("busted")
  local handler = require("busted.outputHandlers.base")()
  local journal = os.getenv("E2B_SPEC_JOURNAL")

  -- Opened each time: a descriptor held open would show up in the specs that count descriptors.
  local function note(...)
    if not journal then return end
    local file = assert(io.open(journal, "a"))
    file:write(table.concat({ ... }, " "):gsub("[\r\n]", " "), "\n")
    file:close()
  end

  local function text_of(message)
    if type(message) == "string" then return message end
    if message == nil then return "no message" end
    return require("pl.pretty").write(message)
  end

  local function tell(kind, entry)
    local trace = entry.element and entry.element.trace or entry.trace
    local where = trace and trace.short_src and (trace.short_src .. ":" .. tostring(trace.currentline)) or "?"
    io.write("  ", kind, " ", where, "  ", tostring(entry.name), "\n")
    local lines = text_of(entry.message)
    if entry.trace and entry.trace.traceback and (options.verbose or entry.isError) then
      lines = lines .. "\n" .. entry.trace.traceback
    end
    io.write("    ", (lines:gsub("\n", "\n    ")), "\n")
  end

  local files = {}

  function handler.file_start(file)
    files[#files + 1] = file.name
    return nil, true
  end

  function handler.test_start(element)
    note("start", handler.getFullName(element))
    return nil, true
  end

  function handler.test_end(_, _, status)
    note(status == "success" and "passed" or "failed")
    return nil, true
  end

  function handler.suite_end()
    -- A spec that is left out is not a passed one.
    local failed = handler.failuresCount + handler.errorsCount + handler.pendingsCount
    local passed = handler.successesCount
    io.write(string.format("%-40s %4d passed %4d failed %8.1f s\n", table.concat(files, " "), passed, failed,
      handler.getDuration()))
    for _, entry in ipairs(handler.failures) do tell("FAILED", entry) end
    for _, entry in ipairs(handler.errors) do tell("ERROR", entry) end
    for _, entry in ipairs(handler.pendings) do tell("PENDING (counts as failed)", entry) end
    io.flush()
    note("counts", tostring(passed), tostring(failed))
    return nil, true
  end

  busted.subscribe({ "file", "start" }, handler.file_start)
  busted.subscribe({ "test", "start" }, handler.test_start)
  busted.subscribe({ "test", "end" }, handler.test_end)
  busted.subscribe({ "suite", "end" }, handler.suite_end)
  return handler
end
