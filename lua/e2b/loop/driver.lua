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
