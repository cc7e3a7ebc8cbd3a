-- One bounded round of what time brings to a queue: lost leases, what is due, retention.
-- ARGV: 5 messages and 6 bytes at most, 7 when it was found that leases may be taken back (0: they may not), 8 prefix of the
-- keys of batches.
-- Gives {'ok', woken, promoted, reaped, expired, discarded, more, ready, next or 0, look again or 0, held or ''}.
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

-- The youngest batch first and each from its last place on, so that what was leased first is first again.
local function reap()
  local due = {}
  for _, batch in ipairs(call('ZRANGE', K.l, '-inf', now, 'BYSCORE', 'LIMIT', 0, messages_max)) do
    local known = call('HGET', K.b, batch)
    if known and #known == 29 then
      due[#due + 1] = {unpack_from('>I6', known, 24), batch, known}
    else
      call('ZREM', K.l, batch)
    end
  end
  table.sort(due, function(one, other) return one[1] > other[1] end)
  for _, lost in ipairs(due) do
    local batch, known, list = lost[2], lost[3], ARGV[8] .. lost[2]
    local elements, live = call('LRANGE', list, 0, -1), live_of(lost[3])
    for place = #elements, 1, -1 do
      local record = elements[place]
      if record ~= SETTLED and record ~= LOST then
        if not afford(charged(record)) then
          write_live(batch, known, live)
          return
        end
        if #record < RECORD_MIN then
          -- Somebody else wrote over it.
          move('leased', 'bytes_leased', -1, 0)
          pile_up({record})
        else
          take_back(record, known:sub(1, 1), (unpack_from('>I6', known, 10)))
        end
        call('LSET', list, place - 1, LOST)
        elements[place] = LOST
        live = live - 1
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
      call('ZREM', K.s, first[1])
      call('HDEL', K.sb, id)
      move('scheduled', 'bytes_waiting', -1, -size)
      -- What cannot be read is pending until a lease judges it.
      if #record >= RECORD_MIN and byte(record, 1) == 1 and is_expired(record) then
        bury(record, REASON.expired, '', last_status(id))
        expired = expired + 1
      else
        put_back(record)
        promoted = promoted + 1
      end
    end
  end
end

local function retain()
  while true do
    local first = call('ZRANGE', K.d, 0, 0, 'WITHSCORES')
    if not first[1] then break end
    if tonumber(first[2]) + set.dead_retention > now and not dead_exceeds() then break end
    local letter = call('HGET', K.dm, first[1]:sub(7))
    if not afford(letter and unpack_from('>I4', letter, 17) or 0) then break end
    discard_oldest()
    discarded = discarded + 1
  end
  unpark_when_below()
end

local function forget()
  local forgotten = 0
  while forgotten < messages_max do
    local first = try('LINDEX', K.f, 0)
    if not first then return end
    if #first >= 8 then
      local kept = tonumber(call('HGET', K.c, 'finished') or 0) - unpack_from('>I2', first, 7)
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
    local kind = call('TYPE', name).ok
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
    in_chunks(try, 'HDEL', K.a, ids)
    if over == 1 or messages >= messages_max or bytes >= bytes_max then
      over = math.max(over, call('EXISTS', K.z))
      return
    end
  end
end

-- Nothing is taken back where so long went by since that was found to be right that the store may have been away, or its
-- clock been set.
local found_at = tonumber(ARGV[7])
if found_at > 0 and now - found_at <= 3000 and found_at - now <= 3000 then reap() end
promote()
retain()
write_index()
flush()
forget()
clear()

local function score_of(key)
  local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2])
end
local next_at, look_at = nil, nil
local function sooner(one, other) return one and other and math.min(one, other) or one or other end
next_at = sooner(score_of(K.s), score_of(K.l))
local died = score_of(K.d)
look_at = sooner(next_at, died and died + set.dead_retention)
local first = try('LINDEX', K.f, 0)
look_at = sooner(look_at, first and unpack_from('>I6', first) + set.history_retention)
local ready = (not held and gauge.pending > 0) and 1 or 0
return {'ok', wake(), promoted, reaped, expired, discarded, over, ready, next_at or 0, look_at or 0,
  q[2] and 'paused' or q[3] or ''}
