-- uses: lock account log notice
-- Take an account or a copy down, or show it again. Returns whether that changed something (1 or 0), or 'NotFound'.
-- KEYS  account, entries, public log, public feed, shard, wake, copy, takedowns
-- ARGV  pubky, '1' to take down or '0' to show, now, channel of hints, what is said there, then the notice
local pubky, is_down, now, channel, said = ARGV[1], ARGV[2] == '1', ARGV[3], ARGV[4], ARGV[5]
local keys = {account = KEYS[1], entries = KEYS[2], log = KEYS[3], feed = KEYS[4], shard = KEYS[5], wake = KEYS[6]}
local account = account_at(keys.account, 'pub')
if is_down and not account and redis.call('EXISTS', KEYS[7]) == 0 then
  return 'NotFound'
end
local changed = is_down and redis.call('ZADD', KEYS[8], 'NX', now, pubky) or redis.call('ZREM', KEYS[8], pubky)
if account and not account.away then
  post(keys, is_down, {unpack(ARGV, 6, 10)})
end
redis.call('PUBLISH', channel, said)
return changed
