-- Stores the groups of one queue; each whole or not at all.
-- ARGV: 5 how long a call is remembered (ms), 6 whether the store is full, 7 until when it may be carried out (ms; 0: whenever it
-- comes), 8 count of groups; then for each group: key ('' none),
-- fingerprint, counts of messages and of arguments, bytes; and for each message: when ('' now, '+ms', '@ms'), record, payload
-- with checksum when the record says that it lies apart.
-- Gives {'late', now} with nothing stored, or {'ok', woken, soonest or 0, results}: 'A' when all groups were accepted, else for
-- each its length 4, a word and what belongs to it.
local results, refused = {}, false
local fresh = {[0] = {}, {}, {}}
local bodies, scheduled = {}, {}
local pending, pending_bytes, accepted = 0, 0, 0
local woke = gauge.pending <= 0 or call('LLEN', S) == gauge.pending

local waiting = gauge.pending + gauge.scheduled + gauge.leased
local waiting_bytes = gauge.bytes_waiting + gauge.bytes_leased
local function refuse_or_keep(key, fingerprint, messages, bytes, ids)
  if key ~= '' then
    local kept = kept_key(key)
    if kept then
      if kept:sub(1, 16) == fingerprint then return 'D' .. kept:sub(23) end
      return 'R'
    end
  end
  if waiting + messages > set.length_max then
    return 'L' .. pack('>I6', set.length_max)
  end
  if waiting_bytes + bytes > set.bytes_max then
    return 'B' .. pack('>I6', set.bytes_max)
  end
  if key ~= '' and keys_at_limit() then return 'K' .. pack('>I6', set.keys_max) end
  if ARGV[6] == '1' then return 'F' end
  if key ~= '' then keep_key(key, fingerprint, ids) end
  return 'A'
end

local ACCEPTED = pack('>I4', 1) .. 'A'
local at = 9
for group = 1, tonumber(ARGV[8]) do
  local key, fingerprint, messages, bytes = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 4])
  local here, ids = at + 5, {}
  at = here + tonumber(ARGV[at + 3])
  if key ~= '' then
    local place = here
    for message = 1, messages do
      local record = ARGV[place + 1]
      ids[message] = id_of(record)
      place = place + (is_apart(record) and 3 or 2)
    end
  end
  local result = refuse_or_keep(key, fingerprint, messages, bytes, table.concat(ids))
  if result == 'A' then
    results[group] = ACCEPTED
    accepted, waiting, waiting_bytes = accepted + messages, waiting + messages, waiting_bytes + bytes
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
        moment = tonumber(sub(due, 2))
        if byte(due) == 43 then moment = moment + now end
      end
      if moment > now then
        scheduled[#scheduled + 1] = {record, moment}
      else
        local list = fresh[priority_of(record)]
        list[#list + 1] = record
        pending, pending_bytes = pending + 1, pending_bytes + charged(record)
      end
    end
  else
    results[group], refused = pack('>I4', #result) .. result, true
  end
end

if #scheduled > 0 then look_at_scheduled() end
for priority = 0, 2 do
  -- Whoever waits is told also where a gauge says wrongly that there is something.
  if #fresh[priority] > 0 and call('LLEN', LIST[2 + priority]) == 0 then woke = true end
end
if #bodies > 0 then call('HLEN', K.o) end
if new_count > 0 then call('HLEN', RING[ring.slot]) end
is_writing = true
in_chunks(call, 'HSET', K.o, bodies)
for _, later in ipairs(scheduled) do schedule(later[1], later[2]) end
for priority = 0, 2 do append(2 + priority, fresh[priority]) end
if pending > 0 then move('pending', 'bytes_waiting', pending, pending_bytes) end
count('accepted', accepted)
write_index()
flush()
local packed = refused and table.concat(results) or 'A'
call('SET', K.e, pack('>I6', now) .. packed, 'PX', ARGV[5])
-- The keys last: a key without its messages would make them lost to whoever sends them again.
write_keys()
woken = woke and pending > 0
return {'ok', wake(), soonest or 0, packed}
