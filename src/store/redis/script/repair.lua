-- Mends what somebody else made of the keys of a queue: places are made anew from the records they lead to, what leads nowhere
-- goes, and gauges are set to what is there. What is gone counts as purged or discarded, what came back as accepted or
-- dead-lettered, so that both laws hold; where all gauges were right somebody wrote over a counter, and nothing is gone. A piece
-- at a time: the field `mending` of K.c says how far it is, a step and a place in it.
-- ARGV: 5 messages and 6 bytes at most, 7 lease of a batch whose deadline is gone (ms), 8 prefix of the keys of batches.
-- Gives {'ok', woken, more, messages gone, messages found, dead letters gone, dead letters found, counters that were raised}.
local messages_max, bytes_max, prefix = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[8]
local messages, bytes = 0, 0
local function spend(size) messages, bytes = messages + 1, bytes + size end
local function is_spent() return messages >= messages_max or bytes >= bytes_max end

look_at_lists()
look_at_scheduled()
look_at_dead()
look_at_batches()
is_writing = true

-- Goes on in a hash; gives the place where the next call does, or nothing at its end.
local function walk_hash(key, from, visit)
  local cursor = from
  repeat
    local found = try('HSCAN', key, cursor, 'COUNT', 16)
    if not found then return nil end
    cursor = found[1]
    messages = messages + 1
    for place = 1, #found[2], 2 do
      spend(#found[2][place + 1])
      visit(found[2][place], found[2][place + 1])
    end
  until cursor == '0' or is_spent()
  return cursor ~= '0' and cursor or nil
end
-- The same of a sorted set, from one of its members on; those that `visit` does not want go.
local function walk_set(key, from, visit)
  local at = tonumber(from) or 0
  repeat
    local members = call('ZRANGE', key, at, at + 31, 'WITHSCORES')
    for place = 1, #members, 2 do
      spend(0)
      if visit(members[place], tonumber(members[place + 1])) then
        at = at + 1
      else
        call('ZREM', key, members[place])
      end
    end
    if #members < 64 then return nil end
  until is_spent()
  return string.format('%.0f', at)
end

-- Scheduled: its record says when it is due, and its number.
local function is_scheduled(id, kept) return #id == 16 and #kept >= 12 + RECORD_MIN end
local function place_scheduled(id, kept)
  if is_scheduled(id, kept) then
    call('ZADD', K.s, (unpack_from('>I6', kept)), sub(kept, 7, 12) .. id)
  else
    pile_up({kept})
    call('HDEL', K.sb, id)
  end
end
local function has_scheduled(place)
  local id = sub(place, 7)
  local kept = call('HGET', K.sb, id)
  if not kept then
    if #id == 16 then try('HDEL', K.o, id) end
    return false
  end
  spend(#kept)
  return is_scheduled(id, kept) and sub(kept, 7, 12) == sub(place, 1, 6)
end

-- Dead: what is left of a letter and its place says when it died; why it did, the record and its attempts.
local function dead_record(id)
  local record = #id == 16 and call('HGET', K.db, id)
  if not record or #record < RECORD_MIN then return nil end
  spend(#record)
  return record
end
local function write_letter(id, record, place, died)
  local attempts, allowed = byte(record, 18), byte(record, 20)
  local reason = attempts >= allowed and REASON.exhausted or is_expired(record) and REASON.expired or REASON.rejected
  local destination = attempts > 0 and set.destination or ''
  call('HSET', K.dm, id, place .. pack('>I6BBI2I4I2', died, reason, attempts, last_status(id), charged(record), #destination)
    .. destination .. 'what was known of its death was overwritten')
end
local function drop_letter(id, letter)
  call('HDEL', K.dm, id)
  call('HDEL', K.db, id)
  if #id ~= 16 then return end
  if letter and #letter >= 6 then call('ZREM', K.d, sub(letter, 1, 6) .. id) end
  try('HDEL', K.o, id)
  forget_logs({id})
end
local function has_died(member, died)
  local id = sub(member, 7)
  local record, letter = dead_record(id), call('HGET', K.dm, id)
  if not record then
    drop_letter(id, letter)
    return false
  end
  if not letter or #letter < 22 then
    write_letter(id, record, sub(member, 1, 6), died)
    return true
  end
  return sub(letter, 1, 6) == sub(member, 1, 6)
end
local function place_letter(id, letter)
  if #letter >= 22 and dead_record(id) then
    call('ZADD', K.d, (unpack_from('>I6', letter, 7)), sub(letter, 1, 6) .. id)
  else
    drop_letter(id, letter)
  end
end
local function place_dead(id, record)
  if #id ~= 16 or #record < RECORD_MIN then
    pile_up({record})
    call('HDEL', K.db, id)
  elseif call('HEXISTS', K.dm, id) == 0 then
    local place = pack('>I6', number())
    write_letter(id, record, place, now)
    call('ZADD', K.d, now, place .. id)
  end
end

-- Leased: a list without its batch is one anew, which nobody holds any more, and its messages come back when it is over.
local function count_live(batch)
  local live = 0
  for _, record in ipairs(try('LRANGE', prefix .. batch, 0, -1) or {}) do
    spend(#record)
    if not OVER[record] then live = live + 1 end
  end
  return live
end
local function has_batch(batch)
  if call('HEXISTS', K.b, batch) == 1 then return true end
  local live = #batch == 32 and count_live(batch) or 0
  if live == 0 then return false end
  local over = now + tonumber(ARGV[7])
  call('HSET', K.b, batch, 'P' .. sub(batch, 25) .. pack('>I6I6I2I6', now, over, live, number()))
  return true
end
local function has_ids(batch)
  if not has_batch(batch) then try('HDEL', K.bi, batch) end
end
local function place_batch(batch, known)
  if #known ~= 29 then
    call('HDEL', K.b, batch)
  elseif not call('ZSCORE', K.l, batch) then
    call('ZADD', K.l, math.min(now + tonumber(ARGV[7]), (unpack_from('>I6', known, 16))), batch)
  end
end

local function all_equal(one, other, third) return one == other and one == third end
local function scheduled_differs()
  return not all_equal(gauge.scheduled, call('ZCARD', K.s), call('HLEN', K.sb))
end
local function dead_differs()
  local dead = call('HLEN', K.dm)
  return dead ~= gauge.dead or strange.dead or not all_equal(dead, call('ZCARD', K.d), call('HLEN', K.db))
end
local function leased_differs()
  return call('ZCARD', K.l) ~= call('HLEN', K.b) or (leased_in_all() or gauge.leased) ~= gauge.leased
end
-- How much is remembered of attempts, when that went with K.c or was overwritten.
local function logs_differ()
  local kept = call('HGET', K.c, 'bytes_log')
  if kept and (read_number(kept) or -1) >= 0 then return false end
  if kept then call('HDEL', K.c, 'bytes_log') end
  return (try('HLEN', K.a) or 0) > 0
end
local function count_log(_, log) note_log(size_of(log)) end
local STEPS = {
  {scheduled_differs, walk_hash, K.sb, place_scheduled}, {scheduled_differs, walk_set, K.s, has_scheduled},
  {dead_differs, walk_set, K.d, has_died}, {dead_differs, walk_hash, K.dm, place_letter},
  {dead_differs, walk_hash, K.db, place_dead},
  {leased_differs, walk_set, K.l, has_batch}, {leased_differs, walk_hash, K.bi, has_ids},
  {leased_differs, walk_hash, K.b, place_batch}, {logs_differ, walk_hash, K.a, count_log},
}
local step, from = (call('HGET', K.c, 'mending') or ''):match('^(%d) (%d*)$')
step = tonumber(step or 1)
if from == '' then from = nil end
if not STEPS[step] or from and cursor_of(from) ~= from then step, from = 1, nil end
while step <= #STEPS do
  local differs, walk, key, visit = unpack(STEPS[step])
  if from or differs() then
    local further = walk(key, from or '0', visit)
    if not further and is_spent() and step < #STEPS then step, further = step + 1, '' end
    if further then
      call('HSET', K.c, 'mending', string.format('%.0f ', step) .. further)
      flush()
      return {'ok', 0, 1, 0, 0, 0, 0, ''}
    end
  end
  step, from = step + 1, nil
end
call('HDEL', K.c, 'mending')

-- What was gone with K.c: how many were ever appended to a list; what is looked up by it is named anew below. Nothing is ever
-- appended to the head.
local reindexes = false
for list = 0, 7 do
  local length = call('LLEN', LIST[list])
  if list ~= 1 and appended_to(list) < length then
    call('HSET', K.c, 'h' .. list, length)
    reindexes = true
  end
end
if reindexes then
  try('UNLINK', K.m, K.mr, K.mt)
end

-- What waits, read as a whole where that is little; else its lists say how much it may be at most, and the bytes are an estimate.
messages, bytes = 0, 0
local listed, pending, pending_bytes, is_whole = 0, 0, 0, true
for list = 0, 7 do
  local length, at = call('LLEN', LIST[list]), 0
  listed = listed + length
  while at < length and is_whole do
    local piece = call('LRANGE', LIST[list], at, at + 31)
    for _, record in ipairs(piece) do
      spend(#record)
      if record ~= CANCELLED and not is_foreign(record) then
        pending, pending_bytes = pending + 1, pending_bytes + charged(record)
      end
    end
    if reindexes and set.lookup then
      local first = appended_to(list) - length + at
      for place, record in ipairs(piece) do
        if #record >= RECORD_MIN then
          local its_place = first + place - 1
          if is_in_runs(list) then note_runs(list, {id_of(record)}, its_place) else point(list, its_place, id_of(record)) end
        end
      end
    end
    at = at + #piece
    is_whole = not is_spent() and #piece > 0
  end
end
write_index()
local scheduled_read, scheduled_bytes = 0, 0
local function add_scheduled(_, kept)
  scheduled_read, scheduled_bytes = scheduled_read + 1, scheduled_bytes + charged(sub(kept, 13))
end
is_whole = is_whole and not walk_hash(K.sb, '0', add_scheduled)
-- What the counters say is believed where it is more than the gauge does, and there may be as much.
local leased, counted, lost = leased_in_all() or gauge.leased, read_counters()
local scheduled = call('HLEN', K.sb)
if call('ZCARD', K.s) ~= scheduled then scheduled = gauge.scheduled end
local read = pending + scheduled_read
if not is_whole then
  local wanted = next(lost) and 0 or math.min(messages_missing(counted, scheduled + leased), listed)
  if strange.pending then
    pending = wanted > 0 and wanted or listed
  elseif gauge.pending > listed or gauge.pending <= 0 then
    pending = listed
  else
    pending = math.max(gauge.pending, wanted)
  end
end
-- Whether a gauge is another than it should be, or its bytes cannot be.
local is_changed = false
local function is_wrong(field, bytes_field, to)
  return gauge[field] ~= to or strange[field] or strange[bytes_field] or gauge[bytes_field] < 0
end
-- Bytes of so many, by what the gauges said, or else by those that were read. Where nothing is gone they are what they were.
local letters = call('HLEN', K.dm)
local is_all_there = not next(lost) and letters_missing(counted, letters) == 0
  and messages_missing(counted, pending + scheduled + leased) == 0
local function scaled(field, bytes_field, before, after, read_bytes, of_read)
  local bytes_before = gauge[bytes_field]
  local is_usable = not strange[bytes_field] and bytes_before >= 0
  if is_usable and is_all_there then return bytes_before end
  if not is_usable or strange[field] or before <= 0 then
    bytes_before, before = read_bytes, math.max(of_read, 1)
  end
  return math.floor(bytes_before / before * after)
end
-- Sets a gauge.
local function correct(field, bytes_field, to, its_bytes)
  if gauge[field] ~= to or strange[field] then is_changed = true end
  strange[field], strange[bytes_field] = nil, nil
  move(field, bytes_field, to - gauge[field], its_bytes - gauge[bytes_field])
end
woken = pending ~= gauge.pending or strange.pending
if is_whole or is_wrong('pending', 'bytes_waiting', pending) or is_wrong('scheduled', 'bytes_waiting', scheduled) then
  local waiting_bytes = pending_bytes + scheduled_bytes
  if not is_whole then
    local either = strange.scheduled and 'scheduled' or 'pending'
    local before, after = gauge.pending + gauge.scheduled, pending + scheduled
    waiting_bytes = scaled(either, 'bytes_waiting', before, after, waiting_bytes, read)
  end
  correct('pending', 'bytes_waiting', pending, waiting_bytes)
  correct('scheduled', 'bytes_waiting', scheduled, waiting_bytes)
end

if is_wrong('dead', 'bytes_dead', letters) and all_equal(letters, call('ZCARD', K.d), call('HLEN', K.db)) then
  messages, bytes = 0, 0
  local dead_bytes, looked = 0, 0
  local further = walk_hash(K.dm, '0', function(_, letter)
    looked = looked + 1
    if #letter >= 22 then dead_bytes = dead_bytes + unpack_from('>I4', letter, 17) end
  end)
  if further then dead_bytes = scaled('dead', 'bytes_dead', gauge.dead, letters, dead_bytes, looked) end
  correct('dead', 'bytes_dead', letters, dead_bytes)
end

if is_wrong('leased', 'bytes_leased', leased) then
  messages, bytes = 0, 0
  local leased_bytes, looked, is_read = 0, 0, true
  for _, batch in ipairs(call('HKEYS', K.b)) do
    for _, record in ipairs(is_read and try('LRANGE', prefix .. batch, 0, -1) or {}) do
      spend(#record)
      if not OVER[record] then leased_bytes, looked = leased_bytes + charged(record), looked + 1 end
    end
    is_read = not is_spent()
  end
  if not is_read then leased_bytes = scaled('leased', 'bytes_leased', gauge.leased, leased, leased_bytes, looked) end
  correct('leased', 'bytes_leased', leased, leased_bytes)
end

-- The laws: what is missing on one side is what was lost with the keys, or was found again; or it was counted where somebody
-- wrote over.
for field in pairs(lost) do call('HSET', K.c, field, 0) end
local raised = {}
local function raise(field, by)
  if by <= 0 then return 0 end
  count(field, by)
  counted[field] = counted[field] + by
  raised[#raised + 1] = string.format('%s by %.0f', field, by)
  return is_changed and not lost[field] and by or 0
end
local letters_gone = letters_missing(counted, gauge.dead)
local letters_found = raise('dead_lettered', -letters_gone)
letters_gone = raise(lost.replayed and 'replayed' or 'discarded', letters_gone)
local gone = messages_missing(counted, gauge.pending + gauge.scheduled + gauge.leased)
local found = raise('accepted', -gone)
gone = raise(lost.delivered and 'delivered' or lost.cancelled and 'cancelled' or 'purged', gone)
if gone + letters_gone > 0 then call('HSET', K.c, 'orphans', '0') end
park_when_full()
unpark_when_below()
flush()
return {'ok', wake(), 0, gone, found, letters_gone, letters_found, table.concat(raised, ', ')}
