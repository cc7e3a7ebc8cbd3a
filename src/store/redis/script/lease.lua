-- Leases messages as a batch, or gives again what is left of one.
-- ARGV: 5 batch, 6 token to give, 7 kind (W or P), 8 messages at most, 9 bytes at most, 10 lease (ms), 11 longest life (ms),
-- 12 whether suspects may be given, 13 how long the mark of an ended batch holds (ms), 14 and 15 messages and bytes that may
-- be found dead.
-- Gives {'ok', token, until, more, parked or '', elements…}; {'newer', version} with nothing changed.
local batch, kind, most, bytes_most = ARGV[5], ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local suspects = ARGV[12] == '1'
local function some_wait()
  if held then return 0 end
  if suspects then return gauge.pending > 0 and 1 or 0 end
  return gauge.pending > call('LLEN', S) and 1 or 0
end

local known = call('HGET', K.b, batch)
if known then
  local elements = call('LRANGE', K.x, 0, -1)
  return {'ok', known:sub(2, 9), until_of(batch, known), some_wait(), '', unpack(elements)}
end
local ended = mark_of(batch, tonumber(ARGV[13]))
if ended then return {'ok', ended:sub(1, 8), 0, 0, ''} end
if held then return {'ok', '', 0, 0, ''} end

-- A list read from its beginning, a piece at a time; nothing is taken until all is decided.
local function feed(list)
  local length, from, buffer, at = call('LLEN', LIST[list]), 0, {}, 1
  local piece = math.min(most, 32)
  local self = {list = list, passed = 0, tombs = 0, record = nil}
  function self.advance()
    self.record = nil
    while true do
      local element = buffer[at]
      if element == nil then
        if from >= length then return end
        buffer = call('LRANGE', LIST[list], from, from + piece - 1)
        from, at = from + #buffer, 1
        if #buffer == 0 then return end
      elseif element == CANCELLED then
        at, self.skipped = at + 1, (self.skipped or 0) + 1
      else
        self.record = element
        return
      end
    end
  end
  function self.take()
    at = at + 1
    self.passed = self.passed + 1 + (self.skipped or 0)
    self.skipped = 0
    self.advance()
  end
  self.advance()
  return self
end

local taken, taken_bytes, dying, dying_bytes, foreign = {}, 0, {}, 0, {}
local newer
-- Whether so many died that the call must end, or that the queue will be parked.
local function ends()
  if #dying == 0 then return false end
  if #dying >= tonumber(ARGV[14]) or dying_bytes >= tonumber(ARGV[15]) then return true end
  return not set.trims
    and (gauge.dead + #dying >= set.dead_length_max or gauge.bytes_dead + dying_bytes >= set.dead_bytes_max)
end
-- What is to be done with a message whose turn it is: 'take', 'dead', 'foreign', 'newer'.
local function judge(record)
  if #record < 46 then return 'foreign' end
  local version = record:byte(1)
  if version > 1 then
    newer = version
    return 'newer'
  end
  if version == 1 and is_expired(record) then return 'dead' end
  return 'take'
end

local feeds = {}
if suspects then
  local source = feed(0)
  feeds[0] = source
  while source.record and not ends() do
    local record = source.record
    local fate = judge(record)
    if fate == 'newer' then break end
    source.take()
    if fate == 'foreign' then
      foreign[#foreign + 1] = record
    elseif fate == 'dead' then
      dying[#dying + 1] = record
      dying_bytes = dying_bytes + charged(record)
    else
      taken[1] = record
      break
    end
  end
end

local turn = call('HGET', K.c, 'turn') or '\0\0\0\0'
local slot, returned_next = turn:byte(1), {[0] = turn:byte(2), turn:byte(3), turn:byte(4)}
if not taken[1] and not newer then
  for list = 1, 7 do feeds[list] = feed(list) end
  -- The first slot from here on of a priority, 16 : 4 : 1 over 21.
  local function next_slot(priority)
    if priority == 2 then return 20 end
    if priority == 1 then return slot <= 19 and slot + 4 - slot % 5 or 25 end
    if slot >= 19 then return 21 end
    return slot % 5 == 4 and slot + 1 or slot
  end
  local function draw()
    if feeds[1].record then return feeds[1] end
    local best, best_slot
    for priority = 0, 2 do
      if feeds[2 + priority].record or feeds[5 + priority].record then
        local at = next_slot(priority)
        if not best or at < best_slot then best, best_slot = priority, at end
      end
    end
    if not best then return end
    local fresh, returned = feeds[2 + best], feeds[5 + best]
    local chosen
    if returned_next[best] == 1 then
      chosen = returned.record and returned or fresh
    else
      chosen = fresh.record and fresh or returned
    end
    return chosen, best, best_slot
  end
  while #taken < most and not ends() do
    local source, priority, at = draw()
    if not source then break end
    local record = source.record
    local fate = judge(record)
    if fate == 'newer' then break end
    if fate == 'take' then
      local bytes = charged(record)
      if taken_bytes + bytes > bytes_most and #taken > 0 then break end
      taken_bytes = taken_bytes + bytes
      taken[#taken + 1] = record
    elseif fate == 'dead' then
      dying[#dying + 1] = record
      dying_bytes = dying_bytes + charged(record)
    else
      foreign[#foreign + 1] = record
    end
    if priority and fate ~= 'foreign' then
      returned_next[priority] = source.list < 5 and 1 or 0
      slot = (at % 21 + 1) % 21
    end
    source.take()
  end
end
if newer then return {'newer', newer} end

for list, source in pairs(feeds) do
  if source.passed > 0 then
    call('LTRIM', LIST[list], source.passed, -1)
    strip(list)
  end
end
for _, record in ipairs(foreign) do call('RPUSH', K.j, record) end
count('foreign', #foreign)
local turned = string.char(slot, returned_next[0], returned_next[1], returned_next[2])
if turned ~= turn then call('HSET', K.c, 'turn', turned) end
for _, record in ipairs(dying) do
  move('pending', 'bytes_waiting', -1, -charged(record))
  bury(record, REASON.expired, '', last_status(id_of(record)))
end
local parked = (#dying > 0 and q[3] == 'dead_full') and 'dead_full' or ''
if #taken == 0 then
  write_index()
  flush()
  return {'ok', '', 0, some_wait(), parked}
end

local bytes = 0
for place, record in ipairs(taken) do
  bytes = bytes + charged(record)
  point(id_of(record), 'L' .. batch .. pack('>I2', place - 1))
end
local deadline = now + tonumber(ARGV[10])
call('ZADD', K.l, deadline, batch)
call('HSET', K.b, batch, kind .. ARGV[6] .. pack('>I6I6I2I6', now, now + tonumber(ARGV[11]), #taken, number()))
in_chunks('RPUSH', K.x, taken)
move('pending', 'bytes_waiting', -#taken, -bytes)
move('leased', 'bytes_leased', #taken, bytes)
write_index()
flush()
return {'ok', ARGV[6], deadline, some_wait(), parked, unpack(taken)}
