-- What every script begins with: the time, and short names.
-- ARGV: 1 now (ms; 0: the server's TIME). K holds the declared keys by name; the line that makes it stands before this file.
local call, pack, unpack_from = redis.call, struct.pack, struct.unpack
local byte, sub = string.byte, string.sub
local now = tonumber(ARGV[1])
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
-- Runs a command on what may be lost, the history and what was remembered: when its key is somebody else's, messages go their
-- way all the same.
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then return nil end
  return answer
end
-- A number as the short ways take it, 0 where none is; nothing for what one of them is not to reckon with.
local function number_of(value)
  if not value then return 0 end
  if #value < 16 and not value:find('%D') then return tonumber(value) end
end
