-- A call sent again is told what it was told, whatever became of the queue since. ARGV as in enqueue.
local before = call('GET', K.e)
if before and now - unpack_from('>I6', before) < tonumber(ARGV[5]) then
  return {'again', before:sub(7)}
end

