-- Gives a queue its generation and settings. What an earlier making left behind goes.
-- ARGV: 1 generation, 2 settings, 3 whether messages can be looked up, 4 prefix of the keys of batches, 5 channel of
-- wake-ups, 6 name of the queue, 7 generation that is expected beside the new one ('' none).
-- Gives {'ok', paused, parked, woken}; {'gone'} when there is another; refuses where another holds messages.
local call = redis.call
local generation = call('HGET', K.c, 'gen')
if (generation or '') ~= ARGV[7] and generation ~= ARGV[1] then return {'gone'} end
if generation and generation ~= ARGV[1] then
  -- An earlier making is deleted before its entry goes, so what holds messages is none: somebody else wrote there.
  local held = 0
  for _, number in ipairs(call('HMGET', K.c, 'pending', 'scheduled', 'leased', 'dead')) do
    local count = tonumber(number or 0)
    held = held + (count and count >= 0 and count < 2 ^ 53 and count or 1)
  end
  if held > 0 then
    return redis.error_reply(string.format('FOREIGNKEY the field gen of the key %s is %s, and its entry says %s: it holds %.0f '
      .. 'messages, which are left as they are; if they are those of the queue, HSET %s gen %s, and it goes on',
      K.c, (string.gsub(generation, '%c', ' ')), ARGV[1], held, K.c, ARGV[1]))
  end
  wipe(ARGV[4])
end
local numbers = '>I6I6I6I6I6I6I6I6I6BB'
-- Behind the numbers of the settings: whether messages can be looked up, then the destination to the end.
local function destination_of(settings) return string.sub(settings or '', 58) end
local goes_elsewhere = destination_of(call('HGET', K.c, 'settings')) ~= destination_of(ARGV[2])
is_writing = true
call('HSET', K.c, 'gen', ARGV[1], 'settings', ARGV[2])
if ARGV[3] == '0' then call('UNLINK', K.m, K.mr, K.mt, K.bi) end
local held = call('HMGET', K.c, 'paused', 'parked', 'dead', 'bytes_dead', 'pending')
local woken = 0
local is_over = goes_elsewhere and (held[2] == 'destination_gone' or held[2] == 'egress_refused')
if held[2] == 'dead_full' then
  local _, _, _, _, length_max, bytes_max, _, _, _, _, trims = struct.unpack(numbers, ARGV[2])
  is_over = trims == 1 or (tonumber(held[3] or 0) or 0) < length_max and (tonumber(held[4] or 0) or 0) < bytes_max
end
if is_over then
  call('HDEL', K.c, 'parked')
  held[2] = false
  if (tonumber(held[5] or 0) or 0) > 0 then
    woken = 1
    call('PUBLISH', ARGV[5], ARGV[6])
  end
end
return {'ok', held[1] and 1 or 0, held[2] or '', woken}
