-- uses: account
-- Give an entry of a copy, or else of an account, its body. Returns 1 if the entry has it then, else 0.
-- KEYS  copy, entries, account
-- ARGV  path, hash, length, kind, body or blob id, beginning of the blobs' keys
local path, hash, length, kind, body, blobs = unpack(ARGV)
local holder = redis.call('EXISTS', KEYS[1]) == 1 and KEYS[1] or KEYS[3]
local missing = redis.call('HGET', holder, 'missing') or 0
local old = entry_at(KEYS[2], path)
if not old or old.hash ~= hash or old.length ~= tonumber(length) then
  return 0
end
if old.kind ~= NEITHER then
  return old.kind == tonumber(kind) and (not old.blob or old.blob == body) and 1 or 0
end

redis.call('HSET', holder, 'missing', missing - 1)
redis.call('HINCRBY', holder, 'absent', 0 - old.length)
local head_at = #path + 2
local head = string.char(tonumber(kind) * 64 + old.member:byte(head_at) % 64)
redis.call('ZREM', KEYS[2], old.member)
redis.call('ZADD', KEYS[2], 0, old.member:sub(1, head_at - 1) .. head .. old.member:sub(head_at + 1) .. body)
if tonumber(kind) == BLOB then
  redis.call('SADD', blobs .. string.format('%02x', body:byte()), body)
end
return 1
