-- Empties what is pending and scheduled: at once for who looks; the space follows in the sweeps.
-- ARGV: 5 prefix of the keys of what was purged. Gives {'ok', purged}.
look_at_lists()
look_at_scheduled()
call('HLEN', K.o)
call('LLEN', K.z)
is_writing = true
local purged = gauge.pending + gauge.scheduled
local is_unknown = strange.pending or strange.scheduled or strange.bytes_waiting
strange.pending, strange.scheduled, strange.bytes_waiting = nil, nil, nil
-- What only the pending are looked up by goes at once, and so do payloads apart where nothing is leased or dead.
call('UNLINK', K.m, K.mr, K.mt)
if call('EXISTS', K.b, K.d) == 0 then call('UNLINK', K.o) end
local beside = call('EXISTS', K.o, K.a) > 0
local function put_aside(key, name)
  if not beside then return call('UNLINK', key) end
  call('RENAME', key, name)
  call('RPUSH', K.z, name)
end
for list = 0, 7 do
  if call('LLEN', LIST[list]) > 0 then put_aside(LIST[list], ARGV[5] .. 'l' .. number()) end
end
if call('ZCARD', K.s) > 0 then put_aside(K.s, ARGV[5] .. 's' .. number()) end
call('UNLINK', K.sb)
if purged > 0 or is_unknown then
  count('purged', purged)
  move('pending', 'bytes_waiting', -gauge.pending, -gauge.bytes_waiting)
  move('scheduled', 'bytes_waiting', -gauge.scheduled, 0)
  flush()
end
return {'ok', purged}
