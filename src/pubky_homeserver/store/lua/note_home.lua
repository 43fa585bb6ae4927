-- uses: homes
-- Note where an account that is open here lived before.
-- KEYS  account
-- ARGV  key of that homeserver
local number, away, before = unpack(redis.call('HMGET', KEYS[1], 'number', 'away', 'before'))
if number and not away then
  local homes = with_home(before, ARGV[1])
  if homes ~= before then
    redis.call('HSET', KEYS[1], 'before', homes)
  end
end
return nil
