--- e2b.check: is everything set up? It does what E2B tells its users to do: list templates, list sandboxes.
local base = require("e2b.sandbox_base")

local M = {}

local TEMPLATES = { operation = "e2b.check", resource = "template" }
local SANDBOXES = { operation = "e2b.check", resource = "sandbox" }

-- Other services have keys of other forms, so the form is a hint after a refusal and never a reason for one.
local STRANGE_KEY = "; the key doesn't look like E2B's, which are e2b_ and 40 hexadecimal digits: was it cut off?"

local function advised(client, message, err)
  if err.kind == "not_found" then return base.wrong_address(client, message, err) end
  if err.kind == "authentication" and err.status and client.key_form == "other" then
    message = message .. STRANGE_KEY
  elseif err.status == nil and (err.kind == "network" or err.kind == "timeout") then
    message = ("%s; the service asked is %s (E2B_API_URL and E2B_DOMAIN choose another)"):format(
      message, client.base_url)
  end
  err.message = message
  return nil, message, err
end

-- An old service has lists without pages; for this they do as well.
local function unpaged() return {} end

--- Lists one template and one sandbox.
---@param client table
---@return true? ok
---@return string? message what to do
---@return e2b.Error? err
function M.check(client)
  local args = { query = { limit = 1 } }
  local rows, message, err = client:call_either("template_list", "template_list_v1", args, unpaged, nil, TEMPLATES)
  if rows == nil then return advised(client, message, err) end
  rows, message, err = client:call_either("sandbox_list", "sandbox_list_v1", args, unpaged, nil, SANDBOXES)
  if rows == nil then return advised(client, message, err) end
  return true
end

return M
