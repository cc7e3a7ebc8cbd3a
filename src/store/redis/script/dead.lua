-- Attempts remembered, and dead letters.

-- Whether memory is short: then nothing is remembered of attempts, and of a death no more than takes the same for each: neither
-- words nor where it was to go. The script that knows says so; `spent` are the bytes that went into the memory of both.
local forgets, spent = false, 0

-- One attempt at rest: length u16, number, outcome, flags (1 status, 2 error, 4 excerpt, 8 phases, 16 next), began 6, took 6,
-- status 2, words, phases, when the next is due 6.
-- Forgets the oldest beyond what the settings allow.
local function cut(log, room)
  local starts, at = {}, 1
  while at + 1 <= #log do
    starts[#starts + 1] = at
    at = at + 2 + unpack_from('>I2', log, at)
  end
  local drop = #starts + room - set.attempts
  if drop <= 0 then return log end
  if drop >= #starts then return '' end
  return log:sub(starts[drop + 1])
end
-- The logs of a queue have so many bytes at most: beyond, what a message was tried before gives way to its own next attempt, and
-- one that was never tried is not remembered. A log counts for more than it is long by what its name and place in a hash take.
local LOG_BYTES_MAX, LOG_ENTRY = 67108864, 100
local log_bytes
local function size_of(log) return log == '' and 0 or #log + LOG_ENTRY end
local function note_log(by)
  if log_bytes then log_bytes = log_bytes + by end
  count('bytes_log', by)
end
local function write_log(id, before, log)
  if log == before then return end
  local written
  if log == '' then written = try('HDEL', K.a, id) else written = try('HSET', K.a, id, log) end
  if written then
    note_log(size_of(log) - size_of(before))
    spent = spent + size_of(log) - size_of(before)
  end
end
local function remember(id, attempt)
  if forgets then return end
  local before = try('HGET', K.a, id) or ''
  local log = cut(before .. attempt, 0)
  log_bytes = log_bytes or math.max(read_number(call('HGET', K.c, 'bytes_log')) or 0, 0)
  if size_of(log) > size_of(before) and log_bytes + size_of(log) - size_of(before) > LOG_BYTES_MAX then
    local at = 1
    while #log - at + 1 > #before do at = at + 2 + unpack_from('>I2', log, at) end
    log = sub(log, at)
    if log == '' then log = before end
  end
  write_log(id, before, log)
end
-- Leaves room for so many more.
local function cut_again(id, room)
  local before = try('HGET', K.a, id)
  if before then write_log(id, before, cut(before, room)) end
end
local function forget_logs(ids)
  for first = 1, #ids, 100 do
    local last, gone = math.min(first + 99, #ids), {}
    for place, log in ipairs(try('HMGET', K.a, unpack(ids, first, last)) or {}) do
      if log then
        gone[#gone + 1] = ids[first + place - 1]
        note_log(-size_of(log))
      end
    end
    if #gone > 0 then try('HDEL', K.a, unpack(gone)) end
  end
end
-- The status of the last attempt remembered; 0: none.
local function last_status(id)
  local log, at, status = try('HGET', K.a, id) or '', 1, 0
  while at + 18 <= #log do
    status = unpack_from('>I2', log, at + 17)
    at = at + 2 + unpack_from('>I2', log, at)
  end
  return status
end

local function look_at_dead()
  call('ZCARD', K.d)
  call('HLEN', K.dm)
  call('HLEN', K.db)
  call('HLEN', K.o)
end

if strange.dead then gauge.dead = call('HLEN', K.dm) end
local REASON = {exhausted = 0, rejected = 1, expired = 2, poison = 3, undeliverable = 4, damaged = 5}
local function dead_is_full()
  return not set.trims and (gauge.dead >= set.dead_length_max or gauge.bytes_dead >= set.dead_bytes_max)
end
local function dead_exceeds()
  return set.trims and gauge.dead > 1 and (gauge.dead > set.dead_length_max or gauge.bytes_dead > set.dead_bytes_max)
end
-- Takes one dead letter out; gives its record, or nothing when there is none.
local function unbury(id)
  local letter, record = call('HGET', K.dm, id), call('HGET', K.db, id)
  if not letter then return nil end
  call('ZREM', K.d, sub(letter, 1, 6) .. id)
  call('HDEL', K.dm, id)
  call('HDEL', K.db, id)
  local bytes = record and charged(record) or #letter >= 20 and unpack_from('>I4', letter, 17) or 0
  move('dead', 'bytes_dead', -1, -bytes)
  return record or ''
end
local function forget_body(id, record)
  if is_apart(record) then call('HDEL', K.o, id) end
end
local function discard(id)
  local record = unbury(id)
  if not record then return false end
  forget_body(id, record)
  forget_logs({id})
  count('discarded', 1)
  return true
end
local function discard_oldest()
  local first = call('ZRANGE', K.d, 0, 0)
  if not first[1] then return false end
  if discard(sub(first[1], 7)) then
    count('trimmed', 1)
  else
    call('ZREM', K.d, first[1])
  end
  return true
end
local parked = ''
-- Parks the queue when it is at its limits; `parked` says so to who asked.
local function park_when_full()
  if not q[3] and dead_is_full() then
    call('HSET', K.c, 'parked', 'dead_full')
    q[3], held, parked = 'dead_full', 'dead_full', 'dead_full'
  end
end
local function unpark_when_below()
  if q[3] == 'dead_full' and not dead_is_full() then
    call('HDEL', K.c, 'parked')
    q[3], held, parked = false, q[2], ''
    woken = true
  end
end
-- Puts a record that is in no other place any more into the dead letters.
-- A letter: number 6, died 6, reason, attempts, status 2, charged bytes 4, length of the destination 2, it, the detail.
local function bury(record, reason, detail, status)
  local id, attempts = id_of(record), byte(record, 18)
  if reason == REASON.damaged then attempts = 0 end
  local destination = attempts > 0 and not forgets and set.destination or ''
  if forgets then detail = '' end
  spent = spent + #destination + #detail
  if call('HEXISTS', K.dm, id) == 1 then discard(id) end
  local place = pack('>I6', number())
  local bytes = charged(record)
  call('HSET', K.dm, id, place .. pack('>I6BBI2I4I2', now, reason, attempts, status, bytes, #destination)
    .. destination .. detail)
  call('HSET', K.db, id, record)
  call('ZADD', K.d, now, place .. id)
  move('dead', 'bytes_dead', 1, bytes)
  count('dead_lettered', 1)
  local trimmed = 0
  while trimmed < 1000 and dead_exceeds() and discard_oldest() do trimmed = trimmed + 1 end
  park_when_full()
end
