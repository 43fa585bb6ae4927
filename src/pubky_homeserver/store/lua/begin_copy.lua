-- uses: homes
-- Begin a copy, or let one that is there go on. Returns 1, or 0 if what is relied on does not hold; or the name of the
-- refusal.
-- KEYS  copy, account, copies, packet, erased
-- ARGV  pubky, primary, now, empty digest, the packet that says so (empty: none does), bytes of its signature, name among
--       what was erased, log ids under that name ('-': nobody looked, for there is a copy)
local pubky, primary, now, empty, packet, signature, name, ids = unpack(ARGV)
local copy, account = KEYS[1], KEYS[2]

local known, away = unpack(redis.call('HMGET', account, 'number', 'away'))
if known and not away then
  return 'UserExists'
end
local home = redis.call('HGET', copy, 'primary')
if home == primary then
  return 1
end
local kept = redis.call('GET', KEYS[4])
if kept and kept:sub(signature + 1) ~= packet:sub(signature + 1) then
  return 0
end
if not home and (redis.call('HGET', KEYS[5], name) or '') ~= ids then
  return 0
end

if away then
  redis.call('HSET', account, 'away', primary)
end
if home then
  redis.call('HSET', copy, 'primary', primary, 'before', with_home(redis.call('HGET', copy, 'before'), home))
else
  redis.call('HSET', copy, 'primary', primary, 'begun', now, 'used', 0, 'missing', 0,
    'pub.digest', empty, 'priv.digest', empty)
  redis.call('ZADD', KEYS[3], 0, pubky)
end
return 1
