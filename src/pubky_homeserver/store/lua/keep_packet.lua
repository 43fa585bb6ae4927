-- uses: lock account signing ending homes
-- Keep a packet unless the one kept is as recent; shut the account if the packet says that it lives elsewhere. Returns
-- nil for a key that nobody here asks about, else 'old', 'kept' or 'fenced'; or 'fenced more' if sessions are left that
-- count for nothing.
-- KEYS  account, packet, copy, copies, shard, the account's sessions, its grants
-- ARGV  packet, bytes of its signature, pubky, the homeserver that it names (empty: this one, or none), whether the key is
--       a peer's ('1'), then what `remove_ended` needs
-- Timestamp and message are compared byte by byte: Lua's numbers end at 2^53, and it compares strings as the locale says.
local packet, signature, pubky, elsewhere, peer = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local account, copy = KEYS[1], KEYS[3]

-- Whether one text is larger than another, byte by byte.
local function larger(one, other)
  local place = 1
  while place <= #one and one:byte(place) == other:byte(place) do
    place = place + 1
  end
  return (one:byte(place) or -1) > (other:byte(place) or -1)
end

local number, away, admitted = unpack(redis.call('HMGET', account, 'number', 'away', 'admitted'))
local is_copy = redis.call('EXISTS', copy) == 1
if not number and not is_copy and peer ~= '1' then
  return nil
end
local kept = redis.call('GET', KEYS[2])
if kept and not larger(packet:sub(signature + 1), kept:sub(signature + 1)) then
  return 'old'
end
redis.call('SET', KEYS[2], packet)
if elsewhere == '' then
  return 'kept'
end
if is_copy then
  local primary, before = unpack(redis.call('HMGET', copy, 'primary', 'before'))
  if primary ~= elsewhere then
    redis.call('HSET', copy, 'primary', elsewhere, 'before', with_home(before, primary))
  end
end
if away then
  redis.call('HSET', account, 'away', elsewhere)
end
local is_before = admitted and larger(struct.pack('>I8', tonumber(admitted)), packet:sub(signature + 1, signature + 8))
if not number or away or (not kept and is_before) then
  return 'kept'
end

-- Fence.
local used, missing, absent = unpack(redis.call('HMGET', account, 'used', 'missing', 'absent'))
local time = redis.call('TIME')
local now = whole(time[1] * 1000000 + time[2])
redis.call('HSET', copy, 'primary', elsewhere, 'begun', now, 'used', used, 'missing', missing or 0,
  'absent', absent or 0)
for _, log in ipairs({'pub', 'priv'}) do
  for _, field in ipairs({'seq', 'event', 'digest', 'floor', 'reigns'}) do
    redis.call('HSET', copy, log .. '.' .. field, redis.call('HGET', account, log .. '.' .. field))
    if field ~= 'event' then
      redis.call('HDEL', account, log .. '.' .. field)
    end
  end
  redis.call('HSET', copy, log .. '.whole', 1)
end
if tonumber(redis.call('HGET', copy, 'priv.seq')) > 0 then
  redis.call('HSET', copy, 'owes', 1)
  if kept then
    redis.call('HSET', copy, 'named', kept)
  end
end
redis.call('ZADD', KEYS[4], 0, pubky)
redis.call('HINCRBY', KEYS[5], 'used', whole(0 - used))  -- not -0, which is no number to Redis
redis.call('HDEL', account, 'missing', 'absent', 'announce')
redis.call('HSET', account, 'away', elsewhere, 'used', 0)
return end_sessions(account, KEYS[5], KEYS[6], KEYS[7], {unpack(ARGV, 6, 10)}) and 'fenced more' or 'fenced'
