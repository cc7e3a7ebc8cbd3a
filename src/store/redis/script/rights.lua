-- Which commands the user of this connection may not send. Nothing is read or written.
-- ARGV: 1 a key of ours, 2 channel of wake-ups, 3… names of commands. Gives {'ok', name, …}.
local missing = {'ok'}
for place = 3, #ARGV do
  local name, may = ARGV[place], nil
  if name == 'evalsha' then
    may = redis.acl_check_cmd(name, 'x', '0')
  else
    local target = (name == 'publish' or name == 'subscribe') and ARGV[2] or ARGV[1]
    may = redis.acl_check_cmd(name, target, target, target)
  end
  if not may then missing[#missing + 1] = name end
end
return missing
