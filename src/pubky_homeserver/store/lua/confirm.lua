-- uses: account
-- Note when the primary of a copy stood where a log of it does. Returns 1, or 0 if the log stands elsewhere.
-- KEYS  copy
-- ARGV  name of the log, log id, number, event id, digest, now
local log, id, seq, event, digest, now = unpack(ARGV)
local facts = redis.call('HMGET', KEYS[1], log .. '.whole', log .. '.seq', log .. '.event', log .. '.digest',
  log .. '.reigns')
if not facts[1] or facts[2] ~= seq or facts[3] ~= event or facts[4] ~= digest then
  return 0
end
if facts[5]:sub(-REIGN):sub(1, 16) ~= id then
  return 0
end
redis.call('HSET', KEYS[1], log .. '.confirmed', now)
return 1
