-- The counters, and the two laws that tie some of them to what is in the queue.
local COUNTERS = {'accepted', 'replayed', 'delivered', 'dead_lettered', 'cancelled', 'purged', 'discarded',
  'retried', 'trimmed', 'recovered', 'deferred', 'foreign'}
-- What was counted, and which of it is no number any more and stands for 0.
local function read_counters()
  local counted, lost = {}, {}
  for place, value in ipairs(call('HMGET', K.c, unpack(COUNTERS))) do
    local number = read_number(value)
    lost[COUNTERS[place]] = not number or number < 0 or nil
    counted[COUNTERS[place]] = number and math.max(number, 0) or 0
  end
  return counted, lost
end
-- How many more dead letters, or messages in the queue, there should be by the counters than there are.
local function letters_missing(counted, dead)
  return counted.dead_lettered - counted.replayed - counted.discarded - dead
end
local function messages_missing(counted, inside)
  return counted.accepted + counted.replayed - counted.delivered - counted.dead_lettered - counted.cancelled - counted.purged
    - inside
end
