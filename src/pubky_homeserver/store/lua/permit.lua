-- Let the comparison that waits remove its files. Returns how many, 0 if none waits.
-- KEYS  copy
local braked = redis.call('HGET', KEYS[1], 'braked')
if not braked then
  return 0
end
redis.call('HDEL', KEYS[1], 'braked')
redis.call('HSET', KEYS[1], 'permitted', braked)
return tonumber(braked)
