-- Forget that a copy was to be erased, unless it is hidden.
-- KEYS  hidden copy, doomed, erased
-- ARGV  pubky, name afterwards
if redis.call('EXISTS', KEYS[1]) == 0 and redis.call('ZREM', KEYS[2], ARGV[1]) == 1 then
  redis.call('HDEL', KEYS[3], ARGV[2])
end
return nil
