-- End the list of a log if its files are those where its primary stood. Returns 1, or 0 if they are not; or the name of
-- the refusal.
-- KEYS  copy
-- ARGV  name of the log, where its primary stood: number, event id, digest, reigns
local log, seq, event, digest, reigns = unpack(ARGV)
local facts = redis.call('HMGET', KEYS[1], 'primary', log .. '.seq', log .. '.event', log .. '.digest')
if not facts[1] then
  return 'NotFound'
end
if facts[2] ~= seq or facts[3] ~= event or facts[4] ~= digest then
  return 0
end
redis.call('HSET', KEYS[1], log .. '.whole', 1, log .. '.reigns', reigns)
redis.call('HDEL', KEYS[1], log .. '.told', log .. '.start', log .. '.listed', log .. '.compared')
return 1
