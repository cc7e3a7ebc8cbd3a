-- The way of most settlements: all that is settled was delivered, and whoever has leased it says what is to be remembered. So no
-- record is read, but for those whose batch has others left. All else goes the long way behind it, which begins anew: nothing
-- was written here. ARGV as in settle, and 11 count of acknowledgements, 12 what they are charged, 13 what is remembered of them,
-- 14 whether there is none but the first ones among them.
local function settle_plain(batch, acks, count)
  local minute = string.format('%.0f', math.floor(now / 60000))
  local slot = minute % 3
  local kept = call('HMGET', K.c, 'gen', 'settings', 'leased', 'bytes_leased', 'delivered', 'finished', 'minute' .. slot)
  local settings = kept[2] or ''
  if kept[1] ~= ARGV[2] or #settings < 59 or #settings ~= 59 + unpack_from('>H', settings, 58) then return end
  local leased, bytes_leased = number_of(kept[3]), number_of(kept[4])
  local delivered, finished, charged = number_of(kept[5]), number_of(kept[6]), tonumber(ARGV[12])
  if not (leased and bytes_leased and delivered and finished) or leased < count or bytes_leased < charged then return end
  -- Where no attempts are remembered the history has none either.
  if byte(settings, 55) == 0 then return end
  local known = call('HGET', K.b, batch)
  if not known or #known ~= 29 or sub(known, 2, 9) ~= ARGV[6] then return end
  local live, length, indexes = unpack_from('>I2', known, 22), call('LLEN', K.x), {}
  local is_all = live == count
  if is_all then
    -- All that it ever held: none of it needs to be looked at, not even what somebody wrote over it since.
    if length ~= count or ARGV[14] ~= '1' then return end
  elseif live > count then
    local at, all = 1, count * 2 >= length and call('LRANGE', K.x, 0, -1) or {}
    while at < #acks do
      local index, attempt_length = unpack_from('>I2I2', acks, at)
      local element = all[index + 1] or call('LINDEX', K.x, index)
      -- What is shorter was settled or lost before.
      if not element or #element < 46 then return end
      indexes[#indexes + 1] = index
      at = at + 4 + attempt_length
    end
  end
  if not is_all and #indexes ~= count then return end
  -- The oldest elements of the history that go.
  local max, gone, remembered = unpack_from('>I6', settings, 43), 0, finished + count
  while max > 0 and remembered > max do
    local first = try('LINDEX', K.f, gone)
    if not first or #first < 8 or gone == 4 then return end
    local held = unpack_from('>I2', first, 7)
    if remembered - held < max then break end
    remembered, gone = remembered - held, gone + 1
  end
  -- What they were tried before goes with them.
  if gone > 0 and call('EXISTS', K.a) == 1 then return end

  call('ZCARD', K.l)
  is_writing = true
  if is_all then
    call('UNLINK', K.x)
    call('HDEL', K.b, batch)
    try('HDEL', K.bi, batch)
    call('ZREM', K.l, batch)
    -- As `end_batch` writes it: all of them were acknowledged.
    local marks = slot == 0 and K.y0 or slot == 1 and K.y1 or K.y2
    if kept[7] ~= minute then
      call('UNLINK', marks)
      call('HSET', K.c, 'minute' .. slot, minute)
    end
    try('HSET', marks, batch, ARGV[6] .. pack('>I6I2I2', now, count, 15 * 4096 + 1))
    if kept[7] ~= minute then call('PEXPIRE', marks, 180000) end
  else
    for _, index in ipairs(indexes) do call('LSET', K.x, index, 'a') end
    call('HSET', K.b, batch, sub(known, 1, 21) .. pack('>I2', live - count) .. sub(known, 24))
  end
  if max > 0 and try('RPUSH', K.f, pack('>I6I2', now, count) .. ARGV[13]) then
    if gone > 0 then try('LTRIM', K.f, gone, -1) end
  else
    remembered = finished
  end
  local left = leased - count
  call('HSET', K.c, 'leased', left, 'bytes_leased', left > 0 and bytes_leased - charged or 0, 'delivered', delivered + count,
    'finished', remembered)
  return {'ok', 0, 0, '', 0, ('S'):rep(count)}
end
if ARGV[10] == '0' and ARGV[11] then
  local settled = settle_plain(ARGV[5], ARGV[9], tonumber(ARGV[11]))
  if settled then return settled end
end
