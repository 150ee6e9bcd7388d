-- The peer of the sweep (a handler of spec/support/peer.lua).
local ROW = '{"templateID":"base","sandboxID":"ok","clientID":"c","startedAt":"2026-01-02T03:04:05Z",'
  .. '"endAt":"2026-01-02T04:04:05Z","envdVersion":"0.2.0","cpuCount":2,"memoryMB":512,"diskSizeMB":1024,'
  .. '"state":"running","metadata":{"k":"v"},"new":{"field":[1,null]}}'
-- Output of every spelling, an end of a process, an end of the stream; or one with an error.
local function envelope(payload, flags)
  return string.char(flags or 0, 0, 0, math.floor(#payload / 256), #payload % 256) .. payload
end
local EVENTS = envelope('{"event":{"start":{"pid":7}}}') .. envelope('{"event":{"data":{"stdout":"aGkK"}}}')
  .. envelope('{"event":{"data":{"stdout":"aGkK"}}}') .. envelope('{"event":{"data":{"stderr":"aGk\\/"}}}')
  .. envelope('{"event":{"keepalive":{}}}') .. envelope('{"event":{"end":{"exited":true,"status":"exit status 0"}}}')
local ENTRY = '{"name":"a","type":"FILE_TYPE_FILE","size":"3","modifiedTime":"2026-01-02T03:04:05Z"}'
local HEADERS = { Date = "Fri, 02 Jan 2026 03:04:05 GMT", ["X-Next-Token"] = "cursor", ["X-Total-Running"] = "3" }

conn:serve(function(request)
  local path = request.path:match("^[^?]*")
  if path == "/404" then
    conn:respond(404, '{"code":404,"message":"no"}', { ["Retry-After"] = "1", ["X-E2B-Trace-ID"] = "t" })
  elseif path == "/html" then
    conn:respond(200, "<html>", HEADERS)
  elseif path == "/302" then
    conn:respond(302, "", { Location = "https://other.example/" })
  elseif path == "/cut" then
    conn:send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1")
    conn:close()
  elseif path == "/never" then
    conn:wait_closed()
  elseif path == "/stream" then
    conn:respond(200, ("x"):rep(20000))
  elseif path == "/count" then
    conn:respond(200, "[" .. #request.body .. "]")
  elseif path == "/list" then
    conn:respond(200, "[1,2,3]")
  elseif path == "/process.Process/Start" then
    conn:respond(200, EVENTS .. envelope("{}", 2))
  elseif path == "/process.Process/Connect" then
    conn:respond(200, EVENTS .. envelope('{"error":{"code":"not_found","message":"no"}}', 2))
  elseif path == "/filesystem.Filesystem/WatchDir" then
    conn:respond(200, envelope('{"start":{}}') .. envelope('{"filesystem":{"name":"a","entry":' .. ENTRY .. "}}"))
  elseif path == "/filesystem.Filesystem/ListDir" then
    conn:respond(200, '{"entries":[' .. ENTRY .. "]}")
  elseif path == "/process.Process/SendInput" then
    conn:respond(200, "{}")
  elseif path == "/files" then
    conn:respond(200, "bytes")
  elseif path == "/sandboxes/shape" then
    conn:respond(200, "[]")
  elseif request.method == "POST" then
    conn:respond(201, ROW, HEADERS)
  else
    conn:respond(200, "[" .. ROW .. "," .. ROW .. "]", HEADERS)
  end
end)
