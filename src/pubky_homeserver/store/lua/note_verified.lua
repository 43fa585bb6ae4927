-- Note when all files of a copy, or else of an account, were found to be right.
-- KEYS  copy, account
-- ARGV  now
for _, key in ipairs(KEYS) do
  if redis.call('EXISTS', key) == 1 then
    redis.call('HSET', key, 'verified', ARGV[1])
    return nil
  end
end
return nil
