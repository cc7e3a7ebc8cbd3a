-- What is leased, looked up by its id. K.bi: batch -> the ids of what it took, in the order of its indexes. A batch keeps them
-- to its end, so that what ended in it is still named there, and is told by the batch itself.
-- Gives the record of a message that is leased, or nothing. `prefix` is what the keys of batches begin with.
local function leased_record(id, prefix)
  local all = set.lookup and try('HGETALL', K.bi) or {}
  for place = 1, #all, 2 do
    local step = find_among(all[place + 1], 1, id)
    local record = step and call('LINDEX', prefix .. all[place], step)
    if record and #record >= RECORD_MIN and id_of(record) == id then return record end
  end
end
