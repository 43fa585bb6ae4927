-- Signup tokens above a text, each list ascending by itself. Returns text and facts of each, one after the other.
-- KEYS  lists of tokens
-- ARGV  bound where reading begins, limit (at most 500), beginning of the tokens' keys
local found = {}
for _, list in ipairs(KEYS) do
  for _, text in ipairs(redis.call('ZRANGE', list, ARGV[1], '+', 'BYLEX', 'LIMIT', 0, ARGV[2])) do
    found[#found + 1] = text
    found[#found + 1] = redis.call('HMGET', ARGV[3] .. text, 'created', 'quota', 'used', 'by')
  end
end
return found
