-- Pauses, resumes or parks a queue.
-- ARGV: 5 pause, resume or park, 6 the reason of a park. Gives {'ok', woken, paused, parked}.
is_writing = true
local paused, parked = q[2], q[3]
if ARGV[5] == 'pause' then
  call('HSET', K.c, 'paused', '1')
  paused = '1'
elseif ARGV[5] == 'park' then
  call('HSET', K.c, 'parked', ARGV[6])
  parked = ARGV[6]
else
  call('HDEL', K.c, 'paused', 'parked')
  paused, parked = false, false
  woken = true
end
return {'ok', wake(), paused and 1 or 0, parked or ''}
