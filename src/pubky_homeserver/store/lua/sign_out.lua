-- Forget a session, and tell who serves it. Returns how many were forgotten: 0 or 1.
-- KEYS  session
-- ARGV  session's id, beginning of the keys of the accounts' sessions, channel of revocations, what is said there
local session = redis.call('GET', KEYS[1])
if not session then
  return 0
end
redis.call('DEL', KEYS[1])
redis.call('SREM', ARGV[2] .. session:match('^[^\n]+'), ARGV[1])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1
