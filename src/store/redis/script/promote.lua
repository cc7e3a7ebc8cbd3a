-- Brings scheduled messages forward: makes pending each that waits for its time and counts as many attempts as is said.
-- ARGV: 5 bytes of records to look at, which the last one may exceed; 6 ids, each with its count of attempts behind it: 17 bytes.
-- Gives {'ok', woken, a letter for each that was looked at: 1 it is pending now, 0 it was left alone}.
look_at_lists()
look_at_scheduled()
local named, bytes_left, told = ARGV[6], tonumber(ARGV[5]), {}
local back, ids, places, is_back = {}, {}, {}, {}
for at = 1, #named, 17 do
  if bytes_left <= 0 then break end
  local id, letter = sub(named, at, at + 15), '0'
  local kept = not is_back[id] and call('HGET', K.sb, id)
  if kept and #kept >= 12 + RECORD_MIN then
    local record = sub(kept, 13)
    bytes_left = bytes_left - #record
    -- What expired is judged by the sweep when it is due, what cannot be read by a lease.
    if byte(record, 1) == 1 and byte(record, 18) == byte(named, at + 16) and not is_expired(record) then
      local list = is_suspect(record) and 0 or 5 + priority_of(record)
      back[list] = back[list] or {}
      table.insert(back[list], record)
      ids[#ids + 1], places[#places + 1] = id, sub(kept, 7, 12) .. id
      is_back[id], letter = true, '1'
    end
  end
  told[#told + 1] = letter
end
if #ids > 0 then
  is_writing, woken = true, true
  for list, records in pairs(back) do append(list, records) end
  in_chunks(call, 'ZREM', K.s, places)
  in_chunks(call, 'HDEL', K.sb, ids)
  move('scheduled', 'bytes_waiting', -#ids, 0)
  move('pending', 'bytes_waiting', #ids, 0)
  write_index()
  flush()
end
return {'ok', wake(), table.concat(told)}
