-- Ends leases of a batch.
-- ARGV: 5 batch, 6 token, 7 how long the mark of an ended batch holds (ms), 8 whether memory is short, 9 acknowledgements: for
-- each an index in two bytes and the entry of its attempt (length 0: none), 10 count of others; then for each: index, verdict
-- (a acknowledge, r retry, x dead, d defer, p the same but not counted, l release), delay (ms) or reason, words, status, entry of
-- its attempt ('' none; of a retry it ends with six bytes for when the next is due). Behind them, for `plain_settle.lua`, what is
-- remembered of those acknowledged, where whoever leased them says it.
-- Gives {'ok', woken, soonest or 0, parked, bytes remembered, results}: a letter each, S settled or L lost, acknowledgements
-- first. What was settled before is so again by the same verdict, and lost for another.
local batch, token, acks = ARGV[5], ARGV[6], ARGV[9]
local others = tonumber(ARGV[10])
forgets = ARGV[8] == '1'
local results = {}
-- Counted or not, it is remembered as the same.
local function verdict_at(here) return ARGV[here] == 'p' and 'd' or ARGV[here] end

local known = call('HGET', K.b, batch)
if not known or sub(known, 2, 9) ~= token then
  local mark = not known and mark_of(batch, tonumber(ARGV[7]))
  local told = function() return 'L' end
  if mark and sub(mark, 1, 8) == token then told = told_of(mark) end
  local at = 1
  while at < #acks do
    local index, length = unpack_from('>I2I2', acks, at)
    results[#results + 1] = told(index, 'a')
    at = at + 4 + length
  end
  for other = 1, others do
    local here = 11 + (other - 1) * 6
    results[#results + 1] = told(tonumber(ARGV[here]), verdict_at(here + 1))
  end
  return {'ok', 0, 0, '', 0, table.concat(results)}
end

local live, count_before = live_of(known), call('LLEN', K.x)
-- What the batch holds; read as a whole unless little of it ends now. What ends here is marked in it at once.
local each = #acks >= 4 and 4 + unpack_from('>I2', acks, 3) or 4
local whole = (#acks / each + others) * 2 >= count_before
local elements = whole and call('LRANGE', K.x, 0, -1) or {}
local ended, ended_bytes = {}, 0
local function take(index, verdict)
  local element = elements[index + 1]
  if element == nil and not whole then
    element = call('LINDEX', K.x, index) or nil
    elements[index + 1] = element
  end
  -- What is no record was written over: the sweep puts it aside when the lease is over.
  if element == nil or element == LOST then return nil, 'L' end
  if element == '' or element == verdict then return nil, 'S' end
  if #element < RECORD_MIN then return nil, 'L' end
  elements[index + 1] = verdict
  ended[#ended + 1] = index
  ended_bytes = ended_bytes + charged(element)
  return element, 'S'
end
call('ZCARD', K.l)
call('HLEN', K.o)
for other = 1, others do
  if ARGV[12 + (other - 1) * 6] ~= 'a' then
    look_at_lists()
    look_at_scheduled()
    look_at_dead()
    break
  end
end
is_writing = true

local delivered = 0
local function acknowledge(record, attempt)
  delivered = delivered + 1
  if set.attempts == 0 then attempt = '' end
  -- A replay begins to count anew, and what was tried before stays in the log.
  local was_tried = byte(record, 18) > 0 or (byte(record, 22) or 0) % (2 * REPLAYED) >= REPLAYED
  if was_tried then cut_again(id_of(record), attempt ~= '' and 1 or 0) end
  finish(record, true, attempt)
end

local at = 1
while at < #acks do
  local index, length = unpack_from('>I2I2', acks, at)
  local record, result = take(index, 'a')
  if record then acknowledge(record, length > 0 and sub(acks, at + 2, at + 3 + length) or '') end
  results[#results + 1] = result
  at = at + 4 + length
end
local released = {}
for other = 1, others do
  local here = 11 + (other - 1) * 6
  local index, verdict, amount, words = tonumber(ARGV[here]), verdict_at(here + 1), tonumber(ARGV[here + 2]), ARGV[here + 3]
  local status, attempt = tonumber(ARGV[here + 4]), ARGV[here + 5]
  local record, result = take(index, verdict)
  results[#results + 1] = result
  if record then
    if attempt ~= '' and verdict ~= 'a' and verdict ~= 'l' then
      if verdict == 'r' and byte(record, 18) + 1 < byte(record, 20) then
        attempt = sub(attempt, 1, -7) .. pack('>I6', now + amount)
      end
      remember(id_of(record), attempt)
    end
    if verdict == 'a' then
      acknowledge(record, attempt)
    elseif verdict == 'r' then
      record = after_attempt(record, false, false)
      if byte(record, 18) >= byte(record, 20) then
        bury(record, REASON.exhausted, words, status)
      else
        count('retried', 1)
        schedule(record, now + amount)
      end
    elseif verdict == 'x' then
      bury(after_attempt(record, false, false), amount, words, status)
    elseif verdict == 'd' then
      if ARGV[here + 1] == 'd' then count('deferred', 1) end
      schedule(record, now + amount)
    else
      released[#released + 1] = {index, record}
    end
  end
end
table.sort(released, function(one, other) return one[1] > other[1] end)
for _, back in ipairs(released) do put_first(back[2]) end

if #ended > 0 then
  live = live - #ended
  if live == 0 then
    local all = whole and elements or call('LRANGE', K.x, 0, -1)
    for _, index in ipairs(ended) do all[index + 1] = elements[index + 1] end
    end_batch(batch, known, K.x, all)
  else
    for _, index in ipairs(ended) do call('LSET', K.x, index, elements[index + 1]) end
    write_live(batch, known, live)
  end
  move('leased', 'bytes_leased', -#ended, -ended_bytes)
  count('delivered', delivered)
  write_index()
  flush()
  write_finished()
end
return {'ok', wake(), soonest or 0, parked, math.max(spent, 0), table.concat(results)}
