-- Stores plain messages in several queues, each by itself: what one is refused disturbs no other.
-- KEYS: of each queue its counters, the list that it appends to, its suspects, runs, moments, and the call.
-- ARGV: 2 how long a call is remembered (ms), 3 until when it may be carried out (ms; 0: whenever it comes), 4 where wake-ups go;
-- then of each queue: name, generation, list, count of messages, bytes, ids; and the records.
-- Gives for each queue whether a wake-up went out, 1 or 0; -1 where nothing was stored, so that `enqueue` is to do it or to say
-- why not; or the error with which it broke off behind its first write.
local KEYS_OF_ONE, ARGUMENTS_OF_ONE = 6, 6
local is_late = ARGV[3] ~= '0' and now > tonumber(ARGV[3])
local function store(at, messages)
  if is_late or call('EXISTS', K.e) == 1 then return end
  local list, first = tonumber(ARGV[at + 2]), at + ARGUMENTS_OF_ONE
  return store_plain(false, ARGV[at + 1], messages, tonumber(ARGV[at + 4]), list, ARGV[at + 5], first, ARGV[2], ARGV[4], ARGV[at])
end
local told, at = {}, 5
for place = 1, #KEYS, KEYS_OF_ONE do
  local list, messages = KEYS[place + 1], tonumber(ARGV[at + 3])
  K = {c = KEYS[place], l2 = list, l3 = list, l4 = list, l0 = KEYS[place + 2], mr = KEYS[place + 3], mt = KEYS[place + 4],
    e = KEYS[place + 5]}
  is_writing = false
  local went_well, woken = pcall(store, at, messages)
  if went_well then
    told[#told + 1] = woken or -1
  elseif is_writing then
    told[#told + 1] = type(woken) == 'table' and woken or redis.error_reply(tostring(woken))
  else
    told[#told + 1] = -1
  end
  at = at + ARGUMENTS_OF_ONE + messages
end
return told
