-- Keep a new signup token; one that is known already stays as it is.
-- KEYS  token, shard, unused tokens
-- ARGV  text, then fields and values
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], unpack(ARGV, 2))
  redis.call('ZADD', KEYS[3], 0, ARGV[1])
  redis.call('HINCRBY', KEYS[2], 'tokens', 1)
  redis.call('HINCRBY', KEYS[2], 'unused', 1)
end
return nil
