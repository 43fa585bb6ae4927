-- uses: lock account log
-- Revoke a grant of an account for good, forget its bearer, and tell who serves it; note it in the account's public log,
-- if that account is open here. The grant need not be known. Returns the bearer's id, or nil; or, of an account that lives
-- elsewhere, {the name of the refusal}: only there it would be noted.
-- KEYS  grant, account, entries, public log, public feed, shard, wake
-- ARGV  pubky, beginning of the keys of bearers, channel of revocations, what is said there, then the entry that says it
--       in the log: path, mark, kind, stat, type
local bearer, owner, revoked = unpack(redis.call('HMGET', KEYS[1], 'bearer', 'pubky', 'revoked'))
if owner and owner ~= ARGV[1] then
  return nil
end
local account = account_at(KEYS[2], 'pub')
if account and account.away and not revoked then
  return {'NotPrimary ' .. account.away}
end
if owner and not revoked then
  redis.call('HSET', KEYS[1], 'revoked', 1)
  redis.call('HDEL', KEYS[1], 'bearer')
  redis.call('PUBLISH', ARGV[3], ARGV[4])
end
if not revoked then
  local path, mark, kind, stat, content_type = unpack(ARGV, 5, 9)
  if account and not entry_at(KEYS[3], path) then
    local keys = {account = KEYS[2], log = KEYS[4], feed = KEYS[5], shard = KEYS[6], wake = KEYS[7]}
    redis.call('ZADD', KEYS[3], 0, path .. '\0' .. pack(tonumber(kind), mark, stat, account.seq + 1, content_type))
    append(keys, 'pub', account, 0, PUT, {mark}, stat, content_type .. path)
  end
end
if bearer then
  redis.call('DEL', ARGV[2] .. bearer)
end
return bearer
