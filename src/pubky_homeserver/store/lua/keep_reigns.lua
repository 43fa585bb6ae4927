-- Note the reigns of a log. Returns 1, or 0 if the log stands elsewhere.
-- KEYS  copy
-- ARGV  name of the log, number, event id, digest, reigns
local log, seq, event, digest, reigns = unpack(ARGV)
local facts = redis.call('HMGET', KEYS[1], log .. '.seq', log .. '.event', log .. '.digest', log .. '.told')
if facts[1] ~= seq or facts[2] ~= event or (facts[4] or facts[3]) ~= digest then
  return 0
end
redis.call('HSET', KEYS[1], log .. '.reigns', reigns)
return 1
