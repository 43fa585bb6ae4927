-- uses: lock
-- Take a lock. Returns 1, or the name of the refusal.
-- KEYS  account, lock
-- ARGV  token, seconds
local refusal = away_refusal(KEYS[1])
if refusal then
  return refusal
end
return redis.call('SET', KEYS[2], ARGV[1], 'NX', 'EX', ARGV[2]) and 1 or 'Locked'
