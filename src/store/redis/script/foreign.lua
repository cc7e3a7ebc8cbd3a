-- Bytes that are no record of ours go on a pile, of which the latest are kept, and are counted.
local FOREIGN_MAX = 100
local function pile_up(foreign)
  if #foreign == 0 then return end
  for _, bytes in ipairs(foreign) do try('RPUSH', K.j, bytes) end
  try('LTRIM', K.j, -FOREIGN_MAX, -1)
  count('foreign', #foreign)
end
