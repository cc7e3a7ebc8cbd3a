-- Which queues are to be looked at now. They are put off for a moment, so that what comes meanwhile shows in the index.
-- ARGV: 1 now (ms; 0: the server's TIME), 2 how far they are put off (ms), 3 how many at most, 4 whether it is noticed that the
-- store was away or its clock was set (0: not under a clock that is handed in).
-- Gives {now, last look before the last gap, when it was found or 0, name, score, …}.
local GAP_MIN, NEAR, SHORT = 3000, 60000, 60000
local from, gap = 0, 0
if ARGV[4] == '1' then
  local kept = call('HMGET', K.clock, 'tick', 'from', 'gap')
  local tick = tonumber(kept[1]) or now
  from, gap = tonumber(kept[2]) or 0, tonumber(kept[3]) or 0
  if not (from >= 0 and gap >= 0 and from < 1e15) then from, gap = 0, 0 end
  if now - tick > GAP_MIN or now < tick or now < gap then
    -- A gap soon after a short one goes on with it: what ran out in that one still has what it had left.
    local lived, away = tick - gap, gap - from
    local goes_on = gap > 0 and lived >= 0 and lived < NEAR and away >= 0 and away <= SHORT
    from, gap = goes_on and from + lived or tick, now
    call('HSET', K.clock, 'from', from, 'gap', gap)
  end
  call('HSET', K.clock, 'tick', now)
end
local due = call('ZRANGE', K.due, '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[3], 'WITHSCORES')
for place = 1, #due, 2 do call('ZADD', K.due, now + tonumber(ARGV[2]), due[place]) end
return {now, from, gap, unpack(due)}
