-- What a lock says to a write. A lock is one key that lives as long as the lock; it holds the token.

-- The refusal of the account at `key` if it lives elsewhere, where its locks are too; else nil.
local function away_refusal(key)
  local away = redis.call('HGET', key, 'away')
  return away and 'NotPrimary ' .. away or nil
end

-- The token in the lock at `key` if it is one of `tokens` (each between line ends), or nil.
local function lock_named(key, tokens)
  local token = redis.call('GET', key)
  return token and tokens:find('\n' .. token .. '\n', 1, true) and token or nil
end

-- The refusal of a write that names these tokens, or nil. '*': the path was free when the write began.
-- A lock that the write names is held: from now on it lives HELD seconds, at least.
local function lock_refusal(key, tokens)
  if tokens == '*' then
    return nil
  end
  if tokens == '' then
    return redis.call('EXISTS', key) == 1 and 'Locked' or nil
  end
  if not lock_named(key, tokens) then
    return 'LockLost'
  end
  if redis.call('PTTL', key) < HELD * 1000 then
    redis.call('EXPIRE', key, HELD)
  end
  return nil
end
