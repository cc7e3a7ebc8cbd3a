-- Which queues are to be looked at now. They are put off for a moment, so that what comes meanwhile shows in the index.
-- ARGV: 1 now (ms; 0: the server's TIME), 2 how far they are put off (ms), 3 how many at most, 4 how long nothing is taken
-- back after the store was away or its clock was set (ms; 0 never).
-- Gives {now, nothing is taken back before, name, score, …}.
local clock = call('HMGET', K.clock, 'grace', 'tick')
local grace = tonumber(clock[1] or 0)
if ARGV[4] ~= '0' then
  local tick = tonumber(clock[2] or now)
  if now - tick > 3000 or now < tick then
    grace = now + tonumber(ARGV[4])
    call('HSET', K.clock, 'grace', grace)
  end
  call('HSET', K.clock, 'tick', now)
end
local due = call('ZRANGE', K.due, '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[3], 'WITHSCORES')
for place = 1, #due, 2 do call('ZADD', K.due, now + tonumber(ARGV[2]), due[place]) end
return {now, grace, unpack(due)}
