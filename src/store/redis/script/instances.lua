-- Says that a gateway lives, or that it ends; gives all that were heard of lately, and forgets the others.
-- ARGV: 1 now, 2 name, 3 version ('' it ends), 4 how long one that is silent is remembered (ms).
-- Gives {'ok', name, version, last heard of (ms), …}.
if ARGV[3] == '' then
  call('HDEL', K.instances, ARGV[2])
else
  call('HSET', K.instances, ARGV[2], string.format('%.0f ', now) .. ARGV[3])
end
local known, all = call('HGETALL', K.instances), {'ok'}
for place = 1, #known, 2 do
  local heard, version = known[place + 1]:match('^(%d+) (.*)$')
  if not heard or math.abs(now - tonumber(heard)) > tonumber(ARGV[4]) then
    call('HDEL', K.instances, known[place])
  else
    all[#all + 1] = known[place]
    all[#all + 1] = version
    all[#all + 1] = heard
  end
end
return all
