-- Counters, gauges and the age of a queue in one atomic read. Gives {'ok', oldest accepted (ms) or 0, field, value, …}.
local all = redis.call('HGETALL', K.c)
local pending = false
for place = 1, #all, 2 do
  if all[place] == 'pending' then pending = all[place + 1] ~= '0' end
end
local oldest
-- Most queues are empty most of the time.
for list = 0, pending and 7 or -1 do
  -- A list that somebody else made something of is left out.
  local record = redis.pcall('LINDEX', K['l' .. list], 0)
  if type(record) == 'string' and #record >= 46 then
    local accepted = struct.unpack('>I6', record, 23)
    if not oldest or accepted < oldest then oldest = accepted end
  end
end
return {'ok', oldest or 0, unpack(all)}
