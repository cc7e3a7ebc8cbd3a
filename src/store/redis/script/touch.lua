-- Counts a change of the list of queues or of a hold, and tells every gateway. It must be known also when memory is full. A count
-- that is gone begins with the time in microseconds, so that no number comes twice; what is none is left as it is.
-- ARGV: 1 channel of wake-ups, 2 what is said. Gives {'ok'}.
local is = redis.pcall('GET', K.changes)
if is == false then
  local time = redis.call('TIME')
  redis.call('SET', K.changes, time[1] .. string.format('%06d', time[2]))
else
  redis.pcall('INCR', K.changes)
end
redis.call('PUBLISH', ARGV[1], ARGV[2])
return {'ok'}
