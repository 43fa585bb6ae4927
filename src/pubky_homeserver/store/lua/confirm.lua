-- uses: account
-- Note when the primary of a copy stood where a log of it does. Returns 1, or 0 if the log stands elsewhere, or the
-- primary is another one.
-- KEYS  copy
-- ARGV  name of the log, log id, number, event id, digest, now, who says so (empty: whoever it is)
local log, id, seq, event, digest, now, primary = unpack(ARGV)
local facts = redis.call('HMGET', KEYS[1], log .. '.whole', log .. '.seq', log .. '.event', log .. '.digest',
  log .. '.reigns', 'primary')
if not facts[1] or facts[2] ~= seq or facts[3] ~= event or facts[4] ~= digest then
  return 0
end
if primary ~= '' and facts[6] ~= primary then
  return 0
end
if facts[5]:sub(-REIGN):sub(1, 16) ~= id then
  return 0
end
redis.call('HSET', KEYS[1], log .. '.confirmed', now)
return 1
