-- uses: lock
-- Give the lock that one of the tokens names a new end. Returns its token, or nil.
-- KEYS  lock
-- ARGV  tokens, seconds from now on
local token = lock_named(KEYS[1], ARGV[1])
if token then
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return token
