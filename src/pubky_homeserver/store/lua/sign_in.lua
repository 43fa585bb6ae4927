-- Keep a session. Returns nil, or the name of the refusal.
-- KEYS  account, session, the account's sessions
-- ARGV  session's id, session
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 'NotFound'
end
redis.call('SET', KEYS[2], ARGV[2])
redis.call('SADD', KEYS[3], ARGV[1])
return nil
