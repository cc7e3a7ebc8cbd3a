-- Every key of a queue goes: those it declares, and those of its batches, whose prefix is given.
local function wipe(prefix)
  local call = redis.call
  -- As many as are leased at once, and what was purged: a fraction of a microsecond each, many in one command.
  local own, all = call('LRANGE', K.z, 0, -1), call('HKEYS', K.b)
  for place, batch in ipairs(all) do all[place] = prefix .. batch end
  is_writing = true
  for _, name in ipairs(own) do
    if string.sub(name, 1, #K.z + 1) == K.z .. ':' then all[#all + 1] = name end
  end
  for first = 1, #all, 4000 do call('UNLINK', unpack(all, first, math.min(first + 3999, #all))) end
  for _, key in pairs(K) do call('UNLINK', key) end
end
