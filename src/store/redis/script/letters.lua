-- A page of dead letters without their records: from behind a place in the order of deaths.
-- ARGV: 5 died (ms, '' from the beginning), 6 number, 7 at most, 8 bytes that may be read for it.
-- Gives {'ok', whether there are more, died and number of the last one looked at, id, letter, head of the record, …}. One that
-- is damaged is left out, and the place goes on behind it.
local at_most = tonumber(ARGV[7])
local members = {}
if ARGV[5] == '' then
  members = call('ZRANGE', K.d, 0, at_most - 1)
else
  -- Those of the same moment come in the order of their numbers.
  local behind = pack('>I6', tonumber(ARGV[6]))
  local skipped = 0
  while #members < at_most do
    local piece = call('ZRANGE', K.d, ARGV[5], '+inf', 'BYSCORE', 'LIMIT', skipped, at_most)
    if #piece == 0 then break end
    skipped = skipped + #piece
    for _, member in ipairs(piece) do
      local died = tonumber(call('ZSCORE', K.d, member))
      if (died > tonumber(ARGV[5]) or member:sub(1, 6) > behind) and #members < at_most then
        members[#members + 1] = member
      end
    end
  end
end
-- What is no member of ours is as if its number were the bytes it begins with.
local function number_of(member) return (unpack_from('>I6', sub(member .. '\0\0\0\0\0\0', 1, 6))) end
local page, size = {'ok', #members >= at_most and 1 or 0, 0, 0}, 0
local last
for _, member in ipairs(members) do
  local id = sub(member, 7)
  local letter, record = call('HGET', K.dm, id), call('HGET', K.db, id)
  if letter and record and #record >= RECORD_MIN then
    size = size + #record
    if size > tonumber(ARGV[8]) and #page > 4 then
      page[2] = 1
      break
    end
    page[#page + 1] = id
    page[#page + 1] = letter
    page[#page + 1] = sub(record, 1, 42 + unpack_from('>I2', record, 41))
  end
  last = member
end
if last then page[3], page[4] = tonumber(call('ZSCORE', K.d, last)), number_of(last) end
return page
