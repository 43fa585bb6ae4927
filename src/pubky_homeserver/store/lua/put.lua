-- uses: lock account log
-- Make an entry what its path holds. Returns event id, number in the log and digest; or the name of the refusal.
-- KEYS  account, entries, log, feed, shard, graces, wake, lock
-- ARGV  name of the log, path, mark, kind, stat, type, body or blob id, length, default limit, whether the length was
--       announced ('1'), wanted hashes, whether there must be no entry ('1'), beginning of the blobs' keys, grace (us), tokens
local log, path, mark, kind, stat, content_type, body = unpack(ARGV, 1, 7)
local length, default, announced, wanted, none, blobs, grace, tokens = unpack(ARGV, 8, 15)
local keys = {account = KEYS[1], entries = KEYS[2], log = KEYS[3], feed = KEYS[4], shard = KEYS[5], wake = KEYS[7]}
local graces = KEYS[6]

local account = account_at(keys.account, log)
if not account then
  return 'NotFound'
end
local old = entry_at(keys.entries, path)
local growth = old and length - old.length or length + OVERHEAD
local refusal = put_refusal(account, keys.entries, path, old, default, announced == '1' and growth or nil, KEYS[8], tokens)
if refusal then
  return refusal
end
if (none == '1' and old) or not matches(old, wanted) then
  return 'PreconditionFailed'
end
if is_full(account, default, growth) then
  return 'QuotaExceeded'
end

local member = path .. '\0' .. pack(kind, mark, stat, account.seq + 1, content_type .. body)
redis.call('ZADD', keys.entries, 0, member)
if old then
  remove(keys.entries, old)
  if old.kind == NEITHER then
    redis.call('HINCRBY', keys.account, 'missing', -1)
    redis.call('HINCRBY', keys.account, 'absent', 0 - old.length)
  end
  if old.blob then
    retire(graces, old.blob, grace, grace_name(keys.entries, path, old.hash))
  end
end
if tonumber(kind) == BLOB then
  redis.call('SADD', blobs .. string.format('%02x', body:byte()), body)
end
return append(keys, log, account, growth, PUT, {mark, old and old.mark}, stat, content_type .. path)
