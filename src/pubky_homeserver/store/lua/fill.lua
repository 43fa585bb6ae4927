-- uses: account
-- Give an entry of a copy its body. Returns 1 if the entry has it then, else 0.
-- KEYS  copy, entries
-- ARGV  path, hash, length, kind, body or blob id, beginning of the blobs' keys
local path, hash, length, kind, body, blobs = unpack(ARGV)
local missing = redis.call('HGET', KEYS[1], 'missing')
local old = missing and entry_at(KEYS[2], path)
if not old or old.hash ~= hash or old.length ~= tonumber(length) then
  return 0
end
if old.kind ~= NEITHER then
  return old.kind == tonumber(kind) and (not old.blob or old.blob == body) and 1 or 0
end

redis.call('HSET', KEYS[1], 'missing', missing - 1)
local head_at = #path + 2
local head = string.char(tonumber(kind) * 64 + old.member:byte(head_at) % 64)
redis.call('ZREM', KEYS[2], old.member)
redis.call('ZADD', KEYS[2], 0, old.member:sub(1, head_at - 1) .. head .. old.member:sub(head_at + 1) .. body)
if tonumber(kind) == BLOB then
  redis.call('SADD', blobs .. string.format('%02x', body:byte()), body)
end
return 1
