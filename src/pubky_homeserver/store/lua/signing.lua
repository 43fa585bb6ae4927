-- Who may sign in: those who live here, and those who have claimed a copy.

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
