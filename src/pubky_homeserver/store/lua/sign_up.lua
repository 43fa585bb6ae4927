-- uses: signing arriving
-- Make an account, spend the signup token, keep the first session. Returns nil, or the name of the refusal.
-- KEYS  account, shard, numbers, token, unused tokens, used tokens, session, the account's sessions, copy,
--       opened, wake
-- ARGV  pubky, created, whether a token is required ('1'), token (empty: none), session's id (empty: none), session,
--       first reigns of the public and the private log, empty digest, quota, limit, paths (each empty and '=' for
--       absent, else '=' and the value), whether a copy may be claimed ('1')
-- An account that is away, and an account made beside a copy, is claimed: it stays away until it is opened.
local pubky, created, required, token, session_id, session, public, private, empty = unpack(ARGV, 1, 9)
local account, shard, numbers = KEYS[1], KEYS[2], KEYS[3]

local known, away = unpack(redis.call('HMGET', account, 'number', 'away'))
local primary, claimed = unpack(redis.call('HMGET', KEYS[9], 'primary', 'claimed'))
if (known and not away) or claimed or (primary and not known and ARGV[13] ~= '1') then
  return 'UserExists'
end
local quota = {}
if required == '1' then
  if token == '' then
    return 'SignupTokenRequired'
  end
  local facts = redis.call('HMGET', KEYS[4], 'created', 'used', 'quota', 'limit', 'paths')
  if not facts[1] then
    return 'SignupTokenUnknown'
  end
  if facts[2] then
    return 'SignupTokenUsed'
  end
  quota = {facts[3], facts[4], facts[5]}
  redis.call('HSET', KEYS[4], 'used', created, 'by', pubky)
  redis.call('ZREM', KEYS[5], token)
  redis.call('ZADD', KEYS[6], 0, token)
  redis.call('HINCRBY', shard, 'unused', -1)
else
  for index = 1, 3 do
    local given = ARGV[9 + index]
    quota[index] = given ~= '' and given:sub(2)
  end
end

if not known then
  local number = redis.call('HINCRBY', shard, 'number', 1)
  redis.call('HINCRBY', shard, 'users', 1)
  redis.call('HSET', numbers, number, pubky)
  redis.call('HSET', account, 'number', number, 'created', created, 'used', 0)
end
if primary then
  redis.call('HSET', account, 'away', primary)
  redis.call('HSET', KEYS[9], 'claimed', created)
  if required == '1' then
    redis.call('HSET', KEYS[9], 'token', token)
  end
else
  redis.call('HDEL', account, 'away', 'announce')  -- of a copy that was forgotten
  redis.call('HSET', account, 'admitted', created,
    'pub.seq', 0, 'pub.event', 0, 'pub.digest', empty, 'pub.floor', 0, 'pub.reigns', public,
    'priv.seq', 0, 'priv.event', 0, 'priv.digest', empty, 'priv.floor', 0, 'priv.reigns', private)
  arrive(shard, KEYS[10], KEYS[11], pubky)
end
for index, name in ipairs({'quota', 'limit', 'paths'}) do
  if quota[index] and not known then  -- who comes back has what they had: leaving lifts no limit
    redis.call('HSET', account, name, quota[index])
  end
end
if session_id ~= '' then
  redis.call('SET', KEYS[7], of_era(account, session))
  redis.call('SADD', KEYS[8], session_id)
end
return nil
