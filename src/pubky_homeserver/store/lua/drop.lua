-- uses: account log packed shelf
-- Take something off the shelf. Returns 1, or 0 if it is not there (any more).
-- KEYS  shelf, shelves, bytes by origin, graces
-- ARGV  pubky, id, its whole member, origin, bytes, then its blobs
local pubky, id, member, origin, size = unpack(ARGV, 1, 5)
if redis.call('ZREM', KEYS[1], member) == 0 then
  return 0
end
if redis.call('HINCRBY', KEYS[3], origin, -size) <= 0 then
  redis.call('HDEL', KEYS[3], origin)
end
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('ZREM', KEYS[2], pubky)
end
for at = 6, #ARGV do
  retire(KEYS[4], ARGV[at], 0)
end
return 1
