-- The way of most publishes: messages of one list without options, into a queue that has room for all of them and whose numbers
-- are as they were written. All else goes the long way, which begins anew: nothing was written here. The records are in ARGV from
-- `first` on. Of those that Redis appends by itself (`appended.rs`) there is the first only: its list is called K.w until the
-- commands behind this script, in the same transaction, have appended the others and named it as before.
-- Gives whether a wake-up went out; nothing where it is not the way.
local function store_plain(is_appended, generation, messages, bytes, list, ids, first, remembered, channel, name)
  local appended_field = 'h' .. list
  local kept = call('HMGET', K.c, 'gen', 'settings', 'pending', 'bytes_waiting', 'accepted', appended_field, 'scheduled',
    'leased', 'bytes_leased')
  local settings = kept[2] or ''
  if kept[1] ~= generation or #settings < 59 or #settings ~= 59 + unpack_from('>H', settings, 58) then return end
  local pending, waiting, accepted, appended = number_of(kept[3]), number_of(kept[4]), number_of(kept[5]), number_of(kept[6])
  local scheduled, leased, bytes_leased = number_of(kept[7]), number_of(kept[8]), number_of(kept[9])
  if not (pending and waiting and accepted and appended and scheduled and leased and bytes_leased) then return end
  local length_max, bytes_max = unpack_from('>I6I6', settings)
  if pending + scheduled + leased + messages > length_max or waiting + bytes_leased + bytes > bytes_max then return end
  local key, length, last = list == 3 and K.l3 or list == 2 and K.l2 or K.l4, 0, first + messages - 1
  -- Outside of a transaction others would come between; and of what follows nothing may be refused behind the first write: Redis
  -- looks at rights again when it carries a transaction out. Where a crash may leave half of one, no list goes by another name.
  local may = redis.acl_check_cmd
  if is_appended then
    local is_known, may_rewrite = pcall(may, 'bgrewriteaof')
    if not (is_known and may_rewrite and may('multi') and may('rpush', K.w, '') and may('rpushx', K.w, '')
      and may('renamenx', K.w, key)) then
      return
    end
  end
  local suspects = pending > 0 and call('LLEN', K.l0)
  -- The first command that writes is the one that breaks off where the list is somebody else's.
  if is_appended then
    if call('LLEN', key) > 0 then call('RENAME', key, K.w) end
    is_writing = true
    length = call('RPUSH', K.w, ARGV[first]) + messages - 1
  else
    for from = first, last, 4000 do
      length = call('RPUSH', key, unpack(ARGV, from, math.min(from + 3999, last)))
      is_writing = true
    end
  end
  if byte(settings, 57) == 1 then note_runs(list, {ids}, appended) end
  call('HSET', K.c, 'pending', pending + messages, 'bytes_waiting', waiting + bytes, 'accepted', accepted + messages,
    appended_field, appended + messages)
  call('SET', K.e, pack('>I6', now) .. 'A', 'PX', remembered)
  -- Who waits is told where there was nothing to be had, suspects apart.
  if pending > 0 and length > messages and suspects ~= pending then return 0 end
  call('PUBLISH', channel, name)
  return 1
end
