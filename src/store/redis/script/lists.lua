-- Pending messages.

-- Appends records to a list.
local function append(list, records)
  if #records == 0 then return end
  in_chunks(call, 'RPUSH', LIST[list], records)
  local first = call('HINCRBY', K.c, 'h' .. list, #records) - #records
  if not set.lookup then return end
  if is_in_runs(list) then return note_runs(list, records, first) end
  for step, record in ipairs(records) do point(list, first + step - 1, id_of(record)) end
end
-- Puts one record before all others of a list.
local function prepend(list, record)
  local length = call('LPUSH', LIST[list], record)
  if not set.lookup then return end
  local appended = tonumber(call('HGET', K.c, 'h' .. list) or 0)
  point(list, appended - length, id_of(record))
end
-- Takes so many off the beginning of a list. It never begins with what was cancelled, so that its length says whether it holds
-- anything.
local function shorten(list, gone)
  local before = call('LLEN', LIST[list])
  if gone > 0 then call('LTRIM', LIST[list], gone, -1) end
  while call('LINDEX', LIST[list], 0) == CANCELLED do call('LPOP', LIST[list]) end
  if set.lookup and is_in_runs(list) then drop_runs(list, before, call('LLEN', LIST[list])) end
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
