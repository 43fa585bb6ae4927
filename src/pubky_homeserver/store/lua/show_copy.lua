-- uses: homes
-- Let a hidden copy be one again. Returns 1, or 0 if it cannot.
-- KEYS  of what is hidden: copy, entries, public log, private log, shelf; the same five of the copy; copies, shelves,
--       account
-- ARGV  pubky
local pubky = ARGV[1]
local copies, shelves, account = unpack(KEYS, 11, 13)

local number, away = unpack(redis.call('HMGET', account, 'number', 'away'))
local is_taken = redis.call('EXISTS', KEYS[6]) == 1 or (number and not away)
if is_taken or redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
if redis.call('EXISTS', KEYS[5]) == 1 then
  redis.call('ZADD', shelves, 0, pubky)
end
for place = 1, 5 do
  if redis.call('EXISTS', KEYS[place]) == 1 then
    redis.call('RENAME', KEYS[place], KEYS[place + 5])
  end
end
local primary, before = unpack(redis.call('HMGET', KEYS[6], 'primary', 'before'))
if away and away ~= primary then  -- it has gone on since
  redis.call('HSET', KEYS[6], 'primary', away, 'before', with_home(before, primary))
end
redis.call('ZADD', copies, 0, pubky)
return 1
