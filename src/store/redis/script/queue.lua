-- What every script of a queue begins with: the generation, the numbers and the settings.
--
-- ARGV: 2 generation, 3 channel of wake-ups, 4 name of the queue; a script's own from 5.
--
-- The rule for all that writes: Lua takes nothing back, so a script looks at the type of every key that it may write to before
-- its first write (asks for its length; what is of another type breaks off there, and `broken.lua` names it), then says
-- `is_writing`. Behind that nothing may break off. The history, the attempts, the marks, the pile of junk and what messages are
-- looked up by may be lost: they are written by `try` and stop nobody. What goes from one key to another is copied first.

-- Elements of a batch that are no record: the lease there was taken back, or settled, by which verdict says the letter that
-- `settle` has for it; earlier versions wrote none. In a list: cancelled.
local LOST, CANCELLED = '-', ''
local OVER = {[LOST] = true, [''] = true, a = true, r = true, x = true, d = true, l = true}
-- Pieces that a command may be given at once: Lua's stack holds less than 8,000.
local CHUNK = 4000

local GAUGES = {'pending', 'scheduled', 'leased', 'dead', 'bytes_waiting', 'bytes_leased', 'bytes_dead'}
local q = call('HMGET', K.c, 'gen', 'paused', 'parked', 'settings', unpack(GAUGES))
if q[1] ~= ARGV[2] then return {'gone'} end
local held = q[2] or q[3]
-- Adds to a number; nothing when somebody else wrote over it what is none, or one that is as great as they come.
local function add(field, by)
  local sum = redis.pcall('HINCRBY', K.c, field, by)
  if type(sum) == 'number' then return sum end
  if not (sum.err:find('integer', 1, true) or sum.err:find('overflow', 1, true)) then error(sum) end
end
-- A number as we write it, and 0 where none is; nothing for what somebody else wrote: Lua takes nan, inf, 0x10 and 1e999 for
-- numbers as well, and reckons with none of them as with one.
local function read_number(value)
  if not value or value == '0' then return 0 end
  local number = not value:find('[^%d-]') and tonumber(value)
  if number and number > -2 ^ 53 and number < 2 ^ 53 then return number end
end
-- Where a walk through a hash goes on; from its beginning when that is no place.
local function cursor_of(value)
  return value and #value <= 15 and value:find('^%d+$') and value or '0'
end
-- Refuses the call: what lies there is not ours. Nothing was written.
local function refuse(words) error({err = 'FOREIGNKEY ' .. words}) end
-- A gauge that is no number stays as it is until the next sweep has it mended, and counts as what the keys can hold, or 0.
local gauge, strange = {}, {}
for place, field in ipairs(GAUGES) do
  local number = read_number(q[4 + place])
  gauge[field] = number or 0
  if not number then strange[field] = true end
end
if #(q[4] or '') < 59 or #q[4] ~= 59 + unpack_from('>H', q[4], 58) then
  refuse('the field settings of the key ' .. K.c .. ' is not what was written there; PUT the settings of the queue '
    .. 'again, or start a gateway that declares it anew, and it goes on')
end
local set = {}
set.length_max, set.bytes_max, set.window, set.keys_max, set.dead_length_max, set.dead_bytes_max,
  set.dead_retention, set.finished_max, set.history_retention, set.attempts, set.trims, set.lookup,
  set.destination = unpack_from('>I6I6I6I6I6I6I6I6I6BBBHc0', q[4])
set.trims, set.lookup = set.trims == 1, set.lookup == 1

-- Changes of counters and gauges, written at once at the end. A gauge is written as it is now: nobody else changes it
-- meanwhile. Where nothing is there are no bytes either, whatever damage made of the sum.
local changes, moved = {}, {}
local function count(field, by)
  changes[field] = (changes[field] or 0) + by
end
local function move(field, bytes_field, by, bytes)
  gauge[field] = gauge[field] + by
  gauge[bytes_field] = gauge[bytes_field] + bytes
  moved[field], moved[bytes_field] = true, true
end
local function flush()
  for field, by in pairs(changes) do
    if by ~= 0 then add(field, by) end
  end
  changes = {}
  if next(moved) == nil then return end
  if gauge.pending + gauge.scheduled == 0 then gauge.bytes_waiting = 0 end
  if gauge.leased == 0 then gauge.bytes_leased = 0 end
  if gauge.dead == 0 then gauge.bytes_dead = 0 end
  local all = {}
  for field in pairs(moved) do
    if not strange[field] then
      all[#all + 1] = field
      all[#all + 1] = gauge[field]
    end
  end
  if #all > 0 then call('HSET', K.c, unpack(all)) end
  moved = {}
end

-- A number that was never given before in this queue; times and numbers have six bytes.
-- Where somebody else wrote over the last one, they go on far above all that were given, and below what Lua writes with
-- an exponent.
local function number()
  local given = add('number', 1)
  if given and given > 0 and given < 2 ^ 48 then return given end
  call('HSET', K.c, 'number', now * 16)
  return now * 16
end

-- Runs a command on many arguments, so many at once.
local function in_chunks(run, command, key, all)
  for first = 1, #all, CHUNK do
    run(command, key, unpack(all, first, math.min(first + CHUNK - 1, #all)))
  end
end
