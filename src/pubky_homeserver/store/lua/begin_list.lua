-- Begin to read the list of a log. Returns nil, or the name of the refusal.
-- KEYS  copy, log
-- ARGV  name of the log, where its primary stands: number, event id, digest, reigns, all of it packed
local log, seq, event, digest, reigns, start = unpack(ARGV)
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 'NotFound'
end
redis.call('UNLINK', KEYS[2])
if redis.call('HDEL', KEYS[1], log .. '.whole') == 1 then
  redis.call('HSET', KEYS[1], log .. '.compared', 1)
end
redis.call('HDEL', KEYS[1], 'braked', 'permitted')
redis.call('HSET', KEYS[1], log .. '.seq', seq, log .. '.event', event, log .. '.told', digest, log .. '.floor', seq,
  log .. '.reigns', reigns, log .. '.start', start, log .. '.listed', '')
return nil
