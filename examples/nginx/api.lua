-- What the locations of nginx.conf call. Every call of e2b suspends its request only; the worker goes on serving.
local cjson = require("cjson.safe")
local e2b = require("e2b")

local M = {}

local MOST = 50 -- requests of a worker at a time; more are told to come back
local busy = 0

local STATUS = { not_found = 404, invalid_argument = 400, rate_limit = 429, quota = 429, timeout = 504 }

local function answer(status, value)
  ngx.status = status
  ngx.header["Content-Type"] = "application/json"
  ngx.say(cjson.encode(value))
  return ngx.exit(ngx.HTTP_OK)
end

local function failed(message, err)
  return answer(STATUS[err.kind] or 502, { error = message, kind = err.kind })
end

-- The request's JSON object, once the method is right.
local function request(method)
  if ngx.req.get_method() ~= method then return answer(405, { error = "use " .. method }) end
  ngx.req.read_body()
  local text = ngx.req.get_body_data()
  if not text and ngx.req.get_body_file() then return answer(413, { error = "the body is too large" }) end
  local body = cjson.decode(text or "{}")
  if type(body) ~= "table" then return answer(400, { error = "the body is no JSON object" }) end
  return body
end

function M.enter()
  if busy >= MOST then
    ngx.header["Retry-After"] = 1
    return answer(503, { error = "too much to do" })
  end
  busy = busy + 1
  ngx.ctx.counted = true
end

-- In the log phase, which also comes for requests whose client has gone.
function M.leave()
  if ngx.ctx.counted then busy = busy - 1 end
end

function M.create()
  local body = request("POST")
  local sandbox, message, err = e2b.Sandbox.create({ timeout = tonumber(body.timeout) or 60 })
  if not sandbox then return failed(message, err) end
  return answer(201, { sandbox_id = sandbox.sandbox_id })
end

function M.run(id)
  local command = request("POST").command
  if type(command) ~= "string" then return answer(400, { error = "command must be a string" }) end
  local sandbox, message, err = e2b.Sandbox.get_info(id)
  if not sandbox then return failed(message, err) end
  local result
  result, message, err = sandbox.commands:run(command, { timeout = 30 })
  if not result then return failed(message, err) end
  return answer(200, { exit_code = result.exit_code, stdout = result.stdout, stderr = result.stderr })
end

function M.kill(id)
  request("DELETE")
  local ok, killed, err = e2b.Sandbox.kill(id)
  if not ok then return failed(killed, err) end
  return answer(200, { killed = killed }) -- false: it was gone already
end

return M
