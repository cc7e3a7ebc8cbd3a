-- Moves the deadline of a whole batch; never nearer, never beyond its longest life.
-- ARGV: 5 batch, 6 token, 7 lease (ms), 8 the indexes that are named, two bytes each, '' for the whole batch.
-- Gives {'ok', until, a letter for each index: E extended, L lost}; {'lost'}, also when nothing that is named is held.
local known = call('HGET', K.b, ARGV[5])
if not known or known:sub(2, 9) ~= ARGV[6] then return {'lost'} end
local told = {}
for at = 1, #ARGV[8], 2 do
  local element = call('LINDEX', K.x, (unpack_from('>I2', ARGV[8], at)))
  told[#told + 1] = (element and not OVER[element]) and 'E' or 'L'
end
told = table.concat(told)
if #told > 0 and not told:find('E', 1, true) then return {'lost'} end
local deadline = tonumber(call('ZSCORE', K.l, ARGV[5]) or 0)
local wanted = math.max(deadline, math.min(now + tonumber(ARGV[7]), (unpack_from('>I6', known, 16))))
is_writing = true
if wanted ~= deadline then call('ZADD', K.l, wanted, ARGV[5]) end
return {'ok', known:byte(1) == 87 and math.max(wanted, now) or wanted, told}
