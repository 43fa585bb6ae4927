-- uses: account log packed shelf
-- Lay something on the shelf. Returns 1, or 0 if it is there.
-- KEYS  shelf, shelves, bytes by origin
-- ARGV  pubky, id, packed thing, origin, bytes, beginning of the blobs' keys, then its blobs
local pubky, id, packed, origin, size, blobs = unpack(ARGV, 1, 6)
if not lay({shelf = KEYS[1], shelves = KEYS[2], used = KEYS[3]}, pubky, id, packed, origin, size) then
  return 0
end
for at = 7, #ARGV do
  redis.call('SADD', blobs .. string.format('%02x', ARGV[at]:byte()), ARGV[at])
end
return 1
