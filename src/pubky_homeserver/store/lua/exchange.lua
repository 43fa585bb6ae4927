-- uses: signing
-- Keep a grant if its id is new, and give it a bearer in place of the one before. Returns the name of the refusal, or
-- {facts of the grant as first kept, when that was, when the bearer expires, id of the bearer before or nil}.
-- KEYS  account, grant, the account's grants, bearer, copy, entries
-- ARGV  pubky, client key, grant's id, facts, when the grant expires, now (both in seconds), created, bearer's id,
--       bearer's lifetime in seconds, beginning of the keys of bearers, of grants, seconds that expired grants are kept,
--       the name of its revocation in the log
local pubky, key, id, facts, expires, now, created, bearer = unpack(ARGV, 1, 8)
local account, grant, grants = KEYS[1], KEYS[2], KEYS[3]
local lifetime, bearers, prefix, kept_for = tonumber(ARGV[9]), ARGV[10], ARGV[11], tonumber(ARGV[12])
now = tonumber(now)

local refusal = sign_in_refusal(account, KEYS[5])
if refusal then
  return refusal
end
local known = redis.call('HMGET', grant, 'pubky', 'key', 'facts', 'expires', 'created', 'revoked', 'bearer')
if known[1] then
  if known[1] ~= pubky or known[2] ~= key then
    return 'GrantOfAnother'
  end
  if known[6] then
    return 'GrantRevoked'
  end
  facts, expires, created = known[3], known[4], known[5]
end
local name = ARGV[13]
if redis.call('ZRANGE', KEYS[6], '[' .. name .. '\0', '(' .. name .. '\1', 'BYLEX', 'LIMIT', 0, 1)[1] then
  return 'GrantRevoked'
end
if tonumber(expires) <= now then
  return 'GrantExpired'
end
if known[7] then
  redis.call('DEL', bearers .. known[7])
end
if not known[1] then
  redis.call('HSET', grant, 'pubky', pubky, 'key', key, 'facts', facts, 'expires', expires, 'created', created)
  redis.call('ZADD', grants, created, id)
  -- Grants that are over for long go, the oldest first, a few at a time.
  for _, old in ipairs(redis.call('ZRANGE', grants, 0, 4)) do
    local over = redis.call('HGET', prefix .. old, 'expires')
    if not over or tonumber(over) + kept_for < now then
      redis.call('DEL', prefix .. old)
      redis.call('ZREM', grants, old)
    end
  end
end
redis.call('HSET', grant, 'bearer', bearer)
lifetime = math.min(lifetime, tonumber(expires) - now)
local over = string.format('%.0f', now + lifetime)
local packed = of_era(account, table.concat({pubky, over, created, facts}, '\n'))
redis.call('SET', KEYS[4], packed, 'PX', string.format('%.0f', lifetime * 1000))
return {facts, created, over, known[7]}
