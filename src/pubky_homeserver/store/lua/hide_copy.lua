-- uses: account
-- Put a copy aside, with all that is its own. Returns what became of the order (`core/erasing.py`).
-- KEYS  of the copy: copy, entries, public log, private log, shelf; the same five of what is hidden; copies, shelves,
--       doomed, erased, account
-- ARGV  pubky, primary, log id, number, when it is wiped (us), name afterwards; or pubky alone for a copy that was shown
local pubky, primary, log_id, seq, at, name = unpack(ARGV)
local copies, shelves, doomed, erased, account = unpack(KEYS, 11, 15)

local home, own, reigns, claimed = unpack(redis.call('HMGET', KEYS[1], 'primary', 'pub.seq', 'pub.reigns', 'claimed'))
local is_hidden = redis.call('EXISTS', KEYS[6]) == 1
if not home then
  return is_hidden and 'hidden' or 'nothing'
end
local number, away = unpack(redis.call('HMGET', account, 'number', 'away'))
if claimed or (number and not away) then
  return 'claimed'
end
if primary then
  if home ~= primary then
    return 'elsewhere'
  end
  local is_known = not own
  for start = 1, #(reigns or ''), REIGN do
    is_known = is_known or reigns:sub(start, start + 15) == log_id
  end
  if not is_known or (own and tonumber(own) > tonumber(seq)) then
    return 'different'
  end
elseif not redis.call('ZSCORE', doomed, pubky) then
  return 'nothing'
end
if is_hidden then
  return 'busy'
end

for place = 1, 5 do
  if redis.call('EXISTS', KEYS[place]) == 1 then
    redis.call('RENAME', KEYS[place], KEYS[place + 5])
  end
end
redis.call('ZREM', copies, pubky)
redis.call('ZREM', shelves, pubky)
if primary then
  redis.call('ZADD', doomed, at, pubky)
  local before = redis.call('HGET', erased, name) or ''
  redis.call('HSET', erased, name, before .. log_id)
end
return 'hidden'
