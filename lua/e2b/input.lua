--- Waiting for a terminal, a pipe: something to read beside what comes from the network.
local driver = require("e2b.loop.driver")
local hook = require("e2b.wait")

local M = {}

--- Suspends the caller until a descriptor has something to read, or has ended. One can be waited for at a time.
---@param fd integer
---@return true? ready
---@return string? why "cancelled", "deadline" (of a shield)
function M.wait(fd)
  return hook.await(function(done)
    driver.watch_input(fd, function() done(true) end)
    return function() driver.unwatch_input(fd) end
  end)
end

--- Whether somebody waits for a descriptor already.
---@return boolean
function M.is_taken()
  return driver.input_fd ~= nil
end

return M
