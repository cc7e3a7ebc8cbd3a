-- What is remembered of messages that were delivered or cancelled: one element a call, capped, dropped oldest first.
-- An element: ended 6, count 2, then entries. An entry: length u16, flags (1 delivered, 2 with its last attempt), bytes
-- 2-28 of the record, length of the payload 4, the last attempt's entry or nothing, content type.
local entries, entry_count = {}, 0
local function finish(record, delivered, attempt)
  local header_length, kind, type_length = unpack_from('>I2BI2', record, 41)
  local rest = attempt
  if header_length > 2 and kind == 1 and type_length > 0 then rest = rest .. sub(record, 46, 45 + type_length) end
  local flags = (delivered and 1 or 0) + (attempt ~= '' and 2 or 0)
  local payload = charged(record) - header_length
  local entry = pack('>I2Bc27I4', 32 + #rest, flags, sub(record, 2, 28), payload > 0 and payload or 0)
  entry_count = entry_count + 1
  entries[entry_count] = rest == '' and entry or entry .. rest
  if is_apart(record) then call('HDEL', K.o, id_of(record)) end
end
-- Forgets the oldest element; gives how many it held, or nothing when there is none.
local function drop_finished()
  local element = call('LPOP', K.f)
  if not element then return nil end
  -- What is shorter was not written by us.
  if #element < 8 then return 0 end
  local held_of = unpack_from('>I2', element, 7)
  add('finished', -held_of)
  if call('EXISTS', K.a) == 1 then
    local ids, at = {}, 9
    while at + 1 <= #element do
      ids[#ids + 1] = sub(element, at + 3, at + 18)
      at = at + 2 + unpack_from('>I2', element, at)
    end
    forget_logs(ids)
  end
  return held_of
end
-- Comes last in a script: history may be lost, messages and counters not.
local function write_finished()
  if entry_count == 0 then return end
  if not try('RPUSH', K.f, pack('>I6I2', now, entry_count) .. table.concat(entries)) then return end
  local kept, dropped = add('finished', entry_count) or 0, 0
  -- A cap that was lowered is reached in steps; the sweeps go on with it.
  while kept > set.finished_max and dropped < entry_count + 1000 do
    local first = call('LINDEX', K.f, 0)
    if not first or (#first >= 8 and kept - unpack_from('>I2', first, 7) < set.finished_max) then break end
    local gone = drop_finished()
    kept, dropped = kept - gone, dropped + gone
  end
  flush()
  entries, entry_count = {}, 0
end
