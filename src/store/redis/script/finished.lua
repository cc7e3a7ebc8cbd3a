-- What is remembered of messages that were delivered or cancelled: one element a call, capped, dropped oldest first.
-- An element: ended 6, count 2, then entries. An entry: length u16, flags (1 delivered, 2 with its last attempt), bytes
-- 2-28 of the record, length of the payload 4, the last attempt's entry or nothing, content type.
local entries = {}
local function finish(record, delivered, attempt)
  local id = id_of(record)
  local header_length = unpack_from('>I2', record, 41)
  local payload = charged(record) - header_length
  local content_type = ''
  if header_length > 2 and record:byte(43) == 1 then
    content_type = record:sub(46, 45 + unpack_from('>I2', record, 44))
  end
  local flags = (delivered and 1 or 0) + (attempt ~= '' and 2 or 0)
  local entry = string.char(flags) .. record:sub(2, 28) .. pack('>I4', math.max(payload, 0)) .. attempt .. content_type
  entries[#entries + 1] = pack('>I2', #entry) .. entry
  forget_body(id, record)
end
local function drop_finished(element)
  call('HINCRBY', K.c, 'finished', -unpack_from('>I2', element, 7))
  local ids, at = {}, 9
  while at + 1 <= #element do
    ids[#ids + 1] = element:sub(at + 3, at + 18)
    at = at + 2 + unpack_from('>I2', element, at)
  end
  if #ids > 0 then in_chunks('HDEL', K.a, ids) end
end
local function write_finished()
  if #entries == 0 then return end
  call('RPUSH', K.f, pack('>I6I2', now, #entries) .. table.concat(entries))
  local kept = call('HINCRBY', K.c, 'finished', #entries)
  entries = {}
  while kept > set.finished_max do
    local first = call('LINDEX', K.f, 0)
    if not first or kept - unpack_from('>I2', first, 7) < set.finished_max then return end
    call('LPOP', K.f)
    kept = kept - unpack_from('>I2', first, 7)
    drop_finished(first)
  end
end
