-- Where what is pending is found by its id, with `lookup`. A place in a list is a number that does not change while others come
-- and go: what was appended last has the greatest; `h<list>` counts what was ever appended, so the first one's is that minus
-- the length.
--
-- What is fresh comes and goes in the order of places, so it is named in runs and never one by one. K.mr: list and number of a
-- run -> the place of its first id 5, ids. K.mt: list and the first five bytes of an id, which are a quarter of a second ->
-- first and last of the runs that hold such ids, 5 each, as often as there is a gap between them. A run goes when its list has
-- passed it, and the moment when its last run goes. All others are in K.m: id -> list 1, place 5, until they are leased.
local S, H = K.l0, K.l1
local LIST = {[0] = K.l0, K.l1, K.l2, K.l3, K.l4, K.l5, K.l6, K.l7}
local function is_in_runs(list) return list >= 2 and list <= 4 end
-- How many were ever appended to a list.
local function appended_to(list) return math.max(read_number(call('HGET', K.c, 'h' .. list)) or 0, 0) end

local index = {}
local function point(list, place, id)
  index[#index + 1] = id
  index[#index + 1] = pack('>Bi5', list, place)
end
local function write_index()
  if #index > 0 then in_chunks(try, 'HSET', K.m, index) end
  index = {}
end

-- The list, the index in it and the record of a message that should be at a place. Junk that somebody else put into the list
-- moves all others by its count.
local NEAR = 16
local function seek(list, place, id)
  local at = place - (appended_to(list) - call('LLEN', LIST[list]))
  if at < 0 then return end
  local record = call('LINDEX', LIST[list], at)
  if record and #record >= RECORD_MIN and id_of(record) == id then return list, at, record end
  local from = math.max(at - NEAR, 0)
  for step, other in ipairs(call('LRANGE', LIST[list], from, at + NEAR)) do
    if #other >= RECORD_MIN and id_of(other) == id then return list, from + step - 1, other end
  end
end
-- Where among ids that begin at a byte one stands, from 0.
local function find_among(ids, begin, id)
  local at = ids:find(id, begin, true)
  while at and (at - begin) % 16 > 0 do at = ids:find(id, at + 1, true) end
  return at and (at - begin) / 16
end
-- The list, the index in it and the record of a pending message; nothing when it is not pending.
local function locate(id)
  if not set.lookup then return end
  local where = try('HGET', K.m, id)
  if where and #where == 6 and byte(where) <= 7 then
    local at_list, place = unpack_from('>Bi5', where)
    local list, at, record = seek(at_list, place, id)
    if record then return list, at, record end
  end
  for of_list = 2, 4 do
    local runs = try('HGET', K.mt, string.char(of_list) .. sub(id, 1, 5)) or ''
    for gap = #runs - 9, 1, -10 do
      local first, last = unpack_from('>I5I5', runs, gap)
      for run = last, first, -1 do
        local kept = try('HGET', K.mr, pack('>BI5', of_list, run)) or ''
        local step = find_among(kept, 6, id)
        if step then
          local list, at, record = seek(of_list, unpack_from('>I5', kept) + step, id)
          if record then return list, at, record end
        end
      end
    end
  end
end
