-- Cancels one message that is not leased.
-- ARGV: 5 id. Gives {'ok', cancelled | leased | finished | look}: look among those that ended.
local id = ARGV[5]
if call('HEXISTS', K.dm, id) == 1 then return {'ok', 'finished'} end
local kept = call('HGET', K.sb, id)
local record
if kept then
  record = kept:sub(13)
  call('ZREM', K.s, kept:sub(7, 12) .. id)
  call('HDEL', K.sb, id)
  move('scheduled', 'bytes_waiting', -1, -charged(record))
else
  local where = set.lookup and call('HGET', K.m, id)
  if not where then return {'ok', 'look'} end
  if where:byte(1) == 76 then return {'ok', 'leased'} end
  local list, at
  list, at, record = seek(where, id)
  if not record then return {'ok', 'look'} end
  call('LSET', LIST[list], at, CANCELLED)
  strip(list)
  try('HDEL', K.m, id)
  move('pending', 'bytes_waiting', -1, -charged(record))
end
count('cancelled', 1)
finish(record, false, '')
flush()
write_finished()
return {'ok', 'cancelled'}
