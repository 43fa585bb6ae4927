-- uses: account log packed
-- Let an entry of a copy, or else of an account, be without the body that it has. Returns 1, or 0 if it has another one.
-- KEYS  copy, entries, account, graces
-- ARGV  path, hash, length, blob id (empty for a body in the entry), grace (us)
local path, hash, length, blob, grace = unpack(ARGV)
local holder = redis.call('EXISTS', KEYS[1]) == 1 and KEYS[1] or KEYS[3]
local old = entry_at(KEYS[2], path)
if not old or old.hash ~= hash or old.length ~= tonumber(length) or old.kind == NEITHER or (old.blob or '') ~= blob then
  return 0
end

redis.call('HINCRBY', holder, 'missing', 1)
redis.call('HINCRBY', holder, 'absent', old.length)
local head_at = #path + 2
local head = string.char(NEITHER * 64 + old.member:byte(head_at) % 64)
remove(KEYS[2], old)
redis.call('ZADD', KEYS[2], 0,
  old.member:sub(1, head_at - 1) .. head .. old.member:sub(head_at + 1, body_at(old) - 1))
if old.blob then
  retire(KEYS[4], old.blob, grace)
end
return 1
