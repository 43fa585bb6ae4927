-- Who may sign in: those who live here, and those who have claimed a copy. And which sessions count: those of the account's
-- present era, which ends with every fence.

-- What refuses a sign-in, or nil.
local function sign_in_refusal(account, copy)
  local number, away = unpack(redis.call('HMGET', account, 'number', 'away'))
  if not number then
    return 'NotFound'
  end
  if away and redis.call('HEXISTS', copy, 'claimed') == 0 then
    return 'NotPrimary ' .. away
  end
  return nil
end

-- The era of an account: its number until its first fence. Or nil if there is no account.
local function era_of(account)
  local number, era = unpack(redis.call('HMGET', account, 'number', 'era'))
  return number and (era or number)
end

-- A session or a bearer that begins now: `packed` is what says whose it is, a line's end, and the rest.
local function of_era(account, packed)
  return (packed:gsub('\n', '\n' .. era_of(account) .. '\n', 1))
end

-- Whose a session or a bearer is, and the rest of it; nil if there is none, or none that counts. `accounts`: beginning of
-- the keys of accounts.
local function session_at(key, accounts)
  local pubky, era, rest = (redis.call('GET', key) or ''):match('^(%Z-)\n(%w+)\n(.*)$')
  local present = pubky and era_of(accounts .. pubky)
  if present and #era > 12 and redis.call('HEXISTS', accounts .. pubky, 'era') == 0 then
    return pubky, era .. '\n' .. rest  -- one from before there were eras: here stands its time, in microseconds
  end
  if not present or era ~= present then
    return nil
  end
  return pubky, rest
end
