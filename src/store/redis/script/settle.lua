-- Ends leases of a batch.
-- ARGV: 5 batch, 6 token, 7 how long the mark of an ended batch holds (ms), 8 acknowledgements: for each an index in two bytes
-- and the entry of its attempt (length 0: none), 9 count of others; then for each: index, verdict (a acknowledge, r retry,
-- x dead, d defer, l release), delay (ms) or reason, words, status, entry of its attempt ('' none).
-- Gives {'ok', woken, soonest or 0, parked, results}: a letter each, S settled or L lost, acknowledgements first.
local batch, token = ARGV[5], ARGV[6]
local others = tonumber(ARGV[9])
local acks, at = {}, 1
while at < #ARGV[8] do
  local length = unpack_from('>I2', ARGV[8], at + 2)
  acks[#acks + 1] = {unpack_from('>I2', ARGV[8], at), length > 0 and ARGV[8]:sub(at + 2, at + 3 + length) or ''}
  at = at + 4 + length
end

local known = call('HGET', K.b, batch)
if not known or known:sub(2, 9) ~= token then
  local mark = not known and mark_of(batch, tonumber(ARGV[7]))
  if not mark or mark:sub(1, 8) ~= token then return {'ok', 0, 0, '', string.rep('L', #acks + others)} end
  local told, results = told_of(mark), {}
  for place, ack in ipairs(acks) do results[place] = told(ack[1]) end
  for other = 1, others do results[#results + 1] = told(tonumber(ARGV[10 + (other - 1) * 6])) end
  return {'ok', 0, 0, '', table.concat(results)}
end

local live, count_before = live_of(known), call('LLEN', K.x)
local whole = #acks + others > 8 or #acks + others >= count_before
local elements = whole and call('LRANGE', K.x, 0, -1)
local settled, results, ids = 0, {}, {}
-- The record at a place, or what stands there instead; nil beyond the batch.
local function element_at(index)
  if elements then return elements[index + 1] end
  return call('LINDEX', K.x, index) or nil
end
local ended = {}
local function take(index)
  local element = element_at(index)
  if element == nil or element == LOST then return nil, 'L' end
  if element == SETTLED or ended[index] then return nil, 'S' end
  ended[index] = true
  settled = settled + 1
  move('leased', 'bytes_leased', -1, -charged(element))
  return element, 'S'
end
local function acknowledge(record, attempt)
  local id = id_of(record)
  if set.lookup then ids[#ids + 1] = id end
  count('delivered', 1)
  if set.attempts == 0 then attempt = '' end
  if record:byte(18) > 0 then cut_again(id, attempt ~= '' and 1 or 0) end
  finish(record, true, attempt)
end

for place, ack in ipairs(acks) do
  local record, result = take(ack[1])
  if record then acknowledge(record, ack[2]) end
  results[place] = result
end
local released = {}
for other = 1, others do
  local here = 10 + (other - 1) * 6
  local index, verdict, amount, words = tonumber(ARGV[here]), ARGV[here + 1], tonumber(ARGV[here + 2]), ARGV[here + 3]
  local status, attempt = tonumber(ARGV[here + 4]), ARGV[here + 5]
  local record, result = take(index)
  results[#results + 1] = result
  if record then
    if attempt ~= '' and verdict ~= 'a' and verdict ~= 'l' then remember(id_of(record), attempt) end
    if verdict == 'a' then
      acknowledge(record, attempt)
    elseif verdict == 'r' then
      record = after_attempt(record, false, false)
      if record:byte(18) >= record:byte(20) then
        bury(record, REASON.exhausted, '', status)
      else
        count('retried', 1)
        schedule(record, now + amount)
      end
    elseif verdict == 'x' then
      bury(after_attempt(record, false, false), amount, words, status)
    elseif verdict == 'd' then
      count('deferred', 1)
      schedule(record, now + amount)
    else
      released[#released + 1] = {index, record}
    end
  end
end
table.sort(released, function(one, other) return one[1] > other[1] end)
for _, back in ipairs(released) do put_first(back[2]) end

if settled > 0 then
  live = live - settled
  if live == 0 then
    end_batch(batch, known, K.x, elements or call('LRANGE', K.x, 0, -1))
  else
    for index in pairs(ended) do call('LSET', K.x, index, SETTLED) end
    write_live(batch, known, live)
  end
  if #ids > 0 then in_chunks('HDEL', K.m, ids) end
  write_index()
  write_finished()
  flush()
end
local parked = q[3] == 'dead_full' and 'dead_full' or ''
return {'ok', wake(), soonest or 0, parked, table.concat(results)}
