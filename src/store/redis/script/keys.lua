-- Idempotency keys: four hashes in a ring, each filled for half a window, so that what is over goes away as a whole.
-- `ring` says where it stands: slot, then for each slot when it was begun and until when its last key holds, 6 each.
-- A key: fingerprint 16, until 6, ids.
local RING = {[0] = K.i0, K.i1, K.i2, K.i3}
local ring
local function load_ring()
  if ring then return end
  ring = {slot = 0, begun = {[0] = 0, 0, 0, 0}, over = {[0] = 0, 0, 0, 0}}
  local kept = call('HGET', K.c, 'ring')
  if kept then
    ring.slot = kept:byte(1)
    for slot = 0, 3 do
      ring.begun[slot], ring.over[slot] = unpack_from('>I6I6', kept, 2 + slot * 12)
    end
  end
end
local function write_ring()
  local parts = {string.char(ring.slot)}
  for slot = 0, 3 do parts[slot + 2] = pack('>I6I6', ring.begun[slot], ring.over[slot]) end
  call('HSET', K.c, 'ring', table.concat(parts))
end
-- What a key stands for.
local function kept_key(key)
  load_ring()
  for slot = 0, 3 do
    if ring.over[slot] > now then
      local value = call('HGET', RING[slot], key)
      if value and unpack_from('>I6', value, 17) > now then return value end
    end
  end
end
-- Whether there are as many as may be; what is over is removed before that is said, at most once a second.
local function keys_at_limit()
  load_ring()
  local sum = 0
  for slot = 0, 3 do
    if ring.over[slot] > now then sum = sum + call('HLEN', RING[slot]) end
  end
  if sum < set.keys_max then return false end
  local looked = tonumber(call('HGET', K.c, 'keys_looked') or 0)
  if now - looked < 1000 and now >= looked then return true end
  call('HSET', K.c, 'keys_looked', now)
  for slot = 0, 3 do
    if ring.over[slot] > now and ring.begun[slot] + set.window <= now then
      local gone, pairs_of = {}, call('HGETALL', RING[slot])
      for place = 1, #pairs_of, 2 do
        if unpack_from('>I6', pairs_of[place + 1], 17) <= now then gone[#gone + 1] = pairs_of[place] end
      end
      in_chunks('HDEL', RING[slot], gone)
      sum = sum - #gone
    end
  end
  return sum >= set.keys_max
end
local function keep_key(key, fingerprint, ids)
  load_ring()
  local slot, until_ms = ring.slot, now + set.window
  if ring.over[slot] <= now or now - ring.begun[slot] >= set.window / 2 then
    local next_slot = (slot + 1) % 4
    if ring.over[next_slot] <= now then
      slot = next_slot
      call('UNLINK', RING[slot])
      ring.slot, ring.begun[slot] = slot, now
    end
  end
  ring.over[slot] = math.max(ring.over[slot], until_ms)
  call('HSET', RING[slot], key, fingerprint .. pack('>I6', until_ms) .. ids)
  call('PEXPIRE', RING[slot], ring.over[slot] - now + 60000)
  write_ring()
end
