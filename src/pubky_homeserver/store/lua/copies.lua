-- Copies above a key, ascending. Returns pubky and facts of each, one after the other.
-- KEYS  copies
-- ARGV  bound where reading begins, limit (at most 500), beginning of the copies' keys
local found = {}
for _, pubky in ipairs(redis.call('ZRANGE', KEYS[1], ARGV[1], '+', 'BYLEX', 'LIMIT', 0, ARGV[2])) do
  found[#found + 1] = pubky
  found[#found + 1] = redis.call('HGETALL', ARGV[3] .. pubky)
end
return found
