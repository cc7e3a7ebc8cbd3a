-- Pending messages. A place in a list is a number that does not change while others come and go: what was appended last
-- has the greatest; `h<list>` counts what was ever appended, so the first one's is that minus the length.
local S, H = K.l0, K.l1
local LIST = {[0] = K.l0, K.l1, K.l2, K.l3, K.l4, K.l5, K.l6, K.l7}

-- Where a message is, for who looks it up by its id.
local index = {}
local function point(id, where)
  if set.lookup then
    index[#index + 1] = id
    index[#index + 1] = where
  end
end
local function write_index()
  if #index > 0 then in_chunks('HSET', K.m, index) end
  index = {}
end

-- Appends records to a list.
local function append(list, records)
  if #records == 0 then return end
  local last = call('HINCRBY', K.c, 'h' .. list, #records)
  for place, record in ipairs(records) do
    point(id_of(record), list .. ':' .. (last - #records + place - 1))
  end
  in_chunks('RPUSH', LIST[list], records)
end
-- Puts one record before all others of a list.
local function prepend(list, record)
  local length = call('LPUSH', LIST[list], record)
  local appended = tonumber(call('HGET', K.c, 'h' .. list) or 0)
  point(id_of(record), list .. ':' .. (appended - length))
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
  if set.lookup then call('HDEL', K.m, id) end
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
