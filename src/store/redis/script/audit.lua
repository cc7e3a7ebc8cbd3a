-- Recounts a queue and names each difference. Looks at every message.
-- ARGV: 5 prefix of the keys of batches. Gives {'ok', words…}.
local found = {'ok'}
local function differs(what, is, should)
  if is ~= should then found[#found + 1] = ARGV[4] .. ': ' .. what .. ' is ' .. is .. ', recounted ' .. should end
end
local sums = {pending = 0, scheduled = 0, leased = 0, dead = 0, bytes_waiting = 0, bytes_leased = 0, bytes_dead = 0}
local apart = 0
local function add(field, bytes_field, record)
  sums[field] = sums[field] + 1
  sums[bytes_field] = sums[bytes_field] + charged(record)
  if is_apart(record) then apart = apart + 1 end
end
local pointed, named = 0, 0
-- Whether a run names another message at a place, or one whose moment leads not there.
local function is_elsewhere(list, place, id)
  local run = math.floor(place / RUN)
  local kept = call('HGET', K.mr, pack('>BI5', list, run))
  local at = kept and 6 + (place - unpack_from('>I5', kept)) * 16
  if not at or at < 6 then return false end
  local runs = call('HGET', K.mt, string.char(list) .. sub(id, 1, 5)) or ''
  for gap = 1, #runs, 10 do
    local first, last = unpack_from('>I5I5', runs, gap)
    if first <= run and run <= last then return sub(kept, at, at + 15) ~= id end
  end
  return true
end
local runs_kept, moments_kept, passed_runs = call('HGETALL', K.mr), {}, 0
for at = 1, #runs_kept, 2 do
  local list, run = unpack_from('>BI5', runs_kept[at])
  local appended = tonumber(call('HGET', K.c, 'h' .. list) or 0)
  local first = appended - call('LLEN', LIST[list])
  if first >= (run + 1) * RUN or first == appended then passed_runs = passed_runs + 1 end
  for place = 6, #runs_kept[at + 1], 16 do
    moments_kept[string.char(list) .. sub(runs_kept[at + 1], place, place + 4)] = true
  end
end
differs('runs that their list has passed', passed_runs, 0)
for _, moment in ipairs(call('HKEYS', K.mt)) do
  if not moments_kept[moment] then found[#found + 1] = ARGV[4] .. ': a moment leads to no run' end
end
for list = 0, 7 do
  local first = tonumber(call('HGET', K.c, 'h' .. list) or 0) - call('LLEN', LIST[list])
  for place, record in ipairs(call('LRANGE', LIST[list], 0, -1)) do
    if place == 1 and record == CANCELLED then found[#found + 1] = ARGV[4] .. ': a list begins with what was cancelled' end
    if record ~= CANCELLED then
      add('pending', 'bytes_waiting', record)
      if set.lookup then
        local where, at = call('HGET', K.m, id_of(record)), first + place - 1
        if where then pointed = pointed + 1 end
        if (where and where ~= pack('>Bi5', list, at)) or (is_in_runs(list) and is_elsewhere(list, at, id_of(record))) then
          found[#found + 1] = ARGV[4] .. ': a pending message is looked for elsewhere than in list ' .. list
        end
      end
    end
  end
end
local places = call('ZRANGE', K.s, 0, -1)
for _, place in ipairs(places) do
  local kept = call('HGET', K.sb, place:sub(7))
  if kept then add('scheduled', 'bytes_waiting', kept:sub(13)) end
end
differs('records of scheduled messages', call('HLEN', K.sb), #places)
for _, batch in ipairs(call('HKEYS', K.b)) do
  local live, ids = 0, call('HGET', K.bi, batch)
  if ids then named = named + 1 end
  for place, record in ipairs(call('LRANGE', ARGV[5] .. batch, 0, -1)) do
    if not OVER[record] then
      live = live + 1
      add('leased', 'bytes_leased', record)
      if ids and sub(ids, place * 16 - 15, place * 16) ~= id_of(record) then
        found[#found + 1] = ARGV[4] .. ': a leased message is looked for elsewhere'
      end
    end
  end
  differs('leases of a batch', live_of(call('HGET', K.b, batch)), live)
  if not call('ZSCORE', K.l, batch) then found[#found + 1] = ARGV[4] .. ': a batch has no deadline' end
end
differs('deadlines', call('ZCARD', K.l), call('HLEN', K.b))
differs('batches whose ids are known', call('HLEN', K.bi), named)
for _, member in ipairs(call('ZRANGE', K.d, 0, -1)) do
  local record = call('HGET', K.db, member:sub(7))
  if record then add('dead', 'bytes_dead', record) end
end
local logs, log_bytes = call('HGETALL', K.a), 0
for place = 2, #logs, 2 do log_bytes = log_bytes + #logs[place] + 100 end
differs('bytes_log', tonumber(call('HGET', K.c, 'bytes_log') or 0), log_bytes)
differs('letters', call('HLEN', K.dm), sums.dead)
differs('records of dead letters', call('HLEN', K.db), sums.dead)
for field, sum in pairs(sums) do differs(field, gauge[field], sum) end
if call('EXISTS', K.z) == 0 then
  differs('payloads apart', call('HLEN', K.o), apart)
  if set.lookup then differs('messages that can be looked up', call('HLEN', K.m), pointed) end
end
return found
