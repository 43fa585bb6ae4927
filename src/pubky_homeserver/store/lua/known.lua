-- uses: account packed logging
-- What an answer to the question needs what comes after a position in a log. Returns packet, whether the log is a copy's
-- (1, 0), facts (empty: nobody here knows), events and entries (none if the log stands at the position).
-- KEYS  account, copy, packet, log, entries
-- ARGV  number and id of the position, bound where reading begins (as XRANGE wants it), limit (at most 100), the field of a
--       copy that says whether its list is whole, then fields of account or copy; the second and third are number and id
local packet = redis.call('GET', KEYS[3])
local facts, is_copy = redis.call('HMGET', KEYS[1], unpack(ARGV, 6)), 0
if not facts[1] and redis.call('HEXISTS', KEYS[2], ARGV[5]) == 1 then
  facts, is_copy = redis.call('HMGET', KEYS[2], unpack(ARGV, 6)), 1
end
if not facts[1] then
  return {packet, 0, {}, {}, {}}
end
if facts[2] == ARGV[1] and facts[3] == ARGV[2] then
  return {packet, is_copy, facts, {}, {}}
end
return {packet, is_copy, facts, logged(KEYS[4], KEYS[5], ARGV[3], ARGV[4])}
