-- Stores the groups of one queue; each whole or not at all.
-- ARGV: 5 how long a call is remembered (ms), 6 whether the store is full, 7 until when it may be carried out (ms; 0: whenever it
-- comes), 8 count of lots; then for each lot what it is:
-- 'g', one group: key ('' none), fingerprint, counts of messages and of arguments, bytes; and for each message: when ('' now,
-- '+ms', '@ms'), record, payload with checksum when the record says that it lies apart.
-- 'p', that many groups of one message, or 'b', one of that many: without key, due now, of one priority, whose ids are of one
-- moment: count of messages, bytes, priority, ids; and the records. 'a', as the only lot: `plain.lua`.
-- Gives {'late', now} or {'long'} with nothing stored, or {'ok', woken, soonest or 0, results}: 'A' when all groups were
-- accepted, else for each its length 4, a word and what belongs to it.
local results, refused = {}, false
local fresh, fresh_ids = {[0] = {}, {}, {}}, {[0] = {}, {}, {}}
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
local function tell(result)
  if result == 'A' then
    results[#results + 1] = ACCEPTED
  else
    results[#results + 1], refused = pack('>I4', #result) .. result, true
  end
  return result == 'A'
end
local function accept(messages, bytes)
  accepted, waiting, waiting_bytes = accepted + messages, waiting + messages, waiting_bytes + bytes
end

-- One group; gives where the next lot begins.
local function take_group(at)
  local key, fingerprint, messages, bytes = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 4])
  local here, ids = at + 5, {}
  local behind = here + tonumber(ARGV[at + 3])
  if key ~= '' then
    local place = here
    for message = 1, messages do
      local record = ARGV[place + 1]
      ids[message] = id_of(record)
      place = place + (is_apart(record) and 3 or 2)
    end
  end
  if not tell(refuse_or_keep(key, fingerprint, messages, bytes, table.concat(ids))) then return behind end
  accept(messages, bytes)
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
      local list, list_ids = fresh[priority_of(record)], fresh_ids[priority_of(record)]
      list[#list + 1], list_ids[#list_ids + 1] = record, id_of(record)
      pending, pending_bytes = pending + 1, pending_bytes + charged(record)
    end
  end
  return behind
end
-- Groups without anything that is worth a look at each.
local function take_plain(at, is_one)
  local messages, bytes, priority, ids = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), ARGV[at + 3]
  local here = at + 4
  local list, list_ids = fresh[priority], fresh_ids[priority]
  local function take(from, count, size, its_ids)
    accept(count, size)
    pending, pending_bytes = pending + count, pending_bytes + size
    for place = from, from + count - 1 do list[#list + 1] = ARGV[place] end
    list_ids[#list_ids + 1] = its_ids
  end
  local result = refuse_or_keep('', '', messages, bytes, '')
  if result == 'A' then
    for _ = 1, is_one and 1 or messages do tell('A') end
    take(here, messages, bytes, ids)
  elseif is_one then
    tell(result)
  else
    for message = 0, messages - 1 do
      local size = charged(ARGV[here + message])
      if tell(refuse_or_keep('', '', 1, size, '')) then
        take(here + message, 1, size, sub(ids, message * 16 + 1, message * 16 + 16))
      end
    end
  end
  return here + messages
end

local at = 9
for _ = 1, tonumber(ARGV[8]) do
  local kind = ARGV[at]
  at = kind == 'g' and take_group(at + 1) or take_plain(at + 1, kind == 'b')
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
for priority = 0, 2 do append(2 + priority, fresh[priority], fresh_ids[priority]) end
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
