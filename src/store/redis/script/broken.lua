-- Comes last in every script that has keys, when it broke off: names the key that is of another type than ours. KINDS stands
-- before this file, in the order of KEYS. Nothing was written unless the script said so before.
for place, kind in ipairs(KINDS) do
  local is = redis.call('TYPE', KEYS[place]).ok
  if is ~= 'none' and is ~= kind then
    local words = 'the key ' .. KEYS[place] .. ' holds a ' .. is .. ' instead of a ' .. kind
    return redis.error_reply((is_writing and 'WRONGTYPE ' or 'FOREIGNKEY ') .. words)
  end
end
-- What breaks off by what it read, without a reply of Redis, and wrote nothing, refuses the call: that is known.
-- From 7.2 on a right that is missing comes as words as well.
if not is_writing and type(answer) == 'string' and not string.find(answer, 'ACL failure in script', 1, true) then
  local words = 'what lies under ' .. KEYS[1] .. ' or beside it cannot be read; put back what was there, and the queue goes on'
  return redis.error_reply('FOREIGNKEY ' .. words .. ' (' .. string.gsub(answer, '%c', ' ') .. ')')
end
error(answer)
