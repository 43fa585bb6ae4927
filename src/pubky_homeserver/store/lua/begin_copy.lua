-- Begin a copy, or let one that is there follow another homeserver. Returns nil, or the name of the refusal.
-- KEYS  copy, account, copies
-- ARGV  pubky, primary, now, empty digest
if redis.call('EXISTS', KEYS[2]) == 1 then
  return 'UserExists'
end
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HSET', KEYS[1], 'primary', ARGV[2])
  return nil
end
redis.call('HSET', KEYS[1], 'primary', ARGV[2], 'begun', ARGV[3], 'used', 0, 'missing', 0,
  'pub.digest', ARGV[4], 'priv.digest', ARGV[4])
redis.call('ZADD', KEYS[3], 0, ARGV[1])
return nil
