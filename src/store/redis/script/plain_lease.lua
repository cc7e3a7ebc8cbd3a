-- The way of most leases: all that waits lies in one list, and what that begins with is taken as it is. All else goes the long
-- way behind it, which begins anew: nothing was written here. ARGV as in lease.

-- The first slot from this one on of a priority, 16 : 4 : 1 over 21.
local function next_slot(slot, priority)
  if priority == 2 then return 20 end
  if priority == 1 then return slot <= 19 and slot + 4 - slot % 5 or 25 end
  if slot >= 19 then return 21 end
  return slot % 5 == 4 and slot + 1 or slot
end
-- What it gives; nothing where it is not the way.
local function lease_plain(batch, most, bytes_most)
  local kept = call('HMGET', K.c, 'gen', 'paused', 'parked', 'settings', 'pending', 'scheduled', 'bytes_waiting', 'leased',
    'bytes_leased', 'number', 'turn', 'h2', 'h3', 'h4')
  local settings, turn = kept[4] or '', kept[11] or '\0\0\0\0'
  if kept[1] ~= ARGV[2] or kept[2] or kept[3] or #turn ~= 4 then return end
  if #settings < 59 or #settings ~= 59 + unpack_from('>H', settings, 58) then return end
  local pending, scheduled, waiting = number_of(kept[5]), number_of(kept[6]), number_of(kept[7])
  local leased, bytes_leased, number = number_of(kept[8]), number_of(kept[9]), number_of(kept[10])
  if not (pending and scheduled and waiting and leased and bytes_leased and number) or pending == 0 or number >= 2 ^ 48 - 1 then
    return
  end
  if call('EXISTS', K.l0, K.l1, K.l2, K.l3, K.l4, K.l5, K.l6, K.l7) ~= 1 then return end
  local list, length
  for _, of in ipairs({3, 6, 2, 4, 5, 7}) do
    list, length = of, call('LLEN', K['l' .. of])
    if length > 0 then break end
  end
  if length == 0 then return end
  -- What was leased under this name, and by whom, is told by the long way.
  if call('HGET', K.b, batch) or try('HGET', K.y0, batch) or try('HGET', K.y1, batch) or try('HGET', K.y2, batch) then return end

  local key, lookup, has_room = K['l' .. list], byte(settings, 57) == 1, true
  local taken, ids, count, bytes = {}, {}, 0, 0
  while has_room and count < most and count < length do
    -- The first piece tells how many of the next have room, more or less.
    local piece = 32
    if count > 0 then piece = math.min(256, 32 + math.floor(2 * (bytes_most - bytes) * count / math.max(bytes, 1))) end
    for _, record in ipairs(call('LRANGE', key, count, math.min(count + piece, most) - 1)) do
      if #record < RECORD_MIN or byte(record, 1) ~= 1 or is_expired(record) then return end
      local sum = bytes + charged(record)
      has_room = count == 0 or sum <= bytes_most
      if not has_room then break end
      bytes, count = sum, count + 1
      taken[count] = record
      if lookup then ids[count] = sub(record, 2, 17) end
    end
  end
  if bytes > waiting or count > pending then return end
  if has_room and count < length and call('LINDEX', key, count) == '' then return end

  -- The lease is written first, the list is shortened last. Who leases reads the payloads that lie apart.
  call('ZCARD', K.l)
  call('LLEN', K.x)
  call('HLEN', K.o)
  is_writing = true
  if lookup then
    if list > 4 then try('HDEL', K.m, unpack(ids)) end
    try('HSET', K.bi, batch, table.concat(ids))
  end
  local deadline, priority = now + tonumber(ARGV[10]), list < 5 and list - 2 or list - 5
  call('ZADD', K.l, deadline, batch)
  call('HSET', K.b, batch, ARGV[7] .. ARGV[6] .. pack('>I6I6I2I6', now, now + tonumber(ARGV[11]), count, number + 1))
  call('RPUSH', K.x, unpack(taken))
  local slot, returned_next = byte(turn, 1), {[0] = byte(turn, 2), byte(turn, 3), byte(turn, 4)}
  returned_next[priority] = list < 5 and 1 or 0
  -- The slots of a priority come again after 16 turns at most.
  for _ = 1, count < 32 and count or 16 + count % 16 do slot = (next_slot(slot, priority) + 1) % 21 end
  turn = string.char(slot, returned_next[0], returned_next[1], returned_next[2])
  local left = pending - count
  call('HSET', K.c, 'pending', left, 'bytes_waiting', left + scheduled > 0 and waiting - bytes or 0, 'leased', leased + count,
    'bytes_leased', bytes_leased + bytes, 'number', number + 1, 'turn', turn)
  call('LTRIM', key, count, -1)
  if lookup and list < 5 then drop_runs(list, number_of(kept[10 + list]) or 0, length, length - count) end
  return {'ok', ARGV[6], deadline, left > 0 and 1 or 0, '', unpack(taken)}
end
-- Lua hands on a few thousand at once.
if tonumber(ARGV[8]) >= 1 and tonumber(ARGV[8]) <= 4000 then
  local leased = lease_plain(ARGV[5], tonumber(ARGV[8]), tonumber(ARGV[9]))
  if leased then return leased end
end
