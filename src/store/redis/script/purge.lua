-- Empties what is pending and scheduled: at once for who looks; the space follows in the sweeps.
-- ARGV: 5 prefix of the keys of what was purged. Gives {'ok', purged}.
local purged = gauge.pending + gauge.scheduled
for list = 0, 7 do
  if call('LLEN', LIST[list]) > 0 then
    local name = ARGV[5] .. 'l' .. number()
    call('RENAME', LIST[list], name)
    call('RPUSH', K.z, name)
  end
end
if call('ZCARD', K.s) > 0 then
  local name = ARGV[5] .. 's' .. number()
  call('RENAME', K.s, name)
  call('RPUSH', K.z, name)
  call('UNLINK', K.sb)
end
if purged > 0 then
  count('purged', purged)
  move('pending', 'bytes_waiting', -gauge.pending, -gauge.bytes_waiting)
  move('scheduled', 'bytes_waiting', -gauge.scheduled, 0)
  flush()
end
return {'ok', purged}
