-- Changes the list of queues; who comes second sees what the first one made.
-- ARGV: 1 name, 2 entry as it is expected ('' none), 3 new entry ('' removes it). Gives {'ok'}; {'is', entry or ''}.
local call = redis.call
local is = call('HGET', KEYS[1], ARGV[1]) or ''
if is ~= ARGV[2] then return {'is', is} end
if ARGV[3] == '' then
  call('HDEL', KEYS[1], ARGV[1])
else
  call('HSET', KEYS[1], ARGV[1], ARGV[3])
end
return {'ok'}
