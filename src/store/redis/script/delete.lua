-- Deletes a queue with all that is in it.
-- ARGV: 5 whether also when it holds messages, 6 prefix of the keys of batches. Gives {'ok', deleted}.
if ARGV[5] ~= '1' and gauge.pending + gauge.scheduled + gauge.leased + gauge.dead > 0 then return {'ok', 0} end
-- As many as are leased at once, and what was purged: a fraction of a microsecond each, many in one command.
local own, all = call('LRANGE', K.z, 0, -1), call('HKEYS', K.b)
for place, batch in ipairs(all) do all[place] = ARGV[6] .. batch end
is_writing = true
for _, name in ipairs(own) do
  if string.sub(name, 1, #K.z + 1) == K.z .. ':' then all[#all + 1] = name end
end
for first = 1, #all, 4000 do call('UNLINK', unpack(all, first, math.min(first + 3999, #all))) end
for _, key in pairs(K) do call('UNLINK', key) end
return {'ok', 1}
