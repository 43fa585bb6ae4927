-- The version of the schema, which an empty database gets; nil if there is none; 'foreign' if other things are there.
-- KEYS  schema
-- ARGV  version for an empty database (empty: it is to stay empty)
local found = redis.call('GET', KEYS[1])
if found then
  return found
end
if redis.call('DBSIZE') > 0 then
  return 'foreign'
end
if ARGV[1] == '' then
  return nil
end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
