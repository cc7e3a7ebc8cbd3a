-- Pending messages. A place in a list is a number that does not change while others come and go: what was appended last
-- has the greatest; `h<list>` counts what was ever appended, so the first one's is that minus the length.
local S, H = K.l0, K.l1
local LIST = {[0] = K.l0, K.l1, K.l2, K.l3, K.l4, K.l5, K.l6, K.l7}

-- Where a message is pending, for who looks it up by its id: list and place in one and five bytes.
local index = {}
local function point(id, where)
  if set.lookup then
    index[#index + 1] = id
    index[#index + 1] = where
  end
end
local function write_index()
  if #index > 0 then in_chunks(try, 'HSET', K.m, index) end
  index = {}
end

-- Appends records to a list.
local function append(list, records)
  if #records == 0 then return end
  in_chunks(call, 'RPUSH', LIST[list], records)
  local first = call('HINCRBY', K.c, 'h' .. list, #records) - #records
  if not set.lookup then return end
  for place, record in ipairs(records) do point(id_of(record), pack('>Bi5', list, first + place - 1)) end
end
-- Puts one record before all others of a list.
local function prepend(list, record)
  local length = call('LPUSH', LIST[list], record)
  if not set.lookup then return end
  local appended = tonumber(call('HGET', K.c, 'h' .. list) or 0)
  point(id_of(record), pack('>Bi5', list, appended - length))
end
-- The list, the index in it and the record of a pending message, from what the index says. Junk that somebody else put into
-- the list moves all others by its count.
local NEAR = 16
local function seek(where, id)
  if #where ~= 6 or byte(where) > 7 then return end
  local list, place = unpack_from('>Bi5', where)
  local at = place - (tonumber(call('HGET', K.c, 'h' .. list) or 0) - call('LLEN', LIST[list]))
  local from = math.max(at - NEAR, 0)
  if at < 0 then return end
  local record = call('LINDEX', LIST[list], at)
  if record and #record >= RECORD_MIN and id_of(record) == id then return list, at, record end
  for step, other in ipairs(call('LRANGE', LIST[list], from, at + NEAR)) do
    if #other >= RECORD_MIN and id_of(other) == id then return list, from + step - 1, other end
  end
end
-- A list never begins with what was cancelled, so that its length says whether it holds anything.
local function strip(list)
  while call('LINDEX', LIST[list], 0) == CANCELLED do call('LPOP', LIST[list]) end
end

local woken = false
-- Makes a record pending that is not fresh any more.
local function put_back(record)
  append(is_suspect(record) and 0 or 5 + priority_of(record), {record})
  move('pending', 'bytes_waiting', 1, charged(record))
  woken = true
end
local function put_first(record)
  prepend(is_suspect(record) and 0 or 1, record)
  move('pending', 'bytes_waiting', 1, charged(record))
  woken = true
end
-- Makes a record wait until a moment; not at all when that is now or over.
local soonest
local function schedule(record, due)
  if due <= now then return put_back(record) end
  local id = id_of(record)
  local place = pack('>I6', number()) .. id
  call('ZADD', K.s, due, place)
  call('HSET', K.sb, id, pack('>I6', due) .. place:sub(1, 6) .. record)
  move('scheduled', 'bytes_waiting', 1, charged(record))
  soonest = math.min(soonest or due, due)
end
-- Tells who waits for work.
local function wake()
  if woken and gauge.pending > 0 then
    call('PUBLISH', ARGV[3], ARGV[4])
    return 1
  end
  return 0
end
