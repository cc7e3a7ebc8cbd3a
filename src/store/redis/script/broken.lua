-- Comes last in every script of a queue, when it broke off: names the key that is of another type than ours. KINDS stands before
-- this file, in the order of KEYS. Nothing was written unless the script said so before.
for place, kind in ipairs(KINDS) do
  local is = redis.call('TYPE', KEYS[place]).ok
  if is ~= 'none' and is ~= kind then
    local words = 'the key ' .. KEYS[place] .. ' holds a ' .. is .. ' instead of a ' .. kind
    return redis.error_reply((is_writing and 'WRONGTYPE ' or 'FOREIGNKEY ') .. words)
  end
end
error(answer)
