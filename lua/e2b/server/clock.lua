--- Wall clock in microseconds, and RFC 3339 with fractions.
-- Times inside the server are whole microseconds since the epoch: below 2^53, so exact on every Lua.
-- @module e2b.server.clock

local monotime = require("cqueues").monotime

local clock = {}

local SECOND = 1000000

local offset = 0 -- microseconds from the monotonic clock to the epoch
local skew = 0 -- microseconds added on request, to test clients with another clock

local function monotonic()
  return math.floor(monotime() * SECOND)
end

---Reads the system's clock. Lua has no sub-second wall clock, so the fraction comes from `date` where that knows `%N`.
function clock.set()
  local seconds, nanoseconds
  local pipe = io.popen("date +%s.%N 2>/dev/null", "r")
  if pipe then
    seconds, nanoseconds = (pipe:read("*l") or ""):match("^(%d+)%.(%d%d%d%d%d%d)%d*$")
    pipe:close()
  end
  local micros = seconds and tonumber(seconds) * SECOND + tonumber(nanoseconds) or os.time() * SECOND
  offset = micros - monotonic()
end

---@return number micros microseconds since the epoch, including the skew
function clock.now()
  local micros = monotonic() + offset
  local drift = os.time() - math.floor(micros / SECOND)
  if drift > 1 or drift < -1 then
    -- The machine slept, or somebody set its clock.
    clock.set()
    micros = monotonic() + offset
  end
  return micros + skew
end

---Makes the server's clock differ from the machine's.
---@param seconds number
function clock.set_skew(seconds)
  skew = math.floor(seconds * SECOND)
end

-- Days since the epoch of a civil date, and back (proleptic Gregorian calendar, years counted from March).
local function days_of(year, month, day)
  if month <= 2 then year, month = year - 1, month + 12 end
  local era = math.floor(year / 400)
  local year_of_era = year - era * 400
  local day_of_year = math.floor((153 * (month - 3) + 2) / 5) + day - 1
  local leap_days = math.floor(year_of_era / 4) - math.floor(year_of_era / 100)
  return era * 146097 + year_of_era * 365 + leap_days + day_of_year - 719468
end

local function civil_of(days)
  days = days + 719468
  local era = math.floor(days / 146097)
  local rest = days - era * 146097
  local year = math.floor((rest - math.floor(rest / 1460) + math.floor(rest / 36524) - math.floor(rest / 146096)) / 365)
  local day_of_year = rest - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local shifted = math.floor((5 * day_of_year + 2) / 153)
  local day = day_of_year - math.floor((153 * shifted + 2) / 5) + 1
  local month = shifted < 10 and shifted + 3 or shifted - 9
  return era * 400 + year + (month <= 2 and 1 or 0), month, day
end

---Writes a time as the service does: UTC with `Z`, up to six digits of fraction, no trailing zeros.
---@param micros number microseconds since the epoch
---@return string
function clock.format(micros)
  local seconds = math.floor(micros / SECOND)
  local days = math.floor(seconds / 86400)
  local rest = seconds - days * 86400
  local year, month, day = civil_of(days)
  local text = string.format("%04d-%02d-%02dT%02d:%02d:%02d", year, month, day,
    math.floor(rest / 3600), math.floor(rest / 60) % 60, rest % 60)
  local fraction = micros - seconds * SECOND
  if fraction > 0 then
    text = text .. "." .. string.format("%06d", fraction):gsub("0+$", "")
  end
  return text .. "Z"
end

local LENGTHS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

---Reads an RFC 3339 time; digits beyond the microsecond are dropped.
---@param text string
---@return number|nil micros microseconds since the epoch, or nil if it is no such time
function clock.parse(text)
  local year, month, day, hour, minute, second, rest =
    text:match("^(%d%d%d%d)%-(%d%d)%-(%d%d)T(%d%d):(%d%d):(%d%d)(.+)$")
  if not year then return nil end
  local fraction, zone = rest:match("^%.(%d+)(.+)$")
  zone = zone or rest
  year, month, day = tonumber(year), tonumber(month), tonumber(day)
  hour, minute, second = tonumber(hour), tonumber(minute), tonumber(second)
  local leap = (year % 4 == 0 and year % 100 ~= 0) or year % 400 == 0
  local length = LENGTHS[month]
  if month == 2 and leap then length = 29 end
  if not length or day < 1 or day > length or hour > 23 or minute > 59 or second > 59 then return nil end
  local shift = 0
  if zone ~= "Z" then
    local sign, hours, minutes = zone:match("^([+-])(%d%d):(%d%d)$")
    if not sign or tonumber(hours) > 23 or tonumber(minutes) > 59 then return nil end
    shift = (tonumber(hours) * 3600 + tonumber(minutes) * 60) * (sign == "+" and 1 or -1)
  end
  local micros = fraction and tonumber((fraction .. "000000"):sub(1, 6)) or 0
  local seconds = days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - shift
  return seconds * SECOND + micros
end

local DAYS = { "Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed" }
local MONTHS = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" }

---@param micros number
---@return string date the form of the HTTP header `Date`
function clock.http_date(micros)
  local seconds = math.floor(micros / SECOND)
  local days = math.floor(seconds / 86400)
  local rest = seconds - days * 86400
  local year, month, day = civil_of(days)
  return string.format("%s, %02d %s %04d %02d:%02d:%02d GMT", DAYS[days % 7 + 1], day, MONTHS[month], year,
    math.floor(rest / 3600), math.floor(rest / 60) % 60, rest % 60)
end

clock.SECOND = SECOND

return clock
