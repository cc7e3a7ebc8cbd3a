-- One step of giving up the space of what was purged. ARGV: 5 messages at most. Gives {'ok', more}.
local budget = tonumber(ARGV[5])
while budget > 0 do
  local name = call('LINDEX', K.z, 0)
  if not name then return {'ok', 0} end
  local ids = {}
  if call('TYPE', name).ok == 'list' then
    for _, record in ipairs(call('LPOP', name, budget) or {}) do
      ids[#ids + 1] = #record >= 46 and id_of(record) or record
    end
  else
    local popped = call('ZPOPMIN', name, budget)
    for place = 1, #popped, 2 do ids[#ids + 1] = popped[place]:sub(7) end
  end
  if #ids == 0 then
    call('LPOP', K.z)
  else
    -- What was leased during the purge is not among them.
    if set.lookup then in_chunks('HDEL', K.m, ids) end
    in_chunks('HDEL', K.o, ids)
    in_chunks('HDEL', K.a, ids)
    budget = budget - #ids
  end
end
return {'ok', call('EXISTS', K.z)}
