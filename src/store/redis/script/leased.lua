-- What is leased, looked up by its id. K.bi: batch -> the ids of what it took, in the order of its indexes. A batch keeps them
-- to its end, so that what ended in it is still named there, and is told by the batch itself.
-- Gives the record of a message that is leased, or nothing, and where to go on among the batches, nothing at their end. `prefix`
-- is what the keys of batches begin with.
local LEASES_MAX, LEASE_BYTES_MAX = 1000, 262144
local function leased_record(id, prefix, from)
  if not set.lookup then return nil end
  local cursor, looked, bytes = from, 0, 0
  repeat
    local found = try('HSCAN', K.bi, cursor, 'COUNT', 50)
    if not found then return nil end
    cursor, looked = found[1], looked + 50
    for place = 1, #found[2], 2 do
      bytes = bytes + #found[2][place + 1]
      local step = find_among(found[2][place + 1], 1, id)
      local record = step and call('LINDEX', prefix .. found[2][place], step)
      if record and #record >= RECORD_MIN and id_of(record) == id then return record end
    end
  until cursor == '0' or looked >= LEASES_MAX or bytes >= LEASE_BYTES_MAX
  return nil, cursor ~= '0' and cursor or nil
end
