-- Shut or open an account for writing. Returns nil, or the name of the refusal.
-- KEYS  account, shard
-- ARGV  '1' to shut, '0' to open
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 'NotFound'
end
if ARGV[1] == '1' then
  redis.call('HINCRBY', KEYS[2], 'disabled', redis.call('HSETNX', KEYS[1], 'disabled', 1))
else
  redis.call('HINCRBY', KEYS[2], 'disabled', 0 - redis.call('HDEL', KEYS[1], 'disabled'))  -- not -0, which is no number to Redis
end
return nil
