-- Batches of leases. K.b: batch -> kind, token 8, leased at 6, may live until 6, live 2, number 6.
-- The mark of one that ended lies in one of three hashes, by the minute it ended in: token 8, ended 6, leases 2, and the
-- indexes that were taken back, 2 each.
local function look_at_batches()
  call('ZCARD', K.l)
  call('HLEN', K.b)
end
local MARKS = {[0] = K.y0, K.y1, K.y2}
local function mark_of(batch, remembered)
  for slot = 0, 2 do
    local mark = try('HGET', MARKS[slot], batch)
    if mark and #mark >= 16 and now - unpack_from('>I6', mark, 9) < remembered then return mark end
  end
end
local function write_mark(batch, token, lost)
  local minute = math.floor(now / 60000)
  local slot = minute % 3
  local marked = call('HGET', K.c, 'minute' .. slot)
  if marked ~= tostring(minute) then
    call('UNLINK', MARKS[slot])
    call('HSET', K.c, 'minute' .. slot, tostring(minute))
    try('HSET', MARKS[slot], batch, token .. pack('>I6', now) .. lost)
    call('PEXPIRE', MARKS[slot], 180000)
  else
    try('HSET', MARKS[slot], batch, token .. pack('>I6', now) .. lost)
  end
end
-- Ends a batch none of whose leases is left.
local function end_batch(batch, known, list, elements)
  local lost = {pack('>I2', #elements)}
  for place, element in ipairs(elements) do
    if element == LOST then lost[#lost + 1] = pack('>I2', place - 1) end
  end
  call('UNLINK', list)
  call('HDEL', K.b, batch)
  try('HDEL', K.bi, batch)
  call('ZREM', K.l, batch)
  write_mark(batch, known:sub(2, 9), table.concat(lost))
end
-- What a settlement sent after the end of its batch is told.
local function told_of(mark)
  local leases, lost = unpack_from('>I2', mark, 15), {}
  for place = 17, #mark, 2 do lost[unpack_from('>I2', mark, place)] = true end
  return function(index) return (index >= leases or lost[index]) and 'L' or 'S' end
end
local function write_live(batch, known, live)
  call('HSET', K.b, batch, known:sub(1, 21) .. pack('>I2', live) .. known:sub(24))
end
local function live_of(known) return unpack_from('>I2', known, 22) end
-- What all batches hold; nothing where they are too many to ask of at once, as consumers may hold them.
local SUMMED_MAX = 500
local function leased_in_all()
  if call('HLEN', K.b) > SUMMED_MAX then return nil end
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
