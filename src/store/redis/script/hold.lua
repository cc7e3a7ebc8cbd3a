-- Holds a queue or lets it go.
-- ARGV: 5 pause, resume, park, gone or unpark, 6 the reason of the last three, 7 the destination that is gone.
-- Gives {'ok', woken, paused, parked}.
is_writing = true
local how, reason = ARGV[5], ARGV[6]
local paused, parked = q[2], q[3]
if how == 'pause' then
  call('HSET', K.c, 'paused', '1')
  paused = '1'
elseif how == 'park' or (how == 'gone' and ARGV[7] == set.destination) then
  call('HSET', K.c, 'parked', reason)
  parked = reason
elseif how == 'unpark' and parked == reason then
  call('HDEL', K.c, 'parked')
  parked, woken = false, true
elseif how == 'resume' then
  call('HDEL', K.c, 'paused', 'parked')
  paused, parked = false, false
  woken = true
end
return {'ok', wake(), paused and 1 or 0, parked or ''}
