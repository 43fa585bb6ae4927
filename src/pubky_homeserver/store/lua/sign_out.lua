-- Forget a session. Returns how many were forgotten: 0 or 1.
-- KEYS  session
-- ARGV  session's id, beginning of the keys of the accounts' sessions
local session = redis.call('GET', KEYS[1])
if not session then
  return 0
end
redis.call('DEL', KEYS[1])
redis.call('SREM', ARGV[2] .. session:match('^[^\n]+'), ARGV[1])
return 1
