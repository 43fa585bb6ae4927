-- Note how many files a comparison would remove, and that nothing is permitted (any more).
-- KEYS  copy
-- ARGV  files, 0 if no comparison waits
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HDEL', KEYS[1], 'braked', 'permitted')
  if ARGV[1] ~= '0' then
    redis.call('HSET', KEYS[1], 'braked', ARGV[1])
  end
end
return nil
