-- End a lock. Returns how many were ended: 0 or 1.
-- KEYS  lock
-- ARGV  token
return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0
