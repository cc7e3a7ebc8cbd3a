-- The names of what is fresh, in runs: `index.lua` says what they are.
-- Places of a run: with them it fits into 2 KiB. Gaps of a moment, beyond which it is said to be in all runs.
local RUN, GAPS_MAX = 127, 32
-- Notes that ids of a moment are in these runs.
local function note_moment(list, moment, first, last)
  local field = string.char(list) .. moment
  local kept = try('HGET', K.mt, field) or ''
  local before = #kept >= 10 and unpack_from('>I5', kept, #kept - 4) or -2
  if first - before <= 1 or #kept >= GAPS_MAX * 10 then
    if before == last then return end
    kept = sub(kept, 1, #kept - 5) .. pack('>I5', last)
  else
    kept = kept .. pack('>I5I5', first, last)
  end
  try('HSET', K.mt, field, kept)
end
-- Names what was appended to a list of runs, the first of it at this place: its ids, in pieces of which each is of one moment.
local function note_runs(list, pieces, place)
  local moment, since, till = nil, place, place
  local function note()
    if moment then note_moment(list, moment, math.floor(since / RUN), math.floor((till - 1) / RUN)) end
  end
  for _, ids in ipairs(pieces) do
    local its_moment = sub(ids, 1, 5)
    if its_moment ~= moment then
      note()
      moment, since = its_moment, till
    end
    till = till + #ids / 16
  end
  note()
  local all, at = table.concat(pieces), 1
  while at <= #all do
    local field = pack('>BI5', list, math.floor(place / RUN))
    local ids = sub(all, at, at + (RUN - place % RUN) * 16 - 1)
    local kept = place % RUN > 0 and try('HGET', K.mr, field)
    if not kept or #kept < 5 or unpack_from('>I5', kept) + (#kept - 5) / 16 ~= place then kept = pack('>I5', place) end
    try('HSET', K.mr, field, kept .. ids)
    at, place = at + #ids, place + #ids / 16
  end
end
-- Forgets the runs that a list passed when it went from one length to another; so many were ever appended to it.
local function drop_runs(list, appended, before, after)
  local last = math.floor((after == 0 and appended - 1 or appended - after - RUN) / RUN)
  for run = math.max(math.floor((appended - before) / RUN), 0), last do
    local field = pack('>BI5', list, run)
    local kept, moment = try('HGET', K.mr, field) or '', nil
    for at = 6, #kept, 16 do
      local its_moment = sub(kept, at, at + 4)
      if its_moment ~= moment then
        moment = its_moment
        local runs = try('HGET', K.mt, string.char(list) .. moment)
        local is_last = runs and #runs >= 10 and unpack_from('>I5', runs, #runs - 4) <= run
        if is_last then try('HDEL', K.mt, string.char(list) .. moment) end
      end
    end
    try('HDEL', K.mr, field)
  end
end
