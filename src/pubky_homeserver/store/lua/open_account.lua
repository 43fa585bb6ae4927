-- uses: lock account log notice arriving homes
-- Let a copy be an account that lives here. Returns 1, or 0 if it cannot; or the name of the refusal.
-- KEYS  account, copy, copies, packet, shard, numbers, announcing, announced, entries, public log, public feed, wake,
--       takedowns, opened
-- ARGV  pubky, packet that must be kept, now, whether a list may lack something ('1'), log ids of the new reigns, then the
--       notice
local pubky, packet, now, incomplete, public, private = unpack(ARGV, 1, 6)
local account, copy, shard = KEYS[1], KEYS[2], KEYS[5]

local used, missing, absent, is_whole = unpack(redis.call('HMGET', copy, 'used', 'missing', 'absent', 'pub.whole'))
if not used or redis.call('GET', KEYS[4]) ~= packet then
  return 0
end
if not is_whole and incomplete ~= '1' then
  return 'NotHereYet'
end
redis.call('HINCRBY', shard, 'used', used)  -- first, for it may fail
if redis.call('EXISTS', account) == 0 then
  local number = redis.call('HINCRBY', shard, 'number', 1)
  redis.call('HINCRBY', shard, 'users', 1)
  redis.call('HSET', KEYS[6], number, pubky)
  redis.call('HSET', account, 'number', number, 'created', now)
end

local primary, before = unpack(redis.call('HMGET', copy, 'primary', 'before'))
local homes = redis.call('HGET', account, 'before')
for key in ((before or '') .. primary):gmatch('%S+') do
  homes = with_home(homes, key)
end
redis.call('HSET', account, 'before', homes)

local last = tonumber(redis.call('HGET', shard, 'event') or 0)
for log, id in pairs({pub = public, priv = private}) do
  local seq, event, digest, floor, reigns, whole_list = unpack(redis.call('HMGET', copy, log .. '.seq', log .. '.event',
    log .. '.digest', log .. '.floor', log .. '.reigns', log .. '.whole'))
  seq, event = seq or '0', event or '0'
  redis.call('HSET', account, log .. '.seq', seq, log .. '.event', event, log .. '.digest', digest,
    log .. '.floor', whole_list and floor or seq,
    log .. '.reigns', (reigns or '') .. id .. struct.pack('>I' .. REIGN - 16, tonumber(seq) + 1))
  last = math.max(last, tonumber(event))
end
redis.call('HSET', shard, 'event', whole(last))
redis.call('HSET', account, 'used', used, 'missing', missing, 'absent', absent or 0, 'admitted', now, 'announce', 'pub 0')
redis.call('HDEL', account, 'away')
redis.call('DEL', copy, KEYS[8])
redis.call('ZREM', KEYS[3], pubky)
redis.call('ZADD', KEYS[7], 0, pubky)
arrive(shard, KEYS[14], KEYS[12], pubky)

local keys = {account = account, entries = KEYS[9], log = KEYS[10], feed = KEYS[11], shard = shard, wake = KEYS[12]}
post(keys, redis.call('ZSCORE', KEYS[13], pubky), {unpack(ARGV, 7, 11)})
return 1
