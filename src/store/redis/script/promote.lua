-- Brings scheduled messages forward: makes pending each that waits for its time and counts as many attempts as is said.
-- ARGV: 5 bytes of records to look at, which the last one may exceed; 6 ids, each followed by its count of attempts: 17 bytes each.
-- Gives {'ok', woken, a letter for each that was looked at: 1 it is pending now, 0 it was left alone}.
look_at_lists()
look_at_scheduled()
local named, bytes_left, told = ARGV[6], tonumber(ARGV[5]), {}
for at = 1, #named, 17 do
  if bytes_left <= 0 then break end
  local id, letter = sub(named, at, at + 15), '0'
  local kept = call('HGET', K.sb, id)
  if kept and #kept >= 12 + RECORD_MIN then
    local record = sub(kept, 13)
    bytes_left = bytes_left - #record
    -- What expired is judged by the sweep when it is due, what cannot be read by a lease.
    if byte(record, 1) == 1 and byte(record, 18) == byte(named, at + 16) and not is_expired(record) then
      is_writing = true
      move('scheduled', 'bytes_waiting', -1, -charged(record))
      put_back(record)
      call('ZREM', K.s, sub(kept, 7, 12) .. id)
      call('HDEL', K.sb, id)
      letter = '1'
    end
  end
  told[#told + 1] = letter
end
write_index()
flush()
return {'ok', wake(), table.concat(told)}
