-- Moves the deadline of a whole batch; never nearer, never beyond its longest life.
-- ARGV: 5 batch, 6 token, 7 lease (ms). Gives {'ok', until}; {'lost'}.
local known = call('HGET', K.b, ARGV[5])
if not known or known:sub(2, 9) ~= ARGV[6] then return {'lost'} end
local deadline = tonumber(call('ZSCORE', K.l, ARGV[5]) or 0)
local wanted = math.max(deadline, math.min(now + tonumber(ARGV[7]), (unpack_from('>I6', known, 16))))
is_writing = true
if wanted ~= deadline then call('ZADD', K.l, wanted, ARGV[5]) end
return {'ok', known:byte(1) == 87 and math.max(wanted, now) or wanted}
