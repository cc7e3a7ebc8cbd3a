-- Pending messages, and those that wait for a moment.

local function look_at_lists()
  for list = 0, 7 do call('LLEN', LIST[list]) end
end
local function look_at_scheduled()
  call('ZCARD', K.s)
  call('HLEN', K.sb)
end
if strange.pending then
  for list = 0, 7 do gauge.pending = gauge.pending + call('LLEN', LIST[list]) end
end
if strange.scheduled then gauge.scheduled = call('ZCARD', K.s) end

-- Appends records to a list; to one of runs with their ids, in pieces of which each is of one moment.
local function append(list, records, ids)
  if #records == 0 then return end
  in_chunks(call, 'RPUSH', LIST[list], records)
  local appended = add('h' .. list, #records)
  if not appended then
    -- Somebody else wrote over it: what was appended before is not found by its id any more.
    appended = call('LLEN', LIST[list])
    call('HSET', K.c, 'h' .. list, appended)
  end
  local first = appended - #records
  if not set.lookup then return end
  if is_in_runs(list) then return note_runs(list, ids, first) end
  for step, record in ipairs(records) do point(list, first + step - 1, id_of(record)) end
end
-- Puts one record before all others of a list.
local function prepend(list, record)
  local length = call('LPUSH', LIST[list], record)
  if not set.lookup then return end
  point(list, appended_to(list) - length, id_of(record))
end
-- What was cancelled, of which a call passes so many at most: the next one goes on, and a million stop nobody.
local holes_left = 20000
-- Takes so many off the beginning of a list. It does not begin with what was cancelled, so that its length says whether it holds
-- anything; but for what the next call passes.
local function shorten(list, gone)
  local before = call('LLEN', LIST[list])
  if gone > 0 then call('LTRIM', LIST[list], gone, -1) end
  local size = 4
  while holes_left > 0 and call('LINDEX', LIST[list], 0) == CANCELLED do
    size = math.min(size * 2, 1000)
    local piece, holes = call('LRANGE', LIST[list], 0, size - 1), 0
    while piece[holes + 1] == CANCELLED do holes = holes + 1 end
    call('LTRIM', LIST[list], holes, -1)
    holes_left = holes_left - holes
  end
  if set.lookup and is_in_runs(list) then drop_runs(list, appended_to(list), before, call('LLEN', LIST[list])) end
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
