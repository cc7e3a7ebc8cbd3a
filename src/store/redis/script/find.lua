-- Finds one message, wherever it is.
-- ARGV: 5 id, 6 prefix of the keys of batches, 7 where to go on among those that ended: elements from the end that were looked at
-- (0: from the end), 8 messages in them, 9 elements to look at, 10 where to go on among the leases, '' behind them all.
-- Gives {'ok', place, record, what belongs to it, attempts, body}; {'ok', 'further', elements, messages} when it is not among
-- those; {'ok', 'leases', where to go on among them}; {'ok', 'nowhere'}.
local id = ARGV[5]
local log = try('HGET', K.a, id) or ''
local function body_of(record) return is_apart(record) and call('HGET', K.o, id) or '' end
-- What is leased may have come back meanwhile, and what ends is looked for behind it: none is passed over.
if ARGV[10] ~= '' then
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
  local _, _, pending = locate(id)
  if pending then return {'ok', 'pending', pending, '', log, body_of(pending)} end
  local leased, further = leased_record(id, ARGV[6], ARGV[10])
  if leased then return {'ok', 'leased', leased, '', log, body_of(leased)} end
  if further then return {'ok', 'leases', further} end
end
-- The newest entry of that id among those that may be remembered, some elements at a time from the end. What ends meanwhile moves
-- all others away from the end: some are looked at twice then, none is passed over.
local PIECE, BYTES_MAX = 64, 524288
local newer, last = tonumber(ARGV[8]), -1 - tonumber(ARGV[7])
local elements_left, bytes = tonumber(ARGV[9]), 0
while newer < set.finished_max do
  local piece = call('LRANGE', K.f, last - PIECE + 1, last)
  for step = #piece, 1, -1 do
    local element = piece[step]
    bytes = bytes + #element
    local at, place, held_of, found = 9, 0, #element >= 8 and unpack_from('>I2', element, 7) or 0, nil
    if element:find(id, 9, true) then
      while at + 1 <= #element do
        local length = unpack_from('>I2', element, at)
        place = place + 1
        if sub(element, at + 3, at + 18) == id and newer + held_of - place < set.finished_max then
          found = sub(element, at + 2, at + 1 + length)
        end
        at = at + 2 + length
      end
      if found then return {'ok', 'ended', found, sub(element, 1, 6), log, ''} end
    end
    newer = newer + held_of
    if newer >= set.finished_max then break end
  end
  if #piece < PIECE then break end
  last, elements_left = last - PIECE, elements_left - PIECE
  if elements_left <= 0 or bytes >= BYTES_MAX then return {'ok', 'further', -1 - last, newer} end
end
return {'ok', 'nowhere'}
