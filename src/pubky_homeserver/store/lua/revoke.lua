-- Revoke a grant for good, forget its bearer, and tell who serves it. Returns the bearer's id, or nil.
-- KEYS  grant
-- ARGV  now in seconds, beginning of the keys of bearers, channel of revocations, what is said there
local bearer = redis.call('HGET', KEYS[1], 'bearer')
if redis.call('EXISTS', KEYS[1]) == 1 and redis.call('HSETNX', KEYS[1], 'revoked', ARGV[1]) == 1 then
  redis.call('HDEL', KEYS[1], 'bearer')
  redis.call('PUBLISH', ARGV[3], ARGV[4])
end
if bearer then
  redis.call('DEL', ARGV[2] .. bearer)
end
return bearer
