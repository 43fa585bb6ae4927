-- Have the lease for a while, from now on. Returns its number, or nil while another holder has it.
-- KEYS  lease
-- ARGV  holder, for how long (us)
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local holder, ends = unpack(redis.call('HMGET', KEYS[1], 'holder', 'until'))
if holder and holder ~= ARGV[1] and tonumber(ends) > now then
  return nil
end
if holder ~= ARGV[1] then
  redis.call('HINCRBY', KEYS[1], 'number', 1)
end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'until', string.format('%.0f', now + ARGV[2]))
return tonumber(redis.call('HGET', KEYS[1], 'number'))
