--- Who waits for which transfer. Every loop drains the engine through this one table, so a transfer started under one
--- loop is completed by whichever loop drives the engine next.
local M = {}

local watched = {}

--- Tells `done` about each event of a transfer: "read" and "write" any number of times, "done" once, and then no more.
---@param transfer userdata
---@param done fun(transfer: userdata, event: string)
function M.watch(transfer, done)
  watched[transfer] = done
end

--- Forgets a transfer.
---@param transfer userdata
function M.unwatch(transfer)
  watched[transfer] = nil
end

--- The descriptor that a loop waits for beside the engine's own: a terminal. Loops that can do that have
--- `watches_input`, wait for it while it is not nil, and call input() when it is readable.
---@type integer?
M.input_fd = nil

local input_done

--- Calls `done` once, when there is something to read (or the end of it).
---@param fd integer one at a time
---@param done fun()
function M.watch_input(fd, done)
  if M.input_fd and M.input_fd ~= fd then error("another descriptor is watched already", 2) end
  M.input_fd, input_done = fd, done
end

--- Forgets the descriptor.
---@param fd integer
function M.unwatch_input(fd)
  if M.input_fd == fd then M.input_fd, input_done = nil, nil end
end

--- Tells who watches that there is input.
function M.input()
  local done = input_done
  M.input_fd, input_done = nil, nil
  if done then done() end
end

--- Hands out the engine's news.
---@param engine userdata
function M.drain(engine)
  for transfer, event in engine.finished, engine do
    local done = watched[transfer]
    if done then
      if event == "done" then watched[transfer] = nil end
      done(transfer, event)
    end
  end
end

return M
