-- Leases messages as a batch, or gives again what is left of one.
-- ARGV: 5 batch, 6 token to give, 7 kind (W or P), 8 messages at most, 9 bytes at most, 10 lease (ms), 11 longest life (ms),
-- 12 whether suspects may be given, 13 how long the mark of an ended batch holds (ms), 14 and 15 messages and bytes that may
-- be found dead, 16 whether memory is short.
-- Gives {'ok', token, until, more, parked or '', elements…}; {'newer', version} with nothing changed.
local batch, kind, most, bytes_most = ARGV[5], ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local suspects = ARGV[12] == '1'
forgets = ARGV[16] == '1'
local function some_wait()
  if held then return 0 end
  if suspects then return gauge.pending > 0 and 1 or 0 end
  return gauge.pending > (try('LLEN', S) or 0) and 1 or 0
end

local known = call('HGET', K.b, batch)
if known then
  local elements = call('LRANGE', K.x, 0, -1)
  return {'ok', known:sub(2, 9), until_of(batch, known), some_wait(), '', unpack(elements)}
end
local ended = mark_of(batch, tonumber(ARGV[13]))
if ended then return {'ok', ended:sub(1, 8), 0, 0, ''} end
if held then return {'ok', '', 0, 0, ''} end

-- A list read from its beginning, a piece at a time; nothing is taken until all is decided. `record` is the first one that
-- was not taken, nil at the end; the pieces are small until it is known that messages are.
local function advance(source)
  local record
  repeat
    if record == CANCELLED then
      holes_left = holes_left - 1
      if holes_left <= 0 then
        source.record, source.stopped = nil, true
        return
      end
    end
    source.at = source.at + 1
    if source.at > source.size then
      if source.read >= source.length then
        source.record = nil
        return
      end
      local buffer = call('LRANGE', LIST[source.list], source.read, source.read + source.piece - 1)
      source.buffer, source.size, source.at = buffer, #buffer, 1
      source.read = source.read + #buffer
      if #buffer == 0 then source.length = source.read end
      source.piece = #(buffer[1] or '') <= 2048 and math.min(most, 256) or math.min(most, 32)
    end
    record = source.buffer[source.at]
  until record ~= CANCELLED and record ~= nil or source.size == 0
  source.record = record
end
local function feed(list)
  local length = call('LLEN', LIST[list])
  if length == 0 then return nil end
  local source = {list = list, length = length, read = 0, buffer = {}, size = 0, at = 0}
  source.piece = math.min(most, 32)
  advance(source)
  return source
end
-- How many elements of a list are done with.
local function passed(source)
  if source.stopped then return source.read - source.size + source.at end
  return source.record == nil and source.read or source.read - source.size + source.at - 1
end

local taken, taken_bytes, dying, dying_bytes, foreign = {}, 0, {}, 0, {}
local newer
-- The ids of what goes from lists that are not in runs.
local indexed = {}
local function note(source, record)
  if set.lookup and not is_in_runs(source.list) then indexed[#indexed + 1] = id_of(record) end
end
-- Whether so many died that the call must end, or that the queue will be parked.
local function ends()
  if #dying == 0 then return false end
  if #dying >= tonumber(ARGV[14]) or dying_bytes >= tonumber(ARGV[15]) then return true end
  return not set.trims
    and (gauge.dead + #dying >= set.dead_length_max or gauge.bytes_dead + dying_bytes >= set.dead_bytes_max)
end
-- What is to be done with a message whose turn it is: nothing said, it is taken; else 'dead', 'foreign', 'newer'. A record of
-- ours whose version was damaged is taken as well: whoever leases it reads it, and sees the damage.
local function judge(record)
  if is_foreign(record) then return 'foreign' end
  local version = byte(record, 1)
  if version == 1 then return is_expired(record) and 'dead' or nil end
  if version > 1 and version < 16 then
    newer = version
    return 'newer'
  end
end
-- Whether a suspect is a batch of its own: it was lost at least twice, or its next attempt is its last.
local function must_be_alone(record) return byte(record, 19) >= 2 or byte(record, 18) + 1 >= byte(record, 20) end
-- Notes what became of a message that is not taken.
local function set_aside(source, record, fate)
  note(source, record)
  if fate == 'foreign' then
    foreign[#foreign + 1] = record
  else
    dying[#dying + 1] = record
    dying_bytes = dying_bytes + charged(record)
  end
end

local turn = call('HGET', K.c, 'turn')
if not turn or #turn ~= 4 then turn = '\0\0\0\0' end
local slot, returned_next = byte(turn, 1), {[0] = byte(turn, 2), byte(turn, 3), byte(turn, 4)}
local sources = {}
if suspects then
  local source = feed(0)
  sources[1] = source
  while source and source.record and #taken < most and not ends() do
    local record = source.record
    local fate = judge(record)
    if fate == 'newer' then break end
    if not fate then
      local alone, bytes = must_be_alone(record), charged(record)
      if #taken > 0 and (alone or taken_bytes + bytes > bytes_most) then break end
      taken[#taken + 1], taken_bytes = record, taken_bytes + bytes
      note(source, record)
      if alone then
        advance(source)
        break
      end
    else
      set_aside(source, record, fate)
    end
    advance(source)
  end
end

if not taken[1] and not newer then
  local head, fresh, returned, levels, level = feed(1), {}, {}, 0, nil
  sources[#sources + 1] = head
  for priority = 0, 2 do
    local one, other = feed(2 + priority), feed(5 + priority)
    sources[#sources + 1] = one
    sources[#sources + 1] = other
    fresh[priority], returned[priority] = one and one.record and one, other and other.record and other
    if fresh[priority] or returned[priority] then levels, level = levels + 1, priority end
  end
  local function first_of(one, other)
    if one and one.record then return one end
    return other and other.record and other or nil
  end
  local function chosen_of(priority)
    if returned_next[priority] == 1 then return first_of(returned[priority], fresh[priority]) end
    return first_of(fresh[priority], returned[priority])
  end
  -- The list whose turn it is, its priority and the slot that it uses up.
  local function draw()
    if head and head.record then return head end
    if levels <= 1 then
      local source = level and chosen_of(level)
      return source, level, source and next_slot(slot, level)
    end
    local best, best_priority, best_slot
    for priority = 0, 2 do
      local source = chosen_of(priority)
      local at = source and next_slot(slot, priority)
      if source and (not best or at < best_slot) then best, best_priority, best_slot = source, priority, at end
    end
    return best, best_priority, best_slot
  end
  while #taken < most and not ends() do
    local source, priority, at = draw()
    if not source then break end
    local record = source.record
    local fate = judge(record)
    if not fate then
      local bytes = charged(record)
      if taken_bytes + bytes > bytes_most and #taken > 0 then break end
      taken_bytes = taken_bytes + bytes
      taken[#taken + 1] = record
      note(source, record)
    elseif fate == 'newer' then
      break
    else
      set_aside(source, record, fate)
    end
    if priority and fate ~= 'foreign' then
      returned_next[priority] = source.list < 5 and 1 or 0
      slot = (at + 1) % 21
    end
    advance(source)
  end
end
if newer then return {'newer', newer} end

-- The lists were read. The lease is written first, the lists are shortened last.
if #taken > 0 then
  call('ZCARD', K.l)
  call('LLEN', K.x)
  -- Who leases reads the payloads that lie apart.
  call('HLEN', K.o)
end
if #dying > 0 then look_at_dead() end
is_writing = true
in_chunks(try, 'HDEL', K.m, indexed)
if set.lookup and #taken > 0 then
  local ids = {}
  for place, record in ipairs(taken) do ids[place] = id_of(record) end
  try('HSET', K.bi, batch, table.concat(ids))
end
local deadline = now + tonumber(ARGV[10])
if #taken > 0 then
  call('ZADD', K.l, deadline, batch)
  call('HSET', K.b, batch, kind .. ARGV[6] .. pack('>I6I6I2I6', now, now + tonumber(ARGV[11]), #taken, number()))
  in_chunks(call, 'RPUSH', K.x, taken)
  move('pending', 'bytes_waiting', -#taken, -taken_bytes)
  move('leased', 'bytes_leased', #taken, taken_bytes)
end
for _, record in ipairs(dying) do
  move('pending', 'bytes_waiting', -1, -charged(record))
  bury(record, REASON.expired, '', last_status(id_of(record)))
end
pile_up(foreign)
for _, source in pairs(sources) do
  local gone = passed(source)
  if gone > 0 then shorten(source.list, gone) end
end
local turned = string.char(slot, returned_next[0], returned_next[1], returned_next[2])
if turned ~= turn then call('HSET', K.c, 'turn', turned) end
flush()
if #taken == 0 then
  -- What counts as pending and lies nowhere is not asked for again at once; a sweep looks at it every second, and tells of it.
  local moved_on = #dying > 0 or #foreign > 0
  for _, source in pairs(sources) do moved_on = moved_on or source.stopped end
  return {'ok', '', 0, moved_on and some_wait() or 0, parked}
end
return {'ok', ARGV[6], deadline, some_wait(), parked, unpack(taken)}
