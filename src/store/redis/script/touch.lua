-- Counts a change of the list of queues or of a hold, and tells every gateway. It must be known also when memory is full.
-- ARGV: 1 channel of wake-ups, 2 what is said. Gives {'ok'}.
redis.call('INCR', KEYS[1])
redis.call('PUBLISH', ARGV[1], ARGV[2])
return {'ok'}
