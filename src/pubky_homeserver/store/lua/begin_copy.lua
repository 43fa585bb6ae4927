-- Begin a copy, or let one that is there follow another homeserver. Returns nil, or the name of the refusal.
-- KEYS  copy, account, copies
-- ARGV  pubky, primary, now, empty digest
local known, away = unpack(redis.call('HMGET', KEYS[2], 'number', 'away'))
if known and not away then
  return 'UserExists'
end
if away then
  redis.call('HSET', KEYS[2], 'away', ARGV[2])
end
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HSET', KEYS[1], 'primary', ARGV[2])
  return nil
end
redis.call('HSET', KEYS[1], 'primary', ARGV[2], 'begun', ARGV[3], 'used', 0, 'missing', 0,
  'pub.digest', ARGV[4], 'priv.digest', ARGV[4])
redis.call('ZADD', KEYS[3], 0, ARGV[1])
return nil
