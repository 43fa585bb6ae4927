-- uses: signing
-- Keep a session. Returns nil, or the name of the refusal.
-- KEYS  account, session, the account's sessions, copy
-- ARGV  session's id, session
local refusal = sign_in_refusal(KEYS[1], KEYS[4])
if refusal then
  return refusal
end
redis.call('SET', KEYS[2], of_era(KEYS[1], ARGV[2]))
redis.call('SADD', KEYS[3], ARGV[1])
return nil
