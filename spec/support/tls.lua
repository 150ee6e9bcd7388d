-- Certificates for https peers, made anew for each run: an authority, a good certificate for 127.0.0.1 and localhost,
-- and
-- the ones that a client has to refuse.
local support = require("spec.support.support")
local pkey = require("openssl.pkey")
local x509 = require("openssl.x509")
local name = require("openssl.x509.name")
local altname = require("openssl.x509.altname")
local extension = require("openssl.x509.extension")
local bignum = require("openssl.bignum")

local tls = {}

local DAY = 24 * 3600
local serial = 0

local function distinguished(common)
  local subject = name.new()
  subject:add("CN", common)
  return subject
end

-- options: common, dns (list), ip (list), from and to (seconds relative to now), authority (issues others), issuer
local function issue(options)
  local key = pkey.new({ type = "EC", curve = "prime256v1" })
  local certificate = x509.new()
  serial = serial + 1
  certificate:setVersion(3)
  certificate:setSerial(bignum.new(serial))
  certificate:setSubject(distinguished(options.common))
  certificate:setIssuer(options.issuer and options.issuer.certificate:getSubject() or distinguished(options.common))
  certificate:setLifetime(os.time() + (options.from or -DAY), os.time() + (options.to or 30 * DAY))
  if options.authority then
    certificate:addExtension(extension.new("basicConstraints", "critical,CA:TRUE"))
    certificate:addExtension(extension.new("keyUsage", "critical,keyCertSign,cRLSign"))
  else
    local alternatives = altname.new()
    for _, host in ipairs(options.dns or {}) do
      alternatives:add("DNS", host)
    end
    for _, address in ipairs(options.ip or {}) do
      alternatives:add("IP", address)
    end
    certificate:setSubjectAlt(alternatives)
  end
  certificate:setPublicKey(key)
  certificate:sign(options.issuer and options.issuer.key or key, "sha256")
  return { certificate = certificate, key = key }
end

--- Writes a fresh set of PEM files. Each entry but ca_file is fit for `peer.start{ tls = … }`.
---@return table { ca_file=, good=, expired=, wrong_host=, untrusted= } with { certificate=, key= } paths
function tls.make()
  local folder = support.tmpdir()
  local here = { dns = { "localhost" }, ip = { "127.0.0.1" } }
  local authority = issue({ common = "e2b spec authority", authority = true })
  local stranger = issue({ common = "e2b spec stranger", authority = true })
  local made = {
    good = issue({ common = "good", dns = here.dns, ip = here.ip, issuer = authority }),
    expired = issue({
      common = "expired", dns = here.dns, ip = here.ip, issuer = authority, from = -3 * DAY, to = -DAY,
    }),
    wrong_host = issue({ common = "elsewhere", dns = { "elsewhere.example" }, issuer = authority }),
    untrusted = issue({ common = "untrusted", dns = here.dns, ip = here.ip, issuer = stranger }),
  }
  local set = { folder = folder, ca_file = folder .. "/ca.pem" }
  support.write_file(set.ca_file, authority.certificate:toPEM())
  for kind, pair in pairs(made) do
    set[kind] = { certificate = folder .. "/" .. kind .. ".crt", key = folder .. "/" .. kind .. ".key" }
    support.write_file(set[kind].certificate, pair.certificate:toPEM())
    support.write_file(set[kind].key, pair.key:toPEM("private"))
  end
  return set
end

return tls
