-- Says that there may be something to do for a queue from a moment on. It must be known also when memory is full.
-- ARGV: 1 name of the queue, 2 the moment (ms). Gives {'ok'}.
redis.call('ZADD', K.due, 'LT', ARGV[2], ARGV[1])
return {'ok'}
