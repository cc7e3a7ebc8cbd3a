-- Stores the groups of one queue; each whole or not at all.
-- ARGV: 5 the call's id, 6 how long a call is remembered (ms), 7 whether the store is full, 8 count of groups; then for each
-- group: key ('' none), fingerprint, count of messages, bytes; and for each message: when ('' now, '+ms', '@ms'), record,
-- payload with checksum when the record says that it lies apart.
-- Gives {'ok', woken, soonest or 0, results}; a result is a word and what belongs to it.
local results = {}
local fresh = {[0] = {}, {}, {}}
local bodies, scheduled, scheduled_at = {}, {}, {}
local woke = gauge.pending == 0 or call('LLEN', S) == gauge.pending

local function refuse_or_keep(key, fingerprint, messages, bytes, ids)
  if key ~= '' then
    local kept = kept_key(key)
    if kept then
      if kept:sub(1, 16) == fingerprint then return 'D' .. kept:sub(23) end
      return 'R'
    end
  end
  if gauge.pending + gauge.scheduled + gauge.leased + messages > set.length_max then
    return 'L' .. pack('>I6', set.length_max)
  end
  if gauge.bytes_waiting + gauge.bytes_leased + bytes > set.bytes_max then
    return 'B' .. pack('>I6', set.bytes_max)
  end
  if key ~= '' and keys_at_limit() then return 'K' .. pack('>I6', set.keys_max) end
  if ARGV[7] == '1' then return 'F' end
  if key ~= '' then keep_key(key, fingerprint, ids) end
  return 'A'
end

local at, any_pending = 9, false
for group = 1, tonumber(ARGV[8]) do
  local key, fingerprint, messages, bytes = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  at = at + 4
  local first, ids = at, {}
  for place = 1, messages do
    local record = ARGV[at + 1]
    if key ~= '' then ids[place] = id_of(record) end
    at = at + (is_apart(record) and 3 or 2)
  end
  local result = refuse_or_keep(key, fingerprint, messages, bytes, table.concat(ids))
  results[group] = pack('>I4', #result) .. result
  if result == 'A' then
    local here = first
    for _ = 1, messages do
      local due, record = ARGV[here], ARGV[here + 1]
      here = here + 2
      if is_apart(record) then
        bodies[#bodies + 1] = id_of(record)
        bodies[#bodies + 1] = ARGV[here]
        here = here + 1
      end
      local moment = now
      if due ~= '' then
        moment = tonumber(due:sub(2))
        if due:byte(1) == 43 then moment = moment + now end
      end
      if moment > now then
        schedule(record, moment)
      else
        local list = fresh[priority_of(record)]
        list[#list + 1] = record
        any_pending = true
        move('pending', 'bytes_waiting', 1, charged(record))
      end
    end
    count('accepted', messages)
  end
end

in_chunks('HSET', K.o, bodies)
for priority = 0, 2 do append(2 + priority, fresh[priority]) end
write_index()
local packed = table.concat(results)
call('SET', K.e, pack('>I6', now) .. packed, 'PX', ARGV[6])
flush()
woken = woke and any_pending
return {'ok', wake(), soonest or 0, packed}
