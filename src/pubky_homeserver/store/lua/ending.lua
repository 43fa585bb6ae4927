-- The end of all sessions of an account.

-- End every session and every bearer. `sessions`, `grants`: keys of the account's; `prefixes`: beginnings of the keys of
-- a session, a grant and a bearer, and the channel of revocations.
local function end_sessions(sessions, grants, prefixes)
  local session, grant, bearer, channel = unpack(prefixes)
  for _, id in ipairs(redis.call('SMEMBERS', sessions)) do
    redis.call('DEL', session .. id)
    redis.call('PUBLISH', channel, 'session:' .. id)
  end
  redis.call('DEL', sessions)
  for _, id in ipairs(redis.call('ZRANGE', grants, 0, -1)) do
    local live = redis.call('HGET', grant .. id, 'bearer')
    if live then
      redis.call('DEL', bearer .. live)
      redis.call('HDEL', grant .. id, 'bearer')
      redis.call('PUBLISH', channel, 'grant:' .. id)
    end
  end
end
