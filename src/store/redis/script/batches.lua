-- Batches of leases. K.b: batch -> kind, token 8, leased at 6, may live until 6, live 2, number 6.
-- The mark of one that ended lies in one of three hashes, by the minute it ended in: token 8, ended 6, leases 2, then words of
-- 2: four bits say what became of a lease, twelve its index. Where the four are REST, the twelve say what became of all leases
-- that no other word names; earlier versions wrote no such word, and named those only that were taken back.
local function look_at_batches()
  call('ZCARD', K.l)
  call('HLEN', K.b)
end
local MARKS = {[0] = K.y0, K.y1, K.y2}
-- What became of a lease, by the element that stands for it: 0 it was taken back, UNKNOWN it was settled, nobody knows how.
local UNKNOWN, REST = 6, 15
local FATE = {[LOST] = 0, a = 1, r = 2, x = 3, d = 4, l = 5, [''] = UNKNOWN}
local function mark_of(batch, remembered)
  for slot = 0, 2 do
    local mark = try('HGET', MARKS[slot], batch)
    if mark and #mark >= 16 and now - unpack_from('>I6', mark, 9) < remembered then return mark end
  end
end
local function write_mark(batch, token, fates)
  local minute = math.floor(now / 60000)
  local slot = minute % 3
  local marked = call('HGET', K.c, 'minute' .. slot)
  if marked ~= tostring(minute) then
    call('UNLINK', MARKS[slot])
    call('HSET', K.c, 'minute' .. slot, tostring(minute))
    try('HSET', MARKS[slot], batch, token .. pack('>I6', now) .. fates)
    call('PEXPIRE', MARKS[slot], 180000)
  else
    try('HSET', MARKS[slot], batch, token .. pack('>I6', now) .. fates)
  end
end
-- Ends a batch, which is remembered by what became of its leases.
local function forget_batch(batch, known, list, fates)
  call('UNLINK', list)
  call('HDEL', K.b, batch)
  try('HDEL', K.bi, batch)
  call('ZREM', K.l, batch)
  write_mark(batch, known:sub(2, 9), fates)
end
-- Ends a batch none of whose leases is left.
local function end_batch(batch, known, list, elements)
  -- Most end in the same way. Behind the last index that a word has room for lies only what others appended.
  local count, rest = math.min(#elements, 4096), FATE[elements[1]]
  if not rest or rest == 0 then rest = UNKNOWN end
  local fates = {pack('>I2I2', count, REST * 4096 + rest)}
  for place = 1, count do
    local fate = FATE[elements[place]] or rest
    if fate ~= rest then fates[#fates + 1] = pack('>I2', fate * 4096 + place - 1) end
  end
  forget_batch(batch, known, list, table.concat(fates))
end
-- What a settlement sent after the end of its batch is told.
local function told_of(mark)
  local leases, rest, named = unpack_from('>I2', mark, 15), UNKNOWN, {}
  for at = 17, #mark - 1, 2 do
    local word = unpack_from('>I2', mark, at)
    local fate, index = math.floor(word / 4096), word % 4096
    if fate == REST then rest = index else named[index] = fate end
  end
  return function(index, verdict)
    local fate = index < leases and (named[index] or rest) or 0
    return (fate == UNKNOWN or fate == FATE[verdict]) and 'S' or 'L'
  end
end
local function write_live(batch, known, live)
  call('HSET', K.b, batch, known:sub(1, 21) .. pack('>I2', live) .. known:sub(24))
end
local function live_of(known) return unpack_from('>I2', known, 22) end
-- What all batches hold; nothing where they are too many to ask of at once, as consumers may hold them, and the gauge says it.
local SUMMED_MAX = 500
local function leased_in_all()
  if not strange.leased and call('HLEN', K.b) > SUMMED_MAX then return nil end
  local batches, sum = call('HGETALL', K.b), 0
  for place = 2, #batches, 2 do
    if #batches[place] == 29 then sum = sum + live_of(batches[place]) end
  end
  return sum
end
-- Until when a batch is held: a worker's until it is taken back, a consumer's until the moment it was told.
local function until_of(batch, known)
  local deadline = tonumber(call('ZSCORE', K.l, batch) or 0)
  return known:byte(1) == 87 and math.max(deadline, now) or deadline
end
