-- Cancels one message that is not leased.
-- ARGV: 5 id. Gives {'ok', cancelled | finished | look}: look among those that are leased or ended.
local id = ARGV[5]
if call('HEXISTS', K.dm, id) == 1 then return {'ok', 'finished'} end
call('HLEN', K.o)
call('ZCARD', K.s)
local kept = call('HGET', K.sb, id)
local record
if kept and #kept >= 12 + RECORD_MIN then
  is_writing = true
  record = kept:sub(13)
  call('ZREM', K.s, kept:sub(7, 12) .. id)
  call('HDEL', K.sb, id)
  move('scheduled', 'bytes_waiting', -1, -charged(record))
else
  local list, at
  list, at, record = locate(id)
  if not record then return {'ok', 'look'} end
  is_writing = true
  call('LSET', LIST[list], at, CANCELLED)
  shorten(list, 0)
  if not is_in_runs(list) then try('HDEL', K.m, id) end
  move('pending', 'bytes_waiting', -1, -charged(record))
end
count('cancelled', 1)
finish(record, false, '')
flush()
write_finished()
return {'ok', 'cancelled'}
