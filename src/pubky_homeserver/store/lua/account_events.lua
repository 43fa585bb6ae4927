-- One account's events between two ids, of both logs at one moment: read one by one, an event could slip in between.
-- KEYS  the logs
-- ARGV  XRANGE or XREVRANGE, its two bounds, limit (at most 500)
local found = {}
for index, log in ipairs(KEYS) do
  found[index] = redis.call(ARGV[1], log, ARGV[2], ARGV[3], 'COUNT', ARGV[4])
end
return found
