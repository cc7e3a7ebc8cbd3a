-- When queues that were looked at are to be looked at again, unless something came meanwhile.
-- ARGV: 1 the score they were put off to; then for each: name, new score ('' never).
local call = redis.call
for place = 2, #ARGV, 2 do
  local score = call('ZSCORE', K.due, ARGV[place])
  if score and tonumber(score) == tonumber(ARGV[1]) then
    if ARGV[place + 1] == '' then
      call('ZREM', K.due, ARGV[place])
    else
      call('ZADD', K.due, ARGV[place + 1], ARGV[place])
    end
  end
end
return {'ok'}
