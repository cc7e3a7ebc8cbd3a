-- Removes dead letters for good. ARGV: 5 count of ids, then those. Gives {'ok', woken, discarded, unparked}.
look_at_dead()
is_writing = true
local gone = 0
for place = 1, tonumber(ARGV[5]) do
  if discard(ARGV[5 + place]) then gone = gone + 1 end
end
local before = q[3]
unpark_when_below()
flush()
return {'ok', wake(), gone, before and not q[3] and 1 or 0}
