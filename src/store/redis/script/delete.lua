-- Deletes a queue with all that is in it.
-- ARGV: 5 whether also when it holds messages, 6 prefix of the keys of batches. Gives {'ok', deleted}.
if ARGV[5] ~= '1' and gauge.pending + gauge.scheduled + gauge.leased + gauge.dead > 0 then return {'ok', 0} end
wipe(ARGV[6])
return {'ok', 1}
