-- Idempotency keys: four hashes in a ring, each filled for half a window, so that what is over goes away as a whole.
-- `ring` says where it stands: slot, then for each slot when it was begun and until when its last key holds, 6 each.
-- A key: fingerprint 16, until 6, ids.
local RING = {[0] = K.i0, K.i1, K.i2, K.i3}
local ring
local function load_ring()
  if ring then return end
  ring = {slot = 0, begun = {[0] = 0, 0, 0, 0}, over = {[0] = 0, 0, 0, 0}}
  local kept = call('HGET', K.c, 'ring')
  if kept and #kept == 49 and byte(kept, 1) <= 3 then
    ring.slot = byte(kept, 1)
    for slot = 0, 3 do
      ring.begun[slot], ring.over[slot] = unpack_from('>I6I6', kept, 2 + slot * 12)
    end
  end
end
-- The keys of this call; they are written at its end.
local new_keys, new_values, new_count = {}, {}, 0
-- What a key stands for.
local function kept_key(key)
  if new_values[key] then return new_values[key] end
  load_ring()
  for slot = 0, 3 do
    if ring.over[slot] > now then
      local value = call('HGET', RING[slot], key)
      if value and #value >= 22 and unpack_from('>I6', value, 17) > now then return value end
    end
  end
end
-- Removes what is over from a hash of which not all is, some thousand keys from where the last look ended.
local function sift(slot)
  local cursor, gone = cursor_of(call('HGET', K.c, 'sifted' .. slot)), {}
  for _ = 1, 4 do
    local found = call('HSCAN', RING[slot], cursor, 'COUNT', 1000)
    cursor = found[1]
    for place = 1, #found[2], 2 do
      local value = found[2][place + 1]
      if #value < 22 or unpack_from('>I6', value, 17) <= now then gone[#gone + 1] = found[2][place] end
    end
    if cursor == '0' then break end
  end
  call('HSET', K.c, 'sifted' .. slot, cursor)
  in_chunks(call, 'HDEL', RING[slot], gone)
  return #gone
end
-- Whether there are as many as may be; what is over is removed before that is said, at most once a second.
local function keys_at_limit()
  load_ring()
  local sum = new_count
  for slot = 0, 3 do
    if ring.over[slot] > now then sum = sum + call('HLEN', RING[slot]) end
  end
  if sum < set.keys_max then return false end
  local looked = tonumber(call('HGET', K.c, 'keys_looked') or 0) or 0
  if now - looked < 1000 and now >= looked then return true end
  call('HSET', K.c, 'keys_looked', now)
  for slot = 0, 3 do
    if ring.over[slot] > now and ring.begun[slot] + set.window <= now then sum = sum - sift(slot) end
  end
  return sum >= set.keys_max
end
local function keep_key(key, fingerprint, ids)
  local value = fingerprint .. pack('>I6', now + set.window) .. ids
  new_keys[#new_keys + 1], new_values[key], new_count = key, value, new_count + 1
end
local function write_keys()
  if new_count == 0 then return end
  load_ring()
  local slot = ring.slot
  if ring.over[slot] <= now or now - ring.begun[slot] >= set.window / 2 then
    local next_slot = (slot + 1) % 4
    if ring.over[next_slot] <= now then
      slot = next_slot
      call('UNLINK', RING[slot])
      ring.slot, ring.begun[slot] = slot, now
    end
  end
  ring.over[slot] = math.max(ring.over[slot], now + set.window)
  local all = {}
  for _, key in ipairs(new_keys) do
    all[#all + 1] = key
    all[#all + 1] = new_values[key]
  end
  in_chunks(call, 'HSET', RING[slot], all)
  call('PEXPIRE', RING[slot], ring.over[slot] - now + 60000)
  local parts = {string.char(ring.slot)}
  for each = 0, 3 do parts[each + 2] = pack('>I6I6', ring.begun[each], ring.over[each]) end
  call('HSET', K.c, 'ring', table.concat(parts))
end
