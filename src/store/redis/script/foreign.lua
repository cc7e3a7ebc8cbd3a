-- Bytes that are no record of ours go on a pile, of which the latest are kept, and are counted.
local FOREIGN_MAX = 100
local function pile_up(foreign)
  if #foreign == 0 then return end
  for _, bytes in ipairs(foreign) do try('RPUSH', K.j, bytes) end
  try('LTRIM', K.j, -FOREIGN_MAX, -1)
  count('foreign', #foreign)
end
-- Whether bytes with a version that never was begin as a record of ours does: its id is a UUID of version 7.
local function has_our_id(record)
  local version, variant = byte(record, 8), byte(record, 10)
  return version >= 112 and version < 128 and variant >= 128 and variant < 192
end
-- Whether bytes are no record of any version. One of ours whose version was damaged is: whoever leases it sees the damage.
local function is_foreign(record)
  if #record < RECORD_MIN then return true end
  local version = byte(record, 1)
  return (version < 1 or version >= 16) and not has_our_id(record)
end
