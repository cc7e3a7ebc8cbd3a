-- Puts leased messages whose records cannot be read into the dead letters; what is left of the batch stays leased. A batch
-- that holds nothing then is as if it never was.
-- ARGV: 5 batch, 6 token, 7 whether memory is short, 8 count, then for each: index, words. Gives {'ok', woken, left, parked}.
local known = call('HGET', K.b, ARGV[5])
if not known or known:sub(2, 9) ~= ARGV[6] then return {'ok', 0, 0, ''} end
call('LLEN', K.x)
look_at_batches()
look_at_dead()
is_writing = true
forgets = ARGV[7] == '1'
local live = live_of(known)
for place = 1, tonumber(ARGV[8]) do
  local index, words = tonumber(ARGV[7 + place * 2]), ARGV[8 + place * 2]
  local record = call('LINDEX', K.x, index)
  if record and #record >= RECORD_MIN then
    call('LSET', K.x, index, LOST)
    live = live - 1
    move('leased', 'bytes_leased', -1, -charged(record))
    bury(record, REASON.damaged, words, last_status(id_of(record)))
  end
end
if live == 0 then
  call('UNLINK', K.x)
  call('HDEL', K.b, ARGV[5])
  try('HDEL', K.bi, ARGV[5])
  call('ZREM', K.l, ARGV[5])
else
  write_live(ARGV[5], known, live)
end
flush()
return {'ok', wake(), live, parked}
