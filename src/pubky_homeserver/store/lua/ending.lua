-- The end of all sessions of an account. Needs signing.lua.

local SOME = 500  -- sessions, and grants, that one step looks at: for some milliseconds Redis does nothing else

-- Remove some of the sessions and bearers that count no more, and tell who serves them. `sessions`, `grants`: keys of the
-- account's; `prefixes`: beginnings of the keys of a session, a grant and a bearer, the channel of revocations, beginning
-- of the keys of accounts. Returns where to go on: place among the sessions, place among the grants; '0' for their ends.
local function remove_ended(sessions, grants, prefixes, place, first)
  local session, grant, bearer, channel, accounts = unpack(prefixes)
  local found = redis.call('SSCAN', sessions, place, 'COUNT', SOME)
  for _, id in ipairs(found[2]) do
    if not session_at(session .. id, accounts) then
      redis.call('DEL', session .. id)
      redis.call('SREM', sessions, id)
      redis.call('PUBLISH', channel, 'session:' .. id)
    end
  end
  local ids = redis.call('ZRANGE', grants, first, first + SOME - 1)
  for _, id in ipairs(ids) do
    local live = redis.call('HGET', grant .. id, 'bearer')
    if live and not session_at(bearer .. live, accounts) then
      redis.call('DEL', bearer .. live)
      redis.call('HDEL', grant .. id, 'bearer')
      redis.call('PUBLISH', channel, 'grant:' .. id)
    end
  end
  return found[1], #ids == SOME and string.format('%.0f', first + SOME) or '0'
end

-- End every session and every bearer: they count for nothing from now on. Returns whether some are still to be removed.
local function end_sessions(account, shard, sessions, grants, prefixes)
  redis.call('HSET', account, 'era', string.format('f%.0f', redis.call('HINCRBY', shard, 'fences', 1)))
  local place, first = remove_ended(sessions, grants, prefixes, '0', 0)
  return place ~= '0' or first ~= '0'
end
