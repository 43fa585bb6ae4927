-- uses: signing ending
-- Undo a claim. Returns 1, or 2 if sessions are left that count for nothing, or 0 if there is none.
-- KEYS  account, copy, shard, numbers, the account's sessions, its grants, unused tokens, used tokens
-- ARGV  what `remove_ended` needs, beginning of the keys of tokens
local claimed, token = unpack(redis.call('HMGET', KEYS[2], 'claimed', 'token'))
if not claimed then
  return 0
end
if token then
  redis.call('HDEL', ARGV[6] .. token, 'used', 'by')
  redis.call('ZREM', KEYS[8], token)
  redis.call('ZADD', KEYS[7], 0, token)
  redis.call('HINCRBY', KEYS[3], 'unused', 1)
end
redis.call('HDEL', KEYS[2], 'claimed', 'token')
local more = end_sessions(KEYS[1], KEYS[3], KEYS[5], KEYS[6], {unpack(ARGV, 1, 5)})
local number, admitted, disabled = unpack(redis.call('HMGET', KEYS[1], 'number', 'admitted', 'disabled'))
if not admitted then
  redis.call('HDEL', KEYS[4], number)
  redis.call('HINCRBY', KEYS[3], 'users', -1)
  if disabled then
    redis.call('HINCRBY', KEYS[3], 'disabled', -1)
  end
  redis.call('DEL', KEYS[1])
end
return more and 2 or 1
