-- One lot of plain messages goes past what is behind this. ARGV as in enqueue; of a lot that is 'a' the first record only.
if ARGV[9] ~= 'g' and ARGV[8] == '1' and ARGV[6] == '0' then
  local is_appended, list, count, bytes = ARGV[9] == 'a', 2 + tonumber(ARGV[12]), tonumber(ARGV[10]), tonumber(ARGV[11])
  local woken = store_plain(is_appended, ARGV[2], count, bytes, list, ARGV[13], 14, ARGV[5], ARGV[3], ARGV[4])
  if woken then return {'ok', woken, 0, 'A'} end
  if is_appended then return {'long'} end
end
