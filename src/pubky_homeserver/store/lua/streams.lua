-- Streams as they are at one moment: a page of each. (In MULTI a Redis whose memory is full takes not even reads.)
-- KEYS  streams
-- ARGV  XRANGE or XREVRANGE, where reading begins and ends, limit (at most 500)
local command, start, stop, limit = unpack(ARGV)
local pages = {}
for number, stream in ipairs(KEYS) do
  pages[number] = redis.call(command, stream, start, stop, 'COUNT', limit)
end
return pages
