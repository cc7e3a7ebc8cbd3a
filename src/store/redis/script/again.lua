-- A call sent again is told what it was told, whatever became of the queue since; one that comes so late that this may have been
-- forgotten is not carried out. ARGV as in enqueue.
local before = call('GET', K.e)
if before and now - unpack_from('>I6', before) < tonumber(ARGV[5]) then
  return {'again', before:sub(7)}
end
if ARGV[7] ~= '0' and now > tonumber(ARGV[7]) then return {'late', now} end

