-- uses: account log packed copy
-- Remove some entries of a copy, and the copy when none is left. Returns 1 if it is gone, else 0.
-- KEYS  copy, entries, public log, private log, graces, copies
-- ARGV  pubky, limit (at most 500), grace (us), beginning of the private paths
local pubky, limit, grace, root = unpack(ARGV)
local copy = copy_at(KEYS[1], 'pub')
if not copy then
  return 1
end
local digests = {pub = copy.digest, priv = redis.call('HGET', KEYS[1], 'priv.digest')}
for _, member in ipairs(redis.call('ZRANGE', KEYS[2], 0, limit - 1)) do
  local entry = entry_of(member, member:find('\0', 1, true) + 1)
  local log = member:sub(1, #root) == root and 'priv' or 'pub'
  digests[log] = xor(digests[log], entry.mark)
  count(copy, entry, -1)
  remove(KEYS[2], entry)
  if entry.blob then
    retire(KEYS[5], entry.blob, grace)
  end
end

if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('UNLINK', KEYS[1], KEYS[3], KEYS[4])
  redis.call('ZREM', KEYS[6], pubky)
  return 1
end
-- What is left is no beginning of anything: whoever follows it again reads the lists anew.
for log, digest in pairs(digests) do
  for _, field in ipairs({'seq', 'event', 'told', 'floor', 'reigns', 'start', 'listed', 'whole', 'compared', 'confirmed'}) do
    redis.call('HDEL', KEYS[1], log .. '.' .. field)
  end
  redis.call('HSET', KEYS[1], log .. '.digest', digest)
end
redis.call('HSET', KEYS[1], 'used', whole(copy.used), 'missing', whole(copy.missing), 'absent', whole(copy.absent),
  'names', whole(copy.names))
return 0
