-- Counters, gauges and the age of a queue in one atomic read. Gives {'ok', oldest accepted (ms) or 0, field, value, …}.
local oldest
for list = 0, 7 do
  -- A list that somebody else made something of is left out.
  local record = redis.pcall('LINDEX', K['l' .. list], 0)
  if type(record) == 'string' and #record >= 46 then
    local accepted = struct.unpack('>I6', record, 23)
    if not oldest or accepted < oldest then oldest = accepted end
  end
end
return {'ok', oldest or 0, unpack(redis.call('HGETALL', K.c))}
