-- Keep a packet unless the one kept is as recent. Returns nil without account, 1 if it was kept, else 0.
-- KEYS  account, packet
-- ARGV  packet, bytes of its signature
-- Timestamp and message are compared byte by byte: Lua's numbers end at 2^53, and it compares strings as the locale says.
local packet, signature = ARGV[1], tonumber(ARGV[2])

if redis.call('EXISTS', KEYS[1]) == 0 then
  return nil
end
local kept = redis.call('GET', KEYS[2])
if kept then
  local place = signature + 1
  while place <= #kept and kept:byte(place) == packet:byte(place) do
    place = place + 1
  end
  if (packet:byte(place) or -1) <= (kept:byte(place) or -1) then
    return 0
  end
end
redis.call('SET', KEYS[2], packet)
return 1
