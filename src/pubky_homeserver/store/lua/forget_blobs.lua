-- Forget blobs whose grace runs or is over; others, which an entry may refer to, are left alone.
-- KEYS  graces, their names
-- ARGV  beginning of the blobs' keys, then blobs (at most 500)
for index = 2, #ARGV do
  local blob = ARGV[index]
  if redis.call('ZREM', KEYS[1], blob) == 1 then
    redis.call('SREM', ARGV[1] .. string.format('%02x', blob:byte()), blob)
    local name = redis.call('HGET', KEYS[2], blob)
    if name and redis.call('HGET', KEYS[2], name) == blob then
      redis.call('HDEL', KEYS[2], name)
    end
    redis.call('HDEL', KEYS[2], blob)
  end
end
return nil
