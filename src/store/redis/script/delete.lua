-- Deletes a queue with all that is in it.
-- ARGV: 5 whether also when it holds messages, 6 prefix of the keys of batches. Gives {'ok', deleted}.
if ARGV[5] ~= '1' and gauge.pending + gauge.scheduled + gauge.leased + gauge.dead > 0 then return {'ok', 0} end
for _, batch in ipairs(call('HKEYS', K.b)) do call('UNLINK', ARGV[6] .. batch) end
for _, name in ipairs(call('LRANGE', K.z, 0, -1)) do call('UNLINK', name) end
for _, key in pairs(K) do call('UNLINK', key) end
return {'ok', 1}
