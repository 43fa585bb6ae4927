-- Let the next one have the lease. Returns 1, or 0 if another holder has it.
-- KEYS  lease
-- ARGV  holder
if redis.call('HGET', KEYS[1], 'holder') ~= ARGV[1] then
  return 0
end
redis.call('HDEL', KEYS[1], 'holder', 'until')
return 1
