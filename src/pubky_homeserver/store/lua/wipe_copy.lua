-- uses: account log
-- Remove some entries of a hidden copy, and the rest of it when none is left. Returns 1 if it is gone, else 0.
-- KEYS  of what is hidden: copy, entries, public log, private log; graces, doomed, packet, account, copy
-- ARGV  pubky, limit (at most 500)
local pubky, limit = unpack(ARGV)
local graces, doomed, packet, account, copy = unpack(KEYS, 5, 9)

for _, member in ipairs(redis.call('ZRANGE', KEYS[2], 0, limit - 1)) do
  local entry = entry_of(member, member:find('\0', 1, true) + 1)
  remove(KEYS[2], entry)
  if entry.blob then
    retire(graces, entry.blob, 0)
  end
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  return 0
end
if redis.call('EXISTS', account) == 0 and redis.call('EXISTS', copy) == 0 then
  redis.call('DEL', packet)
end
redis.call('UNLINK', KEYS[1], KEYS[3], KEYS[4])
redis.call('ZREM', doomed, pubky)
return 1
