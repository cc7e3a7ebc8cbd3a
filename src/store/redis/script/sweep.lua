-- One bounded round of what time brings to a queue: lost leases, what is due, retention.
-- ARGV: 5 messages and 6 bytes at most, 7 when it was found what 9 and 10 say, 8 prefix of the keys of batches, 9 the last look
-- before the store was away or its clock was set, 10 when that was found (0: never), 11 for how long after it nothing is taken
-- back, 12 the settings as the queue's entry has them, 13 whether memory is short.
-- Gives {'ok', woken, promoted, reaped, expired, discarded, more, ready, next or 0, look again or 0, held or '', what is somebody
-- else's or '', where gauges differ or '', until when leases that ran out are kept or 0, whether the settings are others}.
local messages_max, bytes_max = tonumber(ARGV[5]), tonumber(ARGV[6])
local messages, bytes, over = 0, 0, 0
-- Whether one more of this size may be worked on; the first one always may.
local function afford(size)
  if messages == 0 or (messages < messages_max and bytes + size <= bytes_max) then
    messages, bytes = messages + 1, bytes + size
    return true
  end
  over = 1
  return false
end
local promoted, reaped, expired, discarded = 0, 0, 0, 0
forgets = ARGV[13] == '1'
-- What others made of keys that may be lost, or of the list of a batch, which waits until that is gone.
local foreign = ''

look_at_lists()
look_at_scheduled()
look_at_dead()
look_at_batches()
call('LLEN', K.z)

local function take_back(record, kind, leased_at)
  move('leased', 'bytes_leased', -1, -charged(record))
  count('recovered', 1)
  reaped = reaped + 1
  record = after_attempt(record, true, kind == 'W')
  local attempts, id = record:byte(18), id_of(record)
  -- Lost is outcome 3.
  local entry = string.char(attempts, 3, 0) .. pack('>I6I6I2', leased_at, math.max(now - leased_at, 0), 0)
  remember(id, pack('>I2', #entry) .. entry)
  if attempts >= record:byte(20) then
    bury(record, REASON.poison, '', 0)
  elseif is_expired(record) then
    bury(record, REASON.expired, '', 0)
    expired = expired + 1
  else
    count('retried', 1)
    put_first(record)
  end
end

-- While the store was away nobody could extend a lease. So at first none is taken back, and what ran out meanwhile has what it
-- had left then.
local from, gap = tonumber(ARGV[9]), tonumber(ARGV[10])
local reaps_from = gap > 0 and gap + tonumber(ARGV[11]) or 0
-- Until when a lease is kept that has this deadline.
local function kept_until(deadline)
  if deadline <= gap then deadline = math.max(deadline, gap + deadline - from) end
  return math.max(deadline, reaps_from)
end
local function deadlines_to_reap()
  if now < reaps_from then return {} end
  local ran_out = math.min(now - gap + from, gap)
  if gap == 0 or ran_out == gap then return call('ZRANGE', K.l, '-inf', now, 'BYSCORE', 'LIMIT', 0, messages_max) end
  local batches = call('ZRANGE', K.l, '-inf', ran_out, 'BYSCORE', 'LIMIT', 0, messages_max)
  for _, batch in ipairs(call('ZRANGE', K.l, '(' .. gap, now, 'BYSCORE', 'LIMIT', 0, messages_max - #batches)) do
    batches[#batches + 1] = batch
  end
  return batches
end

-- The youngest batch first and each from its last place on, so that what was leased first is first again.
local function reap()
  local due = {}
  for _, batch in ipairs(deadlines_to_reap()) do
    local known = call('HGET', K.b, batch)
    if known and #known == 29 then
      if try('LLEN', ARGV[8] .. batch) then
        due[#due + 1] = {unpack_from('>I6', known, 24), batch, known}
      else
        foreign = 'the key ' .. ARGV[8] .. batch .. ' holds a ' .. call('TYPE', ARGV[8] .. batch).ok .. ' instead of a list'
      end
    else
      call('ZREM', K.l, batch)
    end
  end
  table.sort(due, function(one, other) return one[1] > other[1] end)
  for _, lost in ipairs(due) do
    local batch, known, list = lost[2], lost[3], ARGV[8] .. lost[2]
    local elements, live = call('LRANGE', list, 0, -1), live_of(lost[3])
    -- What somebody else appended was never counted.
    local strange = -live
    for _, record in ipairs(elements) do
      if not OVER[record] then strange = strange + 1 end
    end
    for place = #elements, 1, -1 do
      local record = elements[place]
      if not OVER[record] then
        if not afford(charged(record)) then
          write_live(batch, known, live)
          return
        end
        if #record < RECORD_MIN then
          -- Somebody else wrote over it, or appended it.
          if strange <= 0 then move('leased', 'bytes_leased', -1, 0) end
          strange = strange - 1
          pile_up({record})
        else
          take_back(record, known:sub(1, 1), (unpack_from('>I6', known, 10)))
        end
        call('LSET', list, place - 1, LOST)
        elements[place] = LOST
        live = math.max(live - 1, 0)
      end
    end
    end_batch(batch, known, list, elements)
  end
end

local function promote()
  while true do
    local first = call('ZRANGE', K.s, 0, 0, 'WITHSCORES')
    if not first[1] or tonumber(first[2]) > now then return end
    local id = first[1]:sub(7)
    local kept = call('HGET', K.sb, id)
    if not kept or kept:sub(7, 12) ~= first[1]:sub(1, 6) then
      call('ZREM', K.s, first[1])
    else
      local record = kept:sub(13)
      local size = charged(record)
      if not afford(size) then return end
      move('scheduled', 'bytes_waiting', -1, -size)
      -- What cannot be read is pending until a lease judges it.
      if #record >= RECORD_MIN and byte(record, 1) == 1 and is_expired(record) then
        bury(record, REASON.expired, '', last_status(id))
        expired = expired + 1
      else
        put_back(record)
        promoted = promoted + 1
      end
      call('ZREM', K.s, first[1])
      call('HDEL', K.sb, id)
    end
  end
end

local function retain()
  while true do
    local first = call('ZRANGE', K.d, 0, 0, 'WITHSCORES')
    if not first[1] then break end
    if tonumber(first[2]) + set.dead_retention > now and not dead_exceeds() then break end
    local letter = call('HGET', K.dm, first[1]:sub(7))
    if not afford(letter and #letter >= 20 and unpack_from('>I4', letter, 17) or 0) then break end
    discard_oldest()
    discarded = discarded + 1
  end
  unpark_when_below()
end

-- How many the history holds. Where that was overwritten it is as many as elements at least.
local function kept_finished()
  local kept = read_number(call('HGET', K.c, 'finished'))
  if not kept or kept < 0 then
    kept = call('LLEN', K.f)
    call('HSET', K.c, 'finished', kept)
  end
  return kept
end
local function forget()
  local forgotten = 0
  while forgotten < messages_max do
    local first = try('LINDEX', K.f, 0)
    if not first then
      if (call('HGET', K.c, 'finished') or '0') ~= '0' then call('HDEL', K.c, 'finished') end
      return
    end
    if #first >= 8 then
      local kept = kept_finished() - unpack_from('>I2', first, 7)
      if unpack_from('>I6', first) + set.history_retention > now and kept < set.finished_max then return end
    end
    forgotten = forgotten + 1 + drop_finished()
  end
  over = 1
end

-- Gives up the space of what was purged: K.z names the lists and sets it lies in.
local function clear()
  while true do
    local name = call('LINDEX', K.z, 0)
    if not name then return end
    local kind = sub(name, 1, #K.z + 1) == K.z .. ':' and call('TYPE', name).ok or 'none'
    if call('EXISTS', K.o, K.a) == 0 and (kind == 'list' or kind == 'zset') then
      call('UNLINK', name)
      kind = 'none'
    end
    local ids = {}
    if kind == 'list' then
      for _, record in ipairs(call('LPOP', name, 100)) do
        afford(#record)
        if #record >= RECORD_MIN then ids[#ids + 1] = id_of(record) end
      end
    elseif kind == 'zset' then
      local popped = call('ZPOPMIN', name, 100)
      for place = 1, #popped, 2 do
        afford(0)
        ids[#ids + 1] = sub(popped[place], 7)
      end
    else
      call('LPOP', K.z)
    end
    -- What was leased during the purge is not among them.
    in_chunks(try, 'HDEL', K.o, ids)
    forget_logs(ids)
    if over == 1 or messages >= messages_max or bytes >= bytes_max then
      over = math.max(over, call('EXISTS', K.z))
      return
    end
  end
end

-- Nothing is taken back where so long went by since that was found to be right that the store may have been away, or its
-- clock been set.
is_writing = true
local found_at = tonumber(ARGV[7])
if found_at > 0 and now - found_at <= 3000 and found_at - now <= 3000 then reap() end
flush()
promote()
flush()
-- By settings that somebody else wrote nothing is discarded.
local are_strange = q[4] ~= ARGV[12]
if not are_strange then retain() end
write_index()
flush()
if not are_strange then forget() end
clear()
-- When no log is left none counts, whatever became of the others.
if try('HLEN', K.a) == 0 then
  flush()
  call('HDEL', K.c, 'bytes_log')
end
flush()

local function score_of(key)
  local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2])
end
local next_at, look_at = nil, nil
local function sooner(one, other) return one and other and math.min(one, other) or one or other end
local deadline, kept_to = score_of(K.l), 0
if deadline and gap > 0 then
  local ran_out = deadline <= now
  deadline = kept_until(deadline)
  if ran_out and deadline > now then kept_to = deadline end
  local later = call('ZRANGE', K.l, '(' .. gap, '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
  if later[2] then deadline = math.min(deadline, kept_until(tonumber(later[2]))) end
end
next_at = sooner(score_of(K.s), deadline)
local died = score_of(K.d)
look_at = sooner(next_at, died and died + set.dead_retention)
local first = try('LINDEX', K.f, 0)
look_at = sooner(look_at, first and #first >= 8 and unpack_from('>I6', first) + set.history_retention)

-- What was found under keys that stop nobody.
for place, key in ipairs({K.f, K.j, K.a, K.m, K.mr, K.mt, K.bi}) do
  if foreign == '' and not try(place <= 2 and 'LLEN' or 'HLEN', key) then
    foreign = 'the key ' .. key .. ' holds a ' .. call('TYPE', key).ok .. ', so that nothing is remembered there'
  end
end
-- What was left in the index while it could not be written goes as soon as there is nothing to look up.
local function tidy(key)
  if (try('HLEN', key) or 0) > 0 then call('UNLINK', key) end
end
if set.lookup and gauge.pending == 0 and call('EXISTS', unpack(LIST, 0, 7)) == 0 then
  tidy(K.m)
  tidy(K.mr)
  tidy(K.mt)
end
if set.lookup and gauge.leased == 0 and call('EXISTS', K.b, K.l) == 0 then tidy(K.bi) end
-- So do payloads apart of messages that a repair found to be gone, some at a time, once only dead letters can have any.
local function drop_orphans()
  local cursor = call('HGET', K.c, 'orphans')
  if not cursor or call('EXISTS', K.s, K.sb, K.b, K.l, K.z, unpack(LIST, 0, 7)) > 0 then return end
  cursor = cursor_of(cursor)
  repeat
    local found = call('HSCAN', K.o, cursor, 'COUNT', 1)
    cursor = found[1]
    afford(0)
    for place = 1, #found[2], 2 do
      afford(#found[2][place + 1])
      if call('HEXISTS', K.db, found[2][place]) == 0 then call('HDEL', K.o, found[2][place]) end
    end
  until cursor == '0' or messages >= messages_max or bytes >= bytes_max
  if cursor == '0' then
    call('HDEL', K.c, 'orphans')
  else
    call('HSET', K.c, 'orphans', cursor)
    over = 1
  end
end
if gauge.pending + gauge.scheduled + gauge.leased == 0 then drop_orphans() end
-- Where the counters say something else than the gauges.
local function counters_differ()
  local counted, lost = read_counters()
  for _, field in ipairs(COUNTERS) do
    if lost[field] then return 'the counter ' .. field .. ' is no number' end
  end
  local bytes_log = read_number(call('HGET', K.c, 'bytes_log'))
  if not bytes_log or bytes_log < 0 then return 'bytes_log is no number' end
  local words = 'by the counters there are %.0f %s more than by the gauges'
  local letters, inside = letters_missing(counted, gauge.dead), gauge.pending + gauge.scheduled + gauge.leased
  if letters ~= 0 then return string.format(words, letters, 'dead letters') end
  local missing = messages_missing(counted, inside)
  if missing ~= 0 then return string.format(words, missing, 'messages') end
  return ''
end
-- Where the gauges say something else than the keys hold: what lies in lists may be more, by what was cancelled and by junk.
local function difference()
  for _, field in ipairs(GAUGES) do
    if strange[field] then return field .. ' is no number' end
  end
  local listed, begins = 0, false
  for list = 0, 7 do
    local length = call('LLEN', LIST[list])
    local head = length > 0 and gauge.pending <= 0 and call('LINDEX', LIST[list], 0)
    listed, begins = listed + length, begins or head and #head >= RECORD_MIN and byte(head, 1) == 1
  end
  if gauge.pending < 0 or gauge.pending > listed or begins then
    return string.format('pending is %.0f, and its lists hold %.0f', gauge.pending, listed)
  end
  local scheduled, records = call('ZCARD', K.s), call('HLEN', K.sb)
  if scheduled ~= gauge.scheduled or records ~= gauge.scheduled then
    return string.format('scheduled is %.0f, and %.0f places and %.0f records are kept', gauge.scheduled, scheduled, records)
  end
  local dead, letters, bodies = call('ZCARD', K.d), call('HLEN', K.dm), call('HLEN', K.db)
  if dead ~= gauge.dead or letters ~= gauge.dead or bodies ~= gauge.dead then
    local words = 'dead is %.0f, and %.0f places, %.0f letters and %.0f records are kept'
    return string.format(words, gauge.dead, dead, letters, bodies)
  end
  local deadlines, batches = call('ZCARD', K.l), call('HLEN', K.b)
  if deadlines ~= batches then
    return string.format('%.0f batches are leased, and %.0f have a deadline', batches, deadlines)
  end
  local leased = leased_in_all()
  if leased and leased ~= gauge.leased then
    return string.format('leased is %.0f, and its batches hold %.0f', gauge.leased, leased)
  end
  for place = 5, 7 do
    if gauge[GAUGES[place]] < 0 then return GAUGES[place] .. ' is less than none' end
  end
  return counters_differ()
end
local ready = (not held and gauge.pending > 0) and 1 or 0
return {'ok', wake(), promoted, reaped, expired, discarded, over, ready, next_at or 0, look_at or 0,
  q[2] and 'paused' or q[3] or '', foreign, difference(), kept_to,
  are_strange and 1 or 0}
