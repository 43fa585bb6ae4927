-- uses: account log
-- Remove some entries of a hidden copy, and the rest of it when none is left. Returns 1 if it is gone, else 0.
-- KEYS  of what is hidden: copy, entries, public log, private log; graces, doomed, packet, account, copy, shard, numbers,
--       the account's grants, announcing, announced, moves, forks,
--       the feeds of public and of private events, opened
-- ARGV  pubky, limit (at most 500), beginning of the keys of grants
-- Of an account that lived here what the operator decided stays: that it is disabled, and its limits. So do its grants
-- that were revoked, until they expire: they must not live again with somebody who comes back.
local pubky, limit, prefix = unpack(ARGV)
local graces, doomed, packet, account, copy, shard, numbers, grants = unpack(KEYS, 5, 12)

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

local number, away, disabled, quota = unpack(redis.call('HMGET', account, 'number', 'away', 'disabled', 'quota'))
local is_left = not number or away
if redis.call('EXISTS', copy) == 1 then
  is_left = false
end
if is_left then
  -- The feeds point to events of who lived here.
  for log, feed in pairs({[KEYS[3]] = KEYS[17], [KEYS[4]] = KEYS[18]}) do
    for _, event in ipairs(number and redis.call('XRANGE', log, '-', '+', 'COUNT', limit) or {}) do
      redis.call('XDEL', feed, event[1])
      redis.call('XDEL', log, event[1])
    end
    if number and redis.call('XLEN', log) > 0 then
      return 0
    end
  end
  for _, id in ipairs(redis.call('ZRANGE', grants, 0, limit - 1)) do
    local revoked, expires = unpack(redis.call('HMGET', prefix .. id, 'revoked', 'expires'))
    if not revoked then
      redis.call('DEL', prefix .. id)
    elseif tonumber(expires) > 0 then
      redis.call('EXPIREAT', prefix .. id, expires)
    end
    redis.call('ZREM', grants, id)
  end
  if redis.call('EXISTS', grants) == 1 then
    return 0
  end
  if number and not disabled and not quota then
    redis.call('DEL', account, KEYS[14])
    redis.call('HDEL', numbers, number)
    redis.call('HINCRBY', shard, 'users', -1)
    redis.call('ZREM', KEYS[13], pubky)
    number = nil
  end
  if not number then
    redis.call('DEL', packet)
    redis.call('ZREM', KEYS[19], pubky)
    for _, text in ipairs(redis.call('LRANGE', KEYS[15], 0, -1)) do
      if text:find(pubky, 1, true) then
        redis.call('LREM', KEYS[15], 0, text)
      end
    end
    for _, text in ipairs(redis.call('ZRANGE', KEYS[16], 0, -1)) do
      if text:find(pubky, 1, true) == 1 then
        redis.call('ZREM', KEYS[16], text)
      end
    end
  end
end
redis.call('UNLINK', KEYS[1], KEYS[3], KEYS[4])
redis.call('ZREM', doomed, pubky)
return 1
