-- Finds one message, wherever it is.
-- ARGV: 5 id, 6 prefix of the keys of batches. Gives {'ok', place, record, what belongs to it, attempts, body}.
local id = ARGV[5]
local log = call('HGET', K.a, id) or ''
local function body_of(record) return is_apart(record) and call('HGET', K.o, id) or '' end
local letter = call('HGET', K.dm, id)
if letter then
  local record = call('HGET', K.db, id) or ''
  return {'ok', 'dead', record, letter, log, body_of(record)}
end
local kept = call('HGET', K.sb, id)
if kept then
  local record = kept:sub(13)
  return {'ok', 'scheduled', record, tostring((unpack_from('>I6', kept))), log, body_of(record)}
end
local where = set.lookup and call('HGET', K.m, id)
if where and where:byte(1) == 76 then
  local record = call('LINDEX', ARGV[6] .. where:sub(2, 33), (unpack_from('>I2', where, 34)))
  if record and #record >= 46 and id_of(record) == id then
    return {'ok', 'leased', record, '', log, body_of(record)}
  end
elseif where then
  local list, place = where:match('^(%d):(-?%d+)$')
  local appended = tonumber(call('HGET', K.c, 'h' .. list) or 0)
  local index = tonumber(place) - (appended - call('LLEN', LIST[tonumber(list)]))
  local record = index >= 0 and call('LINDEX', LIST[tonumber(list)], index)
  if record and #record >= 46 and id_of(record) == id then
    return {'ok', 'pending', record, '', log, body_of(record)}
  end
end
-- The newest entry of that id among those that may be remembered.
local newer, from = 0, -1
while true do
  local element = call('LINDEX', K.f, from)
  if not element or newer >= set.finished_max then return {'ok', 'nowhere'} end
  local entries, at, found, place, count_of = {}, 9, nil, 0, unpack_from('>I2', element, 7)
  if element:find(id, 9, true) then
    while at + 1 <= #element do
      local length = unpack_from('>I2', element, at)
      place = place + 1
      if element:sub(at + 3, at + 18) == id and newer + count_of - place < set.finished_max then
        found = element:sub(at + 2, at + 1 + length)
      end
      at = at + 2 + length
    end
    if found then return {'ok', 'ended', found, element:sub(1, 6), log, ''} end
  end
  newer = newer + count_of
  from = from - 1
end
