-- Copies above a key, ascending. Returns pubky, facts and notice (an entry or none) of each, one after the other.
-- KEYS  copies
-- ARGV  bound where reading begins, limit (at most 500), beginning of the copies' keys, that of the keys of their entries,
--       name of the notice
local found = {}
for _, pubky in ipairs(redis.call('ZRANGE', KEYS[1], ARGV[1], '+', 'BYLEX', 'LIMIT', 0, ARGV[2])) do
  found[#found + 1] = pubky
  found[#found + 1] = redis.call('HGETALL', ARGV[3] .. pubky)
  found[#found + 1] = redis.call('ZRANGE', ARGV[4] .. pubky, '[' .. ARGV[5] .. '\0', '(' .. ARGV[5] .. '\1', 'BYLEX',
    'LIMIT', 0, 1)
end
return found
