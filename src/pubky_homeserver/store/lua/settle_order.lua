-- Let an order be another text, or, with an empty one, forget it. Returns 1, or 0 if another one took its place.
-- KEYS  orders
-- ARGV  peer and account, the order as it was, as it is from now on
local who, before, after = unpack(ARGV)
if redis.call('HGET', KEYS[1], who) ~= before then
  return 0
end
if after == '' then
  redis.call('HDEL', KEYS[1], who)
else
  redis.call('HSET', KEYS[1], who, after)
end
return 1
