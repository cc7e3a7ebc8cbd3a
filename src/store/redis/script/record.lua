-- The record, from 1: version 1, id 2-17, attempts 18, losses 19, allowed 20, priority 21, flags 22, accepted 23-28,
-- TTL 29-34, expiry 35-40, header length 41-42, headers, payload, checksum. With flag 128 the payload and the checksum
-- lie in K.o under the id, and the payload's length in four bytes stands in their place.
-- What is shorter is no record of ours; nothing below breaks off for it.
local SUSPECT, REPLAYED, APART = 1, 2, 128
local RECORD_MIN = 46
local NO_EXPIRY = '\0\0\0\0\0\0'
local function id_of(record) return sub(record, 2, 17) end
local function priority_of(record)
  local priority = byte(record, 21) or 1
  return priority > 2 and 1 or priority
end
local function is_apart(record) return (byte(record, 22) or 0) >= APART end
local function is_suspect(record) return (byte(record, 22) or 0) % 2 == 1 end
local function charged(record)
  local length = #record
  if length < RECORD_MIN then return 0 end
  if byte(record, 22) < APART then return length - RECORD_MIN end
  return length - RECORD_MIN + unpack_from('>I4', record, length - 3)
end
local function is_expired(record)
  return sub(record, 35, 40) ~= NO_EXPIRY and unpack_from('>I6', record, 35) <= now
end
-- The record after one more attempt.
local function after_attempt(record, lost, suspect)
  local attempts, losses, allowed, priority, flags = byte(record, 18, 22)
  attempts = math.min(attempts + 1, 255)
  losses = math.min(losses + (lost and 1 or 0), attempts)
  flags = flags - flags % 2 + (suspect and SUSPECT or 0)
  return sub(record, 1, 17) .. string.char(attempts, losses, allowed, priority, flags) .. sub(record, 23)
end
