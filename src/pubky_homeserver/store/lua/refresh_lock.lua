-- uses: lock
-- Give the lock that one of the tokens names a new end. Returns a list of its token, or the name of the refusal.
-- KEYS  account, lock
-- ARGV  tokens, seconds from now on
local refusal = away_refusal(KEYS[1])
if refusal then
  return refusal
end
local token = lock_named(KEYS[2], ARGV[1])
if not token then
  return 'LockLost'
end
redis.call('EXPIRE', KEYS[2], ARGV[2])
return {token}
