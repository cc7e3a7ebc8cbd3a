-- Deletes a queue with all that is in it.
-- ARGV: 5 whether also when it holds messages, 6 prefix of the keys of batches. Gives {'ok', deleted}.
local is_unknown = strange.pending or strange.scheduled or strange.leased or strange.dead
if ARGV[5] ~= '1' and (is_unknown or gauge.pending + gauge.scheduled + gauge.leased + gauge.dead > 0) then return {'ok', 0} end
wipe(ARGV[6])
return {'ok', 1}
