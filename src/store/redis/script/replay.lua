-- Moves dead letters back to pending, as long as the limits of the queue allow.
-- ARGV: 5 count of ids, then those. Gives {'ok', woken, matched, replayed, full, unparked}.
look_at_lists()
look_at_dead()
is_writing = true
local matched, replayed, full, back = 0, 0, 0, {[0] = {}, {}, {}}
for place = 1, tonumber(ARGV[5]) do
  local id = ARGV[5 + place]
  local letter = call('HGET', K.dm, id)
  local record = letter and call('HGET', K.db, id)
  if record and #record >= RECORD_MIN then
    local bytes = charged(record)
    if gauge.pending + gauge.scheduled + gauge.leased + 1 > set.length_max
      or gauge.bytes_waiting + gauge.bytes_leased + bytes > set.bytes_max then
      matched, full = matched + 1, 1
      break
    end
    matched, replayed = matched + 1, replayed + 1
    local expires, ttl = record:sub(35, 40), record:sub(29, 34)
    if ttl ~= NO_EXPIRY then expires = pack('>I6', now + unpack_from('>I6', ttl)) end
    local flags = REPLAYED + (is_apart(record) and APART or 0)
    record = record:sub(1, 17) .. '\0\0' .. record:sub(20, 21) .. string.char(flags) .. record:sub(23, 34)
      .. expires .. record:sub(41)
    append(5 + priority_of(record), {record})
    unbury(id)
    move('pending', 'bytes_waiting', 1, bytes)
    count('replayed', 1)
    woken = true
  end
end
local before = q[3]
unpark_when_below()
write_index()
flush()
return {'ok', wake(), matched, replayed, full, before and not q[3] and 1 or 0}
